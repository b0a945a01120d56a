package datarwriter_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/datarwriter"
)

// flags are fixed ones.
type flags map[string]ingest.Flag

func (f flags) FlagByKey(key string) (ingest.Flag, bool) {
	flag, ok := f[key]
	return flag, ok
}

func known() flags {
	return flags{
		"checkout": {ID: 1, RecordsEnabled: true, Variants: map[string]int64{"on": 11, "off": 12}, Segments: []int64{10}},
		"silent":   {ID: 2, Variants: map[string]int64{"on": 21}},
	}
}

// faulty is a store with faults.
type faulty struct {
	memstore.Store
	refused int64 // rows of this flag are refused for ever
	lose    int64 // of so many batches some are not applied, and some are applied and reported as failed
	calls   atomic.Int64
	highest atomic.Int64 // sequence that was applied
}

func (f *faulty) ApplyBatch(ctx context.Context, batch datar.Batch, receipt ingest.Receipt) (bool, *ingest.Receipt, error) {
	if batch.Sequence <= f.highest.Load() {
		return f.Store.ApplyBatch(ctx, batch, receipt) // as in a database, the ledger is asked before the rows are written
	}
	if err := f.Check(ctx, batch.Rows); err != nil {
		return false, nil, err
	}
	if n := f.calls.Add(1); n <= f.lose && n%3 == 0 {
		return false, nil, errors.New("the database is away")
	}
	known, found, err := f.Store.ApplyBatch(ctx, batch, receipt)
	f.highest.Store(batch.Sequence)
	if n := f.calls.Add(1); n <= f.lose && n%2 == 0 {
		return false, nil, errors.New("the connection is gone")
	}
	return known, found, err
}

func (f *faulty) Check(_ context.Context, rows []datar.Row) error {
	for _, r := range rows {
		if r.FlagID == f.refused {
			return fmt.Errorf("insert: %w", datar.ErrRefused)
		}
	}
	return nil
}

func evaluation(flag string, variant, segment evallog.Text) evallog.Evaluation {
	return evallog.Evaluation{Key: evallog.Key{
		Flag: flag, Variant: variant, Allocation: segment, TargetingKey: evallog.None(), ErrorCode: evallog.None(),
	}}
}

// totals are the counts of the last day by variant and segment.
func totals(t *testing.T, store datar.Store, flagID int64) map[[2]int64]int64 {
	t.Helper()
	now := datar.HourOf(time.Now())
	found, err := store.Totals(t.Context(), datar.TotalsQuery{From: now - 24, To: now + 2, FlagID: flagID, GroupBy: datar.ByOutcome})
	if err != nil {
		t.Fatal(err)
	}
	got := map[[2]int64]int64{}
	for _, total := range found {
		got[[2]int64{total.VariantID, total.SegmentID}] += total.Count
	}
	return got
}

func setup(t *testing.T, store ingest.Store, f ingest.Flags) *evallog.Engine {
	t.Helper()
	engine, err := evallog.New(evallog.Options{Writer: datarwriter.New(store, f)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close(context.Background()) })
	return engine
}

func TestCountsReachTheStore(t *testing.T) {
	t.Parallel()
	store := &memstore.Store{}
	engine := setup(t, store, known())
	none := evallog.None()
	for _, e := range []struct {
		times            int
		flag             string
		variant, segment evallog.Text
	}{
		{5, "checkout", evallog.Some("on"), evallog.Some("10")},
		{3, "checkout", none, none},
		{2, "checkout", evallog.Some("off"), evallog.Some("99")}, // counted, without the segment
		{4, "checkout", evallog.Some("blue"), evallog.Some("10")},
		{6, "gone", evallog.Some("on"), none},
		{7, "silent", evallog.Some("on"), none},
	} {
		for range e.times {
			engine.Record(evaluation(e.flag, e.variant, e.segment))
		}
	}
	if err := engine.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[[2]int64]int64{{11, 10}: 5, {0, 0}: 3, {12, 0}: 2}, totals(t, store, 1)); diff != "" {
		t.Error(diff)
	}
	stats := engine.Stats()
	want := map[evallog.DropReason]int64{"VARIANT_NOT_FOUND": 4, "FLAG_NOT_FOUND": 6, "RECORDING_DISABLED": 7}
	if diff := cmp.Diff(want, stats.Dropped); diff != "" || stats.Full != 10 || stats.Pending != 0 {
		t.Errorf("full %d, pending %d, dropped %s", stats.Full, stats.Pending, diff)
	}
}

