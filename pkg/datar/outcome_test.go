package datar_test

import (
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

func TestOutcomeNames(t *testing.T) {
	t.Parallel()
	for outcome := datar.Unattributed; outcome <= datar.NotFound; outcome++ {
		if got, err := datar.ParseOutcome(outcome.String()); got != outcome || err != nil {
			t.Errorf("the outcome %d is named %q, which is parsed as %d: %v", outcome, outcome, got, err)
		}
	}
	for _, name := range []string{"", "Matched", "outcome 8", (datar.NotFound + 1).String()} {
		if _, err := datar.ParseOutcome(name); err == nil {
			t.Errorf("%q is parsed as an outcome", name)
		}
	}
}

// TestRecordWithDetails records what an Event can have, for a store that keeps details and for one
// that does not.
func TestRecordWithDetails(t *testing.T) {
	t.Parallel()
	type kept struct {
		outcome datar.Outcome
		version uint16
		asked   datar.Asked
	}
	for name, test := range map[string]struct {
		event   datar.Event
		details kept
		event0  int64 // 1 if it is an event
		invalid bool
	}{
		"a host without outcomes": {datar.Event{VariantID: 2, Version: 5}, kept{datar.Matched, 5, 0}, 1, false},
		"no variant":              {datar.Event{Version: 5, Asked: 1}, kept{}, 1, false},
		"matched":                 {datar.Event{VariantID: 2, Outcome: datar.Matched, Version: 65535, Asked: 7}, kept{datar.Matched, 65535, 7}, 1, false},
		"held out":                {datar.Event{SegmentID: 3, Outcome: datar.HeldOut, Version: 1}, kept{datar.HeldOut, 1, 0}, 1, false},
		"no match":                {datar.Event{Outcome: datar.NoMatch, Asked: datar.AskedUnevaluable}, kept{datar.NoMatch, 0, datar.AskedUnevaluable}, 1, false},
		"no segments":             {datar.Event{Outcome: datar.NoSegments}, kept{datar.NoSegments, 0, 0}, 0, false},
		"disabled":                {datar.Event{Outcome: datar.Disabled}, kept{datar.Disabled, 0, 0}, 0, false},
		"an error":                {datar.Event{Outcome: datar.Error}, kept{datar.Error, 0, 0}, 1, false},
		"not found":               {datar.Event{Outcome: datar.NotFound}, kept{}, 0, true},
		"no outcome at all":       {datar.Event{Outcome: 200}, kept{}, 0, true},
		"matched nothing":         {datar.Event{Outcome: datar.Matched}, kept{}, 0, true},
		"held out with a variant": {datar.Event{VariantID: 2, Outcome: datar.HeldOut}, kept{}, 0, true},
		"asked in other bits":     {datar.Event{Outcome: datar.NoMatch, Asked: 8}, kept{}, 0, true},
	} {
		for _, details := range []bool{true, false} {
			f := setup(t)
			if !details {
				f = setup(t, func(o *datar.Options) { o.Store = struct{ datar.Store }{o.Store} })
			}
			test.event.FlagID, test.event.Time = 1, noon
			f.Record(test.event)
			f.flush(t)
			var rows []datar.Row
			for _, batch := range f.store.sent() {
				rows = append(rows, batch.Rows...)
			}
			dropped := f.Stats().Dropped[datar.DropInvalid]
			switch {
			case test.invalid && (details || test.event.Outcome >= datar.NotFound):
				if dropped != 1 || len(rows) != 0 {
					t.Errorf("%s: dropped %d, sent %+v; want it dropped", name, dropped, rows)
				}
			case !details && test.event0 == 0 && !test.invalid:
				if dropped != 0 || len(rows) != 0 {
					t.Errorf("%s, without details: dropped %d, sent %+v; want nothing of it", name, dropped, rows)
				}
			case !test.invalid:
				want := datar.Key{FlagID: 1, VariantID: test.event.VariantID, SegmentID: test.event.SegmentID, Hour: datar.HourOf(noon)}
				if details {
					want.Outcome, want.Version, want.Asked = test.details.outcome, test.details.version, test.details.asked
				}
				if len(rows) != 1 || rows[0].Key != want || rows[0].Count != 1 {
					t.Errorf("%s, details %v: sent %+v, want %+v", name, details, rows, want)
				}
			}
		}
	}
}
