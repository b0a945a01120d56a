package handler_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

// TestFlagsFromAURL checks that a server that loads its flags from a URL follows the document,
// keeps its flags while the document is invalid, and sends conditional requests.
func TestFlagsFromAURL(t *testing.T) {
	t.Parallel()
	document := func(variant string) string {
		return `{"Flags":[{"Key":"k","Enabled":true,"Segments":[{"RolloutPercent":100,"Distributions":[{"VariantKey":"` + variant +
			`","Percent":100}]}],"Variants":[{"Key":"` + variant + `"}]}]}`
	}
	var served atomic.Pointer[string] // the document, which is its own ETag
	serve := func(text string) { served.Store(&text) }
	var unchanged atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		text := *served.Load()
		etag := `"` + strings.ReplaceAll(text, `"`, "'") + `"`
		rw.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			unchanged.Add(1)
			rw.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = rw.Write([]byte(text))
	}))
	t.Cleanup(origin.Close)
	serve(document("one"))
	s := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": "json_http", "FLAGR_DB_DBCONNECTIONSTR": origin.URL + "/?token=s3cret"})
	gives := func(variant string) func() bool {
		return func() bool {
			return must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "k", "entityID": "e"})["variantKey"] == variant
		}
	}
	if !gives("one")() {
		t.Fatal("the first document is not used")
	}
	serve(document("two"))
	testwait.Until(t, "the second document", gives("two"))
	serve(`{"Flags":[{"Key":"k"},{"Key":"k"}]}`)
	testwait.Until(t, "the report", func() bool { return strings.Contains(s.log.String(), "key is used by flags #1 and #2") })
	seen := unchanged.Load()
	testwait.Until(t, "more looks at the same document", func() bool { return unchanged.Load() > seen+3 })
	if !gives("two")() {
		t.Error("a bad document takes the flags away")
	}
	must(t, s, http.MethodGet, "/health", nil)
	serve(document("three"))
	testwait.Until(t, "the document after the bad one", gives("three"))
	if log := s.log.String(); strings.Count(log, "key is used by flags") != 1 || strings.Contains(log, "s3cret") {
		t.Errorf("log is %s", log)
	}
	if a := call(t, s, http.MethodPost, "/exposures", object{"exposures": []any{object{"entityID": "e", "flagKey": "k"}}}); a.status != http.StatusNotImplemented {
		t.Errorf("exposures: %d %s", a.status, a.raw)
	}
}

// TestVariantsOfOneKeyAreExported checks that servers on an export give entities the same variants,
// even if two variants have the same key.
func TestVariantsOfOneKeyAreExported(t *testing.T) {
	t.Parallel()
	central := setup(t, nil)
	flagID, segmentID, on := booleanFlag(t, central, "k", false)
	path := fmt.Sprintf("/flags/%d", flagID)
	other := int(must(t, central, http.MethodPost, path+"/variants", object{"key": "on"})["id"].(float64))
	must(t, central, http.MethodPut, fmt.Sprintf("%s/segments/%d", path, segmentID), object{"description": "d", "rolloutPercent": 100})
	must(t, central, http.MethodPut, fmt.Sprintf("%s/segments/%d/distributions", path, segmentID), object{"distributions": []object{
		{"variantID": other, "variantKey": "on", "percent": 50}, {"variantID": on, "variantKey": "on", "percent": 50},
	}})
	variantOf := func(s *server, entity int) any {
		return must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "k", "entityID": fmt.Sprint(entity)})["variantID"]
	}
	testwait.Until(t, "both variants to be given", func() bool {
		given := map[any]bool{}
		for entity := range 20 {
			given[variantOf(central, entity)] = true
		}
		return given[float64(on)] && given[float64(other)]
	})
	export := call(t, central, http.MethodGet, "/export/eval_cache/json", nil).raw
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(export)) }))
	t.Cleanup(origin.Close)
	edge := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": "json_http", "FLAGR_DB_DBCONNECTIONSTR": origin.URL})
	for entity := range 20 {
		if want, got := variantOf(central, entity), variantOf(edge, entity); got != want {
			t.Errorf("entity %d gets variant %v, on the export %v", entity, want, got)
		}
	}
}

// TestEvalOnlyModeOnADatabase checks that with a database, the mode only disables endpoints.
func TestEvalOnlyModeOnADatabase(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_EVAL_ONLY_MODE": "true"})
	must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "k", "entityID": "e"})
	for _, tc := range []struct{ method, path string }{
		{http.MethodGet, "/flags"}, {http.MethodGet, "/export/sqlite"}, {http.MethodDelete, "/flags/1"},
	} {
		if a := call(t, s, tc.method, tc.path, nil); a.status != http.StatusNotImplemented || !strings.Contains(a.raw, "FLAGR_EVAL_ONLY_MODE") {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, a.status, a.raw)
		}
	}
}
