package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

// broker is a transport that a test tells what to do. send, if set, decides about each batch.
type broker struct {
	mu      sync.Mutex
	send    func(ctx context.Context, batch []*Record) []error
	batches [][]string // keys, of what arrived
	closed  int
}

func (b *broker) Send(ctx context.Context, batch []*Record) []error {
	b.mu.Lock()
	send := b.send
	b.mu.Unlock()
	var errs []error
	if send != nil {
		errs = send(ctx, batch)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for i, r := range batch {
		if errs == nil || errs[i] == nil {
			keys = append(keys, r.Key())
		}
	}
	if keys != nil {
		b.batches = append(b.batches, keys)
	}
	return errs
}

func (b *broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

func (b *broker) become(send func(ctx context.Context, batch []*Record) []error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.send = send
}

func (b *broker) arrived() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for _, batch := range b.batches {
		keys = append(keys, batch...)
	}
	return keys
}

var errDown = errors.New("nobody listens")

func down(_ context.Context, batch []*Record) []error { return FailAll(len(batch), errDown) }

// hung takes a batch and answers only when the context ends.
func hung(ctx context.Context, batch []*Record) []error {
	<-ctx.Done()
	return FailAll(len(batch), ctx.Err())
}

// setup makes a sink with batches of 10 records; change adjusts its options.
func setup(t *testing.T, change func(*Options)) (*Sink, *broker, *testlog.Buffer) {
	t.Helper()
	b, log := &broker{}, &testlog.Buffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	o := Options{
		Name:         "test",
		Transport:    b,
		Health:       NewHealth(logger),
		BatchRecords: 10,
		BatchBytes:   1 << 20,
		Logger:       logger,
	}
	if change != nil {
		change(&o)
	}
	return NewSink(o), b, log
}

func record(key string) *Record { return NewRecord(key, 100, &Framing{}, &jsonPayload{text: "{}"}) }

func recordMany(s *Sink, from, to int) (keys []string) {
	for i := from; i < to; i++ {
		key := fmt.Sprint(i)
		keys = append(keys, key)
		s.AsyncRecord(record(key))
	}
	return keys
}

// check compares counts, and that they add up.
func check(t *testing.T, s *Sink, delivered uint64, pending int, dropped map[Reason]uint64) {
	t.Helper()
	stats := s.Stats()
	sum := stats.Delivered + uint64(stats.Pending)
	for _, n := range stats.Dropped {
		sum += n
	}
	if stats.Recorded != sum {
		t.Errorf("recorded %d is not the sum of delivered, pending and dropped: %+v", stats.Recorded, stats)
	}
	if stats.Delivered != delivered || stats.Pending != pending || stats.PendingBytes != int64(100*pending) {
		t.Errorf("delivered %d, pending %d of %d bytes; want %d, %d", stats.Delivered, stats.Pending, stats.PendingBytes, delivered, pending)
	}
	if dropped == nil {
		dropped = map[Reason]uint64{}
	}
	if diff := cmp.Diff(dropped, stats.Dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

func closeWithin(t *testing.T, s *Sink, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return s.Close(ctx)
}

func TestEverythingArrivesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, nil)
		want := recordMany(s, 0, 25) // before Start, too
		s.Start()
		want = append(want, recordMany(s, 25, 137)...)
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, b.arrived()); diff != "" {
			t.Errorf("arrived (-want +got):\n%s", diff)
		}
		for _, batch := range b.batches {
			if len(batch) > 10 {
				t.Errorf("a batch of %d", len(batch))
			}
		}
		check(t, s, 137, 0, nil)
		if state := s.Stats().State; state != Working || b.closed != 1 {
			t.Errorf("state is %s, transport closed %d times", state, b.closed)
		}
	})
}

