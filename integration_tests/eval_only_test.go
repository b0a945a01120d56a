package integration_tests

import (
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
)

// checkNoCRUD checks that a server only evaluates.
func checkNoCRUD(t *testing.T, s *server) {
	t.Helper()
	for path, method := range map[string]string{
		"/flags": http.MethodGet, "/flags/1": http.MethodDelete, "/tags": http.MethodGet, "/flags/1/snapshots": http.MethodGet,
		"/flags/1/enabled": http.MethodPut, "/flags/1/variants": http.MethodPost, "/flags/1/restore": http.MethodPut,
		"/export/sqlite": http.MethodGet,
	} {
		var body any
		switch path {
		case "/flags/1/enabled":
			body = object{"enabled": false}
		case "/flags/1/variants":
			body = object{"key": "v"}
		}
		a := s.call(t, method, path, body)
		var answered struct{ Message string }
		decode(t, a.body, &answered)
		if a.status != http.StatusNotImplemented || answered.Message == "" {
			t.Errorf("%s %s: %s, want 501 with a message", method, path, a)
		}
	}
}

// TestDocumentInsteadOfDatabase starts a server on a JSON document, with Datar on. Datar must stay
// off, because there is no database for the counts.
func TestDocumentInsteadOfDatabase(t *testing.T) {
	t.Parallel()
	document, err := filepath.Abs(filepath.Join("testdata", "golden", "flags.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := startIn(t, t.TempDir(), quick.with(environ{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": document}))
	checkNoCRUD(t, s)
	if a := s.call(t, http.MethodGet, "/datar/summary", nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("Datar returns %s, want 503", a)
	}
	if got := len(get[struct{ Flags []any }](t, s, "/export/eval_cache/json").Flags); got == 0 {
		t.Error("the export has no flags")
	}
}

// TestEvalOnlyServerOnADatabase evaluates and counts flags that another server created.
func TestEvalOnlyServerOnADatabase(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, nil)
		f := newFlag(t, s, "shared")

		edge := start(t, db, dsn, environ{"FLAGR_EVAL_ONLY_MODE": "true"})
		checkNoCRUD(t, edge)
		if got := evaluate(t, edge, f, "u", nil); got.VariantID != f.Variants[0].ID {
			t.Errorf("the evaluation is %+v, want variant %d", got, f.Variants[0].ID)
		}
		send[any](t, s, http.MethodPut, f.path()+"/enabled", object{"enabled": false})
		poll(t, "a change made on the other server", func() bool { return evaluate(t, edge, f, "u", nil).VariantID == 0 })
		edge.stop(t, syscall.SIGTERM)
		if got := counts(t, s, 1).total(f.ID); got < 1 {
			t.Errorf("the eval-only server has counted %d", got)
		}
	})
}

// TestTwoServersCountTogether evaluates the same flag in the same hour on two servers that share a
// database.
func TestTwoServersCountTogether(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		env := environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "50ms"}
		one := start(t, db, dsn, env)
		flags := splitFlags(t, one)
		two := start(t, db, dsn, env)
		const perServer = 10_000
		var l, m load
		l.begin(one, flags, perServer/loadClients)
		m.begin(two, flags, perServer/loadClients)
		l.clients.Wait()
		m.clients.Wait()
		if got := l.acknowledged.Load() + m.acknowledged.Load(); got != 2*perServer {
			t.Errorf("%d evaluations were acknowledged, want %d", got, 2*perServer)
		}
		one.stop(t, syscall.SIGTERM)
		if got := counts(t, two, 2*perServer).sum(); got != 2*perServer {
			t.Errorf("%d evaluations counted, %d acknowledged", got, 2*perServer)
		}
	})
}