// TestOutcomesReachTheStore counts what Datar keeps beside the assignment, and what it derives
// where a caller says nothing.
func TestOutcomesReachTheStore(t *testing.T) {
	t.Parallel()
	store := &memstore.Store{}
	engine := setup(t, store, known())
	none, on, ten := evallog.None(), evallog.Some("on"), evallog.Some("10")
	record := func(variant, segment evallog.Text, change func(k *evallog.Key)) {
		e := evaluation("checkout", variant, segment)
		change(&e.Key)
		engine.Record(e)
	}
	nothing := func(*evallog.Key) {}
	record(on, ten, nothing)
	record(none, none, nothing)
	record(none, none, func(k *evallog.Key) { k.ErrorCode = evallog.Some("GENERAL") })
	record(on, ten, func(k *evallog.Key) { k.Outcome, k.Version = evallog.Matched, 65_536+117 })
	record(none, ten, func(k *evallog.Key) { k.Outcome, k.Version = evallog.HeldOut, 117 })
	record(none, none, func(k *evallog.Key) {
		k.Outcome, k.Asked = evallog.NoMatch, evallog.AskedByTag|evallog.AskedWithoutEntityID|evallog.AskedUnevaluable
	})
	record(none, none, func(k *evallog.Key) { k.Outcome = evallog.NoSegments })
	record(none, none, func(k *evallog.Key) { k.Outcome, k.Version = evallog.Disabled, 118 })
	record(none, none, func(k *evallog.Key) { k.Outcome = evallog.Failed })
	if err := engine.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	hour := datar.HourOf(time.Now())
	rows, err := store.Details(t.Context(), datar.DetailsQuery{From: hour - 1, To: hour + 1, FlagID: 1,
		GroupBy: datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked})
	if err != nil {
		t.Fatal(err)
	}
	got := map[datar.Key]int64{}
	for _, r := range rows {
		got[r.Key] += r.Count
	}
	want := map[datar.Key]int64{
		{VariantID: 11, SegmentID: 10, Outcome: datar.Matched}: 1,
		{}:                     1,
		{Outcome: datar.Error}: 2,
		{VariantID: 11, SegmentID: 10, Outcome: datar.Matched, Version: 117}:                                    1,
		{SegmentID: 10, Outcome: datar.HeldOut, Version: 117}:                                                   1,
		{Outcome: datar.NoMatch, Asked: datar.AskedByTag | datar.AskedWithoutEntityID | datar.AskedUnevaluable}: 1,
		{Outcome: datar.NoSegments}:             1,
		{Outcome: datar.Disabled, Version: 118}: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("details (-want +got):\n%s\ndropped: %v", diff, engine.Stats().Dropped)
	}
}

func TestLostAnswersCountNothingTwice(t *testing.T) {
	t.Parallel()
	store := &faulty{lose: 60}
	engine := setup(t, store, known())
	const calls = 50
	for range calls {
		engine.Record(evaluation("checkout", evallog.Some("on"), evallog.Some("10")))
		for engine.Flush(t.Context()) != nil {
			continue
		}
	}
	if got := totals(t, store, 1)[[2]int64{11, 10}]; got != calls {
		t.Errorf("the store has %d of %d evaluations", got, calls)
	}
}

func TestARowThatTheStoreRefusesIsIsolated(t *testing.T) {
	t.Parallel()
	const flagsInAll, poison = 100, 37
	f := flags{}
	for i := int64(1); i <= flagsInAll; i++ {
		f[fmt.Sprint("flag", i)] = ingest.Flag{ID: i, RecordsEnabled: true, Variants: map[string]int64{"on": 1}}
	}
	store := &faulty{refused: poison, lose: 30}
	engine := setup(t, store, f)
	for round := range 3 {
		for key := range f {
			engine.Record(evaluation(key, evallog.Some("on"), evallog.None()))
		}
		for engine.Flush(t.Context()) != nil {
			continue
		}
		if stats := engine.Stats(); stats.Dropped["REFUSED"] != int64(round+1) || stats.Pending != 0 {
			t.Errorf("round %d: %+v", round, stats)
		}
	}
	for i := int64(1); i <= flagsInAll; i++ {
		want := int64(3)
		if i == poison {
			want = 0
		}
		if got := totals(t, store, i)[[2]int64{1, 0}]; got != want {
			t.Errorf("flag %d has %d evaluations, want %d", i, got, want)
		}
	}
}

func TestAStoreThatIsAwayIsTriedAgain(t *testing.T) {
	t.Parallel()
	writer := datarwriter.New(&memstore.Store{}, known())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	row := evallog.Row{Key: evaluation("checkout", evallog.Some("on"), evallog.None()).Key, Count: 1, First: time.Now().UnixMilli(), Last: time.Now().UnixMilli()}
	batch := evallog.Batch{Writer: "3f0e8c1a-7a51-4c39-9f0e-0f4b8f6f2a10", Sequence: 1, Rows: []evallog.Row{row}}
	var refused *evallog.RefusedError
	if err := writer.Write(ctx, batch); err == nil || errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if err := writer.Write(t.Context(), batch); err != nil {
		t.Error(err)
	}
}

func TestRowsThatAreTooOldAreRefused(t *testing.T) {
	t.Parallel()
	engine := setup(t, &memstore.Store{}, known())
	old := evaluation("checkout", evallog.Some("on"), evallog.None())
	old.Time = time.Now().Add(-100 * 24 * time.Hour)
	engine.Record(old)
	if err := engine.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := engine.Stats(); stats.Dropped["invalid_batch"] != 1 {
		t.Errorf("%+v", stats)
	}
}
