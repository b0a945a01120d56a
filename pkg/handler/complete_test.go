package handler

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// TestCompleteIsTheSameInAllResponses compares the member complete of datarhttp's bodies with the
// one of generated models.
func TestCompleteIsTheSameInAllResponses(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 14, 4, 40, 5_000_000, time.UTC)
	for name, c := range map[string]*insight.Complete{
		"all members": {
			Since: at.Add(-time.Hour), UpTo: at, Servers: 3, Silent: 1, Pending: 158, Dropped: 2,
			Holes: []insight.Hole{
				{From: at.Add(-3 * time.Hour), To: at.Add(-2 * time.Hour), Why: insight.WhyRecordsOff, By: "ada"},
				{From: at.Add(-2 * time.Hour), To: at.Add(-time.Hour), Why: insight.WhyDropped},
			},
		},
		"not counted now": {UpTo: at},
	} {
		member := func(body any) any {
			t.Helper()
			encoded, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			var decoded map[string]any
			if err := json.Unmarshal(encoded, &decoded); err != nil {
				t.Fatal(err)
			}
			return decoded["complete"]
		}
		want := member(datarhttp.WithComplete(datarhttp.SummaryBody(nil), completeOf(c)))
		got := member(map[string]any{"complete": completeModel(c)})
		if diff := cmp.Diff(want, got); diff != "" || want == nil {
			t.Errorf("%s (-datarhttp +generated):\n%s", name, diff)
		}
	}
}
