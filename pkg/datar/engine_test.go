package datar_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// faultyStore is a memstore that can fail before or after it applied a batch, and remembers what it
// was sent.
type faultyStore struct {
	memstore.Store
	mu           sync.Mutex
	before       error // returned instead of applying
	after        error // returned although it was applied
	totalsErr    error
	batches      []datar.Batch
	applyStarted chan struct{}  // if set, Apply says that it began, and waits for its context
	poison       map[int64]bool // flags whose rows are refused
	applied      func()         // if set, called when a batch was applied, before Apply returns
	failAfter    int            // if set, all batches after so many are not applied
	// counters has the greatest total of each counter of the batches that were applied.
	counters map[counterID]int64
}

// counterID is what identifies a counter in a CounterStore.
type counterID struct {
	writer string
	number int64
	datar.Key
}

// counted adds up the counters.
func (s *faultyStore) counted() (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, total := range s.counters {
		sum += total
	}
	return sum
}

func (s *faultyStore) fail(before, after error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

func (s *faultyStore) sent() []datar.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]datar.Batch(nil), s.batches...)
}

func (s *faultyStore) Apply(ctx context.Context, batch datar.Batch) error {
	if s.applyStarted != nil {
		s.applyStarted <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	s.mu.Lock()
	before, after := s.before, s.after
	if s.failAfter > 0 && len(s.batches) >= s.failAfter {
		before = errors.New("down after some batches")
	}
	kept := batch
	kept.Rows = append([]datar.Row(nil), batch.Rows...)
	s.batches = append(s.batches, kept)
	s.mu.Unlock()
	if before != nil {
		return before
	}
	for _, row := range batch.Rows {
		if s.poison[row.FlagID] {
			return fmt.Errorf("%w: flag %d", datar.ErrRefused, row.FlagID)
		}
	}
	if err := s.Store.Apply(ctx, batch); err != nil {
		return err
	}
	s.mu.Lock()
	for _, c := range batch.Counters {
		if s.counters == nil {
			s.counters = map[counterID]int64{}
		}
		id := counterID{batch.Writer, c.Number, c.Key}
		s.counters[id] = max(s.counters[id], c.Total)
	}
	s.mu.Unlock()
	if s.applied != nil {
		s.applied()
	}
	return after
}

func (s *faultyStore) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	s.mu.Lock()
	err := s.totalsErr
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Store.Totals(ctx, query)
}

func (s *faultyStore) sum() int64 {
	var sum int64
	for _, row := range s.Rows() {
		sum += row.Count
	}
	return sum
}

// clock is a time that tests move.
type clock struct{ now atomic.Int64 }

func newClock(t time.Time) *clock {
	c := &clock{}
	c.set(t)
	return c
}

func (c *clock) set(t time.Time)         { c.now.Store(t.UnixNano()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }
func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }

type fixture struct {
	*datar.Engine
	store *faultyStore
	clock *clock
}

func setup(t *testing.T, change ...func(*datar.Options)) fixture {
	t.Helper()
	f := fixture{store: &faultyStore{}, clock: newClock(noon)}
	options := datar.Options{Store: f.store, Now: f.clock.Now}
	for _, c := range change {
		c(&options)
	}
	engine, err := datar.New(options)
	if err != nil {
		t.Fatal(err)
	}
	f.Engine = engine
	return f
}

