package app_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/loads"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// setup builds, but does not start, a server on an empty SQLite file.
func setup(t *testing.T, environ map[string]string) (a *app.App, database string, log *bytes.Buffer) {
	t.Helper()
	database = filepath.Join(t.TempDir(), "flagr.sqlite")
	merged := map[string]string{
		"FLAGR_DB_DBCONNECTIONSTR":            database + "?_pragma=synchronous(OFF)", // a busy disk may take minutes
		"FLAGR_EVALCACHE_REFRESHINTERVAL":     "5ms",
		"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": "1h",
		"FLAGR_RECORDER_DATAR_JOURNAL_DIR":    t.TempDir(),
	}
	maps.Copy(merged, environ)
	c, err := config.Load(merged)
	if err != nil {
		t.Fatal(err)
	}
	log = &bytes.Buffer{}
	a, err = app.New(t.Context(), c, app.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a) })
	return a, database, log
}

func stop(t *testing.T, a *app.App) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// started starts the server and returns what serves its requests.
func started(t testing.TB, a *app.App) http.Handler {
	t.Helper()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	api := operations.NewFlagrAPI(spec)
	a.Register(api)
	return a.Handler(api.Serve(nil))
}

// serve starts the server and gives a function that sends a request and returns the body of a 200.
func serve(t *testing.T, a *app.App, headers ...map[string]string) func(method, path, body string) string {
	t.Helper()
	h := started(t, a)
	return func(method, path, body string) string {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		for _, more := range headers {
			for name, value := range more {
				r.Header.Set(name, value)
			}
		}
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		if rw.Code != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, rw.Code, rw.Body)
		}
		return rw.Body.String()
	}
}

// counts reads the database from outside of the server.
func counts(t *testing.T, database string) func() int64 {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Driver: config.DriverSQLite, DSN: database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	stored, err := gormstore.New(t.Context(), db.DB(), gormstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return func() int64 {
		t.Helper()
		now := datar.HourOf(time.Now())
		totals, err := stored.Totals(t.Context(), datar.TotalsQuery{From: now - 1, To: now + 2, GroupBy: datar.ByFlag})
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, total := range totals {
			sum += total.Count
		}
		return sum
	}
}

// An eval-only server needs no permission to write its database.
func TestReadOnlyDatabaseIsEvaluated(t *testing.T) {
	t.Parallel()
	a, database, _ := setup(t, nil)
	send := serve(t, a)
	send("POST", "/flags", `{"description":"d","key":"k","template":"simple_boolean_flag"}`)
	send("PUT", "/flags/1/enabled", `{"enabled":true}`)
	stop(t, a)
	readOnly := map[string]string{
		"FLAGR_DB_DBCONNECTIONSTR": "file:" + database + "?mode=ro", "FLAGR_EVAL_ONLY_MODE": "true",
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar",
	}
	edge, _, log := setup(t, readOnly)
	for _, want := range []string{"the database is read only", "recorder datar stays off"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log is %s, want %q", log, want)
		}
	}
	if answer := serve(t, edge)("POST", "/evaluation", `{"flagKey":"k","entityID":"e"}`); !strings.Contains(answer, `"variantKey":"on"`) {
		t.Error(answer)
	}
}

func TestCountsAreStoredWhileTheServerDrainsAndWhenItStops(t *testing.T) {
	t.Parallel()
	a, database, _ := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	send := serve(t, a)
	send("POST", "/flags", `{"description":"d","key":"k","template":"simple_boolean_flag"}`)
	send("PUT", "/flags/1", `{"dataRecordsEnabled":true}`)
	send("PUT", "/flags/1/enabled", `{"enabled":true}`)
	evaluate := func() { send("POST", "/evaluation", `{"flagKey":"k","entityID":"e"}`) }
	testwait.Until(t, "the flag", func() bool { return strings.Contains(send("GET", "/export/eval_cache/json?enabled=true", ""), `"k"`) })
	stored := counts(t, database)

	evaluate()
	if n := stored(); n != 0 {
		t.Fatalf("%d counts were stored before anything asked for it", n)
	}
	a.BeginStop()
	a.BeginStop()
	testwait.Until(t, "the first count", func() bool { return stored() == 1 })
	evaluate()
	testwait.Until(t, "a count of the time of draining", func() bool { return stored() == 2 })
	evaluate()
	stop(t, a)
	if n := stored(); n != 3 {
		t.Errorf("%d counts are stored after Stop, want 3", n)
	}
	stop(t, a)
}

func TestStopNeedsNoStart(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	stop(t, a)
	a.BeginStop()
	stop(t, a)
}

func TestStartFailsWithoutFlags(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.json")
	a, _, _ := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": missing})
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error is %v, want one that names %s", err, missing)
	}
}

func TestNewNamesADatabaseThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "no", "such", "folder.sqlite")
	c, err := config.Load(map[string]string{"FLAGR_DB_DBCONNECTIONSTR": path, "FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "1", "FLAGR_DB_DBCONNECTION_RETRY_DELAY": "1ms"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(t.Context(), c, app.Options{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v, want one that names %s", err, path)
	}
}

func TestVariablesWithoutEffectAreReportedOnce(t *testing.T) {
	t.Parallel()
	environ := map[string]string{"FLAGR_NEWRELIC_NAME": "shop", "FLAGR_NO_SUCH_VARIABLE": "1"}
	_, _, log := setup(t, environ)
	for name := range environ {
		if n := strings.Count(log.String(), fmt.Sprintf("variable=%s ", name)); n != 1 {
			t.Errorf("%s is reported %d times:\n%s", name, n, log)
		}
	}
}
