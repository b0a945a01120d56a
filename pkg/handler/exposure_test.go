package handler_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExposures(t *testing.T) {
	t.Parallel()
	s := setup(t, map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar", "FLAGR_EXPOSURE_BATCH_SIZE": "4",
	})
	flagID, _, variantID := booleanFlag(t, s, "shown", true)
	booleanFlag(t, s, "private", false)
	a := must(t, s, http.MethodPost, "/exposures", object{"exposures": []any{
		nil,
		object{"entityID": "e", "flagKey": "shown", "variantID": variantID, "timestamp": ""},
		object{"entityID": "e", "flagID": flagID, "variantKey": "off"},
		object{"entityID": "e", "flagKey": "private"},
	}})
	want := object{
		"loggedCount": 1.0,
		"message":     "Exposures logged successfully",
		"errors": []any{
			object{"message": "entityID is required"},
			object{"index": 2.0, "message": `variantKey "off" not found on flag`},
		},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if total := must(t, s, http.MethodGet, "/datar/summary", nil); len(total["flags"].([]any)) != 0 {
		t.Errorf("Datar counts exposures: %v", total)
	}

	row := object{"entityID": "e", "flagKey": "shown"}
	for _, tc := range []struct {
		name   string
		body   any
		status int
		part   string
	}{
		{"too many", object{"exposures": []any{row, row, row, row, row}}, 400, "exposures has 5 rows, more than the 4 allowed"},
		{"no body", nil, 422, "body"},
		{"empty body", "", 422, "body"},
		{"not JSON", "{", 400, "body"},
		{"no rows", object{"exposures": []any{}}, 422, "at least 1"},
		{"no list", object{}, 422, "exposures is required"},
		{"no entity", object{"exposures": []any{object{"flagID": 1}}}, 422, "exposures.0.entityID is required"},
		{"no such time", object{"exposures": []any{object{"flagID": 1, "entityID": "e", "timestamp": "yesterday"}}}, 400, "yesterday"},
		{"a text for an id", object{"exposures": []any{object{"flagID": "x", "entityID": "e"}}}, 400, "flagID"},
	} {
		a := call(t, s, http.MethodPost, "/exposures", tc.body)
		if a.status != tc.status || !strings.Contains(a.raw, tc.part) {
			t.Errorf("%s: %d %s, want %d and %q", tc.name, a.status, a.raw, tc.status, tc.part)
		}
	}
}

func TestExposuresWithoutARecorderAreAcceptedAndNotLogged(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	booleanFlag(t, s, "shown", true)
	a := must(t, s, http.MethodPost, "/exposures", object{"exposures": []any{object{"entityID": "e", "flagKey": "shown"}}})
	if a["loggedCount"] != nil || len(a["errors"].([]any)) > 0 {
		t.Errorf("answer is %v", a)
	}
}
