// Package storetest holds the tests that every datar.Store must pass.
package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// Run tests the stores that open returns: an empty one at each call, which open also closes when its test ends.
func Run(t *testing.T, open func(*testing.T) datar.Store) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, datar.Store)
	}{
		{"counts add up", countsAddUp},
		{"a batch is applied once", batchAppliedOnce},
		{"writers are independent", writersIndependent},
		{"totals by each dimension", totalsByDimension},
		{"windows are half open", windows},
		{"last evaluation is the latest", lastEvaluation},
		{"counts beyond 32 bits", largeCounts},
		{"large ids and early hours", extremeKeys},
		{"large batches", largeBatches},
		{"an ended context applies nothing", endedContext},
		{"writers share keys", sharedKeys},
		{"maintenance changes no totals", maintenance},
		{"maintenance beside writers", maintenanceBesideWriters},
		{"retention keeps the days", retention},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

const hour = datar.Hour(490_000) // in 2025

func row(flag, variant, segment int64, h datar.Hour, count int64) datar.Row {
	ms := h.Time().UnixMilli() + 1
	return datar.Row{
		Key:   datar.Key{FlagID: flag, VariantID: variant, SegmentID: segment, Hour: h},
		Count: count, First: ms, Last: ms,
	}
}

func apply(t *testing.T, s datar.Store, writer string, sequence int64, rows ...datar.Row) {
	t.Helper()
	slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	if err := s.Apply(t.Context(), datar.Batch{Writer: writer, Sequence: sequence, Rows: rows}); err != nil {
		t.Fatalf("apply batch %d of %s: %v", sequence, writer, err)
	}
}

// totals returns what the store answers, in order.
func totals(t *testing.T, s datar.Store, query datar.TotalsQuery) []datar.Total {
	t.Helper()
	got, err := s.Totals(t.Context(), query)
	if err != nil {
		t.Fatalf("totals of %+v: %v", query, err)
	}
	slices.SortFunc(got, func(a, b datar.Total) int {
		return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.VariantID, b.VariantID),
			cmp.Compare(a.SegmentID, b.SegmentID), cmp.Compare(a.Day, b.Day))
	})
	return got
}

// id is what a total of the dimension is known by in these tests.
func id(dimension datar.Dimension, t datar.Total) int64 {
	switch dimension {
	case datar.ByFlag:
		return t.FlagID
	case datar.ByOutcome:
		return 100*t.VariantID + t.SegmentID
	default:
		return int64(t.Day)
	}
}

func wantCounts(t *testing.T, s datar.Store, query datar.TotalsQuery, want map[int64]int64) {
	t.Helper()
	got := totals(t, s, query)
	for _, total := range got {
		if group := id(query.GroupBy, total); want[group] != total.Count {
			t.Errorf("%+v: group %d has %d, want %d", query, group, total.Count, want[group])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%+v: %d groups, want %d", query, len(got), len(want))
	}
}

func all(dimension datar.Dimension) datar.TotalsQuery {
	return datar.TotalsQuery{From: 0, To: hour + 1_000_000, GroupBy: dimension}
}

func countsAddUp(t *testing.T, s datar.Store) {
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{})
	apply(t, s, "w", 1, row(1, 1, 1, hour, 3), row(1, 2, 1, hour, 4))
	apply(t, s, "w", 2, row(1, 1, 1, hour, 10), row(2, 0, 0, hour, 5))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 17, 2: 5})
}

func batchAppliedOnce(t *testing.T, s datar.Store) {
	for range 3 {
		apply(t, s, "w", 1, row(1, 1, 1, hour, 3))
	}
	apply(t, s, "w", 2, row(1, 1, 1, hour, 4))
	apply(t, s, "w", 1, row(1, 1, 1, hour, 3))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 7})
}

func writersIndependent(t *testing.T, s datar.Store) {
	apply(t, s, "a", 5, row(1, 1, 1, hour, 3))
	apply(t, s, "b", 1, row(1, 1, 1, hour, 4))
	apply(t, s, "A", 1, row(1, 1, 1, hour, 5))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 12})
}

func totalsByDimension(t *testing.T, s datar.Store) {
	day := hour.DayStart()
	apply(t, s, "w", 1,
		row(1, 1, 10, day, 1), row(1, 2, 10, day+23, 2), row(1, 2, 20, day+24, 4), row(1, 0, 0, day+25, 8),
		row(2, 1, 10, day, 16))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 15, 2: 16})
	of := func(dimension datar.Dimension) datar.TotalsQuery {
		q := all(dimension)
		q.FlagID = 1
		return q
	}
	wantCounts(t, s, of(datar.ByFlag), map[int64]int64{1: 15})
	wantCounts(t, s, of(datar.ByOutcome), map[int64]int64{0: 8, 110: 1, 210: 2, 220: 4})
	wantCounts(t, s, of(datar.ByDay), map[int64]int64{int64(day): 3, int64(day) + 24: 12})
	wantCounts(t, s, all(datar.ByDay), map[int64]int64{int64(day): 19, int64(day) + 24: 12})
}

