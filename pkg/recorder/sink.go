package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// DefaultSilence is a value of Options.Silence for services that respond to a request at once or
// not at all.
const DefaultSilence = 5 * time.Second

// The default limits of a queue.
const (
	DefaultMaxRecords = 100_000
	DefaultMaxBytes   = 64 << 20
)

const (
	// Delays between attempts double from the first to the longest. The longest is also the maximum
	// time until a recorder notices that its broker is available again.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second

	// dropLogInterval is the minimum time between two log lines about dropped records.
	dropLogInterval = time.Minute

	// abandonGrace is how long Close waits for a Send whose context it has canceled, for the
	// transport to close if its own context ends before that, and then again for the Send. If it
	// takes longer, Close returns; the records of that Send stay pending.
	abandonGrace = time.Second
)

// Options configure a Sink.
type Options struct {
	// Name is the recorder's name, such as kafka. Required.
	Name string
	// Transport is closed by the sink. Required.
	Transport Transport
	// Health is shared with the transport. Required.
	Health *Health
	// MaxRecords and MaxBytes limit the records of the sink, including those in flight. 0 means the
	// defaults.
	MaxRecords int
	MaxBytes   int64
	// BatchRecords and BatchBytes limit one call of Send; a single record may exceed the bytes.
	// Both must be positive.
	BatchRecords int
	BatchBytes   int64
	// Linger is how long the first record of a batch may wait for others. 0 means that it does not
	// wait.
	Linger time.Duration
	// Silence is how long a Send may wait without a delivery before the recorder is failing. 0
	// means that the transport reports this itself.
	Silence time.Duration
	// Concurrency is the maximum number of concurrent calls of Send; 0 means 1. With 1, records are
	// sent in the order of recording.
	Concurrency int
	// Logger should have the recorder's name. Required.
	Logger *slog.Logger
}

// Stats has the statistics of one recorder. Recorded is always Delivered + Pending + all of
// Dropped.
type Stats struct {
	Name string
	// State is the result of the last attempt, and Since is the time of the first attempt in a row
	// with this result.
	State State
	Since time.Time
	// LastError and LastErrorAt are from the last failed attempt; empty and zero if there was none.
	LastError   string
	LastErrorAt time.Time
	// Recorded counts all calls of AsyncRecord, Delivered the records that the broker has
	// confirmed.
	Recorded, Delivered uint64
	// Pending counts records that wait or are in flight; they take about PendingBytes.
	Pending      int
	PendingBytes int64
	// Dropped counts dropped records by reason. It omits reasons with 0.
	Dropped map[Reason]uint64
	// Retried counts records that the sink sent again, once for each retry. It does not include
	// retries by the clients of brokers.
	Retried uint64
	// LastDelivery is the time of the last confirmation by the broker; zero if there was none.
	LastDelivery time.Time
}

// Sink is a bounded queue in front of a Transport.
type Sink struct {
	name      string
	transport Transport
	health    *Health
	options   Options
	logger    *slog.Logger

	ctx   context.Context // of the calls of Send; ends when Close stops waiting
	abort context.CancelFunc
	wake  chan struct{} // wakes the collector
	slots chan struct{} // one entry for each running Send
	done  chan struct{} // closed when the collector and all calls of Send have ended

	startOnce, closeOnce sync.Once
	closeErr             error

	// mu is held only for some nanoseconds, never during I/O or logging.
	mu struct {
		sync.Mutex
		started      bool
		closed       bool
		queue        queue
		queuedBytes  int64
		pending      int // queued and in flight
		pendingBytes int64
		recorded     uint64
		taken        uint64 // part of recorded that was queued
		delivered    uint64
		retried      uint64
		dropped      map[Reason]uint64
		droppedTotal uint64
		lastDelivery time.Time
		lastDropLog  time.Time
		flushing     int           // running calls of Flush and Close, which disable lingering
		progress     chan struct{} // closed and replaced when records are settled, if a call waits
		waiting      int           // number of calls that wait for progress
	}
}

