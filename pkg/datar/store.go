package datar

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Errors of the engine's queries, and of stores.
var (
	// ErrInvalidQuery is the error of a query with an argument out of range. Its string names the
	// argument and what is accepted.
	ErrInvalidQuery = errors.New("invalid query")
	// ErrRefused is the error of a Store that will always refuse a batch because of a row in it.
	ErrRefused = errors.New("refused by the store")
	// ErrJournal is the error of New if Options.Journal.Dir cannot be used for journals, but is
	// Required.
	ErrJournal = errors.New("no journal")
	// ErrFlagNotFound is the error of a query for a flag that is not in the Catalog and has no
	// stored rows.
	ErrFlagNotFound = errors.New("flag not found")
)

// Hour is one UTC hour, counted in whole hours since 1970-01-01T00:00Z.
type Hour int32

// DayStart returns the first hour of the hour's UTC day.
func (h Hour) DayStart() Hour {
	if rest := h % 24; rest < 0 { // Go divides toward zero
		return h - rest - 24
	}
	return h - h%24
}

// HourOf returns the hour of t.
func HourOf(t time.Time) Hour { return hourOfMilli(t.UnixMilli()) }

func hourOfMilli(ms int64) Hour {
	const milliPerHour = int64(time.Hour / time.Millisecond)
	if 0 <= ms && ms <= maxMilli { // nearly always
		return Hour(uint64(ms) / uint64(milliPerHour))
	}
	hour := ms / milliPerHour
	if ms%milliPerHour < 0 { // Go divides toward zero
		hour--
	}
	return Hour(max(math.MinInt32, min(hour, math.MaxInt32)))
}

// Time returns the start of the hour, in UTC.
func (h Hour) Time() time.Time { return time.Unix(int64(h)*3600, 0).UTC() }

// Key identifies a counter.
type Key struct {
	FlagID int64
	// VariantID is 0 for evaluations without a variant.
	VariantID int64
	// SegmentID is 0 for evaluations that matched no segment.
	SegmentID int64
	Hour      Hour
	// Version is the ID of the flag's snapshot modulo 65,536, or 0. Version, Outcome and Asked are
	// details, which a DetailStore keeps; for other stores they are 0.
	Version uint16
	Outcome Outcome
	Asked   Asked
}

// event returns the key of the events that include the key's counts, if its outcome IsEvent. Events
// have no segment for held-out evaluations.
func (k Key) event() Key {
	if k.Outcome == HeldOut {
		k.SegmentID = 0
	}
	k.Version, k.Outcome, k.Asked = 0, 0, 0
	return k
}

// Compare orders keys by flag, hour, variant, segment, outcome, version and asked. Every writer of
// a store must lock its rows in this order.
func (k Key) Compare(other Key) int {
	switch {
	case k.FlagID != other.FlagID:
		return compare(k.FlagID, other.FlagID)
	case k.Hour != other.Hour:
		return compare(int64(k.Hour), int64(other.Hour))
	case k.VariantID != other.VariantID:
		return compare(k.VariantID, other.VariantID)
	case k.SegmentID != other.SegmentID:
		return compare(k.SegmentID, other.SegmentID)
	default:
		return compare(k.details(), other.details())
	}
}

// details returns outcome, version and asked as one number.
func (k Key) details() int64 { return int64(k.Outcome)<<24 | int64(k.Version)<<8 | int64(k.Asked) }

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// Row is an addition to the stored count of one key.
type Row struct {
	Key
	// Count is the number of evaluations to add, at least 1. Ingested of them were counted
	// elsewhere and reported.
	Count, Ingested int64
	// First and Last are the times of the earliest and the latest evaluation, in Unix milliseconds.
	// A store keeps the minimum and the maximum of all rows.
	First, Last int64
}

func (r *Row) add(other Row) {
	r.Count += other.Count
	r.Ingested += other.Ingested
	if other.First != 0 && (r.First == 0 || other.First < r.First) {
		r.First = other.First
	}
	r.Last = max(r.Last, other.Last)
}