func windows(t *testing.T, s datar.Store) {
	apply(t, s, "w", 1, row(1, 1, 1, hour-1, 1), row(1, 1, 1, hour, 2), row(1, 1, 1, hour+1, 4))
	for name, test := range map[string]struct {
		from, to datar.Hour
		want     map[int64]int64
	}{
		"one hour":  {hour, hour + 1, map[int64]int64{1: 2}},
		"two hours": {hour - 1, hour + 1, map[int64]int64{1: 3}},
		"empty":     {hour, hour, map[int64]int64{}},
		"before":    {0, hour - 1, map[int64]int64{}},
		"after":     {hour + 2, hour + 100, map[int64]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			wantCounts(t, s, datar.TotalsQuery{From: test.from, To: test.to, GroupBy: datar.ByFlag}, test.want)
		})
	}
}

func lastEvaluation(t *testing.T, s datar.Store) {
	at := func(variant int64, first, last int64) datar.Row {
		r := row(1, variant, 1, hour, 2)
		start := hour.Time().UnixMilli()
		r.First, r.Last = start+first, start+last
		return r
	}
	apply(t, s, "a", 1, at(1, 5_000, 9_123))
	apply(t, s, "b", 1, at(1, 1_000, 7_000))
	apply(t, s, "b", 2, at(2, 1, 2))
	got := totals(t, s, all(datar.ByFlag))
	if want := hour.Time().UnixMilli() + 9_123; len(got) != 1 || got[0].Last != want {
		t.Errorf("totals are %+v, want one with Last %d", got, want)
	}
}

func largeCounts(t *testing.T, s datar.Store) {
	const many = math.MaxInt32 + 10
	apply(t, s, "w", 1, row(1, 1, 1, hour, many))
	apply(t, s, "w", 2, row(1, 1, 1, hour, many))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 2 * many})
}

func extremeKeys(t *testing.T, s datar.Store) {
	apply(t, s, "w", 1, row(math.MaxInt64, math.MaxInt64, math.MaxInt64, 1, 7), row(1, 1, 1, 0, 5))
	wantCounts(t, s, datar.TotalsQuery{From: 0, To: 2, GroupBy: datar.ByFlag}, map[int64]int64{math.MaxInt64: 7, 1: 5})
}

// largeBatches writes more rows than any database takes values in one statement, and then adds to some of them.
func largeBatches(t *testing.T, s datar.Store) {
	const rows, again = 11_200, 600
	for sequence, n := range []int{rows, again} {
		batch := make([]datar.Row, n)
		for i := range batch {
			batch[i] = row(int64(i)%7+1, int64(i), 1, hour, 1)
		}
		apply(t, s, "w", int64(sequence)+1, batch...)
	}
	var sum int64
	for _, total := range totals(t, s, all(datar.ByOutcome)) {
		want := int64(1)
		if total.VariantID < again {
			want = 2
		}
		if total.Count != want {
			t.Fatalf("variant %d has %d, want %d", total.VariantID, total.Count, want)
		}
		sum += total.Count
	}
	if sum != rows+again {
		t.Errorf("sum is %d, want %d", sum, rows+again)
	}
}

func endedContext(t *testing.T, s datar.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{row(1, 1, 1, hour, 1)}}
	if err := s.Apply(ctx, batch); err == nil {
		t.Error("Apply with an ended context succeeded")
	}
	if _, err := s.Totals(ctx, all(datar.ByFlag)); err == nil {
		t.Error("Totals with an ended context succeeded")
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{})
	apply(t, s, "w", 1, batch.Rows...)
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 1})
}