func TestLingering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, func(o *Options) { o.Linger = time.Second })
		s.Start()
		recordMany(s, 0, 3)
		wait := func(d time.Duration) {
			<-time.After(d) // fake time, which passes only when everybody waits
			synctest.Wait()
		}
		wait(999 * time.Millisecond)
		check(t, s, 0, 3, nil)
		wait(2 * time.Millisecond)
		check(t, s, 3, 0, nil)

		recordMany(s, 3, 13) // a full batch does not wait
		synctest.Wait()
		check(t, s, 13, 0, nil)

		recordMany(s, 13, 14)
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, s, 14, 0, nil)
		if len(b.batches) != 3 {
			t.Errorf("batches are %v", b.batches)
		}

		recordMany(s, 14, 15)
		start := time.Now()
		if err := closeWithin(t, s, time.Minute); err != nil || time.Since(start) != 0 {
			t.Errorf("close took %s, %v", time.Since(start), err)
		}
		check(t, s, 15, 0, nil)
	})
}

func TestBatchesAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, func(o *Options) { o.BatchBytes = 250 })
		recordMany(s, 0, 5)
		s.AsyncRecord(NewRecord("large", 1000, &Framing{}, &jsonPayload{text: "{}"}))
		s.Start()
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
		want := [][]string{{"0", "1"}, {"2", "3"}, {"4"}, {"large"}}
		if diff := cmp.Diff(want, b.batches); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Options)
		kept   int
	}{
		{"records", func(o *Options) { o.MaxRecords = 30 }, 30},
		{"bytes", func(o *Options) { o.MaxBytes = 1250 }, 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, b, log := setup(t, tc.change)
				b.become(down)
				s.Start()
				recordMany(s, 0, 1000)
				synctest.Wait()
				check(t, s, 0, tc.kept, map[Reason]uint64{QueueFull: uint64(1000 - tc.kept)})
				if n := strings.Count(log.String(), "recorder drops records"); n != 1 {
					t.Errorf("%d lines about drops:\n%s", n, log)
				}

				b.become(nil)
				if err := s.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				check(t, s, uint64(tc.kept), 0, map[Reason]uint64{QueueFull: uint64(1000 - tc.kept)})
				recordMany(s, 1000, 1001)
				s.AsyncRecord(NewRecord("huge", 1<<40, &Framing{}, &jsonPayload{text: "{}"}))
				if err := closeWithin(t, s, time.Second); err != nil {
					t.Error(err)
				}
				s.AsyncRecord(record("late"))
				check(t, s, uint64(tc.kept+1), 0, map[Reason]uint64{QueueFull: uint64(1000 - tc.kept), TooLarge: 1, Closed: 1})
			})
		})
	}
}

func TestAnOutageKeepsOrderAndCostsTwoLogLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, log := setup(t, nil)
		b.become(down)
		s.Start()
		want := recordMany(s, 0, 35)
		<-time.After(10 * time.Minute)
		synctest.Wait()
		stats := s.Stats()
		if stats.State != Failing || stats.LastError != errDown.Error() || stats.Retried == 0 {
			t.Errorf("stats are %+v", stats)
		}
		check(t, s, 0, 35, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), errDown.Error()) {
			t.Errorf("flush gives %v", err)
		}

		b.become(nil)
		<-time.After(longestPause)
		synctest.Wait()
		if diff := cmp.Diff(want, b.arrived()); diff != "" {
			t.Errorf("arrived (-want +got):\n%s", diff)
		}
		check(t, s, 35, 0, nil)
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("the outage has %d lines:\n%s", n, log)
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyWhatFailedIsSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, nil)
		attempts := map[string]int{}
		b.become(func(_ context.Context, batch []*Record) []error {
			errs := make([]error, len(batch))
			for i, r := range batch {
				attempts[r.Key()]++
				switch {
				case r.Key() == "3":
					errs[i] = Drop(Rejected, errors.New("malformed"))
				case r.Key() == "4":
					errs[i] = Drop(TooLarge, errors.New("too large"))
				case r.Key() >= "5" && attempts[r.Key()] < 3:
					errs[i] = errDown
				}
			}
			return errs
		})
		recordMany(s, 0, 10)
		s.Start()
		if err := closeWithin(t, s, time.Minute); err != nil {
			t.Error(err)
		}
		check(t, s, 8, 0, map[Reason]uint64{Rejected: 1, TooLarge: 1})
		want := [][]string{{"0", "1", "2"}, {"5", "6", "7", "8", "9"}}
		if diff := cmp.Diff(want, b.batches); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
		if stats := s.Stats(); stats.Retried != 10 {
			t.Errorf("retried %d, want 10", stats.Retried)
		}
	})
}

