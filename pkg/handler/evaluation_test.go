package handler_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	evaluationapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/evaluation"
)

func TestGetAndPostEvaluateAlike(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	booleanFlag(t, s, "on", true)
	for _, tc := range []struct{ name, path, body string }{
		{"by id", "/evaluation", `{"flagID":1,"entityID":"e"}`},
		{"by key", "/evaluation", `{"flagKey":"on","entityID":"e"}`},
		{"debug", "/evaluation", `{"flagID":1,"entityID":"e","enableDebug":true}`},
		{"unknown flag", "/evaluation", `{"flagID":99,"flagKey":"nope","entityID":"e"}`},
		{"nothing asked", "/evaluation", `{}`},
		{"null", "/evaluation", `null`},
		{"context of every kind", "/evaluation", `{"flagID":1,"entityID":"e","entityContext":{"n":12345678901234567890,"s":"é<&>","a":[null,true],"o":{}}}`},
		{"context that is no object", "/evaluation", `{"flagID":1,"entityID":"e","entityContext":"text"}`},
		{"tags are echoed", "/evaluation", `{"flagID":1,"entityID":"e","flagTags":["a"],"flagTagsOperator":"ALL"}`},
		{"batch", "/evaluation/batch", `{"entities":[{"entityID":"a"},{"entityID":"b","entityType":"t"}],"flagIDs":[1],"flagKeys":["on","nope"]}`},
		{"batch of nothing", "/evaluation/batch", `{"entities":[{"entityID":"a"}]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			posted := call(t, s, http.MethodPost, tc.path, tc.body)
			got := call(t, s, http.MethodGet, tc.path+"?json="+url.QueryEscape(tc.body), nil)
			if posted.status != http.StatusOK || got.status != http.StatusOK {
				t.Fatalf("POST answers %d %s, GET %d %s", posted.status, posted.raw, got.status, got.raw)
			}
			if diff := cmp.Diff(golden.Mask(posted.body), golden.Mask(got.body)); diff != "" {
				t.Errorf("answers differ (-POST +GET):\n%s", diff)
			}
		})
	}
}

func TestEvaluationKeepsTheContextAsItCame(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	context := `{"html":"<a href=\"x\">&</a>","large":12345678901234567890,"precise":0.10000000000000000001}`
	got := call(t, s, http.MethodPost, "/evaluation", `{"entityID":"e","entityContext":`+context+`}`)
	if !strings.Contains(got.raw, context) {
		t.Errorf("%s\nis not in\n%s", context, got.raw)
	}
}

func TestTimestampsAreInSecondsAndUTC(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	stamp := must(t, s, http.MethodPost, "/evaluation", object{})["timestamp"].(string)
	if len(stamp) != len("2006-01-02T15:04:05Z") || !strings.HasSuffix(stamp, "Z") {
		t.Errorf("timestamp is %s", stamp)
	}
}

func TestEvalOnlyModeServesEvaluationAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flags.json")
	document := `{"Flags":[{"Key":"on","Enabled":true,"DataRecordsEnabled":true,"Segments":[{"RolloutPercent":100,
		"Distributions":[{"VariantKey":"v","Percent":100}]}],"Variants":[{"Key":"v","Attachment":{"a":1}}]}]}`
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup(t, map[string]string{
		"FLAGR_DB_DBDRIVER":        "json_file",
		"FLAGR_DB_DBCONNECTIONSTR": path,
		"FLAGR_RECORDER_ENABLED":   "true",
		"FLAGR_RECORDER_TYPE":      "datar",
	})

	if got := must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "on", "entityID": "e"}); got["variantKey"] != "v" {
		t.Errorf("evaluation gives %v", got)
	}
	if got := must(t, s, http.MethodGet, "/export/eval_cache/json", nil); len(got["Flags"].([]any)) != 1 {
		t.Errorf("export gives %v", got)
	}
	must(t, s, http.MethodGet, "/health", nil)
	for _, path := range []string{"/flags", "/flags/1", "/tags", "/flags/1/segments", "/flags/snapshots/max_id", "/export/sqlite"} {
		if got := call(t, s, http.MethodGet, path, nil); got.status != http.StatusNotImplemented || !strings.Contains(got.raw, `{"message":"`) {
			t.Errorf("GET %s: %d %s", path, got.status, got.raw)
		}
	}
	if got := call(t, s, http.MethodPost, "/flags", object{"description": "d"}); got.status != http.StatusNotImplemented {
		t.Errorf("POST /flags: %d %s", got.status, got.raw)
	}
	if got := call(t, s, http.MethodGet, "/datar/summary", nil); got.status != http.StatusServiceUnavailable {
		t.Errorf("GET /datar/summary: %d %s", got.status, got.raw)
	}
	if log := s.log.String(); !strings.Contains(log, "recorder datar stays off") {
		t.Errorf("no warning about Datar: %s", log)
	}
}

func TestExportFilters(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "off"})
	booleanFlag(t, s, "plain", false)
	booleanFlag(t, s, "tagged", false)
	must(t, s, http.MethodPost, "/flags/3/tags", object{"value": "a"})
	must(t, s, http.MethodPost, "/flags/3/tags", object{"value": "b"})
	must(t, s, http.MethodPost, "/flags/1/tags", object{"value": "a"})
	waitForCache(t, s)

	for query, want := range map[string]string{
		"":                              "off plain tagged",
		"?ids=2,3":                      "plain tagged",
		"?ids=2&keys=off":               "plain",
		"?keys=off,nope":                "off",
		"?enabled=true":                 "plain tagged",
		"?enabled=false":                "off",
		"?tags=a":                       "off tagged",
		"?tags=a,b&tagsOperator=ALL":    "tagged",
		"?tags=a,b&tagsOperator=ANY":    "off tagged",
		"?tags=a&enabled=true":          "tagged",
		"?tags=nope":                    "",
		"?keys=off&enabled=true":        "off",
		"?tags=a,nope&tagsOperator=ALL": "",
	} {
		var exported struct{ Flags []struct{ Key string } }
		got := call(t, s, http.MethodGet, "/export/eval_cache/json"+query, nil)
		if err := json.Unmarshal([]byte(got.raw), &exported); err != nil {
			t.Fatalf("%s: %v: %s", query, err, got.raw)
		}
		var keys []string
		for _, f := range exported.Flags {
			keys = append(keys, f.Key)
		}
		if strings.Join(keys, " ") != want {
			t.Errorf("%q exports %v, want %s", query, keys, want)
		}
	}
}

