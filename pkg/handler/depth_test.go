package handler_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestDeepContextsAreRefused nests the context of an evaluation up to the limit, and deeper.
func TestDeepContextsAreRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	for levels, status := range map[int]int{100: http.StatusOK, 101: http.StatusBadRequest, 9_990: http.StatusBadRequest} {
		context := strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)
		one := `{"flagKey":"k","entityID":"e","entityContext":` + context + `}`
		batch := `{"flagKeys":["k"],"entities":[{"entityID":"d"},{"entityID":"e","entityContext":` + context + `}]}`
		answers := map[string]answer{
			"entityContext":            call(t, s, http.MethodPost, "/evaluation", one),
			"entities.1.entityContext": call(t, s, http.MethodPost, "/evaluation/batch", batch),
		}
		if levels < 500 { // longer queries are rejected for their length
			answers["GET entityContext"] = call(t, s, http.MethodGet, "/evaluation?json="+url.QueryEscape(one), nil)
		}
		for name, a := range answers {
			_, field, _ := strings.Cut(" "+name, " ")
			field = strings.TrimPrefix(field, "GET ")
			if a.status != status || status != http.StatusOK && !strings.Contains(a.raw, field+" nests more than the 100 levels") {
				t.Errorf("%d levels in %s: %d %.200s, want %d", levels, name, a.status, a.raw, status)
			}
		}
	}
}