// Batch is the data of one flush. It never changes after it was sent for the first time.
type Batch struct {
	// Writer is the identity of the sending engine, unique among all that ever wrote to the store.
	Writer string
	// Sequence numbers the batches of one writer: 1, 2, 3 and so on. A writer sends a batch only
	// after the previous one was applied.
	Sequence int64
	// Rows are in the order of Key.Compare, each key once. For a DetailStore their keys have all
	// parts; for others Outcome, Version and Asked are 0.
	Rows []Row
	// Counters are the counters of Rows, one or more for each, in the same order, if the Store is a
	// CounterStore. They are nil for other stores, and in batches that are not from an engine.
	Counters []Counter
	// Unknown counts requests for flags that do not exist, and Server is the record of the sender,
	// or nil. Both are for a DetailStore.
	Unknown []UnknownRow
	Server  *ServerRecord
}

// Counter is the state of one of a writer's counters, as of a batch.
type Counter struct {
	Key
	// Number identifies a counter of one writer, 0 or more. It is never reused for another counter
	// of the writer.
	Number int64
	// Total is the count of the counter since it began. It grows from batch to batch.
	Total int64
	// First and Last are the times of the earliest and the latest evaluation in Total, in Unix
	// milliseconds.
	First, Last int64
}

// Dimension is what Store.Totals groups by.
type Dimension uint8

// The dimensions.
const (
	// ByFlag has one group for each flag.
	ByFlag Dimension = iota + 1
	// ByOutcome has one group for each pair of variant and segment.
	ByOutcome
	// ByDay has one group for each day of UTC.
	ByDay
)

// TotalsQuery is the query of Store.Totals.
type TotalsQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// FlagID selects one flag; 0 selects all flags.
	FlagID  int64
	GroupBy Dimension
}

// Total is the sum of one group. Only those of FlagID, VariantID, SegmentID and Day are set that
// the query groups by.
type Total struct {
	FlagID               int64
	VariantID, SegmentID int64
	// Day is the first hour of the day.
	Day   Hour
	Count int64
	// Ingested is how many of Count were reported, as far as known.
	Ingested int64
	// Last is the latest evaluation in Unix milliseconds, or 0 if unknown in all rows.
	Last int64
}

// Store keeps counts. Implementations must be safe for concurrent use, including by engines in
// other processes, and return soon after their context ends. Package storetest has the tests that
// every Store must pass.
type Store interface {
	// Identity returns a random string that the store created with its tables, of at most 64
	// letters, digits and hyphens. It never changes, so that counts in a journal cannot reach
	// another store. It must return at once, because Record may wait for it.
	Identity() string
	// Apply adds all rows of the batch in one transaction, and saves that this writer's sequence
	// was applied. It ignores a batch whose sequence is already saved, so that a batch that is sent
	// again, after its confirmation was lost, counts once. On any error either nothing was applied,
	// or the whole batch with its sequence. An error matches ErrRefused if nothing was applied, and
	// never will be, because the store refuses one of the rows: the engine then finds that row and
	// drops it.
	Apply(ctx context.Context, batch Batch) error
	// Totals adds up counts by one dimension, in any order, without groups whose count is 0.
	Totals(ctx context.Context, query TotalsQuery) ([]Total, error)
}

// Wrapper is a Store that passes its calls on to another one, for example to measure them. The
// engine then uses the optional interfaces of the other one, such as DetailStore, Maintainer or
// BatchSizer, unless the wrapper implements them. PartialApplier is excepted, because its method
// would bypass the wrapper's Apply.
type Wrapper interface {
	// Unwrap returns the other store.
	Unwrap() Store
}

// capability returns the first of the store and the stores that it wraps that implements T.
func capability[T any](store Store) (T, bool) {
	for store != nil {
		if t, ok := store.(T); ok {
			return t, true
		}
		w, ok := store.(Wrapper)
		if !ok {
			break
		}
		store = w.Unwrap()
	}
	var none T
	return none, false
}

