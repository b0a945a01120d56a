package datar

import (
	"context"
	"slices"
	"time"
)

// DetailStore is a Store that also keeps the outcome, asked and version of counts, requests for
// flags that do not exist, and the records of servers. An engine finds this interface with a type
// assertion. In a Store without it, the engine keeps only events, as defined by Outcome.IsEvent,
// with the other parts 0.
//
// Apply of a DetailStore writes all parts of a batch in the transaction of its rows, under its
// number. The events, which Totals adds up, get EventRows(batch.Rows). The details get the rows
// whose outcome is not Unattributed, under their whole key. Each of batch.Unknown is added to the
// count of its key and hour. batch.Server replaces the record of the same Name and Run, unless that
// record is newer by its At.
//
// So for each flag, hour, variant and segment, the events are at least the details whose outcome
// IsEvent. The rest was counted by Flagr, by an older version or without an outcome: Details
// returns it as Unattributed.
type DetailStore interface {
	Store
	// Details adds up details by the parts of the query's GroupBy, and events that have no details,
	// whose outcome is Unattributed and whose Version and Asked are 0. In a row the other parts of
	// the key are 0. With GroupHour its Hour is the hour, with GroupDay the first hour of the UTC
	// day, else 0. First and Last are the minimum and the maximum of the added rows, or 0 if
	// unknown, as for unattributed counts. Rows are in the order of Key.Compare, without rows whose
	// count is 0. The result is a consistent snapshot.
	Details(ctx context.Context, query DetailsQuery) ([]Row, error)
	// DetailedFrom returns the first hour of Details. Of earlier days, Maintainer.Maintain has kept
	// only totals, which Totals adds up by ByFlag and ByDay. It is 0 if nothing was reduced.
	DetailedFrom(ctx context.Context) (Hour, error)
	// Unknown adds up requests for flags that do not exist, by key, with Hour 0: highest count
	// first, and equal counts by key. An error that matches errors.ErrUnsupported means that the
	// store never returns any.
	Unknown(ctx context.Context, query UnknownQuery) ([]UnknownRow, error)
	// Servers returns the written records, in any order. A store may delete records whose At is
	// more than RecordLifetime ago.
	Servers(ctx context.Context) ([]ServerRecord, error)
}

// RecordLifetime is how long stores keep what is no count: the records of servers, the writers of
// the ledger, and without a retention the requests for unknown flags, which would otherwise grow
// the table forever. A journal that is older may be counted twice. It is one day more than the
// maximum age of a row that can be sent in, because a row may be dated ahead and clocks differ.
const RecordLifetime = 91 * 24 * time.Hour

// Parts is a set of bits: the parts of a key that Details groups by.
type Parts uint8

// The bits of Parts. GroupHour and GroupDay exclude each other.
const (
	GroupFlag Parts = 1 << iota
	GroupOutcome
	GroupVariant
	GroupSegment
	GroupVersion
	GroupAsked
	GroupHour
	GroupDay
)

// Of returns the key of the group of k: k without the other parts.
func (p Parts) Of(k Key) Key {
	var group Key
	if p&GroupFlag != 0 {
		group.FlagID = k.FlagID
	}
	if p&GroupOutcome != 0 {
		group.Outcome = k.Outcome
	}
	if p&GroupVariant != 0 {
		group.VariantID = k.VariantID
	}
	if p&GroupSegment != 0 {
		group.SegmentID = k.SegmentID
	}
	if p&GroupVersion != 0 {
		group.Version = k.Version
	}
	if p&GroupAsked != 0 {
		group.Asked = k.Asked
	}
	switch {
	case p&GroupHour != 0:
		group.Hour = k.Hour
	case p&GroupDay != 0:
		group.Hour = k.Hour.DayStart()
	}
	return group
}

// DetailsQuery is the query of DetailStore.Details.
type DetailsQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// FlagID selects one flag; 0 selects all flags.
	FlagID  int64
	GroupBy Parts
}

// UnknownQuery is the query of DetailStore.Unknown.
type UnknownQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// Limit is the maximum number of keys to return, at least 1, after the first Offset keys.
	Limit, Offset int
}

const (
	// MaxAsked is the maximum length of UnknownRow.Asked, in bytes.
	MaxAsked = 63
	// OtherUnknown is the UnknownRow.Asked of requests beyond the keys that a server keeps for an
	// hour.
	OtherUnknown = "(other)"
)

// UnknownRow counts requests for a flag that does not exist.
type UnknownRow struct {
	// Asked is the requested key or ID, valid UTF-8 of at most MaxAsked bytes.
	Asked string
	Hour  Hour
	// Count is at least 1.
	Count int64
	// First and Last are the times of the earliest and the latest request, in Unix milliseconds.
	First, Last int64
}

// ServerKind is the kind of the writer of a ServerRecord.
type ServerKind string

// The kinds.
const (
	// KindServer writes to the store itself.
	KindServer ServerKind = "server"
	// KindEdge forwards its counts to a server.
	KindEdge ServerKind = "edge"
	// KindApplication aggregates its own counts and reports them.
	KindApplication ServerKind = "application"
)

