package datar_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// deafStore hangs until it is released, whatever becomes of its context.
type deafStore struct {
	memstore.Store
	release chan struct{}
}

func (s *deafStore) Apply(ctx context.Context, batch datar.Batch) error {
	<-s.release
	return s.Store.Apply(context.WithoutCancel(ctx), batch)
}

func TestCloseReturnsAtItsDeadlineWhateverTheStoreDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &deafStore{release: make(chan struct{})}
		f := setup(t, func(o *datar.Options) { o.Store = store })
		f.Start()
		f.record(1, 1, 1, 5)
		time.Sleep(2 * time.Minute) // a flush hangs
		for _, timeout := range []time.Duration{3 * time.Second, time.Second, 0} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			started := time.Now()
			if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("close within %v: %v, want its deadline's error", timeout, err)
			}
			if took := time.Since(started); took > timeout+100*time.Millisecond {
				t.Errorf("Close took %v with a deadline of %v", took, timeout)
			}
			cancel()
		}
		f.record(1, 1, 1, 2)
		if s := f.Stats(); s.Pending != 5 || s.Dropped[datar.DropClosed] != 2 {
			t.Errorf("while the store hangs: %+v, want 5 pending and 2 dropped", s)
		}
		close(store.release)
		f.AwaitClosed()
		wantStats(t, f.Engine, 7, 5, 2)
	})
}

// panicStore panics in all that an engine calls on its own, before or after it has done its work.
type panicStore struct {
	memstore.Store
	panics, after atomic.Bool
}

func (s *panicStore) Apply(ctx context.Context, batch datar.Batch) error {
	if s.panics.Load() {
		panic("no pool")
	}
	if err := s.Store.Apply(ctx, batch); err != nil {
		return err
	}
	if s.after.Load() {
		panic(errors.New("after the commit"))
	}
	return nil
}

func (s *panicStore) Maintain(context.Context, time.Time, time.Duration) error {
	panic("no maintenance")
}

func (s *panicStore) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	if s.panics.Load() {
		panic("no totals")
	}
	return s.Store.Totals(ctx, query)
}

func TestAPanicOfTheStoreIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &panicStore{}
		store.panics.Store(true)
		f := setup(t, func(o *datar.Options) { o.Store = store })
		f.Start()
		f.record(1, 1, 1, 5)
		time.Sleep(2 * time.Minute) // it is flushed and maintained in the background
		if err := f.Stats().LastError; err == nil || !strings.Contains(err.Error(), "no pool") {
			t.Errorf("the last error is %v, want the panic", err)
		}
		if _, err := f.QuerySummary(t.Context(), datar.SummaryQuery{}); err == nil || !strings.Contains(err.Error(), "no totals") {
			t.Errorf("a query: %v, want the panic as an error", err)
		}
		wantStats(t, f.Engine, 5, 0, 0)
		store.panics.Store(false)
		store.after.Store(true)
		if err := f.Flush(t.Context()); err == nil {
			t.Error("a flush succeeded with a store that panics after the commit")
		}
		store.after.Store(false)
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantStats(t, f.Engine, 5, 5, 0)
		if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 5 {
			t.Errorf("the store has %+v, want 5 once", rows)
		}
	})
}

// Events dated ahead must not take the places of present ones for good.
func TestEventsDatedAhead(t *testing.T) {
	t.Parallel()
	const maxKeys = 100
	f := setup(t, func(o *datar.Options) { o.MaxKeys = maxKeys })
	f.clock.set(noon.Add(58 * time.Minute))
	for i := range int64(1000) {
		f.Record(datar.Event{FlagID: i + 1, Time: noon.Add(time.Hour + time.Duration(i)*time.Hour)})
	}
	s := f.Stats()
	if s.Keys != 1 || s.Dropped[datar.DropInvalid] != 999 {
		t.Errorf("%d keys, %v dropped; want the one that is 2 minutes ahead, and the others dropped", s.Keys, s.Dropped)
	}
	for i := range int64(2 * maxKeys) {
		f.Record(datar.Event{FlagID: i + 1, Time: noon.Add(time.Hour)})
	}
	f.flush(t)
	if s := f.Stats(); s.Keys != 0 {
		t.Errorf("%d keys of the next hour are held when they are stored, want none", s.Keys)
	}
	before := f.Stats().Dropped[datar.DropCapacity]
	f.record(1, 1, 1, 1)
	if s := f.Stats(); s.Dropped[datar.DropCapacity] != before {
		t.Error("a present event finds no place")
	}
	f.flush(t)
	if s := f.Stats(); s.Pending != 0 || s.Recorded != s.Stored+droppedIn(s) {
		t.Errorf("the statistics do not balance: %+v", s)
	}
}

