package app_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	"github.com/open-feature/go-sdk/openfeature/memprovider"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogof"
)

// An application counts what it evaluates by itself, and sends it to a server over HTTP.
func TestAnApplicationsEvaluationsShowUpInTheSummary(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true",
	})
	h := started(t, a)
	var lost bool // the first answer gets lost after the batch was taken
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/datar/evaluations") && !lost {
			lost = true
			h.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	call := func(method, path, body string) string {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		if rw.Code != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, rw.Code, rw.Body)
		}
		return rw.Body.String()
	}
	call("POST", "/flags", `{"description":"the new checkout","key":"checkout","template":"simple_boolean_flag"}`)
	call("PUT", "/flags/1", `{"dataRecordsEnabled":true}`)
	call("PUT", "/flags/1/enabled", `{"enabled":true}`)
	testwait.Until(t, "the flag to be evaluated as it is now", func() bool {
		var result struct{ VariantKey string }
		err := json.Unmarshal([]byte(call("POST", "/evaluation", `{"flagKey":"checkout","entityID":"a"}`)), &result)
		return err == nil && result.VariantKey == "on"
	})
	before := total(t, call("GET", "/datar/flags/1/summary", ""))

	writer, err := evallog.NewHTTPWriter(evallog.HTTPOptions{URL: server.URL + "/api/v1/datar/evaluations"})
	if err != nil {
		t.Fatal(err)
	}
	evaluationLog, err := evallog.New(evallog.Options{Writer: writer, Context: evallog.Context{Service: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	api := isolated.NewAPI()
	api.AddHooks(evallogof.NewHook(evaluationLog, evallogof.HookOptions{}))
	segment := func(_ memprovider.InMemoryFlag, _ openfeature.FlattenedContext) (any, openfeature.ProviderResolutionDetail) {
		return true, openfeature.ProviderResolutionDetail{Variant: "on", FlagMetadata: openfeature.FlagMetadata{"segmentID": "1"}}
	}
	provider := memprovider.NewInMemoryProvider(map[string]memprovider.InMemoryFlag{"checkout": {State: memprovider.Enabled, ContextEvaluator: &segment}})
	if err := api.SetProviderAndWait(t.Context(), provider); err != nil {
		t.Fatal(err)
	}
	client := api.NewClient()
	for range 42 {
		_, _ = client.BooleanValue(t.Context(), "checkout", false, openfeature.EvaluationContext{})
	}
	_, _ = client.BooleanValue(t.Context(), "misspelt", false, openfeature.EvaluationContext{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // six times what it would take by default
	defer cancel()
	if err := evaluationLog.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if stats := evaluationLog.Stats(); stats.Full != 42 || stats.Dropped["FLAG_NOT_FOUND"] != 1 || !lost {
		t.Errorf("%+v", stats)
	}
	summary := call("GET", "/datar/flags/1/summary", "")
	if got := total(t, summary); got != before+42 {
		t.Errorf("the summary has %d evaluations, want %d and 42: %s", got, before, summary)
	}
}

// total adds up the variants of a flag's summary, all of whose evaluations are of segment 1.
func total(t *testing.T, summary string) int64 {
	t.Helper()
	var body struct {
		TrafficByVariant, TrafficBySegment []struct{ Count int64 }
	}
	if err := json.Unmarshal([]byte(summary), &body); err != nil {
		t.Fatal(err)
	}
	var variants, segments int64
	for _, v := range body.TrafficByVariant {
		variants += v.Count
	}
	for _, s := range body.TrafficBySegment {
		segments += s.Count
	}
	if variants != segments {
		t.Errorf("%d by variant, %d by segment: %s", variants, segments, summary)
	}
	return variants
}
