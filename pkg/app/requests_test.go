package app_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// send sends a JSON body.
func send(t *testing.T, h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

// TestByteOrderMarksAreSkipped sends bodies as some editors and shells write them.
func TestByteOrderMarksAreSkipped(t *testing.T) {
	t.Parallel()
	for _, injected := range []string{"false", "true"} { // with true, evaluations take the generated path
		a, _, _ := setup(t, map[string]string{
			"FLAGR_INJECTED_CONTEXT_ENABLED": injected, "FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true",
		})
		h := started(t, a)
		for _, one := range []struct{ method, target, body string }{
			{"POST", "/api/v1/flags", `{"description":"d","key":"k","template":"simple_boolean_flag"}`},
			{"PUT", "/api/v1/flags/1", `{"notes":"n"}`},
			{"PUT", "/api/v1/flags/1/enabled", `{"enabled":true}`},
			{"POST", "/api/v1/flags/1/tags", `{"value":"t"}`},
			{"POST", "/api/v1/flags/1/try", `{"entities":[{"entityID":"e"}]}`},
			{"POST", "/api/v1/evaluation", `{"flagID":1,"entityID":"e"}`},
			{"POST", "/api/v1/evaluation/batch", `{"flagIDs":[1],"entities":[{"entityID":"e"}]}`},
			{"POST", "/api/v1/exposures", `{"exposures":[{"flagID":1,"entityID":"e"}]}`},
			{"POST", "/api/v1/datar/evaluations", `{"flagEvaluations":[]}`},
			{"POST", "/ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"e"}}`},
		} {
			if rw := send(t, h, one.method, one.target, entity.ByteOrderMark+one.body); rw.Code != http.StatusOK {
				t.Errorf("%s %s: %d %s", one.method, one.target, rw.Code, rw.Body)
			}
		}
		for target, text := range map[string]string{
			"/api/v1/evaluation": `{"flagID":1,"entityID":"e"}`, "/api/v1/evaluation/batch": `{"flagIDs":[1],"entities":[{"entityID":"e"}]}`,
		} {
			if rw := send(t, h, http.MethodGet, target+"?json="+url.QueryEscape(entity.ByteOrderMark+text), ""); rw.Code != http.StatusOK {
				t.Errorf("GET %s: %d %s", target, rw.Code, rw.Body)
			}
		}
	}
}

// TestPoliciesOfResponses checks that browsers do not guess types, and that pages are not shown in
// frames.
func TestPoliciesOfResponses(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true"})
	h := started(t, a)
	for target, isPage := range map[string]bool{
		"/": true, "/ui/": true, "/ui/flags/7": true, "/ui/nothing": true, "/api/v1/docs": true, "/debug/pprof": true, "/debug/pprof/": true, "/debug/pprof/cmdline": true,
		"/api/v1/health": false, "/api/v1/flags": false, "/api/v1/flags/7": false, "/nothing": false, "/metrics": false, "/swagger.json": false, "/ofrep/v1/nothing": false,
		"/api/v1/export/sqlite": false, "/api/v1/export/eval_cache/json": false,
	} {
		header := request(t, h, http.MethodGet, target).Header()
		policy := header.Get("Content-Security-Policy")
		if header.Get("X-Content-Type-Options") != "nosniff" || isPage != strings.Contains(policy, "frame-ancestors 'none'") || isPage != strings.Contains(policy, "default-src 'none'") {
			t.Errorf("GET %s: %v", target, header)
		}
	}
}

// TestOperatorOfTagsIsEchoedIfItWasSent compares with Flagr, which does not add the default.
func TestOperatorOfTagsIsEchoedIfItWasSent(t *testing.T) {
	t.Parallel()
	for _, injected := range []string{"false", "true"} {
		a, _, _ := setup(t, map[string]string{"FLAGR_INJECTED_CONTEXT_ENABLED": injected})
		h := started(t, a)
		send(t, h, http.MethodPost, "/api/v1/flags", `{"description":"d","key":"k"}`)
		send(t, h, http.MethodPost, "/api/v1/flags/1/tags", `{"value":"t"}`)
		testwait.Until(t, "the tag of the flag", func() bool {
			return strings.Contains(send(t, h, http.MethodPost, "/api/v1/evaluation/batch", `{"entities":[{}],"flagTags":["t"]}`).Body.String(), `"flagID":1`)
		})
		for sent, want := range map[string]string{"": "", `,"flagTagsOperator":null`: "", `,"flagTagsOperator":"ANY"`: "ANY", `,"flagTagsOperator":"ALL"`: "ALL"} {
			for target, body := range map[string]string{
				"/api/v1/evaluation": `{"flagID":1,"flagTags":["t"]` + sent + `}`, "/api/v1/evaluation/batch": `{"entities":[{}],"flagTags":["t"]` + sent + `}`,
			} {
				for method, rw := range map[string]*httptest.ResponseRecorder{
					"POST": send(t, h, http.MethodPost, target, body), "GET": send(t, h, http.MethodGet, target+"?json="+url.QueryEscape(body), ""),
				} {
					type result struct {
						EvalContext struct{ FlagTagsOperator string } `json:"evalContext"`
					}
					var got struct {
						result
						EvaluationResults []result `json:"evaluationResults"`
					}
					err := json.Unmarshal(rw.Body.Bytes(), &got)
					if len(got.EvaluationResults) == 1 {
						got.result = got.EvaluationResults[0]
					}
					if operator := got.EvalContext.FlagTagsOperator; err != nil || rw.Code != http.StatusOK || operator != want {
						t.Errorf("%s %s %s: %d %s, want the operator %q", method, target, body, rw.Code, rw.Body, want)
					}
				}
			}
		}
	}
}
