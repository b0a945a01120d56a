package handler_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestUnknownFieldsOfAFlagAreNamed checks that a misspelled field is accepted, as in Flagr, and
// named in a warning.
func TestUnknownFieldsOfAFlagAreNamed(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	id, _, _ := booleanFlag(t, s, "k", false)
	many := make([]string, 50)
	for i := range many {
		many[i] = fmt.Sprintf(`"f%02d":{"a":[1]}`, i)
	}
	const fields = "the fields are dataRecordsEnabled, description, enabled, entityType, key, notes"
	for name, c := range map[string]struct {
		body string
		want []string
	}{
		"none":         {`{"notes":"n"}`, nil},
		"misspelled":   {`{"dataRecordEnabled":true}`, []string{`unknown field "dataRecordEnabled" is ignored; ` + fields}},
		"two":          {`{"b":1,"notes":"n","a":null}`, []string{`unknown field "a"`, `unknown field "b"`}},
		"case":         {`{"Notes":"n","NOTES":"m"}`, nil},
		"not ASCII":    {`{"Ä\r\nX: y":1}`, []string{`unknown field "\u00c4\r\nX: y" is ignored`}},
		"many":         {"{" + strings.Join(many, ",") + "}", []string{`"f00"`, `"f01"`, `"f02"`, `"f03"`, `"f04"`, `"f05"`, `"f06"`, `"f07"`, `"f08"`, `"f09"`, "more unknown fields are ignored"}},
		"long":         {`{"` + strings.Repeat("x", 100_000) + `":1}`, []string{strings.Repeat("x", 64) + `..." is ignored`}},
		"null is none": {`null`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprint("/api/v1/flags/", id), strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			got := w.Header().Values("Warning")
			if w.Code != http.StatusOK || len(got) != len(c.want) {
				t.Fatalf("%d, warnings %q", w.Code, got)
			}
			for i, want := range c.want {
				text := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(got[i])
				if !strings.HasPrefix(got[i], `299 - "`) || !strings.Contains(text, want) || strings.ContainsAny(got[i], "\r\n") || len(got[i]) > 400 {
					t.Errorf("warning is %s, want %s", got[i], want)
				}
			}
		})
	}
}

// TestUnknownFieldsOfANewFlag tries to create a flag that is on, which Flagr ignores.
func TestUnknownFieldsOfANewFlag(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	for body, want := range map[string]string{
		`{"description":"d","key":"a"}`:                "",
		`{"description":"d","key":"b","enabled":true}`: `unknown field "enabled" is ignored; the fields are description, key, template`,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/flags", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		got := strings.ReplaceAll(w.Header().Get("Warning"), `\"`, `"`)
		if w.Code != http.StatusOK || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %d, warning %q, want %q", body, w.Code, got, want)
		}
	}
}
