package integration_tests

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExposures reports exposures with recording on and off. Datar counts none of them.
func TestExposures(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		for name, tc := range map[string]struct {
			env    environ
			logged any
		}{
			"recording on":  {nil, 2.0},
			"recording off": {environ{"FLAGR_RECORDER_ENABLED": "false"}, nil},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := start(t, db, db.fresh(t), tc.env)
				f := newFlag(t, s, "shown")
				disabled := newFlag(t, s, "disabled")
				send[any](t, s, http.MethodPut, disabled.path()+"/enabled", object{"enabled": false})
				private := newFlag(t, s, "private")
				send[any](t, s, http.MethodPut, private.path(), object{"dataRecordsEnabled": false})
				awaitChanges(t, s)

				got := send[object](t, s, http.MethodPost, "/exposures", object{"exposures": []any{
					object{"flagID": f.ID, "flagKey": f.Key, "entityID": "u", "variantKey": "on", "entityContext": object{"a": 1}},
					object{"flagKey": disabled.Key, "entityID": "u", "timestamp": "2026-01-31T14:05:11.000Z"},
					object{"flagKey": private.Key, "entityID": "u"},
					object{"flagKey": "nobody", "entityID": "u"},
				}})
				want := object{
					"message": "Exposures logged successfully",
					"errors":  []any{object{"index": 3.0, "message": "flag not found"}},
				}
				if tc.logged != nil {
					want["loggedCount"] = tc.logged
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("response (-want +got):\n%s", diff)
				}
				if tc.env == nil {
					evaluate(t, s, f, "u", nil)
					if sum := counts(t, s, 1).sum(); sum != 1 {
						t.Errorf("%d counts of one evaluation", sum)
					}
				}
			})
		}
	})
}
