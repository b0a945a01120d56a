package datar

import (
	"context"
	"slices"
	"time"
)

// DetailStore is a Store that also keeps the outcome, asked and version of counts, requests for flags that do not exist, and
// the records of servers. An engine finds this interface by a type assertion; of a store without it, it keeps what is an
// event, as Outcome.IsEvent says, with the other parts 0.
//
// Apply of a DetailStore writes all of a batch in the transaction of its rows, under its number:
//   - The events, which Totals adds up, get EventRows(batch.Rows).
//   - The details get the rows whose outcome is not Unattributed, under their whole key.
//   - Each of batch.Unknown is added to the count of its text and hour.
//   - batch.Server replaces the record of the same Name and Run, unless that is newer by its At.
//
// So for each flag, hour, variant and segment, events are never less than the details whose outcome IsEvent. What they are
// more was counted by Flagr, by an older version or without an outcome: Details answers it as Unattributed.
type DetailStore interface {
	Store
	// Details adds up details by the parts that the query groups by, and events that no detail explains, whose outcome
	// is Unattributed and whose Version and Asked are 0. In a row the other parts of the key are 0. With GroupHour its Hour is
	// the hour, with GroupDay the first hour of the day of UTC, else 0. First and Last are the minimum and the
	// maximum of what was added up, 0 where they are not known, as of unattributed counts. Rows are in the order of
	// Key.Compare, without those whose count is 0. The whole answer is of one moment.
	Details(ctx context.Context, query DetailsQuery) ([]Row, error)
	// DetailedFrom returns the first hour that Details knows: of the days before, Maintainer.Maintain has left totals
	// only, which Totals adds up by ByFlag and ByDay. It is 0 if nothing was reduced.
	DetailedFrom(ctx context.Context) (Hour, error)
	// Unknown adds up requests for flags that do not exist, by text, with Hour 0: those with most requests first, equal
	// ones by text.
	Unknown(ctx context.Context, query UnknownQuery) ([]UnknownRow, error)
	// Servers returns the records that were written, in no particular order. A store may forget those whose At is more
	// than 91 days ago.
	Servers(ctx context.Context) ([]ServerRecord, error)
}

// Parts is a set of bits: the parts of a key that Details groups by.
type Parts uint8

// The bits of Parts. Of GroupHour and GroupDay at most one is set.
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

// Of returns the key of the group in which k lies: k without the other parts.
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

// DetailsQuery selects what DetailStore.Details adds up.
type DetailsQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// FlagID selects one flag; 0 selects all of them.
	FlagID  int64
	GroupBy Parts
}

// UnknownQuery selects what DetailStore.Unknown adds up.
type UnknownQuery struct {
	// From is the first hour and To the hour after the last.
	From, To Hour
	// Limit is the most texts that are returned, at least 1, after the first Offset of them.
	Limit, Offset int
}

const (
	// MaxAsked is the most bytes of UnknownRow.Asked.
	MaxAsked = 63
	// OtherUnknown is the UnknownRow.Asked of what was asked for beyond the texts that a server keeps of an hour.
	OtherUnknown = "(other)"
)

// UnknownRow counts requests for a flag that does not exist.
type UnknownRow struct {
	// Asked is the key, id or tag that was asked for, valid UTF-8 of at most MaxAsked bytes.
	Asked string
	Hour  Hour
	// Count is at least 1.
	Count int64
	// First and Last are the times of the earliest and the latest request, in Unix milliseconds.
	First, Last int64
}

// ServerKind says what wrote a ServerRecord.
type ServerKind string

// The kinds.
const (
	// KindServer writes to the store itself.
	KindServer ServerKind = "server"
	// KindEdge forwards its counts to a server.
	KindEdge ServerKind = "edge"
	// KindApplication aggregates counts of its own and sends them in.
	KindApplication ServerKind = "application"
)

// ServerRecord is the statistics of one run of a server, edge or application, as of its newest batch: Recorded = Stored + Pending
// + the sum of Dropped, with this batch stored. Times are UTC to the millisecond.
type ServerRecord struct {
	// Name tells servers apart, and stays the same when one starts again: 1 to 63 bytes of valid UTF-8.
	Name string
	// Run tells starts of one server apart, and is random: at most 36 letters, digits and hyphens.
	Run  string
	Kind ServerKind
	// Start is when the run began, and At when it wrote this record.
	Start, At time.Time
	// LastFlush is the start of the newest flush of which everything is stored, with this batch: what was recorded before it
	// is not pending. It is zero if there was none.
	LastFlush     time.Time
	FlushInterval time.Duration
	// Ended: this is the last record of the run, which flushed what it had.
	Ended bool
	// Recorded, Stored and Pending are as in Stats, since Start. Adopted is the part of Recorded that earlier runs had
	// recorded and not stored.
	Recorded, Adopted, Stored, Pending int64
	// Dropped is by the names of drop reasons, without those that are 0. FirstDrop and LastDrop are when evaluations were
	// dropped first and last, zero if none were.
	Dropped             map[string]int64
	FirstDrop, LastDrop time.Time
}

// EventRows returns what rows add to the events: the rows whose outcome IsEvent, with Outcome, Asked and Version 0 and
// without the segment of HeldOut, each key once, in the order of Key.Compare. It shares no memory with rows.
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

// GroupRows adds rows up by parts of their keys, and returns them in the order of Key.Compare. Rows with First and Last 0
// leave those of others as they are.
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

// WithUnattributed makes an answer of DetailStore.Details out of what a store adds up easily: details, at least by all parts
// that the query groups by and by GroupOutcome, and events, by those parts of flag, variant, segment and hour or day that
// the query groups by, both of the same moment.
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
