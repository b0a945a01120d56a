package handler_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

var ingesting = map[string]string{
	"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true",
}

// post sends a batch of counts.
func post(t testing.TB, h http.Handler, path, body string, header map[string]string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	return send(h, r)
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// countsRow returns one row of counts with the current time.
func countsRow(flag string, count int) string {
	now := time.Now().UnixMilli()
	return fmt.Sprintf(`{"timestamp":%d,"flag":{"key":%q},"variant":{"key":"on"},"first_evaluation":%d,"last_evaluation":%d,`+
		`"evaluation_count":%d,"unknown":{"member":[1]}}`, now, flag, now, now, count)
}

const ingestPath = "/api/v1/datar/evaluations"

func TestCountsFromElsewhere(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	busy, _, variant := booleanFlag(t, s, "busy", true)
	must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "busy", "entityID": "e"})

	envelope := `{"context":{"service":"shop"},"flagEvaluations":[` + countsRow("busy", 5) + "," + countsRow("gone", 1) + "]}"
	want := map[string]any{"duplicate": false, "acceptedRows": 1., "acceptedCount": 5., "errors": []any{
		object{"index": 1., "code": "FLAG_NOT_FOUND", "message": `there is no flag "gone"`},
	}}
	for i := range 2 {
		got := post(t, s, ingestPath, envelope, map[string]string{"Idempotency-Key": "order 66"})
		want["duplicate"] = i == 1
		if diff := cmp.Diff(any(want), got.body); got.status != http.StatusOK || diff != "" {
			t.Errorf("call %d: %d (-want +got):\n%s", i, got.status, diff)
		}
	}
	if got := post(t, s, ingestPath, `{"flagEvaluations":[]}`, map[string]string{"Idempotency-Key": "order 66"}); got.status != http.StatusConflict {
		t.Errorf("the key with another body: %d %s, want 409", got.status, got.raw)
	}
	lines := countsRow("busy", 7) + "\n\n" + countsRow("busy", 8)
	for path, send := range map[string]struct {
		body   string
		header map[string]string
	}{
		"/api/v2/flagevaluation":  {zipped(t, envelope), map[string]string{"Content-Encoding": "gzip"}},
		"/api/v2/flagevaluations": {zipped(t, lines), map[string]string{"Content-Encoding": "GZIP", "Content-Type": "application/x-ndjson"}},
	} {
		if got := post(t, s, path, send.body, send.header); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.status, got.raw)
		}
	}

	breakdown := must(t, s, http.MethodGet, fmt.Sprintf("/datar/flags/%d/summary", busy), nil)
	if diff := cmp.Diff([]any{object{"variantID": float64(variant), "count": 26.}}, breakdown["trafficByVariant"]); diff != "" {
		t.Errorf("variants (-want +got):\n%s", diff)
	}
	sources := []any{object{"source": "server", "count": 1.}, object{"source": "ingested", "count": 25.}}
	if diff := cmp.Diff(sources, breakdown["trafficBySource"]); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestCountsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	booleanFlag(t, s, "busy", true)
	rows := func(n int) string {
		return `{"flagEvaluations":[` + strings.TrimSuffix(strings.Repeat(countsRow("busy", 1)+",", n), ",") + "]}"
	}
	large := `{"flagEvaluations":[],"padding":"` + strings.Repeat("x", ingest.MaxBytes) + `"}`
	for name, test := range map[string]struct {
		body   string
		header map[string]string
		status int
	}{
		"no body":                {"", nil, http.StatusBadRequest},
		"a blank body":           {" \n", nil, http.StatusBadRequest},
		"no lines":               {"\n\n", map[string]string{"Content-Type": "application/x-ndjson"}, http.StatusBadRequest},
		"no body in gzip":        {zipped(t, ""), map[string]string{"Content-Encoding": "gzip"}, http.StatusBadRequest},
		"a list":                 {"[]", nil, http.StatusBadRequest},
		"nothing":                {"{}", nil, http.StatusBadRequest},
		"rows of another name":   {`{"evaluations":[` + countsRow("busy", 1) + `]}`, nil, http.StatusBadRequest},
		"null for rows":          {`{"flagEvaluations":null}`, nil, http.StatusBadRequest},
		"no JSON":                {"nope", nil, http.StatusBadRequest},
		"cut":                    {rows(2)[:100], nil, http.StatusBadRequest},
		"a bad line":             {countsRow("busy", 1) + "\n{", map[string]string{"Content-Type": "application/x-ndjson"}, http.StatusBadRequest},
		"another type":           {"a=b", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
		"another encoding":       {rows(1), map[string]string{"Content-Encoding": "br"}, http.StatusUnsupportedMediaType},
		"no gzip":                {rows(1), map[string]string{"Content-Encoding": "gzip"}, http.StatusBadRequest},
		"cut gzip":               {zipped(t, rows(50))[:60], map[string]string{"Content-Encoding": "gzip"}, http.StatusBadRequest},
		"too large":              {large, nil, http.StatusRequestEntityTooLarge},
		"too large unzipped":     {zipped(t, large), map[string]string{"Content-Encoding": "gzip"}, http.StatusRequestEntityTooLarge},
		"too many rows":          {rows(ingest.MaxRows + 1), nil, http.StatusRequestEntityTooLarge},
		"a key that is too long": {rows(1), map[string]string{"Idempotency-Key": strings.Repeat("ü", 201)}, http.StatusBadRequest},
		"an empty key":           {rows(1), map[string]string{"Idempotency-Key": ""}, http.StatusBadRequest},
		"a blank key":            {rows(1), map[string]string{"Idempotency-Key": "\t "}, http.StatusBadRequest},
	} {
		got := post(t, s, ingestPath, test.body, test.header)
		if body, ok := got.body.(map[string]any); got.status != test.status || !ok || body["message"] == "" {
			t.Errorf("%s: %d %.200s, want %d with a message", name, got.status, got.raw, test.status)
		}
	}
	if got := must(t, s, http.MethodGet, "/datar/summary", nil)["flags"]; len(got.([]any)) != 0 {
		t.Errorf("something was counted: %v", got)
	}
}