func (f fixture) flush(t *testing.T) {
	t.Helper()
	if err := f.Flush(t.Context()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func (f fixture) record(flag, variant, segment int64, times int) {
	for range times {
		f.Record(datar.Event{FlagID: flag, VariantID: variant, SegmentID: segment, Time: f.clock.Now()})
	}
}

func droppedIn(s datar.Stats) (sum int64) {
	for _, n := range s.Dropped {
		sum += n
	}
	return sum
}

func wantStats(t *testing.T, e *datar.Engine, recorded, stored, dropped int64) {
	t.Helper()
	s := e.Stats()
	if s.Recorded != recorded || s.Stored != stored || droppedIn(s) != dropped || s.Pending != recorded-stored-dropped {
		t.Errorf("recorded %d, stored %d, pending %d, dropped %v; want %d, %d, %d, %d in all",
			s.Recorded, s.Stored, s.Pending, s.Dropped, recorded, stored, recorded-stored-dropped, dropped)
	}
}

func TestRecordAndFlush(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 2, 3, 5)
	f.record(1, 0, 0, 2)
	wantStats(t, f.Engine, 7, 0, 0)
	f.flush(t)
	wantStats(t, f.Engine, 7, 7, 0)
	f.record(1, 2, 3, 4)
	f.flush(t)
	f.flush(t) // nothing new: nothing sent

	batches := f.store.sent()
	if len(batches) != 2 {
		t.Fatalf("%d batches, want 2", len(batches))
	}
	want := []datar.Row{{Key: datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: datar.HourOf(noon), Outcome: datar.Matched}, Count: 4, First: noon.UnixMilli(), Last: noon.UnixMilli()}}
	if !reflect.DeepEqual(batches[1].Rows, want) || batches[1].Sequence != 2 {
		t.Errorf("second batch is %+v, want sequence 2 and only what is new: %+v", batches[1], want)
	}
	wantStats(t, f.Engine, 11, 11, 0)
}

// What lands between the reading of a counter and its confirmation must not be lost, nor counted
// twice; also when hours end meanwhile and the counters themselves are given up.
func TestNothingIsLostUnderLoad(t *testing.T) {
	t.Parallel()
	const goroutines, each = 16, 20_000
	f := setup(t)
	stop := make(chan struct{})
	var flusher, recorders sync.WaitGroup
	flusher.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			f.store.fail(nil, nil)
			switch i % 4 {
			case 1:
				f.store.fail(errors.New("down"), nil)
			case 3:
				f.store.fail(nil, errors.New("answer lost"))
			}
			_ = f.Flush(t.Context())
			f.clock.advance(7 * time.Minute)
			s := f.Stats()
			if s.Recorded != s.Stored+s.Pending+droppedIn(s) || s.Pending < 0 {
				t.Errorf("the statistics do not balance: %+v", s)
			}
		}
	})
	for g := range goroutines {
		recorders.Go(func() {
			for i := range each {
				// Some evaluations are an hour late: their counter may be gone already.
				at := f.clock.Now().Add(-time.Duration(i%3) * 30 * time.Minute)
				f.Record(datar.Event{FlagID: int64(g%4) + 1, VariantID: int64(i % 5), SegmentID: 1, Time: at})
			}
		})
	}
	recorders.Wait()
	close(stop)
	flusher.Wait()
	f.store.fail(nil, nil)
	f.flush(t)
	wantStats(t, f.Engine, goroutines*each, goroutines*each, 0)
	if sum := f.store.sum(); sum != goroutines*each {
		t.Errorf("the store has %d, want %d", sum, goroutines*each)
	}
}

func TestFailedBatchIsSentAgainUnchanged(t *testing.T) {
	t.Parallel()
	for name, errs := range map[string][2]error{
		"not applied": {errors.New("database is down"), nil},
		"answer lost": {nil, errors.New("connection reset")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.record(1, 1, 1, 10)
			f.store.fail(errs[0], errs[1])
			for range 3 {
				if err := f.Flush(t.Context()); err == nil {
					t.Fatal("flush succeeded")
				}
				f.record(1, 1, 1, 1) // newer counts wait for the next batch
			}
			wantStats(t, f.Engine, 13, 0, 0)
			if f.Stats().LastError == nil {
				t.Error("Stats has no LastError")
			}
			f.store.fail(nil, nil)
			f.flush(t)
			wantStats(t, f.Engine, 13, 13, 0)
			if sum := f.store.sum(); sum != 13 {
				t.Errorf("the store has %d, want 13", sum)
			}
			batches := f.store.sent()
			if len(batches) != 5 {
				t.Fatalf("%d batches, want 4 times the first and then a second", len(batches))
			}
			for _, b := range batches[1:4] {
				if !reflect.DeepEqual(b, batches[0]) {
					t.Errorf("sent again as %+v, want %+v", b, batches[0])
				}
			}
			if f.Stats().LastError != nil {
				t.Errorf("LastError stays %v after a flush that succeeded", f.Stats().LastError)
			}
		})
	}
}

