package integration_tests

import (
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// badLine is a proxy between an edge server and its central server. It loses random requests and
// responses until it is healed.
type badLine struct {
	*httptest.Server
	to           atomic.Pointer[url.URL] // the central server, whose port changes with each start
	healed       atomic.Bool
	lostRequests atomic.Int64
	lostAnswers  atomic.Int64
}

func newBadLine(t *testing.T) *badLine {
	t.Helper()
	l := &badLine{}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(l.to.Load()) },
		ErrorLog: log.New(io.Discard, "", 0), // the central server is down during parts of the test
	}
	l.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fate := rand.IntN(4)
		if l.healed.Load() {
			fate = -1
		}
		switch fate {
		case 0:
			l.lostRequests.Add(1)
			panic(http.ErrAbortHandler)
		case 1: // the central server accepts the counts, and the response is lost
			answer := httptest.NewRecorder()
			proxy.ServeHTTP(answer, r)
			l.lostAnswers.Add(1)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *badLine) leadTo(t *testing.T, s *server) {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = ""
	l.to.Store(u)
}

// TestEdge counts on an edge server without a database, while the proxy to its central server loses
// requests and responses, and both servers are killed repeatedly.
func TestEdge(t *testing.T) {
	onKinds(t, faultKinds, func(t *testing.T, _ testdb.Kind, db database) {
		const kills = 12
		dsn := db.fresh(t)
		ingesting := quick.with(db.environ(dsn)).with(counting("1h")).with(environ{"FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true"})
		central := startRough(t, t.TempDir(), ingesting)
		flags := splitFlags(t, central)
		dir := t.TempDir()
		document := central.call(t, http.MethodGet, "/export/eval_cache/json", nil)
		if err := os.WriteFile(filepath.Join(dir, "flags.json"), document.body, 0o600); err != nil {
			t.Fatal(err)
		}
		line := newBadLine(t)
		line.leadTo(t, central)
		edge := startRough(t, dir, quick.with(counting("50ms")).with(environ{
			"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "flags.json",
			"FLAGR_RECORDER_DATAR_FORWARD_URL": line.URL,
		}))
		again := func(s *server) *server { return startRough(t, s.cmd.Dir, s.env, s.args...) }

		l := load{pace: time.Millisecond}
		for round := range kills {
			l.begin(edge, flags, endless)
			atSomeMoment(50*time.Millisecond, 300*time.Millisecond)
			if round%3 == 0 {
				central.kill(t)
				atSomeMoment(50*time.Millisecond, 200*time.Millisecond)
				central = again(central)
				line.leadTo(t, central)
			}
			if round%2 == 0 {
				edge.kill(t)
				l.clients.Wait()
				edge = again(edge)
			} else {
				l.end()
				l.ending.Store(false)
			}
		}
		line.healed.Store(true)
		poll(t, "the edge to have sent everything", func() bool { return statistics(t, edge).Pending == 0 })
		edge.stop(t, syscall.SIGTERM)
		central.stop(t, syscall.SIGTERM)
		l.check(t, storedTwice(t, db, dsn))
		t.Logf("%d requests and %d responses were lost", line.lostRequests.Load(), line.lostAnswers.Load())
		if line.lostRequests.Load() == 0 || line.lostAnswers.Load() == 0 {
			t.Error("nothing was lost, so the test proves nothing")
		}
	})
}

// TestEdgeHasNoNumbers checks that summaries of an edge server return 501 with the central server.
func TestEdgeHasNoNumbers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "flags.json"), []byte(`{"Flags":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	away := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(away.Close)
	s := startIn(t, dir, quick.with(environ{
		"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "flags.json", "FLAGR_RECORDER_DATAR_FORWARD_URL": away.URL,
	}))
	if a := s.call(t, http.MethodGet, "/datar/summary", nil); a.status != http.StatusNotImplemented {
		t.Errorf("summary: %s, want 501", a)
	}
	if now := statistics(t, s); now.Recorded != 0 {
		t.Errorf("status is %+v", now)
	}
}

// TestEdgeShowsRefusedCounts turns recording off at the central server. The statistics and metrics
// of the edge server must show the refused counts.
func TestEdgeShowsRefusedCounts(t *testing.T) {
	t.Parallel()
	db := databases[0]
	central := start(t, db, db.fresh(t), environ{"FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true"})
	counted, refused := newFlag(t, central, "counted"), newFlag(t, central, "refused")
	awaitChanges(t, central)
	document := central.call(t, http.MethodGet, "/export/eval_cache/json", nil)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "flags.json"), document.body, 0o600); err != nil {
		t.Fatal(err)
	}
	send[any](t, central, http.MethodPut, refused.path(), object{"dataRecordsEnabled": false})
	awaitChanges(t, central)
	edge := startIn(t, dir, quick.with(counting("50ms")).with(environ{
		"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": "flags.json", "FLAGR_PROMETHEUS_ENABLED": "true",
		"FLAGR_RECORDER_DATAR_FORWARD_URL": strings.TrimSuffix(central.url, "/api/v1"),
	}))
	for range 5 {
		evaluate(t, edge, counted, "u", nil)
	}
	for range 3 {
		evaluate(t, edge, refused, "u", nil)
	}
	var now status
	poll(t, "the central server to check all evaluations", func() bool {
		now = get[status](t, edge, "/datar/status")
		now.checkBalance(t)
		return now.Recorded == 8 && now.Pending == 0
	})
	if now.Stored != 5 || now.Dropped["refused"] != 3 {
		t.Errorf("the statistics of the edge server are %+v, want 5 stored and 3 refused", now)
	}
	if metrics := string(edge.at(t, "/metrics").body); !strings.Contains(metrics, `flagr_datar_dropped_total{reason="refused"} 3`) {
		t.Error("the metrics do not show the refused counts")
	}
}