// wrapped passes calls on, as a store that measures does.
type wrapped struct{ datar.Store }

func (w wrapped) Unwrap() datar.Store { return w.Store }

func TestAWrapperHidesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := &maintained{}
		f := setup(t, func(o *datar.Options) {
			o.Store, o.Retention = wrapped{wrapped{inner}}, datar.MinRetention
		})
		f.Start()
		f.Record(datar.Event{FlagID: 1, Outcome: datar.Disabled, Version: 3})
		synctest.Wait()
		if inner.calls.Load() == 0 {
			t.Error("the wrapped store is not maintained")
		}
		f.flush(t)
		rows, err := inner.Details(t.Context(), datar.DetailsQuery{To: datar.HourOf(noon) + 1, GroupBy: datar.GroupOutcome | datar.GroupVersion})
		if err != nil || len(rows) != 1 || rows[0].Outcome != datar.Disabled || rows[0].Version != 3 {
			t.Errorf("details are %+v, %v; want what was recorded", rows, err)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if _, err := datar.New(datar.Options{Store: wrapped{oddStore{rows: 0}}}); err == nil {
		t.Error("the limit of a wrapped store is not looked at")
	}
}

func TestUnknownFlagsAreCounted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for range 3 {
		f.RecordUnknown("checkout", f.clock.Now())
	}
	f.RecordUnknown("other", time.Time{})
	f.store.fail(nil, errors.New("the answer is lost"))
	if f.Flush(t.Context()) == nil {
		t.Fatal("the flush succeeded")
	}
	if s := f.Stats().Unknown; s.Recorded != 4 || s.Pending != 4 {
		t.Errorf("after a lost answer: %+v, want 4 pending", s)
	}
	f.RecordUnknown("checkout", f.clock.Now().Add(time.Minute))
	f.store.fail(nil, nil)
	f.flush(t)
	if s := f.Stats().Unknown; s.Stored != 5 || s.Pending != 0 || s.Dropped != 0 {
		t.Errorf("after a flush: %+v, want 5 stored", s)
	}
	wantUnknown(t, f.store, datar.UnknownRow{Asked: "checkout", Count: 4, First: noon.UnixMilli(), Last: noon.UnixMilli() + 60_000},
		datar.UnknownRow{Asked: "other", Count: 1, First: noon.UnixMilli(), Last: noon.UnixMilli()})
	f.RecordUnknown("checkout", time.Unix(-1, 0))
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.RecordUnknown("checkout", f.clock.Now())
	if s := f.Stats().Unknown; s.Recorded != 7 || s.Dropped != 2 {
		t.Errorf("at the end: %+v, want one dropped for its time and one after Close", s)
	}
}

func wantUnknown(t *testing.T, s datar.DetailStore, want ...datar.UnknownRow) {
	t.Helper()
	got, err := s.Unknown(t.Context(), datar.UnknownQuery{To: datar.HourOf(noon) + 100, Limit: 10_000})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("unknown are %+v, %v; want %+v", got, err, want)
	}
}