func TestBatchIsSorted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i := range 1000 {
		f.record(int64(i*7919%50)+1, int64(i*31%7), int64(i*17%5), 1)
		if i%100 == 0 {
			f.clock.advance(20 * time.Minute)
		}
	}
	f.flush(t)
	rows := f.store.sent()[0].Rows
	for i := 1; i < len(rows); i++ {
		if rows[i-1].Compare(rows[i].Key) >= 0 {
			t.Fatalf("row %d %+v is not after %+v", i, rows[i].Key, rows[i-1].Key)
		}
	}
}

func TestTimesAreThoseOfTheEvaluations(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, offset := range []time.Duration{5 * time.Minute, 2 * time.Minute, 59 * time.Minute, 30 * time.Minute} {
		at := noon.Add(offset).In(time.FixedZone("half an hour off", -9*3600-1800))
		f.Record(datar.Event{FlagID: 1, VariantID: 1, SegmentID: 1, Time: at})
	}
	f.clock.advance(3 * time.Hour) // the flush comes much later
	f.flush(t)
	want := []datar.Row{{
		Key: datar.Key{FlagID: 1, VariantID: 1, SegmentID: 1, Hour: datar.HourOf(noon)}, Count: 4,
		First: noon.Add(2 * time.Minute).UnixMilli(), Last: noon.Add(59 * time.Minute).UnixMilli(),
	}}
	if got := f.store.Rows(); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %+v, want %+v", got, want)
	}
}

func TestKeysOfPastHoursAreGivenUp(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 1)
	f.record(2, 1, 1, 1)
	f.flush(t)
	if keys := f.Stats().Keys; keys != 2 {
		t.Errorf("%d keys within the hour, want 2", keys)
	}
	f.clock.advance(time.Hour)
	f.record(1, 1, 1, 1)
	f.flush(t)
	if keys := f.Stats().Keys; keys != 1 {
		t.Errorf("%d keys in the next hour, want 1", keys)
	}
	f.Record(datar.Event{FlagID: 1, VariantID: 1, SegmentID: 1, Time: noon}) // late
	f.flush(t)
	wantStats(t, f.Engine, 4, 4, 0)
	if sum := f.store.sum(); sum != 4 {
		t.Errorf("the store has %d, want 4", sum)
	}
}

