// Package storetest contains the tests that every datar.Store must pass.
package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// send applies a batch as an engine does: by ApplySome if the store has it, and in parts if the
// store limits the rows of a batch. Each part has its own writer, so that the same batch is always
// divided in the same way. These tests send no row that the store may reject.
func send(ctx context.Context, s datar.Store, batch datar.Batch) error {
	most := maxRows(s)
	for part := 0; part == 0 || len(batch.Rows) > 0; part++ {
		some := batch
		some.Rows = batch.Rows[:min(most, len(batch.Rows))]
		batch.Rows = batch.Rows[len(some.Rows):]
		if part > 0 {
			some.Writer, some.Unknown, some.Server = fmt.Sprintf("%s.%d", batch.Writer, part), nil, nil
		}
		if err := sendPart(ctx, s, some); err != nil {
			return err
		}
	}
	return nil
}

func sendPart(ctx context.Context, s datar.Store, batch datar.Batch) error {
	partial, ok := s.(datar.PartialApplier)
	if !ok {
		return s.Apply(ctx, batch)
	}
	refused, err := partial.ApplySome(ctx, batch)
	if err == nil && refused != 0 {
		return fmt.Errorf("ApplySome refused %d evaluations of a batch of which none is wrong", refused)
	}
	return err
}

// maxRows returns the maximum number of rows of a batch that the store accepts.
func maxRows(s datar.Store) int {
	if l, ok := s.(datar.BatchSizer); ok {
		return l.MaxRows()
	}
	return math.MaxInt
}

// Run tests the stores that open returns. Each call of open must return an empty store, and close
// it when its test ends. Run it with the race detector, too, which finds unprotected shared data.
func Run(t *testing.T, open func(*testing.T) datar.Store) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, datar.Store)
	}{
		{"counts add up", countsAddUp},
		{"the identity is fit for a journal", identity},
		{"a batch is applied once", batchAppliedOnce},
		{"a batch is sent by many at once", sentByMany},
		{"a context ends in the midst of a batch", contextEndsMidway},
		{"ApplySome is Apply", applySome},
		{"a batch has the rows that the store allows", allowedRows},
		{"writers are independent", writersIndependent},
		{"totals by each dimension", totalsByDimension},
		{"windows are half open", windows},
		{"last evaluation is the latest", lastEvaluation},
		{"what was sent in is told apart", ingested},
		{"counts beyond 32 bits", largeCounts},
		{"large ids and early hours", extremeKeys},
		{"large batches", largeBatches},
		{"an ended context applies nothing", endedContext},
		{"writers share keys", sharedKeys},
		{"maintenance changes no totals", maintenance},
		{"maintenance beside writers", maintenanceBesideWriters},
		{"retention keeps the days", retention},
		{"flags are deleted and merged", editsFlags},
		{"flags are deleted and merged after retention", editsFlagsOfPurgedDays},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
	for _, test := range detailTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, ok := open(t).(datar.DetailStore)
			if !ok {
				t.Skip("the store keeps no details")
			}
			test.run(t, s)
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
	before := slices.Clone(rows)
	if err := send(t.Context(), s, datar.Batch{Writer: writer, Sequence: sequence, Rows: rows}); err != nil {
		t.Fatalf("apply batch %d of %s: %v", sequence, writer, err)
	}
	if !slices.Equal(rows, before) {
		t.Fatalf("batch %d of %s was changed: its rows belong to the engine, which may send them again", sequence, writer)
	}
}

// totals returns the totals of a query in order.
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

// id returns the ID of a total of the dimension in these tests.
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

// applyInTheEnd retries a batch until the store accepts it, and reports whether that was before ctx
// ended.
func applyInTheEnd(ctx context.Context, t *testing.T, s datar.Store, batch datar.Batch) bool {
	t.Helper()
	for {
		err := send(ctx, s, batch)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			t.Errorf("apply: %v", err)
			return false
		}
	}
}