// NewSink returns a Sink. It accepts records, but sends nothing before Start.
func NewSink(o Options) *Sink {
	if o.MaxRecords == 0 {
		o.MaxRecords = DefaultMaxRecords
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	o.Concurrency = max(o.Concurrency, 1)
	s := &Sink{
		name:      o.Name,
		transport: o.Transport,
		health:    o.Health,
		options:   o,
		logger:    o.Logger,
		wake:      make(chan struct{}, 1),
		slots:     make(chan struct{}, o.Concurrency),
		done:      make(chan struct{}),
	}
	s.mu.dropped, s.mu.progress = map[Reason]uint64{}, make(chan struct{})
	s.ctx, s.abort = context.WithCancel(context.Background())
	return s
}

// AsyncRecord queues a record, or drops and counts it. It does no I/O, never blocks, and is safe
// for concurrent use.
func (s *Sink) AsyncRecord(r *Record) {
	size := int64(r.size)
	s.mu.Lock()
	s.mu.recorded++
	var reason Reason
	switch {
	case s.mu.closed:
		reason = Closed
	case size > s.options.MaxBytes:
		reason = TooLarge
	case s.mu.pending >= s.options.MaxRecords || s.mu.pendingBytes+size > s.options.MaxBytes:
		reason = QueueFull
	}
	if reason != "" {
		s.dropLocked(reason, 1)
		s.mu.Unlock()
		return
	}
	s.mu.taken++
	s.mu.pending++
	s.mu.pendingBytes += size
	s.mu.queuedBytes += size
	s.mu.queue.push(r)
	// The collector wakes by itself when the linger time is over, so it is only woken for other
	// reasons.
	tell := s.mu.queue.len() == 1 || s.batchIsFullLocked()
	s.mu.Unlock()
	if tell {
		s.nudge()
	}
}

func (s *Sink) batchIsFullLocked() bool {
	return s.mu.queue.len() >= s.options.BatchRecords || s.mu.queuedBytes >= s.options.BatchBytes
}

// dropLocked logs the first drop, and then one per dropLogInterval, in another goroutine. It reads
// the clock only occasionally, because a full queue drops as fast as the server evaluates.
func (s *Sink) dropLocked(reason Reason, n uint64) {
	const clockEvery = 1024 // drops
	before := s.mu.droppedTotal
	s.mu.dropped[reason] += n
	s.mu.droppedTotal += n
	if before > 0 && before/clockEvery == s.mu.droppedTotal/clockEvery {
		return
	}
	if now := time.Now(); before == 0 || now.Sub(s.mu.lastDropLog) >= dropLogInterval {
		s.mu.lastDropLog = now
		go s.logger.Warn("recorder drops records", "reason", string(reason), "dropped_so_far", s.mu.droppedTotal)
	}
}

func (s *Sink) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Start starts to send.
func (s *Sink) Start() {
	s.startOnce.Do(func() {
		s.mu.Lock()
		s.mu.started = true
		s.mu.Unlock()
		go s.run()
	})
}

// run is the collector: it builds batches and sends them.
func (s *Sink) run() {
	defer close(s.done)
	var sends sync.WaitGroup
	defer sends.Wait()
	if p, ok := s.transport.(Prober); ok {
		sends.Go(func() { s.probe(p) })
	}
	for {
		// Wait for the slot first: while none is free, the next batch grows.
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
		}
		batch := s.collect()
		if batch == nil {
			return
		}
		sends.Go(func() {
			s.deliver(batch)
			<-s.slots
		})
	}
}