func TestCloseCountsWhatItCouldNotDeliver(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		send func(context.Context, []*Record) []error
	}{{"down", down}, {"hung", hung}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, b, _ := setup(t, func(o *Options) { o.Concurrency = 2 })
				b.become(tc.send)
				s.Start()
				recordMany(s, 0, 55)
				start := time.Now()
				err := closeWithin(t, s, 3*time.Second)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("close took %s", took)
				}
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "55 records") {
					t.Errorf("error is %v", err)
				}
				check(t, s, 0, 0, map[Reason]uint64{Undelivered: 55})
				if b.closed != 1 {
					t.Errorf("transport closed %d times", b.closed)
				}
				if again := closeWithin(t, s, time.Second); !errors.Is(again, err) && again.Error() != err.Error() {
					t.Errorf("the second call gives %v", again)
				}
			})
		})
	}
}

// stuck is a broker whose Send and Close hang, whatever the context says.
type stuck struct{ until chan struct{} }

func (s stuck) Send(_ context.Context, batch []*Record) []error {
	<-s.until
	return FailAll(len(batch), errDown)
}

func (s stuck) Close() error {
	<-s.until
	return nil
}

func TestCloseLeavesATransportThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		transport := stuck{make(chan struct{})}
		s, _, _ := setup(t, func(o *Options) { o.Transport = transport })
		recordMany(s, 0, 25) // before the start, so that the first batch is full
		s.Start()
		start := time.Now()
		err := closeWithin(t, s, 3*time.Second)
		if took := time.Since(start); took != 3*time.Second+2*abandonGrace {
			t.Errorf("close took %s", took)
		}
		if err == nil || !strings.Contains(err.Error(), "25 records") || !strings.Contains(err.Error(), "does not close") {
			t.Errorf("error is %v", err)
		}
		check(t, s, 0, 10, map[Reason]uint64{Undelivered: 15}) // the batch may have arrived, who knows
		close(transport.until)
		synctest.Wait()
		check(t, s, 0, 0, map[Reason]uint64{Undelivered: 25})
	})
}

// slowToClose is a broker whose connection takes its time to close.
type slowToClose struct {
	broker
	takes time.Duration
}

func (s *slowToClose) Close() error {
	<-time.After(s.takes)
	return s.broker.Close()
}

func TestATransportMayCloseSlowlyWithinTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := setup(t, func(o *Options) { o.Transport = &slowToClose{takes: 4 * abandonGrace} })
		s.Start()
		recordMany(s, 0, 25)
		if err := closeWithin(t, s, 5*abandonGrace); err != nil {
			t.Error(err)
		}
		check(t, s, 25, 0, nil)

		s, _, _ = setup(t, func(o *Options) { o.Transport = &slowToClose{takes: time.Hour} })
		start := time.Now()
		if err := closeWithin(t, s, 5*abandonGrace); err == nil || !strings.Contains(err.Error(), "does not close") {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(start); took != 5*abandonGrace {
			t.Errorf("close took %s", took)
		}
		<-time.After(time.Hour)
	})
}

func TestCloseWithoutStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, nil)
		recordMany(s, 0, 5)
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
		s.Start()
		check(t, s, 0, 0, map[Reason]uint64{Undelivered: 5})
		if b.closed != 1 {
			t.Errorf("transport closed %d times", b.closed)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, func(o *Options) { o.Concurrency = 3 })
		var mu sync.Mutex
		running, most := 0, 0
		b.become(func(_ context.Context, _ []*Record) []error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-time.After(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		})
		recordMany(s, 0, 100)
		s.Start()
		if err := closeWithin(t, s, time.Minute); err != nil {
			t.Error(err)
		}
		if most != 3 {
			t.Errorf("at most %d ran at once, want 3", most)
		}
		check(t, s, 100, 0, nil)
	})
}

func TestABrokerThatComesAndGoesDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, log := setup(t, nil)
		s.Start()
		for i := range 100 {
			b.become(down)
			recordMany(s, i, i+1)
			<-time.After(30 * time.Millisecond)
			b.become(nil)
			if err := s.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "cannot deliver"); n != 1 {
			t.Errorf("%d lines about outages within seconds:\n%s", n, log)
		}
	})
}

// A broker that takes a part of each batch, as Kinesis does when it throttles, works.
func TestAPartOfABatchIsProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, log := setup(t, nil)
		b.become(func(_ context.Context, batch []*Record) []error {
			errs := FailAll(len(batch), errDown)
			errs[0] = nil
			return errs
		})
		recordMany(s, 0, 10)
		s.Start()
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if stats := s.Stats(); stats.State != Working || stats.Retried != 9+8+7+6+5+4+3+2+1 {
			t.Errorf("%+v", stats)
		}
		if log.String() != "" {
			t.Errorf("log is %s", log)
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// A record that is dropped unsent must not look like an end of the outage.
func TestARecordThatNobodyTakesSaysNothingAboutTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, log := setup(t, nil)
		s.Start()
		tooLarge := func(_ context.Context, batch []*Record) []error {
			return FailAll(len(batch), Drop(TooLarge, errors.New("too large")))
		}
		b.become(tooLarge)
		recordMany(s, 0, 1)
		synctest.Wait()
		if state := s.Stats().State; state != Unproven {
			t.Errorf("state is %s", state)
		}
		b.become(down)
		recordMany(s, 1, 2)
		synctest.Wait()
		b.become(tooLarge)
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if state := s.Stats().State; state != Failing || strings.Contains(log.String(), "delivers again") {
			t.Errorf("state is %s:\n%s", state, log)
		}
		check(t, s, 0, 0, map[Reason]uint64{TooLarge: 2})
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// Drops while Flush waits are not what it waits for.
// interrupted is a log in which something happens before each line is written.
type interrupted struct {
	slog.Handler
	before func(message string)
}

func (i interrupted) Handle(ctx context.Context, r slog.Record) error {
	i.before(r.Message)
	return i.Handler.Handle(ctx, r)
}

// Whoever closes a sink when its last record is settled asks for the state next.
func TestTheStateIsKnownBeforeTheRecordsAreSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *Sink
		var atReport []Stats
		handler := interrupted{slog.NewTextHandler(io.Discard, nil), func(message string) { //nolint:sloglint // slog.DiscardHandler is handed nothing
			if strings.Contains(message, "deliver") {
				atReport = append(atReport, s.Stats())
			}
		}}
		var b *broker
		s, b, _ = setup(t, func(o *Options) { o.Health = NewHealth(slog.New(handler)) })
		b.become(func(_ context.Context, batch []*Record) []error {
			return FailAll(len(batch), Drop(RetriesExhausted, errDown))
		})
		s.Start()
		recordMany(s, 0, 1)
		synctest.Wait()
		b.become(nil)
		recordMany(s, 1, 2)
		synctest.Wait()
		if len(atReport) != 2 {
			t.Fatalf("%d reports", len(atReport))
		}
		if first := atReport[0]; first.State != Failing || first.Pending != 1 {
			t.Errorf("%+v", first)
		}
		if second := atReport[1]; second.State != Working || second.Pending != 1 || second.Delivered != 0 {
			t.Errorf("%+v", second)
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
		check(t, s, 1, 0, map[Reason]uint64{RetriesExhausted: 1})
	})
}

func TestLinesAreInTheOrderOfTheReports(t *testing.T) {
	t.Parallel()
	var health *Health
	var reports sync.WaitGroup
	log := &testlog.Buffer{}
	health = NewHealth(slog.New(interrupted{slog.NewTextHandler(log, nil), func(message string) {
		if strings.Contains(message, "cannot deliver") {
			reports.Go(health.Succeeded)        // another Send, which ends just now
			<-time.After(10 * time.Millisecond) // enough for its line to come first, if nothing holds it up
		}
	}}))
	health.Failed(errDown)
	reports.Wait()
	if lines := log.String(); log.Count("\n") != 2 || strings.Index(lines, "cannot deliver") > strings.Index(lines, "delivers again") {
		t.Errorf("log is\n%s", lines)
	}
}