func wantCounts(t *testing.T, s datar.Store, query datar.TotalsQuery, want map[int64]int64) {
	t.Helper()
	got := totals(t, s, query)
	seen := map[int64]bool{}
	for _, total := range got {
		group := id(query.GroupBy, total)
		if want[group] != total.Count {
			t.Errorf("%+v: group %d has %d, want %d", query, group, total.Count, want[group])
		}
		if seen[group] {
			t.Errorf("%+v: group %d comes twice", query, group)
		}
		seen[group] = true
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

// identityFormat matches strings that can be part of a journal's name.
var identityFormat = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// identity calls Identity while batches are applied, as engines do.
func identity(t *testing.T, s datar.Store) {
	first := s.Identity()
	if !identityFormat.MatchString(first) {
		t.Errorf("the identity is %q, want 1 to 64 letters, digits and hyphens", first)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for range 50 {
			if now := s.Identity(); now != first {
				t.Errorf("the identity was %q and now is %q", first, now)
				return
			}
		}
	})
	for sequence := range int64(5) {
		apply(t, s, "w", sequence+1, row(1, 1, 1, hour, 1))
	}
	group.Wait()
	if now := s.Identity(); now != first {
		t.Errorf("the identity was %q and is %q after batches", first, now)
	}
}

// sentByMany sends each batch several times at once, as if a connection broke while the database
// still processes the batch.
func sentByMany(t *testing.T, s datar.Store) {
	const senders, batches = 4, 5
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for sequence := range int64(batches) {
		var group sync.WaitGroup
		for range senders {
			group.Go(func() {
				batch := datar.Batch{Writer: "w", Sequence: sequence + 1}
				for k := range int64(20) {
					batch.Rows = append(batch.Rows, row(k+1, 1, 1, hour, 1))
				}
				applyInTheEnd(ctx, t, s, batch)
			})
		}
		group.Wait()
	}
	want := map[int64]int64{}
	for k := range int64(20) {
		want[k+1] = batches
	}
	wantCounts(t, s, all(datar.ByFlag), want)
}

// fading is a context that ends after a number of checks.
type fading struct {
	context.Context
	end   context.CancelFunc
	looks *atomic.Int64 // remaining checks
}

func (f fading) look() {
	if f.looks.Add(-1) < 0 {
		f.end()
	}
}

// Done implements context.Context.
func (f fading) Done() <-chan struct{} {
	f.look()
	return f.Context.Done()
}

// Err implements context.Context.
func (f fading) Err() error {
	f.look()
	return f.Context.Err()
}

// contextEndsMidway ends the context of Apply at every point, or at many points, at which the store
// checks it. The store must then contain either nothing or all of the batch. If the batch is sent
// again, it counts once.
func contextEndsMidway(t *testing.T, s datar.Store) {
	rows := int64(min(20, maxRows(s))) // one batch
	for n := int64(0); n < 10_000; n += 1 + n/16 {
		batch := datar.Batch{Writer: "w", Sequence: n + 1}
		for v := range rows {
			batch.Rows = append(batch.Rows, row(n+1, v, 1, hour, 1))
		}
		inner, cancel := context.WithCancel(t.Context())
		looks := new(atomic.Int64)
		looks.Store(n)
		applied := send(fading{inner, cancel, looks}, s, batch)
		ended := inner.Err() != nil
		cancel()

		query := all(datar.ByFlag)
		query.FlagID = n + 1
		kept := int64(0)
		for _, total := range totals(t, s, query) {
			kept += total.Count
		}
		if errors.Is(applied, datar.ErrRefused) {
			t.Fatalf("the context ended at look %d: got %v, but an engine drops what is refused", n+1, applied)
		}
		if kept != rows && (kept != 0 || applied == nil) {
			t.Fatalf("the context ended at look %d: %d of %d rows are kept (%v)", n+1, kept, rows, applied)
		}
		apply(t, s, batch.Writer, batch.Sequence, batch.Rows...)
		wantCounts(t, s, query, map[int64]int64{n + 1: rows})
		if !ended || t.Failed() { // there are no further checks
			return
		}
	}
}

func batchAppliedOnce(t *testing.T, s datar.Store) {
	for range 3 {
		apply(t, s, "w", 1, row(1, 1, 1, hour, 3))
	}
	apply(t, s, "w", 2, row(1, 1, 1, hour, 4))
	apply(t, s, "w", 1, row(1, 1, 1, hour, 3))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 7})
}

// applySome sends batches by both methods in turn. Both methods recognize the same numbers.
func applySome(t *testing.T, s datar.Store) {
	partial, ok := s.(datar.PartialApplier)
	if !ok {
		t.Skip("the store has no ApplySome")
	}
	for sequence := range int64(4) {
		batch := datar.Batch{Writer: "w", Sequence: sequence + 1, Rows: []datar.Row{row(1, 1, 1, hour, 3)}}
		methods := []func() error{
			func() error { return s.Apply(t.Context(), batch) },
			func() error {
				refused, err := partial.ApplySome(t.Context(), batch)
				if refused != 0 {
					t.Errorf("%d evaluations of batch %d were refused", refused, batch.Sequence)
				}
				return err
			},
		}
		for i := range methods {
			if err := methods[(i+int(sequence))%2](); err != nil {
				t.Fatal(err)
			}
		}
		wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 3 * (sequence + 1)})
	}
}

