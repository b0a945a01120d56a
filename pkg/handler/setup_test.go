package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/loads"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// server is a whole server without its listener.
type server struct {
	http.Handler
	log *testlog.Buffer
}

// setup starts a server on an empty SQLite file with additional environment variables.
func setup(t testing.TB, environ map[string]string) *server {
	t.Helper()
	return setupAt(t, environ, nil)
}

// setupAt is setup with a clock. Nil means the system clock.
func setupAt(t testing.TB, environ map[string]string, now func() time.Time) *server {
	t.Helper()
	merged := map[string]string{
		"FLAGR_DB_DBCONNECTIONSTR":         filepath.Join(t.TempDir(), "flagr.sqlite") + "?_pragma=synchronous(OFF)", // a busy disk may take minutes
		"FLAGR_RECORDER_DATAR_JOURNAL_DIR": t.TempDir(),
		"FLAGR_EVALCACHE_REFRESHINTERVAL":  "5ms",
	}
	maps.Copy(merged, environ)
	c, err := config.Load(merged)
	if err != nil {
		t.Fatal(err)
	}
	log := &testlog.Buffer{}
	a, err := app.New(t.Context(), c, app.Options{Logger: slog.New(slog.NewTextHandler(log, nil)), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	api := newAPI(t)
	a.Register(api)
	return &server{Handler: a.Handler(api.Serve(nil)), log: log}
}

func newAPI(t testing.TB) *operations.FlagrAPI {
	t.Helper()
	spec, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		t.Fatal(err)
	}
	return operations.NewFlagrAPI(spec)
}

// answer is a response, with its body decoded if it is JSON.
type answer struct {
	status int
	raw    string
	body   any
}

// call sends one request to a path under /api/v1. It sends a string body unchanged and any other
// body as JSON. Nil sends no body.
func call(t testing.TB, h http.Handler, method, path string, body any) answer {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1"+path, reader)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return send(h, r)
}

func send(h http.Handler, r *http.Request) answer {
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	a := answer{status: rw.Code, raw: rw.Body.String()}
	if err := json.Unmarshal(rw.Body.Bytes(), &a.body); err != nil {
		a.body = a.raw
	}
	return a
}

// must is call for a request that must succeed.
func must(t testing.TB, h http.Handler, method, path string, body any) map[string]any {
	t.Helper()
	a := call(t, h, method, path, body)
	if a.status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, a.status, a.raw)
	}
	object, _ := a.body.(map[string]any)
	return object
}

// object is a JSON object in requests and responses.
type object = map[string]any

// booleanFlag creates an enabled flag that gives its only variant to all entities, and waits until
// it can be evaluated.
func booleanFlag(t testing.TB, s *server, key string, recorded bool) (flagID, segmentID, variantID int) {
	t.Helper()
	f := must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": key, "template": "simple_boolean_flag"})
	id := func(v any) int { return int(v.(map[string]any)["id"].(float64)) }
	flagID, segmentID, variantID = id(f), id(f["segments"].([]any)[0]), id(f["variants"].([]any)[0])
	path := fmt.Sprintf("/flags/%d", flagID)
	must(t, s, http.MethodPut, path, object{"dataRecordsEnabled": recorded})
	must(t, s, http.MethodPut, path+"/enabled", object{"enabled": true})
	testwait.Until(t, "the flag to be evaluated", func() bool {
		exported := must(t, s, http.MethodGet, "/export/eval_cache/json?keys="+key, nil)["Flags"].([]any)
		return len(exported) == 1 && exported[0].(map[string]any)["Enabled"] == true
	})
	return flagID, segmentID, variantID
}
