package handler_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

func TestADefinitionComesBackAsItWasSaved(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": kind.Driver, "FLAGR_DB_DBCONNECTIONSTR": kind.Fresh(t)})
		flagID, _, _ := booleanFlag(t, s, "k", false)
		path := fmt.Sprintf("/flags/%d/definition", flagID)
		d := must(t, s, http.MethodGet, path, nil)
		d["variants"] = append(d["variants"].([]any), object{"key": "big", "attachment": object{"n": 12345678901234567}})
		segment := d["segments"].([]any)[0].(map[string]any)
		segment["constraints"] = []any{object{"property": "country", "operator": "EQ", "value": `"FR"`}}
		segment["distributions"] = []any{object{"variantKey": "on", "percent": 40}, object{"variantKey": "big", "percent": 60}}
		d["tags"] = []any{"web"}
		saved := must(t, s, http.MethodPut, path, d)
		if got := must(t, s, http.MethodGet, path, nil); !cmp.Equal(saved, got) {
			t.Errorf("saved and read differ:\n%s", cmp.Diff(saved, got))
		}
		if raw := call(t, s, http.MethodGet, path, nil).raw; !strings.Contains(raw, "12345678901234567") {
			t.Errorf("a large number is not kept: %s", raw)
		}
		history := call(t, s, http.MethodGet, fmt.Sprintf("/flags/%d/snapshots", flagID), nil).body.([]any)
		if len(history) != 4 { // created, records, enabled, and one for all changes of the definition
			t.Errorf("%d snapshots, want 4", len(history))
		}

		// Based on the previous version.
		d["description"] = "late"
		conflict := call(t, s, http.MethodPut, path, d)
		body, _ := conflict.body.(map[string]any)
		if conflict.status != http.StatusConflict || !strings.Contains(fmt.Sprint(body["message"]), "has changed since snapshot") {
			t.Fatalf("a late definition: %d %s", conflict.status, conflict.raw)
		}
		if !cmp.Equal(body["current"], any(saved)) {
			t.Errorf("current is not the saved one:\n%s", cmp.Diff(body["current"], any(saved)))
		}
		if base := body["base"].(map[string]any); base["snapshotID"] != d["snapshotID"] || len(base["variants"].([]any)) != 1 {
			t.Errorf("base is %v", base)
		}
	})
}

func TestADefinitionIsRefusedWithTheFieldNamed(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, map[string]string{"FLAGR_DB_DBDRIVER": kind.Driver, "FLAGR_DB_DBCONNECTIONSTR": kind.Fresh(t)})
		flagID, _, _ := booleanFlag(t, s, "k", false)
		path := fmt.Sprintf("/flags/%d/definition", flagID)
		id := must(t, s, http.MethodGet, path, nil)["snapshotID"]
		for body, want := range map[string]struct {
			status  int
			message string
		}{
			`{}`:                                 {422, "snapshotID"},
			`{"snapshotID":1,"segments":[null]}`: {400, "segments[0]: must not be null"},
			`{"snapshotID":1,"variants":[{"key":"a b"}]}`:                                        {400, "variants[0].key"},
			`{"snapshotID":1,"variants":[{"key":"a","attachment":1}]}`:                           {400, "variants[0]: attachment must be a JSON object"},
			`{"snapshotID":1,"segments":[{"rolloutPercent":101}]}`:                               {422, "rolloutPercent"},
			`{"snapshotID":1,"segments":[{"rolloutPercent":1,"distributions":[{"percent":1}]}]}`: {400, "segments[0].distributions"},
		} {
			body = strings.Replace(body, `"snapshotID":1`, fmt.Sprintf(`"snapshotID":%v`, id), 1)
			if a := call(t, s, http.MethodPut, path, body); a.status != want.status || !strings.Contains(a.raw, want.message) {
				t.Errorf("%s: %d %s, want %d with %q", body, a.status, a.raw, want.status, want.message)
			}
		}
		if a := call(t, s, http.MethodPut, "/flags/99/definition", `{"snapshotID":0}`); a.status != http.StatusNotFound {
			t.Errorf("no such flag: %d %s", a.status, a.raw)
		}
	})
}