// Maintainer is a Store that needs periodic work, apart from batches and queries. An engine calls
// it once a minute.
type Maintainer interface {
	// Maintain does a limited amount of the work that is due at the time now. If keep is not 0, the
	// store may reduce days that ended longer ago to one total for each flag and day.
	Maintain(ctx context.Context, now time.Time, keep time.Duration) error
}

// RollupStore is a Maintainer that adds up old counts in the background. A query for a long time is
// slow until that is done, for example on the first day with the database of another server.
type RollupStore interface {
	Store
	// Rollups returns the progress as the last call of Maintainer.Maintain saw it.
	Rollups() RollupProgress
}

// RollupProgress is the progress of adding up old counts.
type RollupProgress struct {
	// Due is the number of sums that old counts need, and Made the number of those that exist. Both
	// are 0 before the first call of Maintainer.Maintain.
	Made, Due int
	// DetailsFrom is the first hour of the newest days whose details are all added up. A query of
	// all flags is fast if its window begins there or later. It is 0 if the newest day is not added
	// up yet, or if this is unknown.
	DetailsFrom Hour
}

// PreparingError is the error of a query of all flags that would take long, because the store is
// still adding up old counts.
type PreparingError RollupProgress

// Error returns a text that a client may see.
func (e *PreparingError) Error() string {
	return fmt.Sprintf("old counts are being added up, %d of %d sums are done: try again later, or ask for one flag or a shorter time", e.Made, e.Due)
}

// CounterStore is a Store that keeps the greatest Total of each counter, by writer and Number,
// instead of adding up rows. The engine then sets Batch.Counters, and never reuses the writer of
// counters that have ended. A CounterStore must not refuse rows: a later Total would include the
// refused counts.
type CounterStore interface {
	Store
	// KeepsCounters is never called.
	KeepsCounters()
}

// BatchSizer is a Store with a limit for batches.
type BatchSizer interface {
	// MaxRows is the maximum number of rows of a batch, at least 1.
	MaxRows() int
}

// LagReporter is a Store whose queries may miss batches that it has already applied, because
// replicas answer them.
type LagReporter interface {
	// Lag returns how far queries lag behind: they include all batches that were applied longer
	// ago. It is 0 if they include all batches, as far as the store can tell.
	Lag(ctx context.Context) (time.Duration, error)
}

// ClockReporter is a Store that compares the clock of its database with the clock of this process.
// If they differ, one of them is wrong, and a wrong clock of this process puts evaluations into
// wrong hours.
type ClockReporter interface {
	// ClockOffset returns how far the clock of the database was ahead when it last responded, at
	// least. It is negative if that clock was behind, and 0 if there is no difference, as far as
	// the store can tell.
	ClockOffset() time.Duration
}

// PartialApplier is a Store that applies a batch without the evaluations that it refuses, so that
// the engine does not search for them.
type PartialApplier interface {
	// ApplySome is Store.Apply, and the engine calls it instead. It returns how many evaluations of
	// the batch were refused and always will be, 0 to all of them. They count as dropped.
	ApplySome(ctx context.Context, batch Batch) (refused int64, err error)
}

// FlagInfo is the data of a flag in summaries, in addition to its counts.
type FlagInfo struct {
	Key         string
	Description string
	Enabled     bool
	// Deleted reports whether the flag was deleted. A deleted flag is not enabled.
	Deleted bool
	// Variants and Segments are names by ID, and may be incomplete. QueryFlagSummaryBreakdown
	// returns them.
	Variants, Segments map[int64]string
}

// Catalog names flags. The host implements it for its own flags.
type Catalog interface {
	// Flags returns those of the given flags that exist or existed; it omits unknown IDs.
	Flags(ctx context.Context, ids []int64) (map[int64]FlagInfo, error)
}

// StaticCatalog is a Catalog of flags that are known in advance, by ID. It must not change while an
// engine uses it.
type StaticCatalog map[int64]FlagInfo

// Flags implements Catalog.
func (c StaticCatalog) Flags(_ context.Context, ids []int64) (map[int64]FlagInfo, error) {
	found := make(map[int64]FlagInfo, len(ids))
	for _, id := range ids {
		if info, ok := c[id]; ok {
			found[id] = info
		}
	}
	return found, nil
}