func TestClockThatStepsBack(t *testing.T) {
	t.Parallel()
	f := setup(t)
	want := map[datar.Hour]int64{}
	recorded := int64(0)
	// The last milliseconds of an hour, and of a day, are in it; a clock that is smeared goes back
	// over the border.
	for i, step := range []time.Duration{
		0, 2 * time.Hour, -3 * time.Hour, time.Hour - time.Millisecond, time.Millisecond, -time.Millisecond,
		12*time.Hour - time.Second, time.Second, time.Millisecond, -time.Millisecond, 26 * time.Hour, -24 * time.Hour, -24 * time.Hour,
	} {
		f.clock.advance(step)
		f.record(1, 1, 1, 3)
		want[datar.Hour(f.clock.Now().Truncate(time.Hour).Unix()/3600)] += 3
		recorded += 3
		if i%3 == 0 {
			f.flush(t)
		}
	}
	f.flush(t)
	wantStats(t, f.Engine, recorded, recorded, 0)
	got := map[datar.Hour]int64{}
	for _, row := range f.store.Rows() {
		got[row.Hour] += row.Count
		if datar.HourOf(time.UnixMilli(row.First)) != row.Hour || datar.HourOf(time.UnixMilli(row.Last)) != row.Hour {
			t.Errorf("row %+v has times of another hour", row)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("counts by hour are %v, want %v", got, want)
	}
}

func TestCapacityFoldsThenDrops(t *testing.T) {
	t.Parallel()
	const maxKeys = 80
	f := setup(t, func(o *datar.Options) { o.MaxKeys = maxKeys })
	for i := range int64(300) {
		f.record(1, i%3, i+1, 1) // folds into 3 keys without a segment
	}
	s := f.Stats()
	if s.Keys != 70+3 || droppedIn(s) != 0 {
		t.Errorf("%d keys and %v dropped, want 70 in detail, 3 folded, none dropped", s.Keys, s.Dropped)
	}
	for i := range int64(100) {
		f.record(2, i+1, 1, 1) // each needs a key of its own: 7 places are left
	}
	s = f.Stats()
	if s.Keys != maxKeys || s.Dropped[datar.DropCapacity] != 93 {
		t.Errorf("%d keys and %v dropped, want %d keys and 93", s.Keys, s.Dropped, maxKeys)
	}
	f.flush(t)
	wantStats(t, f.Engine, 400, 307, 93)
	if sum := f.store.sum(); sum != 307 {
		t.Errorf("the store has %d, want 307", sum)
	}
	f.clock.advance(time.Hour)
	f.flush(t)
	f.record(3, 1, 1, 1)
	if s := f.Stats(); s.Keys != 1 || s.Dropped[datar.DropCapacity] != 93 {
		t.Errorf("after the hour: %d keys, %v dropped; want room again", s.Keys, s.Dropped)
	}
}

func TestInvalidEventsAreDropped(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 1)
	for name, event := range map[string]datar.Event{
		"no flag":          {VariantID: 1, Time: noon},
		"negative flag":    {FlagID: -1, Time: noon},
		"negative variant": {FlagID: 1, VariantID: math.MinInt64, Time: noon},
		"negative segment": {FlagID: 1, SegmentID: -1, Time: noon},
		"an hour ahead":    {FlagID: 1, VariantID: 1, SegmentID: 1, Time: noon.Add(time.Hour)},
		"before 1970":      {FlagID: 1, Time: time.Unix(-1, 0)},
		"after 9999":       {FlagID: 1, Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		// This hour differs from noon's by 2^32: it must not be taken for it.
		"far future": {FlagID: 1, VariantID: 1, SegmentID: 1, Time: time.UnixMilli(noon.UnixMilli() + (1<<32)*3_600_000)},
	} {
		before := f.Stats().Dropped[datar.DropInvalid]
		f.Record(event)
		if after := f.Stats().Dropped[datar.DropInvalid]; after != before+1 {
			t.Errorf("%s: not dropped as invalid", name)
		}
	}
	f.flush(t)
	wantStats(t, f.Engine, 9, 1, 8)
}

func TestCloseStoresWhatIsLeft(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.Start()
	f.record(1, 1, 1, 5)
	for range 2 {
		if err := f.Close(t.Context()); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	wantStats(t, f.Engine, 5, 5, 0)
	f.record(1, 1, 1, 2)
	f.record(7, 1, 1, 1)
	if got := f.Stats().Dropped[datar.DropClosed]; got != 3 {
		t.Errorf("%d dropped after Close, want 3", got)
	}
	wantStats(t, f.Engine, 8, 5, 3)
	f.Start() // too late: nothing happens
}

func TestCloseDuringRecord(t *testing.T) {
	t.Parallel()
	const goroutines, each = 8, 20_000
	f := setup(t)
	f.Start()
	var recorders sync.WaitGroup
	begun := make(chan struct{}, goroutines)
	for g := range goroutines {
		recorders.Go(func() {
			for i := range each {
				if i == each/10 {
					begun <- struct{}{}
				}
				f.record(int64(g%2)+1, int64(i%3), 1, 1)
			}
		})
	}
	<-begun
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := f.store.sum()
	recorders.Wait()
	wantStats(t, f.Engine, goroutines*each, stored, goroutines*each-stored)
	if got := f.Stats().Dropped[datar.DropClosed]; got != goroutines*each-stored {
		t.Errorf("%d dropped as closed, want %d", got, goroutines*each-stored)
	}
}

func TestCloseRetriesUntilItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		f.record(1, 1, 1, 5)
		f.store.fail(errors.New("database is down"), nil)
		time.AfterFunc(2*time.Second, func() { f.store.fail(nil, nil) })
		if err := f.Close(t.Context()); err != nil {
			t.Fatalf("close: %v, although the store came back after 2 s", err)
		}
		wantStats(t, f.Engine, 5, 5, 0)
	})
}

func TestCloseGivesUpAtItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		f.Start()
		f.record(1, 1, 1, 5)
		down := errors.New("database is down")
		f.store.fail(down, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		started := time.Now()
		if err := f.Close(ctx); !errors.Is(err, down) {
			t.Errorf("close: %v, want the store's error", err)
		}
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("Close took %v with a deadline of 3 s", took)
		}
		f.record(1, 1, 1, 1)
		s := f.Stats()
		if s.Dropped[datar.DropUnsaved] != 5 || s.Dropped[datar.DropClosed] != 1 || s.Pending != 0 {
			t.Errorf("stats are %+v, want 5 unsaved and 1 closed", s)
		}
	})
}

func TestCloseEndsAHangingFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		f.store.applyStarted = make(chan struct{}, 100)
		f.Start()
		f.record(1, 1, 1, 5)
		<-f.store.applyStarted // after the interval
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		started := time.Now()
		if err := f.Close(ctx); err == nil {
			t.Error("Close succeeded with a store that hangs")
		}
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("Close took %v with a deadline of 2 s", took)
		}
		wantStats(t, f.Engine, 5, 0, 5)
	})
}

func TestBackgroundFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, func(o *datar.Options) { o.FlushInterval = 10 * time.Second })
		f.Start()
		defer func() { _ = f.Close(t.Context()) }()
		f.record(1, 1, 1, 5)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		wantStats(t, f.Engine, 5, 0, 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStats(t, f.Engine, 5, 5, 0)

		// A store that comes back is used soon, though the interval is long.
		f.store.fail(errors.New("down"), nil)
		f.record(1, 1, 1, 5)
		time.Sleep(15 * time.Second)
		f.store.fail(nil, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantStats(t, f.Engine, 10, 10, 0)
	})
}

// maintained is a store that counts how often it was maintained.
type maintained struct {
	faultyStore
	calls atomic.Int64
	keep  time.Duration
}

func (s *maintained) Maintain(ctx context.Context, _ time.Time, keep time.Duration) error {
	s.calls.Add(1)
	s.keep = keep
	<-ctx.Done() // takes its time: Close must not wait for it
	return ctx.Err()
}

func TestMaintenance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &maintained{}
		f := setup(t, func(o *datar.Options) { o.Store, o.Retention = store, 50*time.Hour })
		f.Start()
		synctest.Wait()
		if n := store.calls.Load(); n != 1 || store.keep != 50*time.Hour {
			t.Errorf("%d calls with %v, want one with the retention", n, store.keep)
		}
		f.record(1, 1, 1, 1)
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantStats(t, f.Engine, 1, 1, 0)
	})
}

func TestManyChangedKeysFlushEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t, func(o *datar.Options) { o.FlushInterval = time.Hour })
		f.Start()
		defer func() { _ = f.Close(t.Context()) }()
		for i := range int64(datar.EarlyFlushKeys) - 1 {
			f.record(i+1, 1, 1, 2)
		}
		synctest.Wait()
		wantStats(t, f.Engine, 2*(datar.EarlyFlushKeys-1), 0, 0)
		f.record(datar.EarlyFlushKeys, 1, 1, 1)
		synctest.Wait()
		wantStats(t, f.Engine, 2*datar.EarlyFlushKeys-1, 2*datar.EarlyFlushKeys-1, 0)
		for i := range int64(datar.EarlyFlushKeys) { // the count of changed keys begins anew
			f.record(i+1, 1, 1, 1)
		}
		synctest.Wait()
		wantStats(t, f.Engine, 3*datar.EarlyFlushKeys-1, 3*datar.EarlyFlushKeys-1, 0)
	})
}

func TestFlushOfAnEndedContextKeepsCounts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 5)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush: %v, want context canceled", err)
	}
	f.flush(t)
	wantStats(t, f.Engine, 5, 5, 0)
}

// oddStore limits batches, and is known by any name.
type oddStore struct {
	datar.Store
	rows     int
	identity string
}

func (s oddStore) MaxRows() int     { return s.rows }
func (s oddStore) Identity() string { return s.identity }

// pointed is a Catalog with a pointer.
type pointed struct{ datar.StaticCatalog }

// asked is a Catalog that is a function.
type asked func(ctx context.Context, ids []int64) (map[int64]datar.FlagInfo, error)