// allowedRows sends a batch with the maximum number of rows.
func allowedRows(t *testing.T, s datar.Store) {
	if _, ok := s.(datar.BatchSizer); !ok {
		t.Skip("the store takes batches of any size")
	}
	most := maxRows(s)
	if most < 1 {
		t.Fatalf("MaxRows is %d, want 1 or more", most)
	}
	batch := datar.Batch{Writer: "w", Sequence: 1}
	for v := range int64(min(most, 20_000)) {
		batch.Rows = append(batch.Rows, row(1, v, 1, hour, 1))
	}
	if err := sendPart(t.Context(), s, batch); err != nil {
		t.Fatalf("a batch of %d rows: %v", len(batch.Rows), err)
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: int64(len(batch.Rows))})
}

// RunReopen tests that data outlives the store. Each call of open must return a store with the same
// data, and close it when its test ends.
func RunReopen(t *testing.T, open func(*testing.T) datar.Store) {
	t.Helper()
	var first string
	for i, name := range []string{"first", "again"} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if i == 0 {
				first = s.Identity()
			} else if now := s.Identity(); now != first {
				t.Errorf("the identity was %q and is %q after the store was opened again: journals would not find it", first, now)
			}
			for sequence := range int64(i + 1) { // the first batch was applied before
				apply(t, s, "w", sequence+1, row(1, 1, 1, hour, 3))
			}
			wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 3 * int64(i+1)})
		})
	}
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
	query := all(datar.ByFlag)
	for _, query.FlagID = range []int64{0, 1} {
		for _, query.GroupBy = range []datar.Dimension{datar.ByFlag, datar.ByDay, datar.ByOutcome} {
			got := totals(t, s, query)
			if want := hour.Time().UnixMilli() + 9_123; len(got) == 0 || got[0].Last != want {
				t.Errorf("%+v: totals are %+v, want Last %d of the first", query, got, want)
			}
		}
	}
}

// ingested adds rows, some of which were counted elsewhere.
func ingested(t *testing.T, s datar.Store) {
	sent := row(1, 1, 1, hour, 5)
	sent.Ingested = 3
	apply(t, s, "w", 1, row(1, 1, 1, hour, 4))
	apply(t, s, "w", 2, sent)
	query := all(datar.ByOutcome)
	query.FlagID = 1
	if got := totals(t, s, query); len(got) != 1 || got[0].Count != 9 || got[0].Ingested != 3 {
		t.Errorf("totals are %+v, want 9 of which 3 were counted elsewhere", got)
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

// largeBatches writes more rows than one statement can have values in any database. Then it adds to
// some of them.
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
	if err := send(ctx, s, batch); err == nil || errors.Is(err, datar.ErrRefused) {
		t.Errorf("Apply with an ended context: got %v, want an error other than ErrRefused, for which an engine drops counts", err)
	}
	if _, err := s.Totals(ctx, all(datar.ByFlag)); err == nil {
		t.Error("Totals with an ended context succeeded")
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{})
	apply(t, s, "w", 1, batch.Rows...)
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 1})
}

// sharedKeys adds to the same keys from several writers at once. A batch may fail, as when a
// database breaks a deadlock. If it is sent again unchanged, it must count once.
func sharedKeys(t *testing.T, s datar.Store) {
	const writers, batches, keys = 6, 5, 300
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // writers of SQLite wait, but not in turn
	defer cancel()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for b := range int64(batches) {
				batch := datar.Batch{Writer: fmt.Sprint("writer ", w), Sequence: b + 1}
				for k := range int64(keys) {
					batch.Rows = append(batch.Rows, row(k+1, 1, 1, hour, 1))
				}
				if !applyInTheEnd(ctx, t, s, batch) {
					return
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

// maintainer returns the store as a datar.Maintainer, if it implements that.
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

// sameTotals compares a store with another one that applied the same batches.
func sameTotals(t *testing.T, s, reference datar.Store, query datar.TotalsQuery) {
	t.Helper()
	got, want := totals(t, s, query), totals(t, reference, query)
	if !slices.Equal(got, want) {
		t.Fatalf("%+v:\n got %+v\nwant %+v", query, got, want)
	}
}

// maintenance runs random operations over five days, and compares every kind of total with those of
// a store that is never maintained.
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

// maintenanceBesideWriters adds to hours, including late ones, while they are rolled up.
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
				for send(t.Context(), s, batch) != nil && t.Context().Err() == nil {
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

// retention purges days, and checks that their totals stay, even if counts arrive late.
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
	for range 5 { // each call does a part of the work
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
