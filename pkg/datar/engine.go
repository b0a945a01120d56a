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
	"reflect"
	"regexp"
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
	// MinRetention is the least Options.Retention other than 0.
	MinRetention = 48 * time.Hour
	// DefaultMaxKeys is the key limit of an engine whose Options leave it zero. A key takes
	// some 240 bytes, so this is about 23 MB (BenchmarkMemory).
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
	// maintenanceInterval is the time between two calls of Maintainer.Maintain.
	maintenanceInterval = time.Minute
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
	// DropUnsaved: Close could not reach the store before its deadline, and there was no journal to keep them in.
	DropUnsaved
	// DropRefused: the store refused the row, and will refuse it for ever.
	DropRefused
	dropReasons
)

// String returns the reason in lower case, as it appears in metrics.
func (r DropReason) String() string {
	if r >= dropReasons {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return [dropReasons]string{"capacity", "closed", "invalid", "unsaved", "refused"}[r]
}

// Event is one evaluation of a flag.
type Event struct {
	// FlagID is at least 1.
	FlagID int64
	// VariantID is 0 when no variant was assigned, SegmentID when no segment matched.
	VariantID, SegmentID int64
	// Time is when the evaluation happened. It decides the hour that is counted, in whatever zone it is given.
	Time time.Time
	// Outcome is what the evaluation came to. Left 0, it is Matched if there is a variant, else Unattributed. Only Matched has a
	// variant, and HeldOut, NoMatch, NoSegments and Disabled have none. NotFound is not accepted.
	Outcome Outcome
	// Asked says how the flag was asked for. It is not kept of what is Unattributed, and so is Version.
	Asked Asked
	// Version is the id of the flag's snapshot modulo 65,536, 0 if it is not known.
	Version uint16
}

// Options configure an Engine. Store and Catalog are mandatory; the zero value of the others is a good default.
type Options struct {
	Store   Store
	Catalog Catalog
	// FlushInterval is the time between two flushes, MinFlushInterval to MaxFlushInterval.
	FlushInterval time.Duration
	// MaxKeys bounds the keys held in memory. When 5/8 of them are in use, evaluations of new keys are counted without
	// their version, from 6/8 on also without what Asked says, from 7/8 on also without their segment; when all are in
	// use, they are dropped and counted as such.
	MaxKeys int
	// Journal keeps counts through the end of the process, however it ends. The zero value keeps them in memory only.
	Journal JournalOptions
	// Retention is how long the store keeps counts in detail; of days that ended longer ago each flag's total stays.
	// 0: for ever; otherwise at least MinRetention, and the Store must be a Maintainer.
	Retention time.Duration
	// Logger gets a line when flushes begin to fail and when they work again, and when counts are in memory only although
	// a journal is wanted. Nil: slog.Default(); slog.New(slog.DiscardHandler) is for those who want no log.
	Logger *slog.Logger
	// Now is the clock, for tests. Nil: time.Now.
	Now func() time.Time
}

// JournalOptions say where an engine keeps its journals: files that hold the counters themselves.
type JournalOptions struct {
	// Dir is a directory of a local disk. Engines and processes may share it. Empty: no journal. On start an engine
	// takes over the journals in it that no living process holds and that are of the same Store.Identity.
	// No directory can be used on systems other than Linux, macOS and the BSDs.
	Dir string
	// Required makes New fail if Dir cannot be used. Otherwise the engine logs a warning and counts in memory.
	Required bool
}

var identityFormat = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

func (o *Options) validate() error {
	switch {
	case o.Store == nil:
		return errors.New("datar: Options.Store is missing")
	case isNil(o.Store):
		return fmt.Errorf("datar: Options.Store is a nil %T", o.Store)
	case o.Catalog == nil:
		return errors.New("datar: Options.Catalog is missing")
	case isNil(o.Catalog):
		return fmt.Errorf("datar: Options.Catalog is a nil %T", o.Catalog)
	case o.FlushInterval != 0 && (o.FlushInterval < MinFlushInterval || o.FlushInterval > MaxFlushInterval):
		return fmt.Errorf("datar: Options.FlushInterval is %v, want %v to %v", o.FlushInterval, MinFlushInterval, MaxFlushInterval)
	case o.Retention != 0 && o.Retention < MinRetention:
		return fmt.Errorf("datar: Options.Retention is %v, want 0 or at least %v", o.Retention, MinRetention)
	case o.MaxKeys < 0:
		return fmt.Errorf("datar: Options.MaxKeys is %d, want 1 or more", o.MaxKeys)
	case o.Journal.Required && o.Journal.Dir == "":
		return errors.New("datar: Options.Journal.Required is set, and Options.Journal.Dir is missing")
	}
	if _, ok := o.Store.(Maintainer); o.Retention != 0 && !ok {
		return fmt.Errorf("datar: Options.Retention is %v, but Options.Store, a %T, is no Maintainer and would keep everything", o.Retention, o.Store)
	}
	if l, ok := o.Store.(Limiter); ok && l.MaxRows() < 1 {
		return fmt.Errorf("datar: MaxRows of Options.Store is %d, want 1 or more", l.MaxRows())
	}
	if o.Journal.Dir != "" && !identityFormat.MatchString(o.Store.Identity()) {
		return fmt.Errorf("datar: Identity of Options.Store is %q, a journal wants 1 to 64 letters, digits and hyphens", o.Store.Identity())
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = DefaultFlushInterval
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// isNil reports whether a method of v would find a nil pointer, or v is a nil function. A nil map is an empty one.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// Engine counts evaluations. Its methods are safe for concurrent use.
type Engine struct {
	options Options

	// table is read without a lock by every Record and replaced under mu.
	table atomic.Pointer[table]
	// marked is about the number of slots with counts that no flush has read.
	marked  atomic.Int64
	dropped [dropReasons]atomic.Int64
	// early asks the background goroutine for a flush before its time, wantSpare another one for a spare arena.
	early, wantSpare chan struct{}
	maxRows          int // of a batch
	// details is the Options.Store if it keeps details, else nil.
	details DetailStore

	mu sync.Mutex // guards the fields below, the writing side of table, and what arenas say is under it
	// arenas are those that still have something to send, or may get it. The last one that is not detached takes new keys.
	arenas []*arena
	// spare is an empty arena for when the newest is full, so that no Record has to create a file.
	spare *arena
	// keys is the number of cells in table.
	keys int
	// writers are identities whose arenas are gone. New arenas take them, so that the store's ledger stays short.
	writers []writer
	oldest  Hour // the least hour in table
	closed  bool
	since   time.Time // when the first evaluation was recorded that no flush may have stored, before any flush
	stored  int64     // evaluations that the store confirmed
	adopted int64     // evaluations that earlier processes recorded, and left in journals
	kept    int64     // evaluations that Close left in journals
	// attempted is the start of the newest flush, confirmed or not.
	attempted time.Time
	flushes   flushReport
	// inMemory: a journal was wanted for the newest arena, and could not be had.
	inMemory bool
	// lostJournals counts the journals that were cut or deleted while in use.
	lostJournals int

	// flushing is a lock that waiting can give up. Whoever has put a token into it may send batches, and owns refused.
	flushing chan struct{}
	refused  map[Key]bool // what was logged as refused, without hours

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
	count    int64
	total    time.Duration
	err      error
}

// New returns an engine that counts at once. Start makes it flush by itself; Close ends it. With a journal, New takes
// over what earlier processes left; it is stored by the first flush.
func New(options Options) (*Engine, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		options:   options,
		early:     make(chan struct{}, 1),
		wantSpare: make(chan struct{}, 1),
		maxRows:   arenaSlots,
		refused:   map[Key]bool{},
		flushing:  make(chan struct{}, 1),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	e.since = options.Now()
	e.details, _ = options.Store.(DetailStore)
	if l, ok := options.Store.(Limiter); ok {
		e.maxRows = min(e.maxRows, l.MaxRows())
	}
	e.lifetime, e.endLife = context.WithCancel(context.Background())
	e.table.Store(newTable(0))
	if options.Journal.Dir != "" {
		if err := e.openJournals(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// openJournals takes over journals and makes the first of our own.
func (e *Engine) openJournals() error {
	dir := e.options.Journal.Dir
	first, err := createJournal(dir, e.options.Store.Identity(), writer{id: newWriterID()}, e.arenaSlots())
	if err != nil {
		err = fmt.Errorf("datar: Options.Journal.Dir: the directory %q cannot be used for journals: %w", dir, err)
		if e.options.Journal.Required {
			return err
		}
		e.options.Logger.Warn("datar: counting in memory only, a killed process will lose counts; make the directory writable or choose another",
			"error", err)
		e.options.Journal.Dir, e.inMemory = "", true
		return nil
	}
	adopted, err := adoptJournals(dir, e.options.Store.Identity(), e.details != nil, e.options.Logger)
	if err != nil {
		e.options.Logger.Error("datar: counts of earlier processes wait for the next start", "error", err)
	}
	for _, a := range adopted {
		left := a.left()
		e.adopted += left
		if first := a.earliest(); first.Before(e.since) {
			e.since = first
		}
		if left > 0 {
			e.options.Logger.Info("datar: took over the counts of a process that ended before it could store them",
				"journal", a.journal.path, "evaluations", left)
		}
	}
	e.arenas, e.spare = adopted, first
	return nil
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
	outcome := event.Outcome
	if outcome == Unattributed && event.VariantID != 0 {
		outcome = Matched
	}
	switch {
	case e.details == nil:
		if !outcome.IsEvent() && outcome < NotFound { // the others are invalid, which recordSlow finds
			return
		}
		if outcome >= NotFound {
			key.Outcome = outcome
		}
	case outcome != Unattributed:
		key.Outcome, key.Asked, key.Version = outcome, event.Asked, event.Version
	}
	var o addition
	c := e.table.Load().get(key)
	if c != nil {
		o = c.add(ms)
	}
	switch {
	case o == counted: // as nearly always
		return
	case o == 0:
		o = e.recordSlow(key, ms)
	case o&busy != 0:
		e.stripe(c)
	}
	if o&first != 0 && e.marked.Add(1) == EarlyFlushKeys {
		signal(e.early)
	}
}

// stripe spreads a busy key over several slots, if it is counted in the newest arena.
func (e *Engine) stripe(c *cell) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.arena == e.newest() {
		c.arena.stripe(c)
	}
}

// signal wakes whoever waits on c, now or later. It never waits itself.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// recordSlow counts or drops an evaluation whose key has no cell, or one that has just been sealed.
func (e *Engine) recordSlow(key Key, ms int64) addition {
	if key.FlagID < 1 || key.VariantID < 0 || key.SegmentID < 0 || ms < 0 || ms > maxMilli ||
		!key.Outcome.fits(key.VariantID) || key.Asked >= askedEnd {
		e.dropped[DropInvalid].Add(1)
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.dropped[DropClosed].Add(1)
		return 0
	}
	for {
		c := e.cellFor(key, ms)
		if c == nil {
			e.dropped[DropCapacity].Add(1)
			return 0
		}
		// Cells in the table are sealed only under mu, so this fails only if memory is gone.
		if o := c.add(ms); o != 0 {
			return o
		}
		e.detach(c.arena)
	}
}

// Databases know no year after 9999. endOfTime is its last hour, as the end of a window.
const (
	maxMilli  = 253_402_300_799_999
	endOfTime = Hour(maxMilli / (3600 * 1000))
)

// cellFor returns the cell of the key, or of the key without some of its parts when room is short, or nil. The parts fold in this
// order: from 5/8 of MaxKeys on new keys get no version, from 6/8 nothing that asked says, and from 7/8 no segment.
func (e *Engine) cellFor(key Key, ms int64) *cell {
	t := e.table.Load()
	if c := t.get(key); c != nil {
		return c
	}
	for _, part := range []struct {
		fold   func(*Key)
		eighth int // the first one that is kept for keys without the part
	}{
		{func(k *Key) { k.Version = 0 }, 5},
		{func(k *Key) { k.Asked = 0 }, 6},
		{func(k *Key) { k.SegmentID = 0 }, 7},
	} {
		if e.keys < e.options.MaxKeys-e.options.MaxKeys/8*(8-part.eighth) {
			break
		}
		before := key
		if part.fold(&key); key == before {
			continue
		}
		if c := t.get(key); c != nil {
			return c
		}
	}
	if e.keys >= e.options.MaxKeys {
		return nil
	}
	c := e.takeSlot(key, ms)
	if e.keys == 0 || key.Hour < e.oldest {
		e.oldest = key.Hour
	}
	e.keys++
	if t.hasRoomFor(e.keys) {
		t.put(c)
	} else {
		e.rebuildTable()
	}
	return c
}

// takeSlot returns a new cell, of the newest arena or of another new one. It runs under mu.
func (e *Engine) takeSlot(key Key, ms int64) *cell {
	if a := e.newest(); a != nil {
		if a.taken >= len(a.slots)/4 && e.spare == nil && e.options.Journal.Dir != "" {
			signal(e.wantSpare)
		}
		if c := a.take(key, ms); c != nil {
			return c
		}
	}
	for {
		a := e.spare
		if e.spare = nil; a == nil {
			a = e.newArena()
		}
		e.arenas = append(e.arenas, a)
		if c := a.take(key, ms); c != nil {
			return c
		}
	}
}

// newest returns the arena that takes new keys, nil if there is none.
func (e *Engine) newest() *arena {
	if n := len(e.arenas); n > 0 && !e.arenas[n-1].detached {
		return e.arenas[n-1]
	}
	return nil
}

// newArena returns an empty arena, in a journal file if there is a directory for it.
func (e *Engine) newArena() *arena {
	w := writer{id: newWriterID()}
	if n := len(e.writers); n > 0 {
		w, e.writers = e.writers[n-1], e.writers[:n-1]
	}
	if e.options.Journal.Dir != "" {
		a, err := createJournal(e.options.Journal.Dir, e.options.Store.Identity(), w, e.arenaSlots())
		if err == nil {
			e.inMemory = false
			return a
		}
		if !e.inMemory {
			e.options.Logger.Warn("datar: counting in memory until a journal can be written again, a killed process will lose counts", "error", err)
		}
		e.inMemory = true
	}
	return &arena{slots: make([]slot, e.arenaSlots()), writer: w}
}

func (e *Engine) arenaSlots() int { return min(arenaSlots, e.options.MaxKeys) }

// detach takes the cells of the arena out of the table. What they counted is still sent. It runs under mu.
func (e *Engine) detach(a *arena) {
	if a.detached {
		return
	}
	a.detached = true
	e.keys -= a.keys()
	e.rebuildTable()
}

// rebuildTable publishes a new table of the cells of all arenas that are not detached. It runs under mu.
func (e *Engine) rebuildTable() {
	t := newTable(e.keys)
	for _, a := range e.arenas {
		if a.detached {
			continue
		}
		for _, c := range a.cells {
			if !c.isStripe {
				t.put(c)
			}
		}
	}
	e.table.Store(t)
}

// Start begins to flush in the background, and to have the store maintained. Further calls do nothing.
func (e *Engine) Start() {
	e.start.Do(func() {
		var background sync.WaitGroup
		background.Go(e.run)
		background.Go(e.keepSpare)
		if m, ok := e.options.Store.(Maintainer); ok {
			background.Go(func() { e.maintain(m) })
		}
		go func() {
			background.Wait()
			close(e.stopped)
		}()
	})
}

// Close flushes what is left and ends the engine. Evaluations recorded later are counted as dropped. The final flush is
// tried until ctx ends, or 10 s if it has no deadline. What the store has not confirmed by then stays in the journal for
// the next start, or is counted as dropped if there is none; and the reason is returned. Further calls wait for the first and return its result.
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
	// Recorded is the number of calls of Record that have returned, and Adopted.
	Recorded int64
	// Adopted are evaluations that earlier processes recorded, and that this engine found in their journals.
	Adopted int64
	// Stored are evaluations that the store has confirmed, Pending those that wait for it.
	Stored, Pending int64
	// Dropped are evaluations that were not counted. Of an engine it has all reasons, also those with 0.
	Dropped map[DropReason]int64
	// Keys is the number of keys that are being counted.
	Keys int
	// Writer is the newest identity under which this engine's batches are stored.
	Writer string
	// FlushInterval is that of the Options.
	FlushInterval time.Duration
	// Journal is the directory of the journals, empty if counts are in memory only.
	Journal string
	// InMemory is true if a journal is wanted, but could not be written when it was needed last.
	InMemory bool
	// LostJournals is the number of journals that were cut or deleted while they were in use. Of a journal that was
	// cut, counts since the last flush are lost, and missing in Recorded.
	LostJournals int
	// OldestPending is a time before which nothing is pending; zero if nothing is pending at all.
	OldestPending time.Time
	// LastFlush is the start of the last flush that the store confirmed, and LastFlushDuration the time it took. Zero: none.
	LastFlush         time.Time
	LastFlushDuration time.Duration
	// Flushes is the number of flushes that the store confirmed, and FlushDuration the time they took together.
	Flushes       int64
	FlushDuration time.Duration
	// LastError is the reason of the last flush attempt's failure, nil if it succeeded.
	LastError error
}

// Stats returns the present state. It may be called at any time, also while the store hangs.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Stats{
		Adopted:           e.adopted,
		Stored:            e.stored,
		Pending:           e.kept,
		Dropped:           make(map[DropReason]int64, dropReasons),
		Keys:              e.keys,
		FlushInterval:     e.options.FlushInterval,
		Journal:           e.options.Journal.Dir,
		InMemory:          e.inMemory,
		LostJournals:      e.lostJournals,
		LastFlush:         e.flushes.last,
		LastFlushDuration: e.flushes.duration,
		Flushes:           e.flushes.count,
		FlushDuration:     e.flushes.total,
		LastError:         e.flushes.err,
	}
	for _, a := range e.arenas {
		s.Pending += a.left()
		s.Writer = a.writer.id
	}
	if s.Pending > 0 {
		s.OldestPending = e.since
	}
	s.Recorded = s.Stored + s.Pending
	for reason := range dropReasons {
		s.Dropped[reason] = e.dropped[reason].Load()
		s.Recorded += s.Dropped[reason]
	}
	return s
}
