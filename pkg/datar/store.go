package datar

import (
	"context"
	"errors"
	"math"
	"time"
)

// Errors of the engine's queries, and of stores.
var (
	// ErrInvalidQuery marks a query with an argument out of range. Its text names the argument and what is accepted.
	ErrInvalidQuery = errors.New("invalid query")
	// ErrRefused marks the error of a Store that will refuse a batch for ever because of a row in it.
	ErrRefused = errors.New("refused by the store")
	// ErrJournal marks an error of New: Options.Journal.Dir cannot be used for journals, and is Required.
	ErrJournal = errors.New("no journal")
	// ErrFlagNotFound marks a query for a flag that neither the Catalog knows nor any stored row counts.
	ErrFlagNotFound = errors.New("flag not found")
)

// Hour is one hour of UTC, counted in whole hours since 1970-01-01T00:00Z.
type Hour int32

// DayStart returns the first hour of the day of UTC in which the hour lies.
func (h Hour) DayStart() Hour {
	if rest := h % 24; rest < 0 { // Go divides towards zero
		return h - rest - 24
	}
	return h - h%24
}

// HourOf returns the hour in which t lies.
func HourOf(t time.Time) Hour { return hourOfMilli(t.UnixMilli()) }

func hourOfMilli(ms int64) Hour {
	const milliPerHour = int64(time.Hour / time.Millisecond)
	if 0 <= ms && ms <= maxMilli { // as nearly always
		return Hour(uint64(ms) / uint64(milliPerHour))
	}
	hour := ms / milliPerHour
	if ms%milliPerHour < 0 { // Go divides towards zero
		hour--
	}
	return Hour(max(math.MinInt32, min(hour, math.MaxInt32)))
}

// Time returns the start of the hour, in UTC.
func (h Hour) Time() time.Time { return time.Unix(int64(h)*3600, 0).UTC() }

// Key says what one counter counts.
type Key struct {
	FlagID int64
	// VariantID is 0 for evaluations that assigned no variant.
	VariantID int64
	// SegmentID is 0 for evaluations that matched no segment.
	SegmentID int64
	Hour      Hour
	// Version is the id of the flag's snapshot modulo 65,536, or 0. Version, Outcome and Asked are details,
	// which a DetailStore keeps; of other stores they are 0.
	Version uint16
	Outcome Outcome
	Asked   Asked
}

// event is the key of the events to which the key's counts are added, if its outcome IsEvent. Events never had a segment
// for what was held out.
func (k Key) event() Key {
	if k.Outcome == HeldOut {
		k.SegmentID = 0
	}
	k.Version, k.Outcome, k.Asked = 0, 0, 0
	return k
}

// Compare orders keys by flag, hour, variant, segment, outcome, version and asked: the order in which every writer of one
// store must lock its rows.
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

// details are outcome, version and asked as one number.
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
	// Count is how many evaluations to add, at least 1. Ingested of them were counted elsewhere, and sent in.
	Count, Ingested int64
	// First and Last are the times of the earliest and the latest evaluation, in Unix milliseconds. A store keeps the
	// minimum and the maximum of all it was given.
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

// Batch is what one flush sends. It never changes once it was sent for the first time.
type Batch struct {
	// Writer is the identity of the engine that sends, unique among all that ever wrote to the store.
	Writer string
	// Sequence numbers the batches of one writer: 1, 2, 3 and so on. A writer sends the next only after the one before
	// was applied.
	Sequence int64
	// Rows are in the order of Key.Compare, each key once. For a DetailStore their keys have all parts; for others
	// Outcome, Version and Asked are 0.
	Rows []Row
	// Counters are the counters behind Rows, one or more for each, in the same order, if the Store is a CounterStore. They are
	// nil for other stores, and in batches that no engine has made.
	Counters []Counter
	// Unknown are requests for flags that do not exist, and Server is the record of the sender, nil if it sends none. Both are for
	// a DetailStore.
	Unknown []UnknownRow
	Server  *ServerRecord
}

