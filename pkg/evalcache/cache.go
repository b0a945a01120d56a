// Package evalcache keeps a snapshot of all flags in memory and up to date, so that an evaluation never waits for where
// the flags come from.
package evalcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// FlagSource is where flags come from. One goroutine at a time calls it.
type FlagSource interface {
	// Version names the current state cheaply; equal versions mean equal flags.
	Version(ctx context.Context) (string, error)
	// Flags reads all flags, in a state at least as new as the last Version. The caller may keep them.
	Flags(ctx context.Context) ([]entity.Flag, error)
}

const (
	defaultRefreshInterval = 3 * time.Second
	defaultRefreshTimeout  = 59 * time.Second

	// recheckedFlags is how many flags are read again with each reload, although nothing says that they have changed: what
	// somebody wrote into the database by hand shows in turn, and no reload reads everything.
	recheckedFlags = 20
	// rechecksAll is up to how many flags all of them are.
	rechecksAll = 100

	// minLookInterval is the shortest time between two looks at the source that callers of Look ask for.
	minLookInterval = 250 * time.Millisecond
)

// Options tune a Cache.
type Options struct {
	// RefreshInterval is the time between two looks at the source; 0 means 3 seconds.
	RefreshInterval time.Duration
	// RefreshTimeout bounds each look, the load included; 0 means 59 seconds.
	RefreshTimeout time.Duration
	// Logger takes what goes wrong in a reload; nil means slog.Default.
	Logger *slog.Logger
	// Swapped is called after all flags were loaded, when nothing here refers to the old snapshot any more; nil means nothing
	// is. The next refresh waits for it. It is not called when only some flags were loaded.
	Swapped func()
}

// Cache holds the newest snapshot of a source.
type Cache struct {
	source  FlagSource
	options Options
	state   atomic.Pointer[State]
	checked atomic.Pointer[time.Time] // nil: never
	failing atomic.Bool               // the last refresh failed
	wanted  chan struct{}             // has an element while somebody waits for a look

	// These belong to Start until it returns, then to the refresh goroutine.
	version  string
	loaded   bool                // all flags, once
	recheck  uint                // the id of the last flag that was read again
	seen     string              // the newest version that the source named, loaded or not
	failure  failure             // of the last refresh; the zero value if nothing went wrong
	problems map[string]struct{} // of the snapshot, already logged

	mu      sync.Mutex // guards what follows
	stopped bool
	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing started is running any more; nil when nothing was started
	looked  chan struct{} // closed when the next refresh has ended; nil while nobody waits for it
}

// State is a snapshot and what is known about it.
type State struct {
	// Snapshot is never nil.
	Snapshot *eval.Snapshot
	// Version is what the source called these flags; empty before the first load.
	Version string
	// Since is when the snapshot was loaded.
	Since time.Time
	// Replaced is closed when there is a newer state.
	Replaced <-chan struct{}

	replaced chan struct{} // the same
}

// New returns a Cache that holds no flags until Start.
func New(source FlagSource, o Options) *Cache {
	if o.RefreshInterval <= 0 {
		o.RefreshInterval = defaultRefreshInterval
	}
	if o.RefreshTimeout <= 0 {
		o.RefreshTimeout = defaultRefreshTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Cache{source: source, options: o, wanted: make(chan struct{}, 1)}
	c.publish(eval.Compile(nil), "")
	return c
}

// Start loads the flags and returns an error when that fails; it may then be tried again. Afterwards it keeps the flags
// up to date until Stop. The context bounds the first load only. A cache cannot be started twice, nor after Stop.
func (c *Cache) Start(ctx context.Context) error {
	running, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, cancel)() // Stop ends a first load, too

	err = c.refresh(loading)
	if err == nil && running.Err() != nil {
		err = errors.New("stopped meanwhile")
	}
	if err != nil {
		c.mu.Lock()
		c.cancel()
		c.done = nil
		c.mu.Unlock()
		close(done)
		return fmt.Errorf("load flags: %w", err)
	}
	go func() {
		defer close(done)
		c.run(running)
	}()
	return nil
}

func (c *Cache) begin(ctx context.Context) (running context.Context, done chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return nil, nil, errors.New("evaluation cache was stopped")
	case c.done != nil:
		return nil, nil, errors.New("evaluation cache was started already")
	}
	running, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.done = make(chan struct{})
	return running, c.done, nil
}

// Stop ends the refreshing and waits for it, at most until ctx ends, whose error it then returns. The snapshot stays.
// Stop may be called more than once, and before Start.
func (c *Cache) Stop(ctx context.Context) error {
	c.mu.Lock()
	c.stopped = true
	done := c.done
	if done != nil {
		c.cancel()
	}
	c.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop evaluation cache: %w", ctx.Err())
	}
}

// Snapshot returns the newest snapshot. It is never nil.
func (c *Cache) Snapshot() *eval.Snapshot { return c.state.Load().Snapshot }

// State returns the newest snapshot with its version.
func (c *Cache) State() *State { return c.state.Load() }

// Look has the source looked at before its time, and waits until that has happened or ctx ends. Calls that wait at the same
// time share one look, and there are at most four of them in a second. It returns at once when the cache is not running.
func (c *Cache) Look(ctx context.Context) {
	c.mu.Lock()
	if c.stopped || c.done == nil {
		c.mu.Unlock()
		return
	}
	done := c.done
	if c.looked == nil {
		c.looked = make(chan struct{})
	}
	looked := c.looked
	c.mu.Unlock()
	select {
	case c.wanted <- struct{}{}:
	default:
	}
	select {
	case <-looked:
	case <-done:
	case <-ctx.Done():
	}
}

