package handler_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestMessagesForPeople checks that every rejection names the field as the client wrote it, the
// value and what is accepted, without names of Go.
func TestMessagesForPeople(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	booleanFlag(t, s, "on", false)
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		message                  string
	}{
		{"no body", "POST", "/flags", ``, 422, "the request body is required"},
		{"wrong body", "POST", "/flags", `[1]`, 400, "the request body is an array; want an object"},
		{"missing", "POST", "/flags", `{}`, 422, "description is required"},
		{"empty", "POST", "/flags", `{"description":""}`, 422, "description must have at least 1 character"},
		{"number for text", "POST", "/flags", `{"description":1}`, 400, "description is a number; want a string"},
		{"text for a number", "POST", "/flags/1/segments", `{"description":"x","rolloutPercent":"10"}`, 400, "rolloutPercent is a string; want an integer of 64 bits"},
		{"half for a number", "POST", "/flags/1/segments", `{"description":"x","rolloutPercent":1.5}`, 400, "rolloutPercent is 1.5; want an integer of 64 bits"},
		{"too much", "POST", "/flags/1/segments", `{"description":"x","rolloutPercent":101}`, 422, "rolloutPercent must be at most 100, not 101"},
		{"too little", "POST", "/flags/1/segments", `{"description":"x","rolloutPercent":-1}`, 422, "rolloutPercent must be at least 0, not -1"},
		{"text for a boolean", "PUT", "/flags/1/enabled", `{"enabled":"yes"}`, 400, "enabled is a string; want true or false"},
		{"boolean for text", "POST", "/evaluation", `{"entityID":true}`, 400, "entityID is a boolean; want a string"},
		{"object for a list", "PUT", "/flags/1/segments/1/distributions", `{"distributions":{}}`, 400, "distributions is an object; want an array"},
		{"in a list", "PUT", "/flags/1/segments/1/distributions", `{"distributions":[{"variantID":"a","percent":1}]}`, 400, "distributions.variantID is a string; want an integer of 64 bits"},
		{"empty list", "PUT", "/flags/1/segments/reorder", `{"segmentIDs":[]}`, 422, "segmentIDs must have at least 1 item"},
		{"one of some", "POST", "/evaluation/batch", `{"entities":[{}],"flagTags":["x"],"flagTagsOperator":"XOR"}`, 422, `flagTagsOperator: "XOR" is not accepted; want one of ANY, ALL`},
		{"operator", "POST", "/flags/1/segments/1/constraints", `{"operator":"LIKE","property":"a","value":"1"}`, 400, `operator "LIKE" is not accepted; want one of EQ, NEQ, LT, LTE, GT, GTE, EREG, NEREG, IN, NOTIN, CONTAINS, NOTCONTAINS`},
		{"cut off", "POST", "/flags", `{"description":"x"`, 400, "the request body ends in the middle of its JSON"},
		{"syntax", "POST", "/flags", `{"description":"x",}`, 400, "the request body is not valid JSON: invalid character '}'"},
		{"path", "GET", "/flags/abc", ``, 422, `flagID in path: "abc" is not accepted; want an integer of 64 bits`},
		{"path with 0", "GET", "/flags/0x", ``, 422, `flagID in path: "0x" is not accepted; want an integer of 64 bits`},
		{"list in the query", "GET", "/export/eval_cache/json?ids=1,x", ``, 422, "ids.1 in query is not accepted; want an integer of 64 bits"},
		{"path below", "GET", "/flags/0", ``, 422, "flagID in path must be at least 1, not 0"},
		{"time", "GET", "/datar/summary?from=yesterday", ``, 422, `from in query: "yesterday" is not accepted; want a time such as 2026-01-31T18:00:00Z`},
		{"in the query", "GET", "/evaluation?json=%7B%22flagID%22:%22x%22%7D", ``, 400, "json is not valid evalContext: flagID is a string; want an integer of 64 bits"},
		{"method", "PATCH", "/flags/1", ``, 405, "method PATCH is not allowed, but [DELETE,GET,PUT] are"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := call(t, s, tc.method, tc.path, tc.body)
			body, _ := got.body.(map[string]any)
			message, _ := body["message"].(string)
			if got.status != tc.status || !strings.HasPrefix(message, tc.message) {
				t.Errorf("answer is %d %s, want %d %q", got.status, got.raw, tc.status, tc.message)
			}
			if _, code := body["code"]; !code && tc.status == http.StatusUnprocessableEntity {
				t.Errorf("no code in %s", got.raw)
			}
		})
	}
}

// TestMessagesNameLines checks that messages name rows of counts by their lines.
func TestMessagesNameLines(t *testing.T) {
	t.Parallel()
	s := setup(t, ingesting)
	row := countsRow("busy", 1)
	for body, want := range map[string]string{
		row + "\n" + row[:20]:       "line 2 ends in the middle of its JSON",
		row + "\n" + `{"flag":{},}`: "the request body is not valid JSON: line 2: invalid character '}'",
	} {
		got := post(t, s, ingestPath, body, map[string]string{"Content-Type": "application/x-ndjson"})
		answer, _ := got.body.(map[string]any)
		if message, _ := answer["message"].(string); got.status != http.StatusBadRequest || !strings.HasPrefix(message, want) {
			t.Errorf("%q: answer is %d %s, want 400 %q", body, got.status, got.raw, want)
		}
	}
	if got := post(t, s, ingestPath, "[]", nil); !strings.Contains(got.raw, "the request body: it is of the type array, want an object with flagEvaluations") {
		t.Errorf("a list: %s", got.raw)
	}
}
