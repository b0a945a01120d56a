package evallog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

var (
	errAway      = errors.New("the receiver is away")
	compareTexts = cmp.AllowUnexported(evallog.Text{})
)

func away(int, evallog.Batch) error { return errAway }

func TestAFailedBatchIsKeptAsItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		engine.Record(on("flag"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		engine.Record(on("flag")) // must not change the batch that failed
		engine.Record(on("new"))
		time.Sleep(10 * time.Minute)
		if stats := engine.Stats(); !errors.Is(stats.LastError, errAway) || stats.Pending != 3 || stats.PendingBatches != 1 {
			t.Errorf("pending %d in %d batches, error %v", stats.Pending, stats.PendingBatches, stats.LastError)
		}
		writer.Fail(nil)
		time.Sleep(2 * time.Minute)

		attempts := writer.Attempts()
		last := len(attempts) - 1
		for _, b := range attempts[:last] {
			if diff := cmp.Diff(attempts[0], b, compareTexts); diff != "" {
				t.Fatalf("an attempt differs from the first: %s", diff)
			}
		}
		if attempts[last].Writer != attempts[0].Writer || attempts[last].Sequence != attempts[0].Sequence+1 || len(attempts[last].Rows) != 2 {
			t.Errorf("the last batch is not what was recorded later: %+v", attempts[last])
		}
		if writer.Total() != 3 {
			t.Errorf("delivered %d evaluations, want 3", writer.Total())
		}
		if stats := engine.Stats(); stats.LastError != nil || stats.Pending != 0 || stats.PendingBatches != 0 || !stats.LastFlush.After(time.Time{}) {
			t.Errorf("after healing: %+v", stats)
		}
	})
}

// retryTimes returns when a batch was tried, while each attempt fails with err.
func retryTimes(t *testing.T, attempts int, err error) []time.Duration {
	t.Helper()
	var gaps []time.Duration
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		var previous time.Time
		writer.Fail(func(attempt int, _ evallog.Batch) error {
			if attempt > 1 {
				gaps = append(gaps, time.Since(previous))
			}
			previous = time.Now()
			if attempt < attempts {
				return err
			}
			return nil
		})
		engine.Record(on("flag"))
		time.Sleep(24 * time.Hour)
		if writer.Total() != 1 {
			t.Errorf("delivered %d evaluations", writer.Total())
		}
	})
	return gaps
}

func TestRetriesBackOff(t *testing.T) {
	t.Parallel()
	gaps := retryTimes(t, 12, errAway)
	want := []float64{0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60}
	if len(gaps) != len(want) {
		t.Fatalf("%d retries, want %d", len(gaps), len(want))
	}
	for i, gap := range gaps {
		if gap.Seconds() > want[i] || gap.Seconds() < 0.75*want[i] {
			t.Errorf("retry %d came after %v, want up to a quarter less than %v s", i+1, gap, want[i])
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		after    time.Duration
		from, to time.Duration
	}{
		"longer than the delay":  {5 * time.Minute, 5 * time.Minute, 5 * time.Minute},
		"shorter than the delay": {time.Millisecond, 375 * time.Millisecond, 500 * time.Millisecond},
		"longer than an hour":    {30 * time.Hour, time.Hour, time.Hour},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gaps := retryTimes(t, 2, fmt.Errorf("status 429: %w", &evallog.RetryError{After: c.after, Err: errAway}))
			if len(gaps) != 1 || gaps[0] < c.from || gaps[0] > c.to {
				t.Errorf("retries after %v, want one after %v to %v", gaps, c.from, c.to)
			}
		})
	}
}

