package datarhttp

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// The bodies of responses. Names, order and omitted members are those of the swagger definitions,
// and the golden file in integration_tests/datargolden fixes both. segmentName and variantName are
// additions, for catalogs with names.

type summary struct {
	Complete *complete     `json:"complete,omitempty"`
	Flags    []summaryFlag `json:"flags"`
}

type summaryFlag struct {
	Deleted         bool       `json:"deleted,omitempty"`
	Description     string     `json:"description,omitempty"`
	Enabled         bool       `json:"enabled,omitempty"`
	FlagID          int64      `json:"flagID,omitempty"`
	FlagKey         string     `json:"flagKey,omitempty"`
	TotalEvalCount  int64      `json:"totalEvalCount,omitempty"`
	LastEvaluatedAt *timestamp `json:"lastEvaluatedAt,omitempty"`
}

type breakdown struct {
	Complete         *complete      `json:"complete,omitempty"`
	FlagID           int64          `json:"flagID,omitempty"`
	TrafficByDay     []dayEntry     `json:"trafficByDay"`
	TrafficBySegment []segmentEntry `json:"trafficBySegment"`
	TrafficBySource  []sourceEntry  `json:"trafficBySource,omitempty"`
	TrafficByVariant []variantEntry `json:"trafficByVariant"`
}

type dayEntry struct {
	Count int64  `json:"count,omitempty"`
	Date  string `json:"date,omitempty"`
}

type segmentEntry struct {
	Count       int64  `json:"count,omitempty"`
	SegmentID   int64  `json:"segmentID,omitempty"`
	SegmentName string `json:"segmentName,omitempty"`
}

type sourceEntry struct {
	Count  int64  `json:"count,omitempty"`
	Source string `json:"source,omitempty"`
}

type variantEntry struct {
	Count       int64  `json:"count,omitempty"`
	VariantID   int64  `json:"variantID,omitempty"`
	VariantName string `json:"variantName,omitempty"`
}

type status struct {
	Adopted              int64            `json:"adopted"`
	Complete             *complete        `json:"complete,omitempty"`
	Dropped              map[string]int64 `json:"dropped,omitempty"`
	FlushIntervalSeconds float64          `json:"flushIntervalSeconds,omitempty"`
	Journal              journal          `json:"journal"`
	Keys                 int64            `json:"keys"`
	LastError            string           `json:"lastError,omitempty"`
	LastFlushAt          *timestamp       `json:"lastFlushAt,omitempty"`
	LastFlushSeconds     float64          `json:"lastFlushSeconds,omitempty"`
	OldestPendingAt      *timestamp       `json:"oldestPendingAt,omitempty"`
	Pending              int64            `json:"pending"`
	Recorded             int64            `json:"recorded"`
	Rollups              *rollups         `json:"rollups,omitempty"`
	Stored               int64            `json:"stored"`
	StoreClockOffset     float64          `json:"storeClockOffsetSeconds,omitempty"`
	Writer               string           `json:"writer,omitempty"`
}

type rollups struct {
	Due  int64 `json:"due"`
	Made int64 `json:"made"`
}

type journal struct {
	Directory string `json:"directory,omitempty"`
	Lost      int64  `json:"lost,omitempty"`
	State     string `json:"state,omitempty"`
}

type complete struct {
	Dropped int64      `json:"dropped"`
	Holes   []hole     `json:"holes"`
	Pending int64      `json:"pending"`
	Servers int        `json:"servers"`
	Silent  int        `json:"silent"`
	Since   *timestamp `json:"since,omitempty"`
	UpTo    timestamp  `json:"upTo"`
}

type hole struct {
	From timestamp `json:"from"`
	To   timestamp `json:"to"`
	Why  string    `json:"why"`
}

// Complete is how complete the counts of a response are: a datar.Completeness, and additional
// information of a host.
type Complete struct {
	// Since is the start of uninterrupted counting, or zero if nothing is counted now.
	Since time.Time
	// UpTo, Servers, Silent, Pending and Dropped are those of datar.Completeness.
	UpTo             time.Time
	Servers, Silent  int
	Pending, Dropped int64
	// Holes are in the order of their starts.
	Holes []Hole
}

// Hole is a half-open range of time in which some evaluations were not counted.
type Hole struct {
	From, To time.Time
	// Why is no_server, dropped or records_off.
	Why string
}

// CompleteOf converts an engine's Completeness. Its holes are times without a server, or with
// dropped evaluations.
func CompleteOf(c *datar.Completeness) *Complete {
	all := &Complete{Since: c.Since, UpTo: c.UpTo, Servers: c.Servers, Silent: c.Silent, Pending: c.Pending, Dropped: c.Dropped}
	for _, d := range c.Drops {
		all.Holes = append(all.Holes, Hole{d.From, d.To, "dropped"})
	}
	for _, g := range c.Gaps {
		all.Holes = append(all.Holes, Hole{g.From, g.To, "no_server"})
	}
	slices.SortStableFunc(all.Holes, func(a, b Hole) int { return a.From.Compare(b.From) })
	return all
}

