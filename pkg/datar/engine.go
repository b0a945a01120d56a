// Package datar counts flag evaluations by flag, variant, segment and UTC hour, adds the counts to a Store, and answers
// queries over them. It knows nothing of HTTP, of SQL or of the server around it.
//
// Counting is exact: every evaluation given to Record ends up in the store, or waits in memory as pending, or is
// counted as dropped under a named reason. Stats shows the three at any moment.
package datar

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultFlushInterval is the flush interval of an engine whose Options leave it zero.
	DefaultFlushInterval = time.Minute
	// MinFlushInterval is the least Options.FlushInterval.
	MinFlushInterval = 50 * time.Millisecond
	// MaxFlushInterval is the greatest Options.FlushInterval.
	MaxFlushInterval = time.Hour
	// DefaultMaxKeys is the key limit of an engine whose Options leave it zero. A key takes 64 bytes, and up to 32 more in
	// the table that finds it: less than 10 MB in all.
	DefaultMaxKeys = 100_000
	// EarlyFlushKeys is the number of keys with new counts that starts a flush before its time.
	EarlyFlushKeys = 10_000

	// flushTimeout bounds one attempt of the background flush; 100,000 rows take a few seconds on a slow disk.
	flushTimeout = time.Minute
	// closeTimeout bounds the final flush of a Close whose context has no deadline.
	closeTimeout = 10 * time.Second
	// The delay after the first failed flush, doubled with each further one.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// freshness is how old the newest flush may be before a query flushes first.
	freshness = time.Second
)

// DropReason says why an evaluation was not counted.
type DropReason uint8

// The reasons.
const (
	// DropCapacity: Options.MaxKeys were in use, and folding did not help.
	DropCapacity DropReason = iota
	// DropClosed: Record was called after Close.
	DropClosed
	// DropInvalid: the event had no flag, a negative id, or a time outside the years 1970 to 9999.
	DropInvalid
	// DropUnsaved: Close could not reach the store before its deadline.
	DropUnsaved
	dropReasons
)

// String returns the reason in lower case, as it appears in metrics.
func (r DropReason) String() string {
	return [dropReasons]string{"capacity", "closed", "invalid", "unsaved"}[r]
}

// Event is one evaluation of a flag.
type Event struct {
	// FlagID is at least 1.
	FlagID int64
	// VariantID is 0 when no variant was assigned, SegmentID when no segment matched.
	VariantID, SegmentID int64
	// Time is when the evaluation happened. It decides the hour that is counted, in whatever zone it is given.
	Time time.Time
}

// Options configure an Engine. Store and Catalog are mandatory; the zero value of the others is a good default.
type Options struct {
	Store   Store
	Catalog Catalog
	// FlushInterval is the time between two flushes, MinFlushInterval to MaxFlushInterval.
	FlushInterval time.Duration
	// MaxKeys bounds the keys held in memory. When 7/8 of them are in use, evaluations of new keys are counted without
	// their segment; when all are, they are dropped and counted as such.
	MaxKeys int
	// Logger gets a line when flushes begin to fail and when they work again. Nil: no log.
	Logger *slog.Logger
	// Now is the clock, for tests. Nil: time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	switch {
	case o.Store == nil:
		return errors.New("datar: Options.Store is missing")
	case o.Catalog == nil:
		return errors.New("datar: Options.Catalog is missing")
	case o.FlushInterval != 0 && (o.FlushInterval < MinFlushInterval || o.FlushInterval > MaxFlushInterval):
		return fmt.Errorf("datar: Options.FlushInterval is %v, want %v to %v", o.FlushInterval, MinFlushInterval, MaxFlushInterval)
	case o.MaxKeys < 0:
		return fmt.Errorf("datar: Options.MaxKeys is %d, want 1 or more", o.MaxKeys)
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = DefaultFlushInterval
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Engine counts evaluations. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	writer  string

	// table is read without a lock by every Record and replaced under mu.
	table atomic.Pointer[table]
	// changed is the number of cells with counts that no flush has read.
	changed atomic.Int64
	dropped [dropReasons]atomic.Int64
	// early asks the background goroutine for a flush before its time.
	early chan struct{}

	mu sync.Mutex // guards the fields below and the writing side of table
	// cells are those in table. A flush iterates over a copy of this slice, so it is appended to or replaced as a whole.
	cells []*cell
	// retired is the sum of the cells that were taken out, all of it stored.
	retired int64
	// sealed is what Close took out of the cells and has not stored yet.
	sealed  int64
	oldest  Hour // the least hour in cells
	closed  bool
	flushes flushReport

	// flushing is a lock that waiting can give up: whoever has put a token into it owns the fields below.
	flushing chan struct{}
	sequence int64    // of the newest batch
	pending  *pending // sent or about to be sent, and not known to be applied

	start   sync.Once
	stop    chan struct{} // closed by Close to end the background goroutine
	stopped chan struct{} // closed when it has ended, or will never start
	// lifetime ends all flushes but the final one when Close runs out of time.
	lifetime context.Context
	endLife  context.CancelFunc
	closing  sync.Once
	closeErr error // the result of Close
}

// flushReport is what Stats says about flushes.
type flushReport struct {
	last     time.Time
	duration time.Duration
	err      error
}

