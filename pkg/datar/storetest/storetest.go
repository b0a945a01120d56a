// Package storetest holds the tests that every datar.Store must pass.
package storetest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
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

// totals returns what the store answers, in the order of ids.
func totals(t *testing.T, s datar.Store, query datar.TotalsQuery) []datar.Total {
	t.Helper()
	got, err := s.Totals(t.Context(), query)
	if err != nil {
		t.Fatalf("totals of %+v: %v", query, err)
	}
	slices.SortFunc(got, func(a, b datar.Total) int { return cmp.Compare(a.ID, b.ID) })
	return got
}

func wantCounts(t *testing.T, s datar.Store, query datar.TotalsQuery, want map[int64]int64) {
	t.Helper()
	got := totals(t, s, query)
	for _, total := range got {
		if want[total.ID] != total.Count {
			t.Errorf("%+v: group %d has %d, want %d", query, total.ID, total.Count, want[total.ID])
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
	apply(t, s, "w", 1,
		row(1, 1, 10, hour, 1), row(1, 2, 10, hour, 2), row(1, 2, 20, hour+1, 4), row(1, 0, 0, hour+1, 8),
		row(2, 1, 10, hour, 16))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 15, 2: 16})
	of := func(dimension datar.Dimension) datar.TotalsQuery {
		q := all(dimension)
		q.FlagID = 1
		return q
	}
	wantCounts(t, s, of(datar.ByFlag), map[int64]int64{1: 15})
	wantCounts(t, s, of(datar.ByVariant), map[int64]int64{0: 8, 1: 1, 2: 6})
	wantCounts(t, s, of(datar.BySegment), map[int64]int64{0: 8, 10: 3, 20: 4})
	wantCounts(t, s, of(datar.ByHour), map[int64]int64{int64(hour): 3, int64(hour) + 1: 12})
	wantCounts(t, s, all(datar.ByHour), map[int64]int64{int64(hour): 19, int64(hour) + 1: 12})
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

// largeBatches writes more rows than any database takes values in one statement, twice.
func largeBatches(t *testing.T, s datar.Store) {
	const rows = 11_200
	for sequence := range int64(2) {
		batch := make([]datar.Row, rows)
		for i := range batch {
			batch[i] = row(int64(i)%7+1, int64(i), 1, hour, 1)
		}
		apply(t, s, "w", sequence+1, batch...)
	}
	var sum int64
	for _, total := range totals(t, s, all(datar.ByVariant)) {
		if total.Count != 2 {
			t.Fatalf("variant %d has %d, want 2", total.ID, total.Count)
		}
		sum += total.Count
	}
	if sum != 2*rows {
		t.Errorf("sum is %d, want %d", sum, 2*rows)
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
	const writers, batches, keys = 6, 10, 300
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