// WithComplete adds the member complete to a body of SummaryBody, FlagSummaryBody or StatusBody.
// Nil adds nothing, and other bodies are returned unchanged.
func WithComplete(body any, c *Complete) any {
	if c == nil {
		return body
	}
	m := &complete{
		Dropped: c.Dropped, Holes: make([]hole, len(c.Holes)), Pending: c.Pending, Servers: c.Servers, Silent: c.Silent,
		Since: timestampOf(c.Since), UpTo: timestamp(c.UpTo),
	}
	for i, h := range c.Holes {
		m.Holes[i] = hole{timestamp(h.From), timestamp(h.To), h.Why}
	}
	switch b := body.(type) {
	case summary:
		b.Complete = m
		return b
	case breakdown:
		b.Complete = m
		return b
	case status:
		b.Complete = m
		return b
	default:
		return body
	}
}

// timestamp is a time in UTC with milliseconds.
type timestamp time.Time

// MarshalText implements encoding.TextMarshaler.
func (t timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00"), nil
}

// timestampOf omits the zero time.
func timestampOf(t time.Time) *timestamp {
	if t.IsZero() {
		return nil
	}
	return new(timestamp(t))
}

// SummaryBody returns the body of the response to GET /datar/summary, for encoding/json without
// escaping HTML.
func SummaryBody(flags []datar.FlagSummary) any {
	s := summary{Flags: make([]summaryFlag, len(flags))}
	for i, f := range flags {
		s.Flags[i] = summaryFlag{
			Deleted: f.Deleted, Description: f.Description, Enabled: f.Enabled, FlagID: f.FlagID, FlagKey: f.Key, TotalEvalCount: f.Total,
			LastEvaluatedAt: timestampOf(f.LastEvaluatedAt),
		}
	}
	return s
}

// FlagSummaryBody returns the body of the response to GET /datar/flags/{flagID}/summary, for
// encoding/json.
func FlagSummaryBody(b *datar.FlagBreakdown) any {
	out := breakdown{
		FlagID:           b.FlagID,
		TrafficByDay:     make([]dayEntry, len(b.ByDay)),
		TrafficBySegment: make([]segmentEntry, len(b.BySegment)),
		TrafficByVariant: make([]variantEntry, len(b.ByVariant)),
	}
	for i, c := range b.ByDay {
		out.TrafficByDay[i] = dayEntry{Date: c.Day.Format(time.DateOnly), Count: c.Count}
	}
	for i, c := range b.BySegment {
		out.TrafficBySegment[i] = segmentEntry{SegmentID: c.SegmentID, Count: c.Count, SegmentName: c.Name}
	}
	all := int64(0)
	for i, c := range b.ByVariant {
		out.TrafficByVariant[i] = variantEntry{VariantID: c.VariantID, Count: c.Count, VariantName: c.Name}
		all += c.Count
	}
	if b.Ingested > 0 { // otherwise there is only one source
		if here := all - b.Ingested; here > 0 {
			out.TrafficBySource = append(out.TrafficBySource, sourceEntry{Source: "server", Count: here})
		}
		out.TrafficBySource = append(out.TrafficBySource, sourceEntry{Source: "ingested", Count: b.Ingested})
	}
	return out
}

// StatusBody returns the body of the response to GET /datar/status, for encoding/json without
// escaping HTML.
func StatusBody(s datar.Stats) any {
	out := status{
		Adopted:              s.Adopted,
		Dropped:              make(map[string]int64, len(s.Dropped)),
		FlushIntervalSeconds: s.FlushInterval.Seconds(),
		Journal:              journal{Directory: s.Journal, Lost: int64(s.LostJournals), State: "file"},
		Keys:                 int64(s.Keys),
		LastFlushAt:          timestampOf(s.LastFlush),
		LastFlushSeconds:     s.LastFlushDuration.Seconds(),
		OldestPendingAt:      timestampOf(s.OldestPending),
		Pending:              s.Pending,
		Recorded:             s.Recorded,
		Stored:               s.Stored,
		StoreClockOffset:     s.StoreClockOffset.Seconds(),
		Writer:               s.Writer,
	}
	for reason, n := range s.Dropped {
		out.Dropped[reason.String()] = n
	}
	if s.Rollups.Due > 0 {
		out.Rollups = &rollups{Due: int64(s.Rollups.Due), Made: int64(s.Rollups.Made)}
	}
	switch {
	case s.InMemory:
		out.Journal.State = "memory"
	case s.Journal == "":
		out.Journal.State = "off"
	}
	switch {
	case errors.Is(s.LastError, context.DeadlineExceeded):
		out.LastError = "the database did not answer in time"
	case s.LastError != nil: // clients do not get the error string
		out.LastError = "the database did not take the counts"
	}
	return out
}