// New returns an engine that counts at once. Start makes it flush by itself; Close ends it.
func New(options Options) (*Engine, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		options:  options,
		writer:   newWriterID(),
		early:    make(chan struct{}, 1),
		flushing: make(chan struct{}, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	e.lifetime, e.endLife = context.WithCancel(context.Background())
	e.table.Store(newTable(nil))
	return e, nil
}

// newWriterID makes a random (version 4) UUID.
func newWriterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // documented never to fail
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Record counts one evaluation. It never blocks on I/O, never fails the caller, and allocates nothing for a key that
// was seen in the same hour.
func (e *Engine) Record(event Event) {
	ms := event.Time.UnixMilli()
	key := Key{FlagID: event.FlagID, VariantID: event.VariantID, SegmentID: event.SegmentID, Hour: hourOfMilli(ms)}
	c := e.table.Load().get(key)
	if c == nil || !c.add(ms) {
		c = e.recordSlow(key, ms)
	}
	if c != nil && c.changed.Load() == 0 && c.changed.Swap(1) == 0 && e.changed.Add(1) == EarlyFlushKeys {
		select {
		case e.early <- struct{}{}:
		default:
		}
	}
}

// recordSlow counts an evaluation whose key has no cell, or one that has just been sealed. It returns the cell that
// took it, nil if it was dropped.
func (e *Engine) recordSlow(key Key, ms int64) *cell {
	if key.FlagID < 1 || key.VariantID < 0 || key.SegmentID < 0 || ms < 0 || ms > maxMilli {
		e.dropped[DropInvalid].Add(1)
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.dropped[DropClosed].Add(1)
		return nil
	}
	c := e.cellFor(key, ms)
	if c == nil {
		e.dropped[DropCapacity].Add(1)
		return nil
	}
	c.add(ms) // cells in the table are sealed only under mu
	return c
}

// Databases know no year after 9999. endOfTime is its last hour, as the end of a window.
const (
	maxMilli  = 253_402_300_799_999
	endOfTime = Hour(maxMilli / (3600 * 1000))
)

// cellFor returns the cell of the key, or of the key without its segment when room is short, or nil.
func (e *Engine) cellFor(key Key, ms int64) *cell {
	t := e.table.Load()
	if c := t.get(key); c != nil {
		return c
	}
	// The last eighth is kept for keys without a segment.
	if key.SegmentID != 0 && len(e.cells) >= e.options.MaxKeys-e.options.MaxKeys/8 {
		key.SegmentID = 0
		if c := t.get(key); c != nil {
			return c
		}
	}
	if len(e.cells) >= e.options.MaxKeys {
		return nil
	}
	c := newCell(key, ms)
	if len(e.cells) == 0 || key.Hour < e.oldest {
		e.oldest = key.Hour
	}
	e.cells = append(e.cells, c)
	if t.hasRoomFor(len(e.cells)) {
		t.put(c)
	} else {
		e.table.Store(newTable(e.cells))
	}
	return c
}

// Start begins to flush in the background. Further calls do nothing.
func (e *Engine) Start() {
	e.start.Do(func() { go e.run() })
}

// Close flushes what is left and ends the engine. Evaluations recorded later are counted as dropped. The final flush is
// tried until ctx ends, or 10 s if it has no deadline; what the store has not confirmed by then is counted as dropped,
// and the reason returned. Further calls wait for the first and return its result.
func (e *Engine) Close(ctx context.Context) error {
	e.closing.Do(func() { e.closeErr = e.close(ctx) })
	return e.closeErr
}

func (e *Engine) close(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	e.start.Do(func() { close(e.stopped) }) // never started, and now it cannot be
	close(e.stop)
	defer e.endLife()
	context.AfterFunc(ctx, e.endLife)
	<-e.stopped

	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	return e.finalFlush(ctx)
}

// Stats is the state of an engine. Recorded = Stored + Pending + the sum of Dropped, always.
type Stats struct {
	// Recorded is the number of calls of Record that have returned.
	Recorded int64
	// Stored are evaluations that the store has confirmed, Pending those that wait for it.
	Stored, Pending int64
	// Dropped is indexed by DropReason.
	Dropped [dropReasons]int64
	// Keys is the number of counters in memory.
	Keys int
	// Writer is the identity under which this engine's batches are stored.
	Writer string
	// LastFlush is the start of the last flush that the store confirmed, and LastFlushDuration the time it took. Zero: none.
	LastFlush         time.Time
	LastFlushDuration time.Duration
	// LastError is the reason of the last flush attempt's failure, nil if it succeeded.
	LastError error
}

// Stats returns the present state. It may be called at any time, also while the store hangs.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Stats{
		Stored:            e.retired,
		Pending:           e.sealed,
		Keys:              len(e.cells),
		Writer:            e.writer,
		LastFlush:         e.flushes.last,
		LastFlushDuration: e.flushes.duration,
		LastError:         e.flushes.err,
	}
	for _, c := range e.cells {
		stored := c.stored.Load() // before count, which is never less
		s.Stored += stored
		s.Pending += c.count.Load() - stored
	}
	s.Recorded = s.Stored + s.Pending
	for reason := range e.dropped {
		s.Dropped[reason] = e.dropped[reason].Load()
		s.Recorded += s.Dropped[reason]
	}
	return s
}