func TestFlushDoesNotWaitForTheDelayButForTheReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		engine.Record(on("flag"))
		for range 3 {
			if err := engine.Flush(t.Context()); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
		}
		if n := len(writer.Attempts()); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}
		writer.Fail(func(int, evallog.Batch) error { return &evallog.RetryError{After: time.Minute, Err: errAway} })
		for range 3 {
			if err := engine.Flush(t.Context()); !errors.Is(err, errAway) {
				t.Errorf("got %v", err)
			}
		}
		if n := len(writer.Attempts()); n != 4 {
			t.Errorf("%d attempts, want 4: the receiver asked for a minute", n)
		}
	})
}

func TestRefusedRowsAreDroppedByReason(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	writer.Fail(func(_ int, b evallog.Batch) error {
		if b.Rows[0].Key.Flag == "worse" {
			return fmt.Errorf("post: %w", evallog.RefuseAll(b, "http_400", errAway))
		}
		return &evallog.RefusedError{Rows: []evallog.RefusedRow{
			{Index: 1, Reason: "FLAG_NOT_FOUND"}, {Index: 1, Reason: "twice"}, {Index: 99, Reason: "nowhere"}, {Index: -1, Reason: "nowhere"},
		}}
	})
	for _, flag := range []string{"good", "gone", "gone", "fine"} {
		engine.Record(on(flag))
	}
	flush(t, engine)
	engine.Record(on("worse"))
	flush(t, engine)
	stats := engine.Stats()
	checkStats(t, stats, 5)
	want := map[evallog.DropReason]int64{"FLAG_NOT_FOUND": 2, "http_400": 1}
	if diff := cmp.Diff(want, stats.Dropped); diff != "" || stats.Full != 2 || stats.Pending != 0 {
		t.Errorf("full %d, pending %d, dropped %s", stats.Full, stats.Pending, diff)
	}
	if attempts := writer.Attempts(); len(attempts) != 2 {
		t.Errorf("%d attempts, want 2: what is refused is not tried again", len(attempts))
	}
}

func TestReasonsOfReceiversAreBounded(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	writer.Fail(func(attempt int, b evallog.Batch) error {
		return evallog.RefuseAll(b, evallog.DropReason(fmt.Sprint("reason ", attempt)), nil)
	})
	for range 100 {
		engine.Record(on("flag"))
		flush(t, engine)
	}
	stats := engine.Stats()
	checkStats(t, stats, 100)
	if len(stats.Dropped) > 65 || stats.Dropped[evallog.DropOther] == 0 {
		t.Errorf("%d reasons, %d others", len(stats.Dropped), stats.Dropped[evallog.DropOther])
	}
}

func TestTooManyPendingFlushesDropTheOldest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		const batches = evallog.MaxPending + 3
		time.Sleep(30 * time.Minute)
		for i := range batches {
			for range i + 1 {
				engine.Record(on(fmt.Sprint("flag", i)))
			}
			time.Sleep(time.Hour)
		}
		stats := engine.Stats()
		checkStats(t, stats, batches*(batches+1)/2)
		if stats.PendingBatches != evallog.MaxPending || stats.Dropped[evallog.DropPending] != 1+2+3 {
			t.Errorf("%d pending, dropped %v", stats.PendingBatches, stats.Dropped)
		}
		writer.Fail(nil)
		time.Sleep(2 * time.Minute)
		if delivered := writer.Delivered(); len(delivered) != evallog.MaxPending || delivered[0].Rows[0].Key.Flag != "flag3" {
			t.Errorf("%d batches delivered", len(delivered))
		}
		for i, b := range writer.Delivered() {
			if i > 0 && b.Sequence <= writer.Delivered()[i-1].Sequence {
				t.Errorf("sequence %d comes after %d", b.Sequence, writer.Delivered()[i-1].Sequence)
			}
		}
	})
}

