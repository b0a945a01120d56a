// Package datar counts flag evaluations by flag, variant, segment and UTC hour, adds the counts to
// a Store, and answers queries over them. It is independent of HTTP, SQL and the server around it.
//
// Counting is exact: every evaluation given to Record is in the store, or pending in memory, or
// counted as dropped with a reason. Stats returns these numbers at any moment.
//
// # Terms
//
// A slot is the counter of one key. A cell is where Record finds it. The stripes of a busy key are
// further slots, over which goroutines are spread. An arena is a fixed number of slots with its own
// identity, its writer, under which its batches are numbered. A journal is a file whose mapped
// memory holds an arena. The ledger is the part of a Store that has the number of the newest stored
// batch of each writer.
package datar

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Engine counts evaluations. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	// details is the DetailStore that Options.Store implements or wraps, or nil.
	details   DetailStore
	abilities abilities

	// table is read without a lock by every Record, and replaced under mu.
	table atomic.Pointer[table]
	// marked is the approximate number of slots with counts that no flush has read.
	marked  atomic.Int64
	drops   drops
	unknown unknownCounter
	invalid atomic.Pointer[invalidEvent]
	// early wakes the background goroutine for an early flush, wantSpare another one for a spare
	// arena.
	early, wantSpare chan struct{}
	maxRows          int // of a batch

	// mu protects its fields, writes to table, and what is named engineMu in arenas and tables.
	mu struct {
		sync.Mutex
		// arenas are those that have something to send, or may get it. The last one takes new keys
		// unless it is detached.
		arenas []*arena
		// spare is an empty arena in a journal, for use when the newest one is full.
		spare *arena
		// makingSpare: a spare is being created. spareFailed is the time of the last failure, or
		// zero.
		makingSpare bool
		spareFailed time.Time
		// keys is the number of cells in table; oldest and latest are the first and the last hour
		// in it.
		keys           int
		oldest, latest Hour
		// writers are identities of arenas that are gone. New arenas reuse them, so that the
		// store's ledger stays short.
		writers []writer
		closed  bool
		since   time.Time // time of the first evaluation that no flush may have stored, before any flush
		stored  int64     // evaluations that the store confirmed
		adopted int64     // evaluations that earlier processes recorded, and left in journals
		// adoptedRuns are the runs of these processes, as in JournalRecord.
		adoptedRuns []string
		kept        int64 // evaluations that Close left in journals
		// refreshed is the start of the newest flush for a query, confirmed or not.
		refreshed time.Time
		flushes   flushReport
		// inMemory: a journal is on, but could not be created when it was last needed. warned: this
		// was logged.
		inMemory, warned bool
		// adoptionFails: the directory of journals could not be read.
		adoptionFails bool
		// lostJournals counts the journals that were truncated or deleted while in use.
		lostJournals int
	}

	// flushing is a lock whose waiters can give up: the goroutine that has put a token into it may
	// send batches. It protects its fields, and what is named flushing in arenas and invalidEvent.
	flushing struct {
		token    chan struct{}
		refused  map[Key]bool // keys without hours that were logged as refused
		reporter reporter
		// clocksDiffer is true after a log line about it.
		clocksDiffer bool
	}

	start   sync.Once
	stop    chan struct{} // closed by Close to end the background goroutines
	stopped chan struct{} // closed when they have ended, or will never start
	// lifetime cancels all flushes except the final one when the time of Close is up.
	lifetime context.Context
	endLife  context.CancelFunc
	closing  sync.Once
	closed   chan struct{} // closed when everything has ended; closeErr is the result
	closeErr error
}

// abilities are what the store keeps in addition to events.
type abilities struct{ details, counters bool }

// New returns an engine that counts at once. Start starts regular flushes; Close ends the engine.
// With a journal, New adopts the journals of earlier processes; the first flush stores them.
func New(options Options) (*Engine, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		options:   options,
		early:     make(chan struct{}, 1),
		wantSpare: make(chan struct{}, 1),
		maxRows:   arenaSlots,
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
		closed:    make(chan struct{}),
	}
	e.mu.since = options.Now()
	e.flushing.token, e.flushing.refused = make(chan struct{}, 1), map[Key]bool{}
	e.details, _ = capability[DetailStore](options.Store)
	_, counters := capability[CounterStore](options.Store)
	e.abilities = abilities{details: e.details != nil, counters: counters}
	if l, ok := capability[BatchSizer](options.Store); ok {
		e.maxRows = min(e.maxRows, l.MaxRows())
	}
	e.lifetime, e.endLife = context.WithCancel(context.Background())
	e.table.Store(newTable(0))
	if e.details != nil {
		e.flushing.reporter = newReporter(options)
	}
	if options.Journal.Dir != "" {
		if err := e.openJournals(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// newWriterID returns a random (version 4) UUID.
func newWriterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // documented never to fail
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Start starts to flush in the background, and to maintain the store. Further calls do nothing.
func (e *Engine) Start() {
	e.start.Do(func() {
		var background sync.WaitGroup
		background.Go(e.run)
		if e.options.Journal.Dir != "" {
			background.Go(e.keepJournals)
		}
		if m, ok := capability[Maintainer](e.options.Store); ok {
			background.Go(func() { e.maintain(m) })
		}
		go func() {
			background.Wait()
			close(e.stopped)
		}()
	})
}

// Close flushes the remaining counts and ends the engine. Evaluations recorded later are counted as
// dropped. The final flush is retried until ctx ends, or for 10 s if it has no deadline. Counts
// that the store has not confirmed by then stay in the journal for the next start, or are counted
// as dropped if there is none, and Close returns the reason. Close returns by then even if the
// store does not: its batch stays pending until it returns. Further calls wait for the first one,
// until their own context ends, and return its result.
func (e *Engine) Close(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	e.closing.Do(func() {
		e.start.Do(func() { close(e.stopped) }) // never started, and now it cannot be
		close(e.stop)
		// The store gets less time, so that there is time for the remaining steps.
		deadline, _ := ctx.Deadline()
		left := time.Until(deadline)
		storing, cancel := context.WithTimeout(ctx, left-min(left/10, closeGrace))
		go func() {
			defer close(e.closed)
			defer cancel()
			e.closeErr = e.close(storing)
		}()
	})
	select {
	case <-e.closed:
		return e.closeErr
	case <-ctx.Done():
	}
	// If the caller has canceled ctx, a store that honors its context also returns now.
	select {
	case <-e.closed:
		return e.closeErr
	case <-time.After(closeGrace):
	}
	e.stopCounting()
	return fmt.Errorf("datar: close: %w before the store returned: its result decides whether pending counts are stored", context.Cause(ctx))
}

// stopCounting makes each later Record drop its evaluation.
func (e *Engine) stopCounting() {
	e.unknown.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.closed = true
	e.table.Store(newTable(0))
	e.mu.keys = 0
}

func (e *Engine) close(ctx context.Context) error {
	defer e.endLife()
	context.AfterFunc(ctx, e.endLife)
	<-e.stopped

	e.mu.Lock()
	e.mu.closed = true
	e.mu.Unlock()
	return e.finalFlush(ctx)
}

// errPanicked is the error of a store that panicked.
var errPanicked = errors.New("the store has panicked")