// Of an hour 1,000 texts are kept, also over several flushes; and some of all hours that the store
// did not get.
func TestUnknownFlagsAreBounded(t *testing.T) {
	t.Parallel()
	f := setup(t)
	sum := 0
	for range 3 {
		for i := range 700 {
			f.RecordUnknown(fmt.Sprint("text ", sum, i), f.clock.Now())
		}
		sum += 700
		f.flush(t)
	}
	rows, err := f.store.Unknown(t.Context(), datar.UnknownQuery{To: datar.HourOf(noon) + 1, Limit: 10_000})
	if err != nil || len(rows) != 1001 || rows[0].Asked != datar.OtherUnknown || rows[0].Count != 1100 {
		t.Errorf("%d texts, %v; want 1,000 and 1,100 others", len(rows), err)
	}
	f.store.fail(errors.New("down"), nil)
	for hour := range 100 {
		f.clock.set(noon.Add(time.Duration(hour+1) * time.Hour))
		for i := range 500 {
			f.RecordUnknown(fmt.Sprint("text ", i), f.clock.Now())
		}
		sum += 500
	}
	if n := f.UnknownTexts(); n > 10_000+100 {
		t.Errorf("%d texts are in memory, want at most 10,000 and one for each hour", n)
	}
	f.store.fail(nil, nil)
	f.flush(t)
	f.flush(t)
	if s := f.Stats().Unknown; s.Stored != int64(sum) {
		t.Errorf("%+v, want %d stored", s, sum)
	}
	if n := f.UnknownTexts(); n > 501 {
		t.Errorf("%d texts are in memory when all is stored, want those of the hour", n)
	}
}

// unreadableStore returns an error for each query of unknown flags.
type unreadableStore struct {
	memstore.Store
	err     error
	queries atomic.Int32
}

func (s *unreadableStore) Unknown(context.Context, datar.UnknownQuery) ([]datar.UnknownRow, error) {
	s.queries.Add(1)
	return nil, s.err
}

// TestUnknownFlagsOfStoresThatCannotTell: a store that never returns the keys of earlier runs gets
// one query, and one that fails gets a query with each flush.
func TestUnknownFlagsOfStoresThatCannotTell(t *testing.T) {
	t.Parallel()
	const flushes = 3
	for _, test := range []struct {
		err  error
		want int32
	}{
		{fmt.Errorf("elsewhere: %w", errors.ErrUnsupported), 1},
		{errors.New("down"), flushes},
	} {
		store := &unreadableStore{err: test.err}
		e := named(t, store, newClock(noon), "a", "")
		for i := range flushes {
			e.RecordUnknown(fmt.Sprint("text ", i), noon)
			e.flush(t)
		}
		if n, s := store.queries.Load(), e.Stats().Unknown; n != test.want || s.Stored != flushes {
			t.Errorf("%v: %d queries, %+v; want %d, and all stored", test.err, n, s, test.want)
		}
	}
}

// FuzzUnknownLimit restarts servers in one hour that count texts from a pool: with the others, the
// store has 1,000 of an hour at most, and every request that a server says it stored.
func FuzzUnknownLimit(f *testing.F) {
	f.Add(uint64(1), uint16(999), uint8(3))
	f.Add(uint64(2), uint16(1000), uint8(2))
	f.Add(uint64(3), uint16(1001), uint8(2))
	f.Add(uint64(4), uint16(700), uint8(9))
	f.Add(uint64(5), uint16(1400), uint8(4))
	f.Fuzz(func(t *testing.T, seed uint64, pool uint16, runs uint8) {
		random := rand.New(rand.NewPCG(seed, 1))
		h := setup(t)
		texts := func() (separate int, all int64, counts map[string]int64) {
			rows, err := h.store.Unknown(t.Context(), datar.UnknownQuery{To: datar.HourOf(noon) + 2, Limit: 10_000})
			if err != nil {
				t.Fatal(err)
			}
			counts = map[string]int64{}
			for _, r := range rows {
				counts[r.Asked] = r.Count
				all += r.Count
				if r.Asked != datar.OtherUnknown {
					separate++
				}
			}
			return separate, all, counts
		}
		var stored int64
		n := 1 + int(pool)%1500
		for run := range 1 + runs%10 {
			e := named(t, h.store, h.clock, "a", "")
			known, _, before := texts()
			again, distinct := map[string]int64{}, map[string]bool{} // again are requests for texts that the store has
			for flush := range 2 {
				for range random.IntN(n + 1) {
					text := fmt.Sprint("text ", random.IntN(n)+random.IntN(2)*int(run)*100)
					e.RecordUnknown(text, noon)
					if distinct[text] = true; flush == 0 && before[text] > 0 && len(distinct) <= 1000 {
						again[text]++
					}
				}
				e.flush(t)
				if flush == 0 {
					_, _, after := texts()
					for text, n := range again {
						if after[text] < before[text]+n {
							t.Errorf("run %d: %q has %d, want at least %d: it adds no row", run, text, after[text], before[text]+n)
						}
					}
				}
			}
			e.RecordUnknown("killed with it", noon)
			stored += e.Stats().Unknown.Stored
			e.Crash()
			now, all, counts := texts()
			if now > 1000 || now < known || all != stored {
				t.Fatalf("run %d: %d texts, %d requests; want at most 1,000 and %d", run, now, all, stored)
			}
			if counts[datar.OtherUnknown] > 0 && now < 1000 {
				t.Errorf("run %d: %d requests for others, and only %d texts", run, counts[datar.OtherUnknown], now)
			}
		}
		// The limit is of an hour.
		e := named(t, h.store, h.clock, "a", "")
		known, _, _ := texts()
		e.RecordUnknown("of the next hour", noon.Add(time.Hour))
		e.flush(t)
		if now, _, _ := texts(); now != known+1 {
			t.Errorf("%d texts, want one more than %d", now, known)
		}
	})
}

