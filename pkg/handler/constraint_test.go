package handler_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestConstraintWarnings stores constraints that Flagr accepts, and expects warnings about doubtful
// ones.
func TestConstraintWarnings(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "k"})
	must(t, s, http.MethodPost, "/flags/1/segments", object{"description": "s", "rolloutPercent": 100})
	must(t, s, http.MethodPost, "/flags/1/segments/1/constraints", object{"property": "p", "operator": "EQ", "value": "1"})
	for _, test := range []struct{ body, want string }{
		{`{"property":"p","operator":"EREG","value":"\"[\""}`, `299 - "pattern cannot be used, so that the comparison never holds: error parsing regexp: missing closing ]: ` + "`[`" + `"`},
		{`{"property":"p","operator":"LT","value":"\"é\""}`, `299 - "operator < does not take a string: the comparison never holds"`},
		{`{"property":"p","operator":"NEREG","value":"\"a b\""}`, `299 - "white space in a pattern is skipped: write \\s or [[:space:]]"`},
		{`{"property":"p","operator":"EREG","value":"\"a/ b\""}`, ""},
		{`{"property":"p","operator":"LT","value":"5"}`, ""},
	} {
		for method, path := range map[string]string{http.MethodPost: "/flags/1/segments/1/constraints", http.MethodPut: "/flags/1/segments/1/constraints/1"} {
			r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1"+path, strings.NewReader(test.body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if got := w.Header().Get("Warning"); w.Code != http.StatusOK || got != test.want {
				t.Errorf("%s %s: %d %s, warning %s, want %s", method, test.body, w.Code, w.Body, got, test.want)
			}
		}
	}
}

// TestDefinitionWarnings saves the same constraints as parts of a definition.
func TestDefinitionWarnings(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "k"})
	constraint := func(operator, value string) object {
		return object{"property": "p", "operator": operator, "value": value}
	}
	many := make([]object, 20)
	for i := range many {
		many[i] = constraint("LT", `"a"`)
	}
	for name, c := range map[string]struct {
		constraints []object
		want        []string
	}{
		"none": {[]object{constraint("LT", "5"), constraint("EREG", `"a.c"`)}, nil},
		"doubtful": {[]object{constraint("EQ", "1"), constraint("EREG", `"["`), constraint("GTE", `"b"`), constraint("NEREG", `"a b"`)}, []string{
			`segments[0].constraints[1]: pattern cannot be used`, `segments[0].constraints[2]: operator >= does not take a string`,
			`segments[0].constraints[3]: white space in a pattern is skipped`,
		}},
		"many": {many, slices.Repeat([]string{"operator < does not take a string"}, 10)},
	} {
		d := must(t, s, http.MethodGet, "/flags/1/definition", nil)
		d["segments"] = []object{{"description": "s", "rolloutPercent": 100, "constraints": c.constraints}}
		body, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/api/v1/flags/1/definition", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		got := w.Header().Values("Warning")
		if w.Code != http.StatusOK || len(got) != len(c.want) {
			t.Errorf("%s: %d %s, warnings %q", name, w.Code, w.Body, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: warning is %s, want %s", name, got[i], want)
			}
		}
	}
}

func TestUnknownFlagIsNamed(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	for body, want := range map[string]string{
		`{"flagKey":"chekout"}`:                           `flagKey "chekout" not found or deleted`,
		`{"flagID":7,"flagKey":"chekout"}`:                `flagID 7 not found or deleted`,
		`{"entityID":"e"}`:                                `flagID 0 not found or deleted`,
		`{"flagKey":"` + strings.Repeat("k", 1000) + `"}`: `flagKey "` + strings.Repeat("k", 100) + `" not found or deleted`,
	} {
		log, _ := must(t, s, http.MethodPost, "/evaluation", body)["evalDebugLog"].(map[string]any)
		if log["msg"] != want {
			t.Errorf("%.40s: got %v, want %s", body, log["msg"], want)
		}
	}
}
