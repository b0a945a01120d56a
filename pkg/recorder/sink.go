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

// DefaultSilence is an Options.Silence for services that answer a request at once or not at all.
const DefaultSilence = 5 * time.Second

// The bounds of a queue by default.
const (
	DefaultMaxRecords = 100_000
	DefaultMaxBytes   = 64 << 20
)

const (
	// Pauses between attempts double from the first to the longest. The longest is also how long a recorder may take to
	// notice that its broker is back.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second

	// dropLogInterval is the least time between two log lines about records that were dropped.
	dropLogInterval = time.Minute

	// abandonGrace is how long Close waits for a Send whose context it has ended, for the transport to close if its own
	// context ends before that, and then again for the Send. What takes longer is left alone; records of a Send stay pending.
	abandonGrace = time.Second
)

// Options describe a Sink.
type Options struct {
	// Name is the recorder's name, such as kafka. Mandatory.
	Name string
	// Transport is closed by the sink. Mandatory.
	Transport Transport
	// Health is shared with the transport. Mandatory.
	Health *Health
	// MaxRecords and MaxBytes bound what the sink holds, waiting and being sent together. 0: the defaults.
	MaxRecords int
	MaxBytes   int64
	// BatchRecords and BatchBytes bound one call of Send; a single record may exceed the bytes. Both must be positive.
	BatchRecords int
	BatchBytes   int64
	// Linger is how long the first record of a batch may wait for others. 0: not at all.
	Linger time.Duration
	// Silence is how long a Send may wait while nothing is delivered before the recorder counts as failing. 0: the transport reports
	// that by itself.
	Silence time.Duration
	// Concurrency is how many calls of Send run at once, 0 means 1. With 1, records are sent in the order of recording.
	Concurrency int
	// Logger should name the recorder. Mandatory.
	Logger *slog.Logger
}

// Stats says what has become of the records of one recorder. Recorded is always Delivered + Pending + all of Dropped.
type Stats struct {
	Name string
	// State is how the last attempt went, and Since when the first such one of a row was.
	State State
	Since time.Time
	// LastError and LastErrorAt are about the last attempt that failed; empty and zero if none did.
	LastError   string
	LastErrorAt time.Time
	// Recorded counts all calls of AsyncRecord, Delivered the records that the broker has confirmed.
	Recorded, Delivered uint64
	// Pending records wait or are being sent; they take about PendingBytes.
	Pending      int
	PendingBytes int64
	// Dropped counts the records that were given up, by reason. A reason is missing as long as it is 0.
	Dropped map[Reason]uint64
	// Retried counts records that were sent again by the sink, once for each time. Clients of brokers also repeat requests
	// themselves; those are not in it.
	Retried uint64
	// LastDelivery is when the broker last confirmed something; zero if it never did.
	LastDelivery time.Time
}

// Sink is a bounded queue in front of a Transport.
type Sink struct {
	name      string
	transport Transport
	health    *Health
	options   Options
	logger    *slog.Logger

	ctx   context.Context // of the calls of Send; ends when Close gives up
	abort context.CancelFunc
	wake  chan struct{} // tells the collector to look again
	slots chan struct{} // one entry for each running Send
	done  chan struct{} // closed when the collector and all calls of Send have ended

	startOnce, closeOnce sync.Once
	closeErr             error

	// mu is held for some nanoseconds only, never during I/O or logging.
	mu           sync.Mutex
	started      bool
	closed       bool
	queue        queue
	queuedBytes  int64
	pending      int // queued and being sent
	pendingBytes int64
	recorded     uint64
	taken        uint64 // of recorded, what came into the queue
	delivered    uint64
	retried      uint64
	dropped      map[Reason]uint64
	droppedTotal uint64
	lastDelivery time.Time
	lastDropLog  time.Time
	flushing     int           // running calls of Flush and Close: no lingering
	progress     chan struct{} // closed and replaced when records are settled, if somebody waits
	waiting      int           // who waits for progress
}

// NewSink makes a sink. Nothing is sent before Start, but records are taken.
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
		dropped:   map[Reason]uint64{},
		progress:  make(chan struct{}),
	}
	s.ctx, s.abort = context.WithCancel(context.Background())
	return s
}