// Counter is the state of one of a writer's counters, as of a batch.
type Counter struct {
	Key
	// Number tells the counters of one writer apart, 0 or more. It is never used again for another counter of the writer.
	Number int64
	// Total is what the counter has counted since it began. It grows from batch to batch.
	Total int64
	// First and Last are the times of the earliest and the latest evaluation in Total, in Unix milliseconds.
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

// TotalsQuery selects the rows that Store.Totals adds up.
type TotalsQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// FlagID selects one flag; 0 selects all of them.
	FlagID  int64
	GroupBy Dimension
}

// Total is the sum of one group. Of FlagID, VariantID, SegmentID and Day those are filled that the query groups by.
type Total struct {
	FlagID               int64
	VariantID, SegmentID int64
	// Day is the first hour of the day.
	Day   Hour
	Count int64
	// Ingested is how many of Count were sent in, as far as that is known.
	Ingested int64
	// Last is the latest evaluation in Unix milliseconds, 0 when none of the rows knows it.
	Last int64
}

// Store keeps counts. Implementations are safe for concurrent use, also by engines in other processes, and return soon
// after their context has ended.
// Package storetest holds the tests that each of them must pass.
type Store interface {
	// Identity is a random text that the store made when its tables were created, of at most 64 letters, digits and
	// hyphens. It never changes, so that counts left in a journal cannot reach another store. It is returned without
	// waiting for anything: Record may be waiting for it.
	Identity() string
	// Apply adds all rows of the batch in one transaction, together with a note that this writer's sequence was
	// applied. A batch whose sequence is noted already is left alone, so that sending a batch again, after an answer
	// that never came, counts it once. On any error nothing of the batch was applied, or all of it and the note.
	// An error matches ErrRefused if nothing was applied, and never will be, because the store refuses one of the rows:
	// the engine then looks for that row and drops it.
	Apply(ctx context.Context, batch Batch) error
	// Totals adds up counts by one dimension, in no particular order, without groups whose count is 0.
	Totals(ctx context.Context, query TotalsQuery) ([]Total, error)
}

// Wrapper is a Store that passes its calls on to another one, such as to measure them. The engine then finds what the other one
// can do beyond a Store, as a DetailStore, Maintainer or BatchSizer, unless the wrapper can do it itself. Not so for PartialApplier, whose
// method would bypass the wrapper's Apply.
type Wrapper interface {
	// Unwrap returns the other store.
	Unwrap() Store
}

// capability returns the store, or the first one that it wraps, that can do what T says.
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

// Maintainer is a Store that has work to do now and then, apart from batches and queries. An engine calls it once a
// minute.
type Maintainer interface {
	// Maintain does a bounded amount of what is due at the time now. If keep is not 0, the store may reduce days that
	// ended longer ago than that to one total for each flag and day.
	Maintain(ctx context.Context, now time.Time, keep time.Duration) error
}

// CounterStore is a Store that keeps the greatest Total of each counter, by writer and Number, instead of adding rows up. The
// engine then sets Batch.Counters, and never uses the writer of counters that have ended for others. A CounterStore must not
// refuse rows: a later Total has what was refused.
type CounterStore interface {
	Store
	// KeepsCounters is never called.
	KeepsCounters()
}

// BatchSizer is a Store that does not take batches of any size.
type BatchSizer interface {
	// MaxRows is the most rows of a batch, at least 1.
	MaxRows() int
}

// PartialApplier is a Store that takes a batch without the evaluations that it refuses, so that nobody has to look for them.
type PartialApplier interface {
	// ApplySome is Store.Apply, which the engine does not call then, and returns how many evaluations of the batch were
	// refused and will be for ever, 0 to all of them. They count as dropped.
	ApplySome(ctx context.Context, batch Batch) (refused int64, err error)
}

// FlagInfo is what summaries show of a flag beside its counts.
type FlagInfo struct {
	Key         string
	Description string
	Enabled     bool
	// Deleted is whether the flag was deleted. A deleted flag is not enabled.
	Deleted bool
	// Variants and Segments are names by id, of which any may be missing. QueryFlagSummaryBreakdown returns them.
	Variants, Segments map[int64]string
}

// Catalog names flags. The host implements it over wherever its flags are kept.
type Catalog interface {
	// Flags returns those of the given flags that exist or existed; ids that it does not know are left out.
	Flags(ctx context.Context, ids []int64) (map[int64]FlagInfo, error)
}

// StaticCatalog is a Catalog of flags that are known in advance, by their ids. It must not change while an engine uses it.
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