// A text that the database refuses, such as one that its encoding does not have, costs no other
// text.
func TestARefusedTextIsAnOther(t *testing.T) {
	t.Parallel()
	store := &pickyStore{}
	f := setup(t, func(o *datar.Options) { o.Store = store })
	for i := range 100 {
		text := fmt.Sprintf("text %02d", i)
		if i%30 == 7 {
			text += "🚩"
		}
		f.RecordUnknown(text, noon)
	}
	f.flush(t)
	f.RecordUnknown("text 07🚩", noon)
	f.flush(t)
	rows, err := store.Unknown(t.Context(), datar.UnknownQuery{To: datar.HourOf(noon) + 1, Limit: 1000})
	if err != nil || len(rows) != 97 || rows[0].Asked != datar.OtherUnknown || rows[0].Count != 5 {
		t.Errorf("%d texts, the first one is %+v, %v; want 96 and 5 others", len(rows), rows[0], err)
	}
	if s := f.Stats().Unknown; s.Stored != 101 || s.Pending != 0 {
		t.Errorf("%+v, want all stored", s)
	}
}

// pickyStore refuses texts with a flag.
type pickyStore struct{ memstore.Store }

func (s *pickyStore) Apply(ctx context.Context, batch datar.Batch) error {
	for _, u := range batch.Unknown {
		if strings.Contains(u.Asked, "🚩") {
			return fmt.Errorf("%w: %q", datar.ErrRefused, u.Asked)
		}
	}
	return s.Store.Apply(ctx, batch)
}

// FuzzRecordUnknown sends any texts at any times: what is kept is valid, bounded and all of it.
func FuzzRecordUnknown(f *testing.F) {
	f.Add("checkout", int64(0))
	f.Add(strings.Repeat("é", 100), int64(1<<40))
	f.Add("a\x00b\xff"+strings.Repeat("日", 30), int64(-5))
	f.Fuzz(func(t *testing.T, text string, ms int64) {
		e := setup(t)
		at := time.UnixMilli(ms)
		for i := range 3 {
			e.RecordUnknown(text, at)
			e.RecordUnknown(text[min(i, len(text)):], noon)
		}
		e.flush(t)
		s := e.Stats().Unknown
		if s.Recorded != 6 || s.Stored+s.Dropped != 6 || e.UnknownTexts() > 8 {
			t.Errorf("%+v with %d texts, want 6 recorded", s, e.UnknownTexts())
		}
		for _, batch := range e.store.sent() {
			for _, u := range batch.Unknown {
				if len(u.Asked) > datar.MaxAsked || strings.ToValidUTF8(u.Asked, "") != u.Asked || strings.Contains(u.Asked, "\x00") {
					t.Errorf("%q was sent", u.Asked)
				}
				if u.Count < 1 || u.First > u.Last || datar.HourOf(time.UnixMilli(u.First)) != u.Hour {
					t.Errorf("%+v is impossible", u)
				}
			}
		}
	})
}