// A program that flushes by itself, as after each of its tasks, loses nothing for that while the
// receiver is away.
func TestFlushesOnRequestDropNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		const flushes = 3 * evallog.MaxPending
		for range flushes {
			engine.Record(on("flag"))
			if err := engine.Flush(t.Context()); err == nil {
				t.Error("a flush succeeded while the receiver is away")
			}
		}
		stats := engine.Stats()
		checkStats(t, stats, flushes)
		if stats.PendingBatches != evallog.MaxPending || stats.Pending != flushes || stats.DroppedTotal() != 0 {
			t.Errorf("%d flushes wait with %d evaluations, dropped %v", stats.PendingBatches, stats.Pending, stats.Dropped)
		}
		writer.Fail(nil)
		time.Sleep(2 * time.Minute)
		if writer.Total() != flushes {
			t.Errorf("delivered %d of %d", writer.Total(), flushes)
		}
	})
}

// Where as many flushes wait as may, Close delivers them before it adds the last one.
func TestCloseAfterAnOutageDropsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		for range evallog.MaxPending {
			engine.Record(on("flag"))
			_ = engine.Flush(t.Context())
		}
		engine.Record(on("flag"))
		writer.Fail(nil)
		if err := engine.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if stats := engine.Stats(); writer.Total() != evallog.MaxPending+1 || stats.DroppedTotal() != 0 {
			t.Errorf("delivered %d of %d, dropped %v", writer.Total(), evallog.MaxPending+1, stats.Dropped)
		}
	})
}

// An outage of hours must not cost counts: while it lasts they add up where they are, in one batch
// for each hour.
func TestAnOutageOfHoursLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(away)
		var calls int64
		for range 15 * 60 {
			for i := range 20 {
				engine.Record(on(fmt.Sprint("flag", i)))
				calls++
			}
			time.Sleep(time.Minute)
		}
		stats := engine.Stats()
		checkStats(t, stats, calls)
		if stats.Pending != calls || stats.PendingBatches < 14 {
			t.Errorf("%d of %d pending, in %d batches", stats.Pending, calls, stats.PendingBatches)
		}
		writer.Fail(nil)
		time.Sleep(2 * time.Minute)
		if writer.Total() != calls {
			t.Errorf("delivered %d of %d", writer.Total(), calls)
		}
		hour := time.Hour.Milliseconds()
		for _, b := range writer.Delivered() {
			for _, r := range b.Rows {
				if r.First/hour != r.Last/hour {
					t.Errorf("a row goes from %v to %v", time.UnixMilli(r.First).UTC(), time.UnixMilli(r.Last).UTC())
				}
			}
		}
	})
}

// The seven races that were found in reviews of such engines follow.

func TestRaceOneIncrementsWhileTablesAreTakenAway(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	const goroutines, each = 8, 20_000
	var group sync.WaitGroup
	var running atomic.Int32
	running.Store(goroutines)
	for range goroutines {
		group.Go(func() {
			defer running.Add(-1)
			for i := range each {
				engine.Record(on([]string{"a", "b", "c"}[i%3]))
			}
		})
	}
	for running.Load() > 0 {
		flush(t, engine)
	}
	group.Wait()
	flush(t, engine)
	if writer.Total() != goroutines*each {
		t.Errorf("delivered %d of %d evaluations", writer.Total(), goroutines*each)
	}
}

func TestRaceTwoManySeeTheTableFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		const rounds, goroutines = 5, 50
		for round := range rounds {
			var group sync.WaitGroup
			for g := range goroutines {
				group.Go(func() {
					for i := range evallog.FlushKeys / goroutines {
						engine.Record(on(fmt.Sprint(round, ".", g, ".", i)))
					}
				})
			}
			group.Wait()
			synctest.Wait()
			time.Sleep(time.Second) // a late flush of what is left would come now
		}
		batches := writer.Attempts()
		if len(batches) != rounds {
			t.Errorf("%d batches, want %d", len(batches), rounds)
		}
		for _, b := range batches {
			if len(b.Rows) != evallog.FlushKeys {
				t.Errorf("a batch has %d rows, want %d", len(b.Rows), evallog.FlushKeys)
			}
		}
	})
}

func TestRaceTwoASignalEndsWithItsTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const delay = 5 * time.Second
		for seen := 0; seen < 5; {
			engine, writer := setup(t)
			writer.Delay(delay)
			engine.Record(on("first"))
			go func() { _ = engine.Flush(context.Background()) }()
			synctest.Wait() // the engine writes
			for i := range evallog.FlushKeys {
				engine.Record(on(fmt.Sprint("flag", i)))
			}
			flushed := make(chan struct{})
			go func() {
				_ = engine.Flush(context.Background())
				close(flushed)
			}()
			time.Sleep(delay)
			synctest.Wait() // it has taken the full table, because of the signal or of Flush, and writes it
			engine.Record(on("last"))
			time.Sleep(delay)
			synctest.Wait()
			select {
			case <-flushed: // it was because of Flush, and the signal came to nothing
				seen++
				if n := len(writer.Attempts()); n != 2 {
					t.Fatalf("%d batches, want 2: the signal was about a table that is gone", n)
				}
			default:
			}
			_ = engine.Close(context.Background())
		}
	})
}

func TestRaceThreeASlowWriterIsNotCalledTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at, most atomic.Int32
		slow := writerFunc(func(context.Context, evallog.Batch) error {
			most.Store(max(most.Load(), at.Add(1)))
			defer at.Add(-1)
			time.Sleep(25 * time.Second)
			return nil
		})
		engine := newEngine(t, evallog.Options{Writer: slow, FlushInterval: time.Second})
		engine.Start()
		for range 200 {
			engine.Record(on("flag"))
			time.Sleep(time.Second)
		}
		flush(t, engine)
		if most.Load() != 1 {
			t.Errorf("%d calls of the writer at once", most.Load())
		}
	})
}

type writerFunc func(context.Context, evallog.Batch) error

func (f writerFunc) Write(ctx context.Context, b evallog.Batch) error { return f(ctx, b) }

func TestRaceFourNothingIsWrittenUnderTheLock(t *testing.T) {
	t.Parallel()
	var engine *evallog.Engine
	var locked, written atomic.Int32
	engine = newEngine(t, evallog.Options{Writer: writerFunc(func(_ context.Context, b evallog.Batch) error {
		written.Add(1)
		if !engine.IsUnlocked() {
			locked.Add(1)
		}
		if b.Rows[0].Key.Flag == "flag" {
			engine.Record(on("from the writer"))
		}
		_ = engine.Stats()
		return nil
	})})
	engine.Record(on("flag"))
	flush(t, engine)
	flush(t, engine)
	if written.Load() != 2 || locked.Load() != 0 {
		t.Errorf("%d batches were written, %d of them under the lock", written.Load(), locked.Load())
	}
}

func TestRaceFiveRecordsDuringClose(t *testing.T) {
	t.Parallel()
	for range 20 {
		writer := &evallogtest.Writer{}
		engine := newEngine(t, evallog.Options{Writer: writer})
		engine.Start()
		const goroutines, each = 4, 5_000
		var group sync.WaitGroup
		begun := make(chan struct{}, goroutines)
		for range goroutines {
			group.Go(func() {
				for i := range each {
					if i == each/10 {
						begun <- struct{}{}
					}
					engine.Record(on("flag"))
				}
			})
		}
		<-begun
		if err := engine.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		stats := engine.Stats()
		checkStats(t, stats, goroutines*each)
		if writer.Total() != stats.Full || writer.Total()+stats.Dropped[evallog.DropClosed] != goroutines*each {
			t.Fatalf("delivered %d, full %d, dropped %v, recorded %d", writer.Total(), stats.Full, stats.Dropped, goroutines*each)
		}
	}
}

