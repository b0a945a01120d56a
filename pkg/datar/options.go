package datar

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"time"
)

const (
	// DefaultFlushInterval is the default of Options.FlushInterval.
	DefaultFlushInterval = time.Minute
	// MinFlushInterval is the minimum of Options.FlushInterval.
	MinFlushInterval = 50 * time.Millisecond
	// MaxFlushInterval is the maximum of Options.FlushInterval.
	MaxFlushInterval = time.Hour
	// MinRetention is the minimum of Options.Retention other than 0.
	MinRetention = 48 * time.Hour
	// DefaultMaxKeys is the default of Options.MaxKeys. A key takes about 240 bytes, so this is
	// about 23 MB (BenchmarkMemory).
	DefaultMaxKeys = 100_000
	// earlyFlushKeys is the number of keys with new counts that triggers an early flush.
	earlyFlushKeys = 10_000

	// MaxAhead is how far the time of an event may be ahead of Options.Now: an event of an hour
	// that begins later is dropped.
	MaxAhead = 5 * time.Minute

	// flushTimeout limits one attempt of the background flush; 100,000 rows take a few seconds on a
	// slow disk.
	flushTimeout = time.Minute
	// closeTimeout limits the final flush of a Close whose context has no deadline.
	closeTimeout = 10 * time.Second
	// closeGrace is how long Close may take after its attempts to store have ended.
	closeGrace = 100 * time.Millisecond
	// The delay after the first failed flush, doubled after each further one.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// maintenanceInterval is the time between two calls of Maintainer.Maintain, and between two
	// checks of the journals: for journals of ended processes, and to create one that could not be
	// created before.
	maintenanceInterval = time.Minute
	// freshness is the age of the newest flush above which a query flushes first.
	freshness = time.Second
)

// Options configure an Engine. Store is required; the zero value of the others is a good default.
type Options struct {
	Store Store
	// Catalog names flags in results. If it is nil, flags have no names.
	Catalog Catalog
	// FlushInterval is the time between two flushes, MinFlushInterval to MaxFlushInterval.
	FlushInterval time.Duration
	// MaxKeys limits the keys in memory. When 5/8 of them are in use, evaluations of new keys are
	// counted without their version, from 6/8 on also without Asked, from 7/8 on also without their
	// segment. When all are in use, evaluations of new keys are dropped and counted as such.
	MaxKeys int
	// Journal keeps counts when the process ends in any way. The zero value keeps them in memory
	// only.
	Journal JournalOptions
	// Server names this engine among the servers of a DetailStore.
	Server ServerOptions
	// Retention is how long the store keeps counts in detail; for earlier days it keeps each flag's
	// total. 0 means forever; otherwise it is at least MinRetention, and the Store must be a
	// Maintainer.
	Retention time.Duration
	// Logger receives a line when flushes start to fail and when they work again, and when counts
	// are in memory only although a journal is on. Nil means slog.Default(). To turn logging off,
	// use slog.New(slog.DiscardHandler).
	Logger *slog.Logger
	// Now is the clock, for tests. Nil means time.Now.
	Now func() time.Time
}

// JournalOptions configure an engine's journals: files that hold the counters themselves.
type JournalOptions struct {
	// Dir is a directory on a local disk. Engines and processes can share it. Empty means no
	// journal. At startup, and each minute after Start, an engine adopts the journals in it that no
	// living process holds and that have the same Store.Identity. Journals work only on Linux,
	// macOS and the BSDs.
	Dir string
	// Required makes New fail with an error that matches ErrJournal if Dir cannot be used.
	// Otherwise the engine logs a warning, counts in memory, and retries each minute.
	Required bool
}

var identityFormat = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

func (o *Options) validate() error {
	switch {
	case o.Store == nil:
		return errors.New("datar: Options.Store is missing")
	case isNil(o.Store):
		return fmt.Errorf("datar: Options.Store is a nil %T", o.Store)
	case o.Catalog != nil && isNil(o.Catalog):
		return fmt.Errorf("datar: Options.Catalog is a nil %T", o.Catalog)
	case o.FlushInterval != 0 && (o.FlushInterval < MinFlushInterval || o.FlushInterval > MaxFlushInterval):
		return fmt.Errorf("datar: Options.FlushInterval is %v, want %v to %v", o.FlushInterval, MinFlushInterval, MaxFlushInterval)
	case o.Retention != 0 && o.Retention < MinRetention:
		return fmt.Errorf("datar: Options.Retention is %v, want 0 or at least %v", o.Retention, MinRetention)
	case o.MaxKeys < 0:
		return fmt.Errorf("datar: Options.MaxKeys is %d, want 1 or more", o.MaxKeys)
	case o.Journal.Required && o.Journal.Dir == "":
		return errors.New("datar: Options.Journal.Required is set, and Options.Journal.Dir is missing")
	case o.Server.Kind != "" && o.Server.Kind != KindServer && o.Server.Kind != KindEdge && o.Server.Kind != KindApplication:
		return fmt.Errorf("datar: Options.Server.Kind is %q, want %q, %q or %q", o.Server.Kind, KindServer, KindEdge, KindApplication)
	}
	if _, ok := capability[Maintainer](o.Store); o.Retention != 0 && !ok {
		return fmt.Errorf("datar: Options.Retention is %v, but Options.Store, a %T, is not a Maintainer and would keep all counts", o.Retention, o.Store)
	}
	if l, ok := capability[BatchSizer](o.Store); ok && l.MaxRows() < 1 {
		return fmt.Errorf("datar: MaxRows of Options.Store is %d, want 1 or more", l.MaxRows())
	}
	if o.Journal.Dir != "" && !identityFormat.MatchString(o.Store.Identity()) {
		return fmt.Errorf("datar: Identity of Options.Store is %q, want 1 to 64 letters, digits and hyphens", o.Store.Identity())
	}
	if o.Catalog == nil {
		o.Catalog = StaticCatalog(nil)
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

// isNil reports whether v has a nil pointer or is a nil function. A nil map is an empty one.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}
