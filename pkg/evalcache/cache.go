// Package evalcache keeps an up-to-date snapshot of all flags in memory, so that an evaluation
// never waits for the source of the flags.
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

// FlagSource reads flags. It is called by one goroutine at a time.
type FlagSource interface {
	// Version returns the current version cheaply; equal versions mean equal flags.
	Version(ctx context.Context) (string, error)
	// Flags reads all flags, in a version at least as new as the last Version. The caller may keep
	// them.
	Flags(ctx context.Context) ([]entity.Flag, error)
}

const (
	defaultRefreshInterval = 3 * time.Second
	defaultRefreshTimeout  = 59 * time.Second

	// recheckedFlags is the number of flags that are read again with each reload, although they
	// have not changed. So manual changes in the database are found in turn, and no reload reads
	// all flags.
	recheckedFlags = 20
	// rechecksAll is the maximum number of flags for which all flags are read again.
	rechecksAll = 100

	// minLookInterval is the minimum time between two checks of the source that Look triggers.
	minLookInterval = 250 * time.Millisecond
)

// Options configure a Cache.
type Options struct {
	// RefreshInterval is the time between two checks of the source; 0 means 3 seconds.
	RefreshInterval time.Duration
	// RefreshTimeout limits each check, including the load; 0 means 59 seconds.
	RefreshTimeout time.Duration
	// Now is the clock of State.Since and LastCheck; nil means time.Now.
	Now func() time.Time
	// Logger receives failures of reloads; nil means slog.Default.
	Logger *slog.Logger
	// Swapped is called after all flags were loaded and the cache no longer refers to the old
	// snapshot; it may be nil. The next refresh waits for it. It is not called if only some flags
	// were loaded.
	Swapped func()
}

// Cache has the newest snapshot of a source.
type Cache struct {
	source  FlagSource
	options Options
	state   atomic.Pointer[State]
	checked atomic.Pointer[time.Time] // nil: never
	failing atomic.Bool               // the last refresh failed
	wanted  chan struct{}             // has an element while a call of Look waits

	// These fields are used by Start until it returns, then by the refresh goroutine.
	version  string
	loaded   bool                // all flags, at least once
	recheck  uint                // the ID of the last flag that was read again
	seen     string              // the newest version of the source, loaded or not
	failure  failure             // of the last refresh; the zero value if it succeeded
	problems map[string]struct{} // of the snapshot, already logged

	mu struct {
		sync.Mutex
		stopped bool
		cancel  context.CancelFunc
		done    chan struct{} // closed when no goroutine is running; nil if none was started
		looked  chan struct{} // closed when the next refresh has ended; nil if no call waits for it
	}
}

// State is a snapshot and its version.
type State struct {
	// Snapshot is never nil.
	Snapshot *eval.Snapshot
	// Version is the source's version of these flags; empty before the first load.
	Version string
	// Since is the time at which the snapshot was loaded.
	Since time.Time
	// Replaced is closed when there is a newer state.
	Replaced <-chan struct{}

	replaced chan struct{} // the same channel
}

// New returns a Cache without flags; call Start to load them.
func New(source FlagSource, o Options) *Cache {
	if o.RefreshInterval <= 0 {
		o.RefreshInterval = defaultRefreshInterval
	}
	if o.RefreshTimeout <= 0 {
		o.RefreshTimeout = defaultRefreshTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Cache{source: source, options: o, wanted: make(chan struct{}, 1)}
	c.publish(eval.Compile(nil), "")
	return c
}

// Start loads the flags and returns an error if that fails; the caller may then retry. Afterward it
// keeps the flags up to date until Stop. The context limits only the first load. A cache cannot be
// started twice, nor after Stop.
func (c *Cache) Start(ctx context.Context) error {
	running, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	loading, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, cancel)() // Stop also ends the first load

	err = c.refresh(loading)
	if err == nil && running.Err() != nil {
		err = errors.New("stopped during the load")
	}
	if err != nil {
		c.mu.Lock()
		c.mu.cancel()
		c.mu.done = nil
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
	case c.mu.stopped:
		return nil, nil, errors.New("evaluation cache was stopped")
	case c.mu.done != nil:
		return nil, nil, errors.New("evaluation cache is already started")
	}
	running, c.mu.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.mu.done = make(chan struct{})
	return running, c.mu.done, nil
}

// Stop ends the refreshes and waits for them, until ctx ends and its error is returned. The
// snapshot stays. Stop may be called more than once, and before Start.
func (c *Cache) Stop(ctx context.Context) error {
	c.mu.Lock()
	c.mu.stopped = true
	done := c.mu.done
	if done != nil {
		c.mu.cancel()
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

// Look triggers an early check of the source, and waits until it is done or ctx ends. Calls that
// wait at the same time share one check, and there are at most four checks per second. It returns
// at once if the cache is not running.
func (c *Cache) Look(ctx context.Context) {
	c.mu.Lock()
	if c.mu.stopped || c.mu.done == nil {
		c.mu.Unlock()
		return
	}
	done := c.mu.done
	if c.mu.looked == nil {
		c.mu.looked = make(chan struct{})
	}
	looked := c.mu.looked
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

// refreshWaited is refresh, and notifies the waiting calls of Look.
func (c *Cache) refreshWaited(ctx context.Context) error {
	select { // later calls trigger another check
	case <-c.wanted:
	default:
	}
	c.mu.Lock()
	looked := c.mu.looked
	c.mu.looked = nil
	c.mu.Unlock()
	err := c.refresh(ctx)
	if looked != nil {
		close(looked)
	}
	return err
}

// Failing reports whether the last check could not read or use the source.
func (c *Cache) Failing() bool { return c.failing.Load() }

// LastCheck is when the source last confirmed or replaced the snapshot; zero if it never did.
func (c *Cache) LastCheck() time.Time {
	if at := c.checked.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

func (c *Cache) run(ctx context.Context) {
	ticker := time.NewTicker(c.options.RefreshInterval)
	defer ticker.Stop()
	var last time.Time // check triggered by Look
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

// pause waits, and reports whether ctx is still active.
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

// failure distinguishes failed refreshes. All failures to reach the source count as one, because
// their error strings may differ each time, for example by a local port. An invalid document is one
// failure for each version.
type failure struct {
	failed          bool
	version, reason string // of an invalid document
}

// report logs the outcome of a refresh if it differs from the previous one, so that an outage, or a
// document that stays invalid, is not logged every few seconds.
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
		c.options.Logger.Error("flags were not reloaded, evaluation continues with the previous flags",
			"error", err, "last_check", c.LastCheck())
	default:
		c.options.Logger.Info("flags can be loaded again")
	}
}

// refresh replaces the snapshot if the source has changed.
func (c *Cache) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.RefreshTimeout)
	defer cancel()
	// Reading the version before the flags can only cause an extra load. In the other order, a
	// change between the two reads would be missed.
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
	now := c.options.Now()
	c.checked.Store(&now)
	return nil
}

// load replaces the snapshot. If the source can report what has changed, unchanged flags are kept.
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
	c.swap(c.Snapshot().Replace(flags), version)
	c.loaded = true
	if c.options.Swapped != nil {
		c.options.Swapped()
	}
	return nil
}

// forget omits some of the flags, which are sorted by ID: those after the given ID, or the first
// ones if there are none after it. A comparison with the source then treats them as new.
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
	before := c.state.Swap(&State{Snapshot: snapshot, Version: version, Since: c.options.Now(), Replaced: next, replaced: next})
	if before != nil {
		close(before.replaced)
	}
}

// warn logs the problems that the previous snapshot did not have, and the source's warnings about
// the flags.
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
