package insight_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// TestImbalances has a fleet for each kind of imbalance, and the nearest that is balanced.
func TestImbalances(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:00:00Z")
	run := func(name, id string, before time.Duration, recorded, stored, pending int64) datar.ServerRecord {
		return datar.ServerRecord{Name: name, Run: id, Kind: datar.KindServer, Start: now.Add(-before), At: now.Add(-before + time.Second), FlushInterval: time.Minute,
			Recorded: recorded, Stored: stored, Pending: pending}
	}
	dropping := run("a", "1", time.Minute, 10, 7, 2)
	dropping.Dropped = map[string]int64{"capacity": 1}
	killed := []datar.ServerRecord{run("a", "1", time.Hour, 10, 6, 4), run("a", "2", time.Minute, 3, 3, 0)}
	adopting := slices.Clone(killed)
	adopting[1].Adopted = 3
	adopted := slices.Clone(killed)
	adopted[1].Adopted = 4
	for name, test := range map[string]struct {
		records []datar.ServerRecord
		want    []insight.Imbalance
	}{
		"none":              {nil, nil},
		"balanced":          {[]datar.ServerRecord{dropping}, nil},
		"missing":           {[]datar.ServerRecord{run("a", "1", time.Minute, 10, 6, 3)}, []insight.Imbalance{{"a", insight.ImbalanceMissing, 1, catalog.Literal("a recorded 1 evaluation more than it has stored")}}},
		"surplus":           {[]datar.ServerRecord{run("a", "1", time.Minute, 10, 9, 3)}, []insight.Imbalance{{"a", insight.ImbalanceSurplus, 2, catalog.Literal("a has stored, dropped or pending 2 evaluations more than it recorded")}}},
		"killed":            {killed, []insight.Imbalance{{"a", insight.ImbalanceLost, 4, catalog.Literal("a was killed while 4 evaluations waited")}}},
		"killed, adopted":   {adopted, nil},
		"killed, some kept": {adopting, []insight.Imbalance{{"a", insight.ImbalanceLost, 1, catalog.Literal("FLAGR_RECORDER_DATAR_JOURNAL_DIR")}}},
		"two that cancel out": {[]datar.ServerRecord{run("a", "1", time.Minute, 10, 6, 3), run("b", "2", time.Minute, 10, 11, 0)},
			[]insight.Imbalance{{"a", insight.ImbalanceMissing, 1, catalog.Literal("datar_servers")}, {"b", insight.ImbalanceSurplus, 1, catalog.Literal("datar_servers")}}},
	} {
		fleet := datar.FleetOf(test.records, now)
		got := insight.Imbalances(fleet)
		same := slices.EqualFunc(got, test.want, func(g, w insight.Imbalance) bool {
			return g.Server == w.Server && g.Kind == w.Kind && g.Count == w.Count && strings.Contains(g.Text.String(), w.Text.String())
		})
		if !same || fleet.Balanced != (len(test.want) == 0) {
			t.Errorf("%s: balanced %t: got %+v, want %+v", name, fleet.Balanced, got, test.want)
		}
	}
}