// ServerRecord has the statistics of one run of a server, edge or application, as of its newest
// batch: Recorded = Stored + Pending + the sum of Dropped, with this batch stored. Times are UTC to
// the millisecond.
type ServerRecord struct {
	// Name identifies the server, and stays the same after a restart: 1 to 63 bytes of valid UTF-8.
	Name string
	// Run identifies a start of the server, and is random: at most 36 letters, digits and hyphens.
	Run  string
	Kind ServerKind
	// Start is the start of the run, and At is the time of this record.
	Start, At time.Time
	// LastFlush is the start of the newest flush that is completely stored, including this batch:
	// nothing recorded before it is pending. It is zero if there was none.
	LastFlush     time.Time
	FlushInterval time.Duration
	// Ended: this is the last record of the run, which flushed what it had.
	Ended bool
	// Recorded, Stored and Pending are as in Stats, since Start. Adopted is the part of Recorded
	// that earlier runs had recorded but not stored.
	Recorded, Adopted, Stored, Pending int64
	// Dropped has the counts by drop reason, without reasons with 0. FirstDrop and LastDrop are the
	// first and the last time of a drop, or zero if there was none.
	Dropped             map[string]int64
	FirstDrop, LastDrop time.Time
	// Journal tells where the run keeps its counts until they are stored. It is nil in records of
	// earlier versions, and of senders that do not tell.
	Journal *JournalRecord
	// missing: queries may not include all stored counts of the run, because the store lags.
	// Engine.Servers sets it.
	missing bool
}

// MaxAdoptedRuns is the maximum length of JournalRecord.Adopted.
const MaxAdoptedRuns = 32

// JournalRecord is the part of a ServerRecord about journals. With it, others know which counts of
// a killed run may be lost: those after its last flush, unless all were in a journal that another
// run found.
type JournalRecord struct {
	// InMemory: some counts of the run are in memory only.
	InMemory bool `json:"in_memory,omitempty"`
	// Adopted has the runs whose journals this run found, the newest last: at most MaxAdoptedRuns.
	Adopted []string `json:"adopted,omitempty"`
}

// EventRows returns the events of rows: the rows whose outcome IsEvent, with Outcome, Asked and
// Version 0 and without the segment of HeldOut, each key once, in the order of Key.Compare. It
// shares no memory with rows.
func EventRows(rows []Row) []Row {
	events := make([]Row, 0, len(rows))
	for _, r := range rows {
		if !r.Outcome.IsEvent() {
			continue
		}
		r.Key = r.event()
		events = append(events, r)
	}
	slices.SortFunc(events, func(a, b Row) int { return a.Compare(b.Key) })
	merged := events[:0]
	for _, r := range events {
		if last := len(merged) - 1; last >= 0 && merged[last].Key == r.Key {
			merged[last].add(r)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// GroupRows adds up rows by parts of their keys, and returns them in the order of Key.Compare. Rows
// with First and Last 0 do not affect First and Last of the sum.
func GroupRows(rows []Row, by Parts) []Row {
	groups := make([]Row, len(rows))
	for i, r := range rows {
		r.Key = by.Of(r.Key)
		groups[i] = r
	}
	slices.SortStableFunc(groups, func(a, b Row) int { return a.Compare(b.Key) })
	n := 0
	for _, r := range groups {
		if n > 0 && groups[n-1].Key == r.Key {
			groups[n-1].add(r)
			continue
		}
		groups[n] = r
		n++
	}
	return groups[:n]
}

// MergeRows adds up two results of DetailStore.Details with the same GroupBy. Rows whose count is 0
// are left out. The result shares no memory with a and b.
func MergeRows(a, b []Row) []Row {
	return AppendMergedRows(make([]Row, 0, len(a)+len(b)), a, b)
}

// AppendMergedRows appends MergeRows(a, b) to all, which shares no memory with a and b.
func AppendMergedRows(all, a, b []Row) []Row {
	for len(a) > 0 && len(b) > 0 {
		order := a[0].Compare(b[0].Key)
		switch {
		case order < 0:
			all = append(all, a[0])
			a = a[1:]
		case order > 0:
			all = append(all, b[0])
			b = b[1:]
		default:
			sum := a[0]
			sum.add(b[0])
			if sum.Count != 0 {
				all = append(all, sum)
			}
			a, b = a[1:], b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// WithUnattributed computes the result of DetailStore.Details from sums that a store computes
// easily: details, by at least all parts of the query's GroupBy and by GroupOutcome, and events, by
// those parts of flag, variant, segment and hour or day that are in GroupBy. Both must be from the
// same snapshot.
func WithUnattributed(details, events []Row, by Parts) []Row {
	const ofEvents = GroupFlag | GroupVariant | GroupSegment | GroupHour | GroupDay
	left := make([]Row, 0, len(events)+len(details))
	for _, r := range events {
		r.Key, r.First, r.Last = r.event(), 0, 0
		left = append(left, r)
	}
	for _, r := range details {
		if r.Outcome.IsEvent() {
			left = append(left, Row{Key: r.event(), Count: -r.Count, Ingested: -r.Ingested})
		}
	}
	all := append(slices.Clone(details), GroupRows(left, by&ofEvents)...)
	return slices.DeleteFunc(GroupRows(all, by), func(r Row) bool { return r.Count == 0 })
}
