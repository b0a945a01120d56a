package insight_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// movedCounts are counts of another server that are being added up: queries of all flags fail
// before an hour.
type movedCounts struct {
	*world
	totalsFrom, detailsFrom datar.Hour
}

func (m *movedCounts) preparing() error {
	return fmt.Errorf("add up: %w", &datar.PreparingError{Made: 3, Due: 40, DetailsFrom: m.detailsFrom})
}

func (m *movedCounts) Details(ctx context.Context, q datar.DetailsQuery) ([]datar.Row, error) {
	if q.FlagID == 0 && (m.detailsFrom == 0 || q.From < m.detailsFrom) {
		return nil, m.preparing()
	}
	return m.world.Details(ctx, q)
}

func (m *movedCounts) Totals(ctx context.Context, q datar.TotalsQuery) ([]datar.Total, error) {
	if q.From < m.totalsFrom {
		return nil, m.preparing()
	}
	return m.world.Totals(ctx, q)
}

// TestCountsThatAreBeingAddedUp checks that a list of all flags has the counts of the days that are
// added up, and no state that needs other days.
func TestCountsThatAreBeingAddedUp(t *testing.T) {
	t.Parallel()
	ctx, now := t.Context(), at(t, "2026-01-31T14:30:00Z")
	today := datar.HourOf(now).DayStart()
	asked, unasked := checkout(), checkout()
	unasked.ID, unasked.Key = 43, "old-banner"
	w := &world{now: now, flags: map[int64]*entity.Flag{42: asked, 43: unasked}, counts: &memstore.Store{}}
	var rows []datar.Row
	for _, days := range []datar.Hour{0, 1, 2, 20} {
		rows = append(rows, row(datar.Matched, 61, 23, 1, int64(days)+1, (today-24*days+3).Time()))
	}
	if err := w.counts.Apply(ctx, datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name                    string
		totalsFrom, detailsFrom datar.Hour
		flags                   int
		total                   int64     // of the flag that was asked for
		from                    time.Time // of the counts
		state, unaskedState     bool      // whether there is one
	}{
		{name: "nothing", totalsFrom: today, flags: 0},
		{name: "two days", totalsFrom: today, detailsFrom: today - 48, flags: 2, total: 1 + 2 + 3, from: (today - 48).Time()},
		{name: "all days of the list", totalsFrom: today, detailsFrom: today - 31*24, flags: 2, total: 1 + 2 + 3 + 21, state: true},
		{name: "everything", detailsFrom: -1, flags: 2, total: 1 + 2 + 3 + 21, state: true, unaskedState: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			counts := &movedCounts{w, test.totalsFrom, test.detailsFrom}
			s := insight.NewService(insight.Options{Counts: counts, Flags: w, Snapshots: w, Refresh: refresh, Now: func() time.Time { return now }})
			list, err := s.AllStates(ctx, 30)
			if err != nil {
				t.Fatal(err)
			}
			complete := test.unaskedState
			if len(list.Flags) != test.flags || !list.CountsFrom.Equal(test.from) || (list.Preparing == nil) != complete || (list.Complete == nil) != (test.flags == 0) {
				t.Fatalf("%d flags from %v, preparing %+v, complete %+v", len(list.Flags), list.CountsFrom, list.Preparing, list.Complete)
			}
			if !complete && (list.Preparing.Made != 3 || list.Preparing.Due != 40) {
				t.Errorf("progress is %+v", list.Preparing)
			}
			for _, f := range list.Flags {
				total, state := test.total, test.state
				if f.FlagID == 43 {
					total, state = 0, test.unaskedState
				}
				var spark int64
				for _, n := range f.Spark {
					spark += n
				}
				if f.Total != total || spark != total || f.Evidence.Count != total || (f.State.State != "") != state {
					t.Errorf("flag %d: %d evaluations, %d in the spark, state %q", f.FlagID, f.Total, spark, f.State.State)
				}
				if wantLast := rows[0].Last; total > 0 && f.Evidence.Last.UnixMilli() != wantLast {
					t.Errorf("last asked at %v", f.Evidence.Last)
				}
			}
			_, err = s.States(ctx, insight.StatesQuery{})
			if _, preparing := errors.AsType[*datar.PreparingError](err); preparing == complete {
				t.Errorf("a page of states: %v", err)
			}
		})
	}
}