func (a asked) Flags(ctx context.Context, ids []int64) (map[int64]datar.FlagInfo, error) {
	return a(ctx, ids)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*datar.Options)
		want   string // empty: accepted
	}{
		"defaults":           {func(*datar.Options) {}, ""},
		"shortest interval":  {func(o *datar.Options) { o.FlushInterval = 50 * time.Millisecond }, ""},
		"longest interval":   {func(o *datar.Options) { o.FlushInterval = time.Hour }, ""},
		"interval too short": {func(o *datar.Options) { o.FlushInterval = 49 * time.Millisecond }, "FlushInterval is 49ms, want 50ms to 1h0m0s"},
		"interval too long":  {func(o *datar.Options) { o.FlushInterval = time.Hour + 1 }, "FlushInterval"},
		"negative interval":  {func(o *datar.Options) { o.FlushInterval = -1 }, "FlushInterval"},
		"no store":           {func(o *datar.Options) { o.Store = nil }, "Store is missing"},
		"no catalog":         {func(o *datar.Options) { o.Catalog = nil }, ""},
		"a store that is a nil pointer": {func(o *datar.Options) {
			o.Store = (*memstore.Store)(nil)
		}, "Options.Store is a nil *memstore.Store"},
		"a catalog that is a nil pointer": {func(o *datar.Options) {
			o.Catalog = (*pointed)(nil)
		}, "Options.Catalog is a nil *datar_test.pointed"},
		"a catalog that is a nil function": {func(o *datar.Options) {
			o.Catalog = asked(nil)
		}, "Options.Catalog is a nil datar_test.asked"},
		"a catalog that is a nil map":         {func(o *datar.Options) { o.Catalog = datar.StaticCatalog(nil) }, ""},
		"retention of a store that maintains": {func(o *datar.Options) { o.Store, o.Retention = &maintained{}, datar.MinRetention }, ""},
		"retention of one that does not": {func(o *datar.Options) {
			o.Retention = datar.MinRetention
		}, "Options.Retention is 48h0m0s, but Options.Store, a *memstore.Store, is not a Maintainer"},
		"retention too short": {func(o *datar.Options) { o.Retention = time.Hour }, "Retention is 1h"},
		"negative retention":  {func(o *datar.Options) { o.Retention = -1 }, "Retention"},
		"journal nowhere":     {func(o *datar.Options) { o.Journal.Required = true }, "Journal.Dir is missing"},
		"a limit of no rows":  {func(o *datar.Options) { o.Store = oddStore{rows: 0, identity: "a"} }, "MaxRows of Options.Store is 0"},
		"no identity": {func(o *datar.Options) {
			o.Store, o.Journal.Dir = oddStore{rows: 1}, "journals"
		}, `Identity of Options.Store is ""`},
		"an identity that is a path": {func(o *datar.Options) {
			o.Store, o.Journal.Dir = oddStore{rows: 1, identity: "../x"}, "journals"
		}, `Identity of Options.Store is "../x"`},
		"journal in no directory": {func(o *datar.Options) {
			o.Journal = datar.JournalOptions{Dir: "no/such/directory", Required: true}
		}, `Options.Journal.Dir: the directory "no/such/directory"`},
		"negative keys": {func(o *datar.Options) { o.MaxKeys = -1 }, "MaxKeys is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := datar.Options{Store: &memstore.Store{}}
			test.change(&options)
			_, err := datar.New(options)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("New: %v, want %q", err, test.want)
			}
		})
	}
}

func TestRecordAllocatesNothingForKnownKeys(t *testing.T) { // not parallel: it counts allocations
	f := setup(t)
	event := datar.Event{FlagID: 1, VariantID: 2, SegmentID: 3, Time: noon}
	f.Record(event)
	if allocs := testing.AllocsPerRun(1000, func() { f.Record(event) }); allocs != 0 {
		t.Errorf("Record allocates %v times", allocs)
	}
}

// selectiveStore leaves out the flags that are poison, in place of refusing a batch that has some.
type selectiveStore struct{ *faultyStore }

func (s selectiveStore) ApplySome(ctx context.Context, batch datar.Batch) (refused int64, err error) {
	kept := batch
	kept.Rows = slices.Clone(batch.Rows)
	kept.Rows = slices.DeleteFunc(kept.Rows, func(r datar.Row) bool {
		if s.poison[r.FlagID] {
			refused += r.Count
		}
		return s.poison[r.FlagID]
	})
	return refused, s.Apply(ctx, kept)
}