// An event with a Count is so many evaluations, wherever it ends: stored, dropped, or in stripes.
func TestAnEventMayStandForMany(t *testing.T) {
	t.Parallel()
	f := setup(t)
	event := datar.Event{FlagID: 1, VariantID: 1, Time: noon}
	for _, n := range []int64{0, 1, 41, 1 << 20, 1_000_000_000} {
		event.Count = n
		f.Record(event)
	}
	want := int64(1 + 1 + 41 + 1<<20 + 1_000_000_000)
	f.StripeAll()
	event.Count = 7
	f.Record(event)
	want += 7
	if n := f.Stripes(); n != 1 {
		t.Errorf("%d stripes have counted, want 1", n)
	}
	f.flush(t)
	if got := f.store.sum(); got != want {
		t.Errorf("%d stored, want %d", got, want)
	}
	for _, n := range []int64{-1, 1_000_000_001} {
		event.Count = n
		f.Record(event)
	}
	if s := f.Stats(); s.Dropped[datar.DropInvalid] != 2 || s.Stored != want || s.Recorded != want+2 {
		t.Errorf("%+v, want 2 dropped as invalid", s)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	event.Count = 30
	f.Record(event)
	if s := f.Stats(); s.Dropped[datar.DropClosed] != 30 || s.Recorded != want+32 {
		t.Errorf("%+v, want 30 dropped after Close", s)
	}
}

// Events with a Count make a key busy, also if its count never is a multiple of what makes it busy.
func TestBusyKeyOfEventsWithACount(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{7, 1<<16 - 1, 1<<16 + 1, 1 << 20} {
		f := setup(t)
		for range max(4, 3<<16/n) {
			f.Record(datar.Event{FlagID: 1, VariantID: 1, Time: noon, Count: n})
		}
		if f.Stripes() == 0 {
			t.Errorf("no stripes after events with a count of %d", n)
		}
	}
}

// Close gives up the files that the counters were in, rather than leave them to the garbage
// collector.
func TestCloseUnmapsItsJournals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mapped := func() bool {
		text, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Skip("the system does not list what is mapped")
		}
		return strings.Contains(string(text), dir)
	}
	var engines []*datar.Engine // reachable, so that no cleanup runs
	for _, store := range []*faultyStore{{}, {}} {
		e, err := datar.New(datar.Options{Store: store, Journal: datar.JournalOptions{Dir: dir}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		engines = append(engines, e)
		for i := range int64(datar.ArenaSlots + 1) { // more than one journal
			e.Record(datar.Event{FlagID: i + 1})
		}
	}
	if !mapped() {
		t.Fatal("no journal is mapped while the engines count")
	}
	engines[1].Start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := errors.Join(engines[0].Close(ctx), engines[1].Close(ctx)); err != nil {
		t.Fatal(err)
	}
	if mapped() {
		t.Error("journals are mapped after Close")
	}
	runtime.KeepAlive(engines)
}

// An engine edits flags when all that was counted is stored, and names what it cannot do.
func TestFlagsAreDeletedAndMerged(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 3)
	f.record(2, 1, 1, 4)
	f.record(3, 1, 1, 5)
	if err := f.MergeFlag(t.Context(), 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteFlag(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	summary, err := f.QuerySummary(t.Context(), datar.SummaryQuery{})
	if err != nil || len(summary) != 1 || summary[0].FlagID != 2 || summary[0].Total != 7 {
		t.Errorf("the summary is %+v, %v; want 7 of flag 2", summary, err)
	}
	if err := f.MergeFlag(t.Context(), 2, 2); !errors.Is(err, datar.ErrInvalidQuery) {
		t.Errorf("merging a flag into itself: %v", err)
	}
	if err := f.DeleteFlag(t.Context(), 0); !errors.Is(err, datar.ErrInvalidQuery) {
		t.Errorf("deleting flag 0: %v", err)
	}
	plain := setup(t, func(o *datar.Options) { o.Store = oddStore{rows: 1} })
	if err := plain.DeleteFlag(t.Context(), 1); !errors.Is(err, datar.ErrNoEditing) {
		t.Errorf("deleting from a store that cannot: %v", err)
	}
}
