// Package evalcache keeps a snapshot of all flags in memory and up to date, so that an evaluation never waits for where
// the flags come from.
package evalcache

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// FlagSource is where flags come from.
type FlagSource interface {
	// Version names the current state cheaply; equal versions mean equal flags.
	Version(ctx context.Context) (string, error)
	// Flags reads all flags, in a state at least as new as the last Version.
	Flags(ctx context.Context) ([]entity.Flag, error)
}

// Options tune a Cache.
type Options struct {
	// RefreshInterval is the time between two looks at the source; 0 means 3 seconds.
	RefreshInterval time.Duration
	// RefreshTimeout bounds each look, the load included; 0 means 59 seconds.
	RefreshTimeout time.Duration
	// Logger takes what goes wrong in a reload; nil means slog.Default.
	Logger *slog.Logger
}

// Cache holds the newest snapshot of a source.
type Cache struct{}

// New returns a Cache that holds no flags until Start.
func New(source FlagSource, o Options) *Cache { panic("unfinished") }

// Start loads the flags and returns an error when that fails. Then it keeps them up to date until Stop. The context
// bounds the first load only.
func (c *Cache) Start(ctx context.Context) error { panic("unfinished") }

// Stop ends the refreshing and waits for it, at most until ctx ends, whose error it then returns. The snapshot stays.
// Stop may be called more than once, and before Start.
func (c *Cache) Stop(ctx context.Context) error { panic("unfinished") }

// Snapshot returns the newest snapshot. It is never nil.
func (c *Cache) Snapshot() *eval.Snapshot { panic("unfinished") }

// LastCheck is when the source last confirmed or replaced the snapshot; zero when it never did.
func (c *Cache) LastCheck() time.Time { panic("unfinished") }

// Store is what a source needs of the database.
type Store interface {
	MaxSnapshotID(ctx context.Context) (int64, error)
	EvalFlags(ctx context.Context) ([]entity.Flag, error)
}

// FromStore reads the flags of a database. Every change to a flag writes a snapshot row, so the highest id of those
// rows is the version.
func FromStore(s Store) FlagSource { panic("unfinished") }

// FromFile reads the flag document at path.
func FromFile(path string) FlagSource { panic("unfinished") }

// FromHTTP reads the flag document at url. A nil client means http.DefaultClient.
func FromHTTP(url string, client *http.Client) FlagSource { panic("unfinished") }

// Severity says what a Finding does to a document.
type Severity string

// The severities.
const (
	// SeverityError blocks the document.
	SeverityError Severity = "error"
	// SeverityWarning does not.
	SeverityWarning Severity = "warning"
)

// Finding is something wrong or doubtful in a flag document.
type Finding struct {
	Severity Severity
	// Flag names the flag by its key, or by its place in the document when it has none.
	Flag string
	// Part names the part of the flag, such as `segment 2, constraint 1`; empty for the flag itself.
	Part    string
	Message string
}

// String is the finding in one line.
func (f Finding) String() string { panic("unfinished") }

// ParseDocument reads a JSON flag document. It returns the flags with all ids and references filled in, and everything
// worth mentioning about the document. The error is not nil when the document cannot be used.
func ParseDocument(document []byte) ([]entity.Flag, []Finding, error) { panic("unfinished") }