func TestCountsAreTakenOnlyWhereSwitchedOn(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]map[string]string{
		"not enabled": recorded,
		"Datar off":   {"FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true"},
	} {
		s := setup(t, environ)
		if got := post(t, s, ingestPath, "{}", nil); got.status != http.StatusNotImplemented || !strings.Contains(got.raw, "FLAGR_RECORDER_DATAR_INGEST_ENABLED") {
			t.Errorf("%s: %d %s, want 501 that says how to switch it on", name, got.status, got.raw)
		}
		if got := post(t, s, "/api/v2/flagevaluation", "{}", nil); got.status != http.StatusNotFound {
			t.Errorf("%s: the path of SDKs: %d, want 404", name, got.status)
		}
	}
}

// failingIngester returns an error of the store.
type failingIngester struct{ err error }

func (f failingIngester) Ingest(context.Context, ingest.Batch) (ingest.Result, error) {
	return ingest.Result{}, f.err
}

func TestCountsWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err        error
		status     int
		retryAfter string
	}{
		"away":    {errors.New("dial: password s3cret"), http.StatusServiceUnavailable, "10"},
		"refused": {fmt.Errorf("%w: password s3cret", datar.ErrRefused), http.StatusBadRequest, ""},
	} {
		api := newAPI(t)
		log := &testlog.Buffer{}
		handler.New(handler.Options{Ingester: failingIngester{test.err}, Logger: slog.New(slog.NewTextHandler(log, nil))}).Register(api)
		rw := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ingestPath, strings.NewReader(`{"flagEvaluations":[]}`))
		r.Header.Set("Content-Type", "application/json")
		api.Serve(nil).ServeHTTP(rw, r)
		if rw.Code != test.status || rw.Header().Get("Retry-After") != test.retryAfter || strings.Contains(rw.Body.String(), "s3cret") {
			t.Errorf("%s: %d, Retry-After %q, %s", name, rw.Code, rw.Header().Get("Retry-After"), rw.Body)
		}
	}
}

// TestTheExamplesOfTheContract posts the batch in swagger.yaml with current times, and expects the
// responses in swagger.yaml.
func TestTheExamplesOfTheContract(t *testing.T) {
	t.Parallel()
	var document struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Examples map[string]any
			}
		}
		Definitions map[string]struct{ Example any }
	}
	if err := json.Unmarshal(restapi.SwaggerJSON, &document); err != nil {
		t.Fatal(err)
	}
	responses := document.Paths["/datar/evaluations"]["post"].Responses
	batch, ok := document.Definitions["datarEvaluations"].Example.(map[string]any)
	if !ok {
		t.Fatal("there is no example of a batch")
	}
	rows := batch["flagEvaluations"].([]any)
	var lines []string
	for _, row := range rows {
		r := row.(map[string]any)
		shift := float64(time.Now().UnixMilli()) - r["last_evaluation"].(float64)
		for _, name := range []string{"timestamp", "first_evaluation", "last_evaluation"} {
			r[name] = int64(r[name].(float64) + shift)
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	envelope, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}

	s := setup(t, ingesting)
	shown := rows[0].(map[string]any)
	flag := must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": shown["flag"].(map[string]any)["key"]})
	path := fmt.Sprintf("/flags/%v", flag["id"])
	must(t, s, http.MethodPost, path+"/variants", object{"key": shown["variant"].(map[string]any)["key"]})
	for id := ""; id != shown["allocation"].(map[string]any)["key"]; {
		id = fmt.Sprint(must(t, s, http.MethodPost, path+"/segments", object{"description": "d", "rolloutPercent": 0})["id"])
	}
	must(t, s, http.MethodPut, path, object{"dataRecordsEnabled": true})
	want := responses["200"].Examples["application/json"]
	var got answer
	testwait.Until(t, "the server to know the flag", func() bool {
		got = post(t, s, ingestPath, string(envelope), nil)
		return !strings.Contains(got.raw, shown["flag"].(map[string]any)["key"].(string)) // in a result
	})
	if diff := cmp.Diff(want, got.body); got.status != http.StatusOK || diff != "" {
		t.Errorf("the example: %d (-want +got):\n%s", got.status, diff)
	}
	key := map[string]string{"Idempotency-Key": "order 66", "Content-Type": "application/x-ndjson"}
	got = post(t, s, ingestPath, strings.Join(lines, "\n"), key)
	if diff := cmp.Diff(want, got.body); got.status != http.StatusOK || diff != "" {
		t.Errorf("the rows as lines: %d (-want +got):\n%s", got.status, diff)
	}
	got = post(t, s, ingestPath, lines[0], key)
	if diff := cmp.Diff(responses["default"].Examples["application/json"], got.body); got.status != http.StatusConflict || diff != "" {
		t.Errorf("another body: %d (-want +got):\n%s", got.status, diff)
	}
}