// probe logs and reports whether the broker can be reached, before the first record shows it. It
// ends when the broker was reached, or when a delivery attempt has shown its state.
func (s *Sink) probe(p Prober) {
	for pause := firstPause; !s.health.proven(); pause = min(2*pause, longestPause) {
		err := p.Probe(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		s.health.probed(err)
		if err != nil {
			s.sleep(pause)
		}
	}
}

// sleep waits for a delay with jitter, so that many servers do not retry at the same moment, or
// until Close stops waiting.
func (s *Sink) sleep(pause time.Duration) {
	timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// collect waits for a batch. It returns nil if the sink is closed and empty, or Close stops
// waiting.
func (s *Sink) collect() []*Record {
	var linger <-chan time.Time
	waited := s.options.Linger <= 0
	for {
		s.mu.Lock()
		if s.ctx.Err() != nil {
			n := s.mu.queue.len()
			s.mu.queue.clear()
			s.settleLocked(n, s.mu.queuedBytes, Undelivered)
			s.mu.queuedBytes = 0
			s.mu.Unlock()
			return nil
		}
		n := s.mu.queue.len()
		if n > 0 && (waited || s.mu.flushing > 0 || s.mu.closed || s.batchIsFullLocked()) {
			batch := s.popLocked()
			s.mu.Unlock()
			return batch
		}
		closed := s.mu.closed
		s.mu.Unlock()
		if n == 0 && closed {
			return nil
		}
		if n > 0 && linger == nil {
			timer := time.NewTimer(s.options.Linger)
			defer timer.Stop()
			linger = timer.C
		}
		select {
		case <-s.wake:
		case <-linger:
			waited = true
		case <-s.ctx.Done():
		}
	}
}

// popLocked removes the oldest records, at least one.
func (s *Sink) popLocked() []*Record {
	batch := make([]*Record, 0, min(s.mu.queue.len(), s.options.BatchRecords))
	var bytes int64
	for s.mu.queue.len() > 0 && len(batch) < s.options.BatchRecords {
		size := int64(s.mu.queue.peek().size)
		if len(batch) > 0 && bytes+size > s.options.BatchBytes {
			break
		}
		bytes += size
		batch = append(batch, s.mu.queue.pop())
	}
	s.mu.queuedBytes -= bytes
	return batch
}

// settleLocked releases records that are delivered, if reason is empty, or dropped.
func (s *Sink) settleLocked(n int, bytes int64, reason Reason) {
	if n == 0 {
		return
	}
	s.mu.pending -= n
	s.mu.pendingBytes -= bytes
	if reason == "" {
		s.mu.delivered += uint64(n)
		s.mu.lastDelivery = time.Now()
	} else {
		s.dropLocked(reason, uint64(n))
	}
	if s.mu.waiting > 0 {
		close(s.mu.progress)
		s.mu.progress = make(chan struct{})
	}
}

// deliver sends a batch until each of its records is delivered or dropped.
func (s *Sink) deliver(batch []*Record) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		errs := s.send(batch)
		s.report(errs) // before the statistics, so that a caller that finds a record settled can read the state
		left := s.enter(batch, errs)
		if len(left) == 0 {
			return
		}
		if len(left) < len(batch) {
			pause = firstPause // there is progress
		}
		batch = left
		s.sleep(pause)
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.settleLocked(len(batch), sizeOf(batch), Undelivered)
			s.mu.Unlock()
			return
		}
		s.mu.retried += uint64(len(batch))
		s.mu.Unlock()
	}
}

// send calls Send, and reports if it waits too long.
func (s *Sink) send(batch []*Record) []error {
	if s.options.Silence <= 0 {
		return s.transport.Send(s.ctx, batch)
	}
	var (
		mu    sync.Mutex
		ended bool
	)
	began := time.Now()
	timer := time.AfterFunc(s.options.Silence, func() {
		mu.Lock() // a Send that has returned has reported its result
		defer mu.Unlock()
		if !ended && s.ctx.Err() == nil && !s.deliveredSince(began) {
			s.health.Failed(fmt.Errorf("no response for %s", s.options.Silence))
		}
	})
	defer func() {
		timer.Stop()
		mu.Lock()
		ended = true
		mu.Unlock()
	}()
	return s.transport.Send(s.ctx, batch)
}

func (s *Sink) deliveredSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.lastDelivery.After(t)
}

// report passes the result of a Send to the health. If every record was dropped because of its
// contents, the result does not depend on the broker.
func (s *Sink) report(errs []error) {
	if errs == nil || slices.Contains(errs, nil) {
		s.health.Succeeded()
		return
	}
	if s.ctx.Err() != nil {
		return // the end of the sink is not an outage
	}
	for _, err := range errs {
		if reason := DropReason(err); reason == "" || reason == RetriesExhausted {
			s.health.Failed(err)
			return
		}
	}
}

