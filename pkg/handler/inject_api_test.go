package handler_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestInjectedContextDecides checks that a constraint on a header uses the real header, whatever
// the client sends in the context. A GET batch has no headers.
func TestInjectedContextDecides(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{
		"FLAGR_INJECTED_CONTEXT_ENABLED":      "true",
		"FLAGR_INJECTED_CONTEXT_HTTP_HEADERS": "X-Country",
	})
	_, segmentID, _ := booleanFlag(t, s, "french", false)
	must(t, s, http.MethodPost, "/flags/1/segments/1/constraints", object{"property": "@http_x_country", "operator": "EQ", "value": `"FR"`})
	must(t, s, http.MethodPost, "/flags/1/segments/1/constraints", object{"property": "@ts", "operator": "GT", "value": "1700000000"})
	waitForCache(t, s)
	if segmentID != 1 {
		t.Fatalf("segment is %d", segmentID)
	}

	claim := object{"@http_x_country": "FR", "own": 1}
	single := object{"flagKey": "french", "entityID": "e", "entityContext": claim}
	bare := object{"flagKey": "french", "entityID": "e"}
	batch := object{"flagKeys": []string{"french"}, "entities": []object{{"entityID": "e", "entityContext": claim}, {"entityID": "f"}}}
	query := func(body object) string {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		return "?json=" + url.QueryEscape(string(encoded))
	}
	for _, tc := range []struct {
		name, method, path string
		body               object
		country            string
		variants           int
	}{
		{"POST from France", "POST", "/evaluation", single, "FR", 1},
		{"POST from elsewhere", "POST", "/evaluation", single, "DE", 0},
		{"POST without a context", "POST", "/evaluation", bare, "FR", 1},
		{"GET from France", "GET", "/evaluation" + query(single), nil, "FR", 1},
		{"GET from elsewhere", "GET", "/evaluation" + query(single), nil, "DE", 0},
		{"batch from France", "POST", "/evaluation/batch", batch, "FR", 2},
		{"batch from elsewhere", "POST", "/evaluation/batch", batch, "DE", 0},
		{"GET batch without headers", "GET", "/evaluation/batch" + query(batch), nil, "FR", 0},
	} {
		var body *strings.Reader
		if body = strings.NewReader(""); tc.body != nil {
			encoded, err := json.Marshal(tc.body)
			if err != nil {
				t.Fatal(err)
			}
			body = strings.NewReader(string(encoded))
		}
		r := httptest.NewRequestWithContext(t.Context(), tc.method, "/api/v1"+tc.path, body)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Country", tc.country)
		a := send(s, r)
		if n := strings.Count(a.raw, `"variantKey":"on"`); a.status != http.StatusOK || n != tc.variants {
			t.Errorf("%s: %d, %d variants, want %d: %s", tc.name, a.status, n, tc.variants, a.raw)
		}
		if !strings.Contains(a.raw, `"@ts_hour":`) {
			t.Errorf("%s: the answer lacks what was injected: %s", tc.name, a.raw)
		}
	}
}

func TestNothingIsInjectedByDefault(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{"FLAGR_INJECTED_CONTEXT_HTTP_HEADERS": "X-Country"})
	booleanFlag(t, s, "k", false)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/evaluation", strings.NewReader(`{"flagKey":"k","entityID":"e"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Country", "FR")
	if a := send(s, r); a.status != http.StatusOK || strings.Contains(a.raw, "@") {
		t.Errorf("answer is %d %s", a.status, a.raw)
	}
}

func TestEvaluationsAreLogged(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		environ map[string]string
		want    func(lines int) bool
	}{
		{"by default", nil, func(lines int) bool { return lines == 30 }},
		{"bounded", map[string]string{"FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING": "2"},
			func(lines int) bool { return lines >= 2 && lines < 30 }}, // more if it takes several seconds
		{"not at all", map[string]string{"FLAGR_RATELIMITER_PERFLAG_PERSECOND_CONSOLE_LOGGING": "0"}, func(lines int) bool { return lines == 0 }},
		{"off", map[string]string{"FLAGR_EVAL_LOGGING_ENABLED": "false"}, func(lines int) bool { return lines == 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, tc.environ)
			booleanFlag(t, s, "k", false)
			for range 10 {
				must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "k", "entityID": "e"})
				must(t, s, http.MethodPost, "/evaluation/batch", object{"flagKeys": []string{"k"}, "entities": []object{{"entityID": "f"}, {"entityID": "g"}}})
			}
			if lines := strings.Count(s.log.String(), "msg=evaluation flag_id=1 flag_key=k"); !tc.want(lines) {
				t.Errorf("%d lines of 30 evaluations", lines)
			}
		})
	}
}
