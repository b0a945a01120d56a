package handler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	exportapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/export"
)

// fixedStates returns one fixed state of the flags.
type fixedStates struct{ state evalcache.State }

func (s *fixedStates) State() *evalcache.State  { return &s.state }
func (s *fixedStates) Snapshot() *eval.Snapshot { return s.state.Snapshot }

func TestTheTagOfTheExport(t *testing.T) {
	t.Parallel()
	tag := exportTag("v1", "")
	for value, want := range map[string]bool{
		tag: true, `"x", ` + tag: true, strings.TrimPrefix(tag, "W/"): true, strings.TrimSuffix(tag, `"`) + `-gzip"`: true,
		"": false, "*": false, exportTag("v2", ""): false, exportTag("v1", "enabled=true"): false,
	} {
		if got := hasTag([]string{value}, tag); got != want {
			t.Errorf("%s: %t", value, got)
		}
	}
	states := &fixedStates{evalcache.State{Snapshot: eval.Compile(nil), Version: "v1"}}
	h := New(Options{States: states, Snapshots: states})
	for value, want := range map[string]int{"": http.StatusOK, tag: http.StatusNotModified} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/export/eval_cache/json", nil)
		r.Header.Set("If-None-Match", value)
		rw := httptest.NewRecorder()
		h.GetExportEvalCacheJSON(exportapi.GetExportEvalCacheJSONParams{HTTPRequest: r}).WriteResponse(rw, runtime.JSONProducer())
		if rw.Code != want || rw.Header().Get("ETag") != tag || rw.Header().Get("Cache-Control") != "private, no-cache" {
			t.Errorf("If-None-Match %s: %d %v", value, rw.Code, rw.Header())
		}
	}
}