// refreshWaited is refresh, of which those learn who wait in Look.
func (c *Cache) refreshWaited(ctx context.Context) error {
	select { // who comes after this gets a look of its own
	case <-c.wanted:
	default:
	}
	c.mu.Lock()
	looked := c.looked
	c.looked = nil
	c.mu.Unlock()
	err := c.refresh(ctx)
	if looked != nil {
		close(looked)
	}
	return err
}

// Failing reports whether the source could not be read, or not be used, when it was looked at last.
func (c *Cache) Failing() bool { return c.failing.Load() }

// LastCheck is when the source last confirmed or replaced the snapshot; zero when it never did.
func (c *Cache) LastCheck() time.Time {
	if at := c.checked.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

func (c *Cache) run(ctx context.Context) {
	ticker := time.NewTicker(c.options.RefreshInterval)
	defer ticker.Stop()
	var last time.Time // look that was wanted
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.wanted:
			if !pause(ctx, minLookInterval-time.Since(last)) {
				return
			}
			last = time.Now()
		}
		err := c.refreshWaited(ctx)
		if ctx.Err() != nil {
			return
		}
		c.report(err)
	}
}

// pause waits, and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// failure tells refreshes that went wrong from one another. All those that could not reach the source are one: the text of
// their errors may differ each time, by the number of a local port for instance. A bad document is one for each version.
type failure struct {
	failed          bool
	version, reason string // of a bad document
}

// report logs the outcome of a refresh when it differs from the one before, so that an outage, or a document that stays
// bad, is not one line every few seconds.
func (c *Cache) report(err error) {
	c.failing.Store(err != nil)
	current := failure{failed: err != nil}
	if errors.Is(err, ErrDocument) {
		current.version, current.reason = c.seen, err.Error()
	}
	if current == c.failure {
		return
	}
	c.failure = current
	switch {
	case err != nil:
		c.options.Logger.Error("flags were not reloaded, evaluation goes on with those loaded before",
			"error", err, "last_check", c.LastCheck())
	default:
		c.options.Logger.Info("flags can be loaded again")
	}
}

// refresh replaces the snapshot if the source has changed.
func (c *Cache) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.RefreshTimeout)
	defer cancel()
	// Reading the version before the flags can only make the next refresh load once more; the other way round, a change
	// in between would go unnoticed.
	version, err := c.source.Version(ctx)
	if err != nil {
		return err
	}
	c.seen = version
	if !c.loaded || version != c.version {
		if err := c.load(ctx, version); err != nil {
			return err
		}
		c.version = version
	}
	now := time.Now()
	c.checked.Store(&now)
	return nil
}

// load replaces the snapshot. Where the source can tell what has changed, the flags that have not stay as they are.
func (c *Cache) load(ctx context.Context, version string) error {
	source, ok := c.source.(interface {
		changes(ctx context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error)
	})
	if ok && c.loaded {
		before := c.Snapshot()
		known, again := forget(before.Flags(), c.recheck)
		changed, gone, err := source.changes(ctx, known)
		if err != nil {
			return err
		}
		if len(again) > 0 {
			c.recheck = again[len(again)-1]
		}
		c.swap(before.With(changed, append(gone, again...)), version)
		return nil
	}
	flags, err := c.source.Flags(ctx)
	if err != nil {
		return err
	}
	c.swap(eval.Compile(flags), version)
	c.loaded = true
	if c.options.Swapped != nil {
		c.options.Swapped()
	}
	return nil
}

// forget leaves out some of the flags, which are in the order of their ids: those after an id, or the first ones if there
// are none after it. To whoever compares the others with the source, they are new.
func forget(flags []*entity.Flag, after uint) (known []*entity.Flag, forgotten []uint) {
	if len(flags) <= rechecksAll {
		for _, f := range flags {
			forgotten = append(forgotten, f.ID)
		}
		return nil, forgotten
	}
	from, _ := slices.BinarySearchFunc(flags, after+1, func(f *entity.Flag, id uint) int { return cmp.Compare(f.ID, id) })
	if from == len(flags) {
		from = 0
	}
	to := min(from+recheckedFlags, len(flags))
	for _, f := range flags[from:to] {
		forgotten = append(forgotten, f.ID)
	}
	return slices.Delete(flags, from, to), forgotten
}

func (c *Cache) swap(snapshot *eval.Snapshot, version string) {
	c.publish(snapshot, version)
	c.warn(snapshot.Problems())
}

func (c *Cache) publish(snapshot *eval.Snapshot, version string) {
	next := make(chan struct{})
	before := c.state.Swap(&State{Snapshot: snapshot, Version: version, Since: time.Now(), Replaced: next, replaced: next})
	if before != nil {
		close(before.replaced)
	}
}

// warn logs the problems that the snapshot before did not have, and what the source has to say of the flags.
func (c *Cache) warn(problems []error) {
	if source, ok := c.source.(interface{ warnings() []Finding }); ok {
		for _, finding := range source.warnings() {
			problems = append(problems, errors.New(finding.String()))
		}
	}
	known := c.problems
	c.problems = make(map[string]struct{}, len(problems))
	for _, problem := range problems {
		message := problem.Error()
		if _, ok := known[message]; !ok {
			c.options.Logger.Warn("flag needs attention", "problem", message)
		}
		c.problems[message] = struct{}{}
	}
}