func TestAStoreThatLeavesOutWhatItRefuses(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *datar.Options) {
		store := o.Store.(*faultyStore)
		store.poison = map[int64]bool{2: true, 3: true}
		o.Store = selectiveStore{store}
	})
	f.store.fail(nil, errors.New("the answer is lost"))
	for i, want := range []string{"the answer is lost", ""} {
		for flag := range int64(4) {
			f.record(flag+1, 1, 1, 5)
		}
		err := f.Flush(t.Context())
		if (err == nil) != (want == "") {
			t.Fatalf("flush %d: %v, want %q", i, err, want)
		}
		if i == 0 {
			wantStats(t, f.Engine, 20, 0, 0)
		}
		f.store.fail(nil, nil)
	}
	wantStats(t, f.Engine, 40, 20, 20)
	if got := f.Stats().Dropped[datar.DropRefused]; got != 20 || f.store.sum() != 20 || len(f.store.sent()) != 3 {
		t.Errorf("%d refused, %d stored, with %d batches; want 20 and 20, and only what was lost sent twice", got, f.store.sum(), len(f.store.sent()))
	}
}

func TestDropReasonsHaveNames(t *testing.T) {
	t.Parallel()
	dropped := setup(t).Stats().Dropped
	for _, reason := range []datar.DropReason{datar.DropCapacity, datar.DropClosed, datar.DropInvalid, datar.DropUnsaved, datar.DropRefused} {
		if n, ok := dropped[reason]; !ok || n != 0 {
			t.Errorf("a new engine's reasons are %v, want %s among them", dropped, reason)
		}
	}
	if len(dropped) != 5 {
		t.Errorf("a new engine's reasons are %v, want five", dropped)
	}
}

// Of many invalid events the first one is logged, by the next flush.
func TestTheFirstInvalidEventIsLogged(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	f := setup(t, func(o *datar.Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	f.Record(datar.Event{FlagID: -7, Time: noon})
	f.Record(datar.Event{FlagID: -8, Time: noon})
	f.flush(t)
	f.Record(datar.Event{FlagID: -9, Time: noon})
	f.flush(t)
	if text := log.String(); strings.Count(text, "not valid") != 1 || !strings.Contains(text, "flag=-7") {
		t.Errorf("the log is %s, want one line about the flag -7", text)
	}
}

// clocked is a store with a clock of its own.
type clocked struct {
	datar.Store
	offset time.Duration
}

func (c *clocked) ClockOffset() time.Duration { return c.offset }

// A clock that differs by five minutes or more is logged once, and again after it was right.
func TestClocksThatDifferAreLogged(t *testing.T) {
	t.Parallel()
	log, store := &logBuffer{}, &clocked{Store: &memstore.Store{}}
	f := setup(t, func(o *datar.Options) { o.Store, o.Logger = store, slog.New(slog.NewTextHandler(log, nil)) })
	for _, step := range []struct {
		offset time.Duration
		lines  int
	}{{4 * time.Minute, 0}, {-5 * time.Minute, 1}, {-6 * time.Minute, 1}, {0, 1}, {time.Hour, 2}} {
		store.offset = step.offset
		f.flush(t)
		if got := strings.Count(log.String(), "clock of the database differs"); got != step.lines || f.Stats().StoreClockOffset != step.offset {
			t.Errorf("with a clock that is %v ahead, %d lines are logged and the statistics have %v; want %d lines",
				step.offset, got, f.Stats().StoreClockOffset, step.lines)
		}
	}
}

func TestWithoutACatalogFlagsHaveNoNames(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *datar.Options) { o.Catalog = nil })
	f.record(1, 1, 1, 3)
	summary, err := f.QuerySummary(t.Context(), datar.SummaryQuery{})
	if err != nil || len(summary) != 1 || summary[0].Total != 3 || summary[0].Key != "" {
		t.Errorf("summary is %+v, %v; want one flag without a name", summary, err)
	}
}

func ExampleEngine() {
	engine, err := datar.New(datar.Options{Store: &memstore.Store{}, Catalog: datar.StaticCatalog{7: {Key: "checkout"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	engine.Start()
	for range 3 {
		engine.Record(datar.Event{FlagID: 7, VariantID: 1, SegmentID: 1, Time: time.Now()})
	}
	summary, err := engine.QuerySummary(context.Background(), datar.SummaryQuery{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(summary[0].Key, summary[0].Total)
	if err := engine.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: checkout 3
}