func TestFlushWaitsForWhatIsQueued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b, _ := setup(t, func(o *Options) { o.MaxRecords = 20 })
		b.become(down)
		s.Start()
		recordMany(s, 0, 20)
		flushed := false
		go func() {
			if err := s.Flush(context.Background()); err != nil {
				t.Error(err)
			}
			flushed = true
		}()
		synctest.Wait()
		recordMany(s, 20, 100)
		<-time.After(time.Minute)
		synctest.Wait()
		if flushed {
			t.Errorf("flush says that it is done: %+v", s.Stats())
		}
		b.become(nil)
		<-time.After(time.Minute)
		synctest.Wait()
		if !flushed {
			t.Errorf("flush does not end: %+v", s.Stats())
		}
		check(t, s, 20, 0, map[Reason]uint64{QueueFull: 80})
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// probed is a broker that can be probed. Each probe takes as long as takes says.
type probed struct {
	broker
	takes time.Duration
	mu    sync.Mutex
	errs  []error
}

func (p *probed) Probe(ctx context.Context) error {
	select {
	case <-time.After(p.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) == 0 {
		return nil
	}
	err := p.errs[0]
	p.errs = p.errs[1:]
	return err
}

func TestABrokerThatIsDownAtStartIsKnownBeforeTheFirstRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probed{errs: []error{errDown, errDown, errDown}}
		s, _, log := setup(t, func(o *Options) { o.Transport = p })
		if state := s.Stats().State; state != Unproven {
			t.Errorf("state is %s", state)
		}
		s.Start()
		synctest.Wait()
		if stats := s.Stats(); stats.State != Failing || stats.LastError != errDown.Error() {
			t.Errorf("stats are %+v", stats)
		}
		<-time.After(time.Second)
		synctest.Wait()
		if state := s.Stats().State; state != Working {
			t.Errorf("state is %s", state)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "can reach its broker") {
			t.Errorf("%d lines:\n%s", n, log)
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// A broker that can be reached but does not take records, such as one that this server may not
// write to, is no broker that works.
func TestAnAttemptToDeliverSaysMoreThanAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probed{takes: time.Second}
		p.become(down)
		s, _, log := setup(t, func(o *Options) { o.Transport = p })
		s.Start()
		recordMany(s, 0, 1)
		<-time.After(time.Minute)
		synctest.Wait()
		if state := s.Stats().State; state != Failing || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("state is %s:\n%s", state, log)
		}
		p.become(nil)
		if err := closeWithin(t, s, time.Minute); err != nil {
			t.Error(err)
		}
		check(t, s, 1, 0, nil)
	})
}

func TestAProbeThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &probed{takes: time.Hour}
		s, _, log := setup(t, func(o *Options) { o.Transport = p })
		before := time.Now()
		s.Start()
		recordMany(s, 0, 1)
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if err := closeWithin(t, s, time.Minute); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took != 0 { // fake time
			t.Errorf("it took %s", took)
		}
		check(t, s, 1, 0, nil)
		if strings.Contains(log.String(), "cannot deliver") {
			t.Errorf("the end is taken for an outage:\n%s", log)
		}
	})
}