// sharedKeys lets writers add to the same keys at once. A batch may fail, as when a database breaks a deadlock; sent
// again as it was it must count once.
func sharedKeys(t *testing.T, s datar.Store) {
	const writers, batches, keys = 6, 5, 300
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // writers of SQLite wait for each other, and not in turn
	defer cancel()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for b := range int64(batches) {
				batch := datar.Batch{Writer: fmt.Sprint("writer ", w), Sequence: b + 1}
				for k := range int64(keys) {
					batch.Rows = append(batch.Rows, row(k+1, 1, 1, hour, 1))
				}
				for {
					err := s.Apply(ctx, batch)
					if err == nil {
						break
					}
					if ctx.Err() != nil {
						t.Errorf("apply: %v", err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	want := map[int64]int64{}
	for k := range int64(keys) {
		want[k+1] = writers * batches
	}
	wantCounts(t, s, all(datar.ByFlag), want)
}

// maintainer returns the store as a datar.Maintainer, if it is one.
func maintainer(t *testing.T, s datar.Store) datar.Maintainer {
	t.Helper()
	m, ok := s.(datar.Maintainer)
	if !ok {
		t.Skip("the store needs no maintenance")
	}
	return m
}

func maintain(t *testing.T, m datar.Maintainer, now datar.Hour, keep time.Duration) {
	t.Helper()
	if err := m.Maintain(t.Context(), now.Time().Add(30*time.Minute), keep); err != nil {
		t.Fatalf("maintain: %v", err)
	}
}

// sameTotals compares a store with one that was given the same batches.
func sameTotals(t *testing.T, s, reference datar.Store, query datar.TotalsQuery) {
	t.Helper()
	got, want := totals(t, s, query), totals(t, reference, query)
	if !slices.Equal(got, want) {
		t.Fatalf("%+v:\n got %+v\nwant %+v", query, got, want)
	}
}

// maintenance does at random what can happen over five days, and compares every kind of total with those of a store
// that is never maintained.
func maintenance(t *testing.T, s datar.Store) {
	m := maintainer(t, s)
	reference := &memstore.Store{}
	random := rand.New(rand.NewPCG(1, 2))
	sequence := int64(0)
	day := hour.DayStart()
	now := day
	for now < day+5*24 {
		switch random.IntN(4) {
		case 0:
			now += datar.Hour(random.IntN(9))
		case 1:
			maintain(t, m, now, 0)
		default:
			added := map[datar.Key]datar.Row{}
			for range random.IntN(40) {
				h := now
				if random.IntN(10) == 0 { // late
					h = max(day, now-datar.Hour(random.IntN(60)))
				}
				r := row(random.Int64N(4)+1, random.Int64N(3), random.Int64N(2), h, random.Int64N(9)+1)
				added[r.Key] = r
			}
			sequence++
			rows := slices.Collect(maps.Values(added))
			apply(t, s, "w", sequence, rows...)
			apply(t, reference, "w", sequence, rows...)
		}
		from := day + datar.Hour(random.IntN(130)) - 10
		query := datar.TotalsQuery{From: from, To: from + datar.Hour(random.IntN(130)), FlagID: random.Int64N(3)}
		for _, query.GroupBy = range []datar.Dimension{datar.ByFlag, datar.ByOutcome, datar.ByDay} {
			sameTotals(t, s, reference, query)
		}
	}
	maintain(t, m, now+48, 0)
	maintain(t, m, now+48, 0)
	for _, d := range []datar.Dimension{datar.ByFlag, datar.ByDay} {
		sameTotals(t, s, reference, all(d))
	}
}

// maintenanceBesideWriters adds to hours, late ones too, while they are rolled up.
func maintenanceBesideWriters(t *testing.T, s datar.Store) {
	m := maintainer(t, s)
	const writers, batches = 3, 30
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				maintain(t, m, hour+30, 0)
			}
		}
	})
	var adding sync.WaitGroup
	for w := range writers {
		adding.Go(func() {
			for b := range int64(batches) {
				batch := datar.Batch{Writer: fmt.Sprint("writer ", w), Sequence: b + 1}
				for k := range int64(20) {
					batch.Rows = append(batch.Rows, row(k+1, 1, 1, hour+datar.Hour(b%5), 1))
				}
				for s.Apply(t.Context(), batch) != nil && t.Context().Err() == nil {
				}
			}
		})
	}
	adding.Wait()
	close(done)
	group.Wait()
	want := map[int64]int64{}
	for k := range int64(20) {
		want[k+1] = writers * batches
	}
	wantCounts(t, s, all(datar.ByFlag), want)
	maintain(t, m, hour+30, 0)
	wantCounts(t, s, all(datar.ByFlag), want)
}

// retention purges days, and checks that their totals stay, also when counts come late.
func retention(t *testing.T, s datar.Store) {
	m := maintainer(t, s)
	reference := &memstore.Store{}
	day := hour.DayStart()
	sequence := int64(0)
	add := func(rows ...datar.Row) {
		sequence++
		apply(t, s, "w", sequence, rows...)
		apply(t, reference, "w", sequence, rows...)
	}
	var rows []datar.Row
	for h := range datar.Hour(4 * 24) {
		for flag := range int64(5) {
			for variant := range int64(6) {
				rows = append(rows, row(flag+1, variant, 1, day+h, flag+variant+1))
			}
		}
	}
	add(rows...)
	now := day + 4*24
	maintain(t, m, now, 0)
	for range 5 { // each call does some of it
		maintain(t, m, now, 48*time.Hour)
		days := datar.TotalsQuery{From: day, To: day + 4*24, GroupBy: datar.ByFlag}
		sameTotals(t, s, reference, days)
		days.To -= 24
		sameTotals(t, s, reference, days)
		days.FlagID = 2
		sameTotals(t, s, reference, days)
		add(row(2, 1, 1, day+5, 3), row(7, 1, 1, day+30, 2)) // late, for days that are purged
	}
	sameTotals(t, s, reference, datar.TotalsQuery{From: day, To: day + 4*24, GroupBy: datar.ByFlag})

	sameTotals(t, s, reference, datar.TotalsQuery{From: day, To: day + 4*24, FlagID: 2, GroupBy: datar.ByDay})
	recent := datar.TotalsQuery{From: day + 48, To: day + 4*24, FlagID: 2, GroupBy: datar.ByOutcome}
	sameTotals(t, s, reference, recent)
	if old := totals(t, s, datar.TotalsQuery{From: day, To: day + 24, FlagID: 1, GroupBy: datar.ByOutcome}); len(old) != 0 {
		t.Errorf("variants of a purged day are %+v, want none", old)
	}
}