// AsyncRecord takes a record, or drops and counts it. It does no I/O, never blocks, and may be called by many
// goroutines at once.
func (s *Sink) AsyncRecord(r *Record) {
	size := int64(r.size)
	s.mu.Lock()
	s.recorded++
	var reason Reason
	switch {
	case s.closed:
		reason = Closed
	case size > s.options.MaxBytes:
		reason = TooLarge
	case s.pending >= s.options.MaxRecords || s.pendingBytes+size > s.options.MaxBytes:
		reason = QueueFull
	}
	if reason != "" {
		s.drop(reason, 1)
		s.mu.Unlock()
		return
	}
	s.taken++
	s.pending++
	s.pendingBytes += size
	s.queuedBytes += size
	s.queue.push(r)
	// The collector looks by itself when the linger time is over, so it is told only when there is something new to know.
	tell := s.queue.len() == 1 || s.batchIsFull()
	s.mu.Unlock()
	if tell {
		s.nudge()
	}
}

// batchIsFull needs mu.
func (s *Sink) batchIsFull() bool {
	return s.queue.len() >= s.options.BatchRecords || s.queuedBytes >= s.options.BatchBytes
}

// drop needs mu. It logs the first drop, and then one in dropLogInterval, from another goroutine. It looks at the clock
// only now and then, since a full queue drops as fast as the server evaluates.
func (s *Sink) drop(reason Reason, n uint64) {
	const clockEvery = 1024 // drops
	before := s.droppedTotal
	s.dropped[reason] += n
	s.droppedTotal += n
	if before > 0 && before/clockEvery == s.droppedTotal/clockEvery {
		return
	}
	if now := time.Now(); before == 0 || now.Sub(s.lastDropLog) >= dropLogInterval {
		s.lastDropLog = now
		go s.logger.Warn("recorder drops records", "reason", string(reason), "dropped_so_far", s.droppedTotal)
	}
}

func (s *Sink) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Start begins to send.
func (s *Sink) Start() {
	s.startOnce.Do(func() {
		s.mu.Lock()
		s.started = true
		s.mu.Unlock()
		go s.run()
	})
}