// Under the race detector: many recorders, a broker that fails now and then, flushes and a Close in
// between.
func TestCountsAddUpUnderConcurrency(t *testing.T) {
	t.Parallel()
	s, b, _ := setup(t, func(o *Options) { o.Concurrency = 4; o.MaxRecords = 500 })
	var mu sync.Mutex
	calls := 0
	b.become(func(_ context.Context, batch []*Record) []error {
		mu.Lock()
		calls++
		fail := calls%50 == 1
		mu.Unlock()
		if fail {
			return FailAll(len(batch), errDown)
		}
		return nil
	})
	s.Start()
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				s.AsyncRecord(record(fmt.Sprint(w, i)))
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_ = s.Flush(ctx)
			cancel()
			stats := s.Stats()
			sum := stats.Delivered + uint64(stats.Pending) + stats.Dropped[QueueFull]
			if stats.Recorded != sum || stats.Pending > 500 {
				t.Errorf("%+v", stats)
			}
		}
	})
	wg.Wait()
	if err := closeWithin(t, s, time.Minute); err != nil {
		t.Error(err)
	}
	stats := s.Stats()
	if stats.Recorded != workers*each || stats.Delivered+stats.Dropped[QueueFull] != workers*each || stats.Pending != 0 {
		t.Errorf("%+v", stats)
	}
	if got := uint64(len(b.arrived())); got != stats.Delivered {
		t.Errorf("%d arrived, %d counted", got, stats.Delivered)
	}
}

func BenchmarkAsyncRecord(b *testing.B) {
	for _, tc := range []struct {
		name string
		send func(context.Context, []*Record) []error
	}{{"delivering", nil}, {"dead", hung}} {
		b.Run(tc.name, func(b *testing.B) {
			transport := &broker{send: tc.send}
			if tc.send == nil {
				transport.send = func(_ context.Context, batch []*Record) []error {
					return FailAll(len(batch), Drop(Rejected, errDown)) // keeps the fake from remembering keys
				}
			}
			logger := slog.New(slog.DiscardHandler)
			s := NewSink(Options{Name: "test", Transport: transport, Health: NewHealth(logger), BatchRecords: 10_000, BatchBytes: 8 << 20, Logger: logger})
			s.Start()
			r := record("k")
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.AsyncRecord(r)
				}
			})
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.Close(ctx)
		})
	}
}

// hanging is a broker that does not answer while it hangs.
type hanging struct {
	broker
	hangs atomic.Bool
	over  chan struct{}
}

func (h *hanging) Send(ctx context.Context, batch []*Record) []error {
	if h.hangs.Load() {
		select {
		case <-h.over:
		case <-ctx.Done():
			return FailAll(len(batch), ctx.Err())
		}
	}
	return h.broker.Send(ctx, batch)
}

func TestASilentBrokerIsFailing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{over: make(chan struct{})}
		h.hangs.Store(true)
		s, _, log := setup(t, func(o *Options) { o.Transport, o.Silence = h, DefaultSilence })
		s.Start()
		recordMany(s, 0, 1)
		<-time.After(DefaultSilence - time.Millisecond)
		synctest.Wait()
		if state := s.Stats().State; state != Unproven {
			t.Errorf("state is %s too soon", state)
		}
		<-time.After(time.Millisecond)
		synctest.Wait()
		if stats := s.Stats(); stats.State != Failing || stats.LastError != "no response for 5s" || stats.Pending != 1 {
			t.Errorf("%+v", stats)
		}
		close(h.over)
		synctest.Wait()
		if stats := s.Stats(); stats.State != Working || stats.Delivered != 1 {
			t.Errorf("%+v", stats)
		}
		<-time.After(time.Minute) // nothing is reported late
		synctest.Wait()
		if n := log.Count("\n"); n != 2 || s.Stats().State != Working {
			t.Errorf("want two lines:\n%s", log)
		}
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// One request that takes long is no outage while others are answered.
func TestASlowSendBesideOthersIsNotFailing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{over: make(chan struct{})}
		h.hangs.Store(true)
		s, _, log := setup(t, func(o *Options) { o.Transport, o.Silence, o.Concurrency = h, DefaultSilence, 2 })
		s.Start()
		recordMany(s, 0, 1)
		synctest.Wait()
		h.hangs.Store(false)
		<-time.After(time.Second)
		recordMany(s, 1, 2)
		<-time.After(DefaultSilence)
		synctest.Wait()
		if stats := s.Stats(); stats.State != Working || stats.Delivered != 1 || stats.Pending != 1 || log.Count("\n") != 0 {
			t.Errorf("%+v\n%s", stats, log)
		}
		close(h.over)
		if err := closeWithin(t, s, time.Second); err != nil {
			t.Error(err)
		}
	})
}