// enter adds the results of a Send to the statistics. It returns the records to send again, in the
// same order.
func (s *Sink) enter(batch []*Record, errs []error) (left []*Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errs == nil {
		s.settleLocked(len(batch), sizeOf(batch), "")
		return nil
	}
	var drop error
	for i, r := range batch {
		reason := DropReason(errs[i])
		if errs[i] != nil && reason == "" {
			left = append(left, r)
			continue
		}
		s.settleLocked(1, int64(r.size), reason)
		if reason != "" {
			drop = cmp.Or(drop, errs[i])
		}
	}
	if drop != nil {
		go s.logger.Debug("recorder dropped records of a batch", "error", drop)
	}
	return left
}

func sizeOf(batch []*Record) int64 {
	var bytes int64
	for _, r := range batch {
		bytes += int64(r.size)
	}
	return bytes
}

// Flush sends without lingering, and waits until all records queued before the call are settled, or
// until ctx ends. It then returns an error, and the records stay.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	target := s.mu.taken
	s.mu.Unlock()
	return s.await(ctx, func() bool { return s.mu.taken-uint64(s.mu.pending) >= target })
}

// await waits until done, which is called under mu, or until ctx ends. Lingering is off meanwhile.
func (s *Sink) await(ctx context.Context, done func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.flushing++
	s.mu.waiting++
	defer func() { s.mu.flushing--; s.mu.waiting-- }()
	s.nudge()
	for !done() {
		progress := s.mu.progress
		s.mu.Unlock()
		var err error
		select {
		case <-progress:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil && !done() {
			return fmt.Errorf("%d records are not delivered: %w", s.mu.pending, errors.Join(err, s.trouble()))
		}
	}
	return nil
}

// trouble returns why records wait, or nil if no problem is known.
func (s *Sink) trouble() error {
	var stats Stats
	s.health.fill(&stats)
	if stats.State != Failing {
		return nil
	}
	return errors.New(stats.LastError)
}

// Close accepts no more records, delivers the remaining ones until ctx ends, drops and counts the
// rest, and closes the transport. The error has the number of dropped records. Further calls return
// the result of the first one.
func (s *Sink) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Sink) close(ctx context.Context) error {
	s.mu.Lock()
	s.mu.closed = true
	started := s.mu.started
	s.mu.Unlock()
	var err error
	if started {
		err = s.await(ctx, func() bool { return s.mu.pending == 0 })
	}
	s.abort()
	s.startOnce.Do(func() { // never started: nothing is running, and queued records are dropped here
		s.collect()
		close(s.done)
	})
	s.awaitDone()
	closed := make(chan error, 1)
	go func() { closed <- s.transport.Close() }()
	select {
	case closeErr := <-closed:
		err = errors.Join(err, closeErr)
		s.awaitDone() // closing the transport ends a Send that ignores its context
	case <-bothOver(ctx, abandonGrace):
		err = errors.Join(err, errors.New("the connection to the broker does not close"))
	}
	stats := s.Stats()
	s.logger.Info("recorder ended", "recorded", stats.Recorded, "delivered", stats.Delivered, "pending", stats.Pending, "dropped", stats.Dropped)
	return err
}

// bothOver returns a channel that is closed when ctx has ended and d has passed from now.
func bothOver(ctx context.Context, d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(d, func() {
		context.AfterFunc(ctx, func() { close(over) })
	})
	return over
}

func (s *Sink) awaitDone() {
	grace := time.NewTimer(abandonGrace)
	defer grace.Stop()
	select {
	case <-s.done:
	case <-grace.C:
	}
}

// Stats returns a consistent snapshot.
func (s *Sink) Stats() Stats {
	s.mu.Lock()
	stats := Stats{
		Name:         s.name,
		Recorded:     s.mu.recorded,
		Delivered:    s.mu.delivered,
		Pending:      s.mu.pending,
		PendingBytes: s.mu.pendingBytes,
		Dropped:      maps.Clone(s.mu.dropped),
		Retried:      s.mu.retried,
		LastDelivery: s.mu.lastDelivery.UTC(),
	}
	s.mu.Unlock()
	s.health.fill(&stats)
	return stats
}
