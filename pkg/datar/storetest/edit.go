package storetest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// editsFlags deletes and merges flags between batches and maintenance, and compares with memstore.
func editsFlags(t *testing.T, s datar.Store) { editsFlagsKeeping(t, s, 0) }

// editsFlagsOfPurgedDays is editsFlags after the retention has reduced the first days to totals.
func editsFlagsOfPurgedDays(t *testing.T, s datar.Store) {
	maintainer(t, s)
	editsFlagsKeeping(t, s, 48*time.Hour)
}

func editsFlagsKeeping(t *testing.T, s datar.Store, keep time.Duration) {
	t.Helper()
	editor, ok := s.(datar.FlagEditor)
	if !ok {
		t.Skip("the store does not edit flags")
	}
	_, detailed := s.(datar.DetailStore)
	reference := &memstore.Store{}
	random := rand.New(rand.NewPCG(7, 8))
	day, sequence := hour.DayStart(), int64(0)
	fill := func(from, to datar.Hour) {
		for h := from; h < to; h += 5 {
			var rows []datar.Row
			for range 8 {
				key := randomKey(random, h)
				key.FlagID = random.Int64N(5) + 31 // on both sides of 32
				if !detailed {
					key.Outcome, key.Version, key.Asked = 0, 0, 0
				}
				if r := detail(key, random.Int64N(9)+1); !slices.ContainsFunc(rows, func(o datar.Row) bool { return o.Key == r.Key }) {
					rows = append(rows, r)
				}
			}
			sequence++
			apply(t, s, "w", sequence, rows...)
			apply(t, reference, "w", sequence, rows...)
		}
	}
	settle := func() {
		if m, ok := s.(datar.Maintainer); ok {
			for range 10 { // each call does a part of the work
				maintain(t, m, day+5*24, keep)
			}
		}
	}
	fill(day, day+4*24)
	settle()
	for i, edit := range []func(datar.FlagEditor) error{
		func(e datar.FlagEditor) error { return e.MergeFlag(t.Context(), 31, 32) },
		func(e datar.FlagEditor) error { return e.DeleteFlag(t.Context(), 33) },
		func(e datar.FlagEditor) error { return e.MergeFlag(t.Context(), 34, 99) }, // a flag without counts
		func(e datar.FlagEditor) error { return e.DeleteFlag(t.Context(), 1000) },  // another flag without counts
	} {
		if err := edit(editor); err != nil {
			t.Fatalf("edit %d: %v", i, err)
		}
		if err := edit(reference); err != nil {
			t.Fatal(err)
		}
		same := func(when string) {
			t.Helper()
			t.Logf("after edit %d, %s", i, when)
			for _, by := range []datar.Dimension{datar.ByFlag, datar.ByDay} {
				sameTotals(t, s, reference, datar.TotalsQuery{From: day, To: day + 4*24, GroupBy: by})
				sameTotals(t, s, reference, datar.TotalsQuery{From: day, To: day + 4*24, FlagID: 32, GroupBy: by})
			}
			if keep == 0 {
				sameTotals(t, s, reference, datar.TotalsQuery{From: day + 3, To: day + 4*24 - 7, FlagID: 32, GroupBy: datar.ByOutcome})
			}
			sameDetails(t, s, reference, day+4*24)
		}
		same("at once")
		settle()
		same("after maintenance")
		fill(day+3*24, day+4*24)
		same("after more counts")
	}
}

// sameDetails compares the details of the days that the store has not reduced, if it keeps details.
func sameDetails(t *testing.T, s, reference datar.Store, to datar.Hour) {
	t.Helper()
	d, ok := s.(datar.DetailStore)
	if !ok {
		return
	}
	from, err := d.DetailedFrom(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []datar.Parts{datar.GroupFlag | datar.GroupOutcome, datar.GroupFlag | datar.GroupVersion | datar.GroupHour, datar.GroupDay | datar.GroupAsked | datar.GroupVariant} {
		query := datar.DetailsQuery{From: from, To: to, GroupBy: by}
		if got, want := details(t, d, query), details(t, reference.(datar.DetailStore), query); !slices.Equal(got, want) {
			t.Errorf("details of %+v:\n got %+v\nwant %+v", query, got, want)
		}
	}
}