func TestRaceFiveKnownKeysAfterCloseBegan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Delay(2 * time.Second)
		engine.Record(on("flag"))
		go func() { _ = engine.Flush(context.Background()) }()
		synctest.Wait() // the engine writes, so the final flush has to wait
		engine.Record(on("flag"))
		go func() { _ = engine.Close(context.Background()) }()
		synctest.Wait()
		engine.Record(on("flag"))
		time.Sleep(time.Minute)
		if stats := engine.Stats(); writer.Total() != 2 || stats.Dropped[evallog.DropClosed] != 1 {
			t.Errorf("delivered %d, dropped %v", writer.Total(), stats.Dropped)
		}
	})
}

func TestRaceSixACancelledContextDoesNotStopTheLastBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Delay(100 * time.Millisecond)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()

		engine.Record(on("flag"))
		if err := engine.Flush(canceled); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		engine.Record(on("flag"))
		if err := engine.Close(canceled); err != nil {
			t.Error(err)
		}
		if writer.Total() != 2 {
			t.Errorf("delivered %d evaluations, want 2", writer.Total())
		}
	})
}

func TestRaceSevenAPoisonousRowBlocksNothing(t *testing.T) {
	t.Parallel()
	engine := newEngine(t, evallog.Options{Writer: writerFunc(func(_ context.Context, b evallog.Batch) error {
		for _, r := range b.Rows {
			if r.Key.Flag == "poison" {
				panic("cannot encode this")
			}
		}
		return nil
	})})
	engine.Record(on("poison"))
	flush(t, engine)
	for range 3 {
		engine.Record(on("flag"))
		flush(t, engine)
	}
	stats := engine.Stats()
	checkStats(t, stats, 4)
	if stats.Dropped[evallog.DropPanic] != 1 || stats.Full != 3 || stats.Pending != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestCloseEndsWithItsDeadline(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		deadline time.Duration // 0: none
		want     time.Duration
	}{
		"none":     {0, 10 * time.Second},
		"its own":  {3 * time.Second, 3 * time.Second},
		"passed":   {-time.Second, time.Second},
		"very far": {time.Minute, time.Minute},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for _, hangs := range []bool{true, false} {
					engine, writer := setup(t)
					if hangs {
						writer.Delay(time.Hour)
					} else {
						writer.Fail(away)
					}
					engine.Record(on("flag"))
					ctx := context.Background()
					if c.deadline != 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithDeadline(ctx, time.Now().Add(c.deadline))
						defer cancel()
					}
					begun := time.Now()
					err := engine.Close(ctx)
					if took := time.Since(begun); err == nil || took > c.want {
						t.Errorf("Close took %v with error %v, want at most %v", took, err, c.want)
					}
					stats := engine.Stats()
					checkStats(t, stats, 1)
					if stats.Dropped[evallog.DropUndelivered] != 1 || stats.Pending != 0 {
						t.Errorf("%+v", stats)
					}
				}
			})
		})
	}
}

func TestCloseEndsAlthoughTheWriterDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		engine := newEngine(t, evallog.Options{Writer: writerFunc(func(context.Context, evallog.Batch) error {
			<-release
			return nil
		})})
		engine.Record(on("flag"))
		begun := time.Now()
		err := engine.Close(context.Background())
		if took := time.Since(begun); err == nil || took > 11*time.Second {
			t.Errorf("Close took %v with error %v", took, err)
		}
		// A further call waits until its own deadline.
		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun = time.Now()
		err = engine.Close(short)
		if took := time.Since(begun); err == nil || took > 3*time.Second {
			t.Errorf("the second Close took %v with error %v", took, err)
		}
		checkStats(t, engine.Stats(), 1)
		close(release)
		if err := engine.Close(context.Background()); err != nil {
			t.Errorf("Close is %v when the Writer has returned, want the result of the delivery", err)
		}
	})
}

func TestCloseTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		writer.Fail(func(attempt int, _ evallog.Batch) error {
			if attempt < 4 {
				return errAway
			}
			return nil
		})
		engine.Record(on("flag"))
		if err := engine.Close(context.Background()); err != nil || writer.Total() != 1 {
			t.Errorf("delivered %d evaluations, error %v", writer.Total(), err)
		}
	})
}