// run is the collector: it forms batches, and has them sent.
func (s *Sink) run() {
	defer close(s.done)
	var sends sync.WaitGroup
	defer sends.Wait()
	if p, ok := s.transport.(Prober); ok {
		sends.Go(func() { s.probe(p) })
	}
	for {
		// The slot comes first: as long as none is free, the next batch grows.
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

// probe says in the log and in the status whether the broker can be reached, before the first record does. It ends when
// the broker was reached, or when an attempt to deliver has shown how things are; those go on by themselves.
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

// sleep waits for a pause with jitter, which keeps many servers from coming back in the same moment, or until the sink
// is given up.
func (s *Sink) sleep(pause time.Duration) {
	timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// collect waits for a batch. It returns nil when the sink is closed and empty, or given up.
func (s *Sink) collect() []*Record {
	var linger <-chan time.Time
	waited := s.options.Linger <= 0
	for {
		s.mu.Lock()
		if s.ctx.Err() != nil {
			n := s.queue.len()
			s.queue.clear()
			s.settle(n, s.queuedBytes, Undelivered)
			s.queuedBytes = 0
			s.mu.Unlock()
			return nil
		}
		n := s.queue.len()
		if n > 0 && (waited || s.flushing > 0 || s.closed || s.batchIsFull()) {
			batch := s.pop()
			s.mu.Unlock()
			return batch
		}
		closed := s.closed
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

// pop needs mu. It takes the oldest records, at least one.
func (s *Sink) pop() []*Record {
	batch := make([]*Record, 0, min(s.queue.len(), s.options.BatchRecords))
	var bytes int64
	for s.queue.len() > 0 && len(batch) < s.options.BatchRecords {
		size := int64(s.queue.peek().size)
		if len(batch) > 0 && bytes+size > s.options.BatchBytes {
			break
		}
		bytes += size
		batch = append(batch, s.queue.pop())
	}
	s.queuedBytes -= bytes
	return batch
}

// settle needs mu. It lets go of records that are delivered, if reason is empty, or dropped.
func (s *Sink) settle(n int, bytes int64, reason Reason) {
	if n == 0 {
		return
	}
	s.pending -= n
	s.pendingBytes -= bytes
	if reason == "" {
		s.delivered += uint64(n)
		s.lastDelivery = time.Now()
	} else {
		s.drop(reason, uint64(n))
	}
	if s.waiting > 0 {
		close(s.progress)
		s.progress = make(chan struct{})
	}
}

// deliver sends a batch until each of its records is delivered or dropped.
func (s *Sink) deliver(batch []*Record) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		errs := s.send(batch)
		s.report(errs) // before the statistics: whoever finds in them that a record is settled may ask how that went
		left := s.enter(batch, errs)
		if len(left) == 0 {
			return
		}
		if len(left) < len(batch) {
			pause = firstPause // it makes progress
		}
		batch = left
		s.sleep(pause)
		s.mu.Lock()
		if s.ctx.Err() != nil {
			s.settle(len(batch), sizeOf(batch), Undelivered)
			s.mu.Unlock()
			return
		}
		s.retried += uint64(len(batch))
		s.mu.Unlock()
	}
}

// send calls Send, and reports it if it waits for too long.
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
		mu.Lock() // a Send that has ended has reported more
		defer mu.Unlock()
		if !ended && s.ctx.Err() == nil && !s.deliveredSince(began) {
			s.health.Failed(fmt.Errorf("no answer for %s", s.options.Silence))
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
	return s.lastDelivery.After(t)
}

// report tells the health how a Send went. If none of the records was taken for reasons that lie with them, that says nothing
// about the broker.
func (s *Sink) report(errs []error) {
	if errs == nil || slices.Contains(errs, nil) {
		s.health.Succeeded()
		return
	}
	if s.ctx.Err() != nil {
		return // the end of the sink is no outage
	}
	for _, err := range errs {
		if reason := DropReason(err); reason == "" || reason == RetriesExhausted {
			s.health.Failed(err)
			return
		}
	}
}

// enter writes the results of a Send into the statistics. It returns what must be sent again, in the same order.
func (s *Sink) enter(batch []*Record, errs []error) (left []*Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errs == nil {
		s.settle(len(batch), sizeOf(batch), "")
		return nil
	}
	var drop error
	for i, r := range batch {
		reason := DropReason(errs[i])
		if errs[i] != nil && reason == "" {
			left = append(left, r)
			continue
		}
		s.settle(1, int64(r.size), reason)
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

// Flush sends without lingering and waits until as many records of the queue are settled as it had taken when Flush was
// called, or until ctx ends. Then it returns why not; the records stay.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	target := s.taken
	s.mu.Unlock()
	return s.await(ctx, func() bool { return s.taken-uint64(s.pending) >= target })
}

// await waits until done, which is called under mu, or ctx ends. Meanwhile nothing lingers.
func (s *Sink) await(ctx context.Context, done func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushing++
	s.waiting++
	defer func() { s.flushing--; s.waiting-- }()
	s.nudge()
	for !done() {
		progress := s.progress
		s.mu.Unlock()
		var err error
		select {
		case <-progress:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil && !done() {
			return fmt.Errorf("%d records are not delivered: %w", s.pending, errors.Join(err, s.trouble()))
		}
	}
	return nil
}

// trouble is why records wait, nil if nothing is known to be wrong.
func (s *Sink) trouble() error {
	var stats Stats
	s.health.fill(&stats)
	if stats.State != Failing {
		return nil
	}
	return errors.New(stats.LastError)
}

// Close takes no more records, delivers what is left until ctx ends, drops and counts the rest, and closes the transport.
// The error says how many were left. Further calls return the first one's result.
func (s *Sink) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Sink) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	started := s.started
	s.mu.Unlock()
	var err error
	if started {
		err = s.await(ctx, func() bool { return s.pending == 0 })
	}
	s.abort()
	s.startOnce.Do(func() { // never started: nothing runs, and what was taken is dropped here
		s.collect()
		close(s.done)
	})
	s.awaitDone()
	closed := make(chan error, 1)
	go func() { closed <- s.transport.Close() }()
	select {
	case closeErr := <-closed:
		err = errors.Join(err, closeErr)
		s.awaitDone() // closing the transport ends what the context did not
	case <-bothOver(ctx, abandonGrace):
		err = errors.Join(err, errors.New("the connection to the broker does not close"))
	}
	stats := s.Stats()
	s.logger.Info("recorder ended", "recorded", stats.Recorded, "delivered", stats.Delivered, "pending", stats.Pending, "dropped", stats.Dropped)
	return err
}

// bothOver returns a channel that is closed when ctx has ended and, counted from now, d has passed.
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

// Stats gives the counts of one moment.
func (s *Sink) Stats() Stats {
	s.mu.Lock()
	stats := Stats{
		Name:         s.name,
		Recorded:     s.recorded,
		Delivered:    s.delivered,
		Pending:      s.pending,
		PendingBytes: s.pendingBytes,
		Dropped:      maps.Clone(s.dropped),
		Retried:      s.retried,
		LastDelivery: s.lastDelivery.UTC(),
	}
	s.mu.Unlock()
	s.health.fill(&stats)
	return stats
}