// writerFunc is a response to a client that takes its time.
type writerFunc func()

func (w writerFunc) Header() http.Header { return http.Header{} }
func (w writerFunc) WriteHeader(int)     {}
func (w writerFunc) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// TestContextsAreReleasedBeforeTheResponse checks that nothing refers to the context of an
// evaluation, which may be much longer than its text, while a client reads the response.
func TestContextsAreReleasedBeforeTheResponse(t *testing.T) {
	t.Parallel()
	flags := noFlags{}
	h := handler.New(handler.Options{Eval: eval.NewService(flags, nil, eval.Options{}), Snapshots: flags, Logger: slog.New(slog.DiscardHandler)})
	for _, debug := range []bool{false, true} {
		var value weak.Pointer[[]string]
		respond := h.PostEvaluation(func() evaluationapi.PostEvaluationParams {
			context := &[]string{"a context"}
			value = weak.Make(context)
			return evaluationapi.PostEvaluationParams{
				HTTPRequest: httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil),
				Body:        &models.EvalContext{EntityContext: map[string]any{"x": context}, EnableDebug: debug},
			}
		}())
		written := false
		respond.WriteResponse(writerFunc(func() {
			written = true
			runtime.GC()
			if value.Value() != nil {
				t.Errorf("debug %t: the context is kept", debug)
			}
		}), nil)
		runtime.KeepAlive(respond) // as the generated code may
		if !written {
			t.Errorf("debug %t: nothing was written", debug)
		}
	}
}
