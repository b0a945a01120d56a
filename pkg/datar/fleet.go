package datar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrNoDetails marks a query that only a DetailStore answers.
var ErrNoDetails = errors.New("the store keeps no details")

// silentAfter is how many flush intervals a server may be quiet before it counts as silent.
const silentAfter = 3

// ServerState says what is known of a server.
type ServerState string

// The states.
const (
	// StateHeard: the server wrote its record within three of its flush intervals.
	StateHeard ServerState = "heard"
	// StateSilent: it neither ended nor wrote its record for longer than that. Its counts may still come.
	StateSilent ServerState = "silent"
	// StateEnded: it has stored what it counted, and ended.
	StateEnded ServerState = "ended"
)

// FleetServer is a server with its runs added up.
type FleetServer struct {
	Name  string
	Kind  ServerKind
	State ServerState
	// Start is when the newest run began. LastHeard is when it wrote its newest record, and LastFlush is that of the record.
	Start, LastHeard, LastFlush time.Time
	// Recorded, Stored, Pending and Dropped are the sums over the runs that the store remembers. Of a run that was followed by
	// another one without having ended, nothing is pending any more: either another run has adopted it, or it is lost. A batch
	// whose answer was lost just before a kill is in Stored of both runs, that which sent it and that which adopted it.
	Recorded, Stored, Pending int64
	Dropped                   map[string]int64
	// Runs is how many runs there were.
	Runs int
}

// Fleet is what the servers that write to one store say of themselves.
type Fleet struct {
	// Recorded, Stored, Pending and Dropped are the sums of the servers.
	Recorded, Stored, Pending int64
	Dropped                   map[string]int64
	// Lost is what was pending in runs that were followed by another one without having ended, and that no run has adopted:
	// counts in memory of a process that was killed.
	Lost int64
	// Balanced: Recorded = Stored + Pending + the sum of Dropped for each server, and Lost is 0.
	Balanced bool
	// Servers are in the order of their names.
	Servers []FleetServer
}

// Fleet returns what the servers that write to the store say of themselves, this one as it is now. The error matches
// ErrNoDetails if the Store is not a DetailStore.
func (e *Engine) Fleet(ctx context.Context) (*Fleet, error) {
	e.refresh(ctx)
	records, err := e.serverRecords(ctx)
	if err != nil {
		return nil, err
	}
	return newFleet(records, e.options.Now()), nil
}

// serverRecords returns the records of the store, of this engine as it is now. They are sorted by name and start.
func (e *Engine) serverRecords(ctx context.Context) ([]ServerRecord, error) {
	if e.details == nil {
		return nil, ErrNoDetails
	}
	records, err := e.storeServers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	records = slices.DeleteFunc(records, func(r ServerRecord) bool { return r.Run == e.reporter.run })
	records = append(records, e.currentRecord())
	slices.SortFunc(records, func(a, b ServerRecord) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Start.Compare(b.Start), cmp.Compare(a.Run, b.Run))
	})
	return records, nil
}

func (e *Engine) storeServers(ctx context.Context) (records []ServerRecord, err error) {
	defer e.recoverStore(&err)
	return e.details.Servers(ctx)
}

// currentRecord is the record of this engine as it is now.
func (e *Engine) currentRecord() ServerRecord {
	s := e.Stats()
	record := e.newRecord(s)
	record.Recorded, record.Stored, record.Pending = s.Recorded, s.Stored, s.Pending
	for reason, n := range s.Dropped {
		if n > 0 {
			record.Dropped[string(reason)] = n
		}
	}
	return record
}

func newFleet(records []ServerRecord, now time.Time) *Fleet {
	f := &Fleet{Dropped: map[string]int64{}, Servers: []FleetServer{}, Balanced: true}
	var left, adopted int64
	for len(records) > 0 {
		n := slices.IndexFunc(records, func(r ServerRecord) bool { return r.Name != records[0].Name })
		if n < 0 {
			n = len(records)
		}
		server, unfinished := newFleetServer(records[:n], now)
		f.Servers = append(f.Servers, server)
		left += unfinished
		f.Recorded += server.Recorded
		f.Stored += server.Stored
		f.Pending += server.Pending
		dropped := addAll(f.Dropped, server.Dropped)
		f.Balanced = f.Balanced && server.Recorded == server.Stored+server.Pending+dropped
		for _, r := range records[:n] {
			adopted += r.Adopted
		}
		records = records[n:]
	}
	f.Lost = max(0, left-adopted)
	f.Balanced = f.Balanced && f.Lost == 0
	return f
}

// newFleetServer adds up the runs of one server, and says how much was pending in those that did not end before another one
// began.
func newFleetServer(runs []ServerRecord, now time.Time) (s FleetServer, unfinished int64) {
	newest := runs[len(runs)-1]
	s = FleetServer{
		Name: newest.Name, Kind: newest.Kind, State: StateEnded, Start: newest.Start, LastHeard: newest.At, LastFlush: newest.LastFlush,
		Dropped: map[string]int64{}, Runs: len(runs),
	}
	for i, r := range runs {
		state := r.state(now)
		followed := state == StateSilent && slices.ContainsFunc(runs[i+1:], func(next ServerRecord) bool { return next.Start.After(r.At) })
		dropped := addAll(s.Dropped, r.Dropped)
		s.Stored += r.Stored
		if followed || state == StateEnded {
			s.Recorded += r.Stored + dropped
			unfinished += r.Pending
			continue
		}
		s.Recorded += r.Recorded
		s.Pending += r.Pending
		if s.State != StateHeard {
			s.State = state
		}
		if r.At.After(s.LastHeard) {
			s.LastHeard, s.LastFlush = r.At, r.LastFlush
		}
	}
	return s, unfinished
}

// state tells what is known of a run by itself.
func (r ServerRecord) state(now time.Time) ServerState {
	switch {
	case r.Ended:
		return StateEnded
	case now.Sub(r.At) > silentAfter*max(r.FlushInterval, time.Second):
		return StateSilent
	default:
		return StateHeard
	}
}

// addAll adds counts to others, and returns their sum.
func addAll(to, counts map[string]int64) (sum int64) {
	for name, n := range counts {
		to[name] += n
		sum += n
	}
	return sum
}

// Completeness says how far the answers to queries over a window are complete. Package insight adds what follows from the
// history of a flag: since when it was counted, and when it was not.
type Completeness struct {
	// UpTo: every server that is heard of has stored what it counted until then, this one what it counted until now unless
	// the store is away. Of servers that are silent nothing is said.
	UpTo time.Time
	// Servers is how many servers are running, as far as is known, and Silent how many of them are silent.
	Servers, Silent int
	// Pending are evaluations that servers have counted and not stored yet.
	Pending int64
	// Dropped are evaluations that were dropped by runs that dropped some within the window. A run does not know how many of
	// them were within it.
	Dropped int64
	// Drops are times within the window in which runs dropped evaluations, and Gaps those in which no server was running,
	// after the first one that is remembered. Both are in ascending order.
	Drops, Gaps []Interval
	// DetailedFrom is when the details begin that the store still has: before it there are totals of days only. It is zero if
	// nothing was reduced to them.
	DetailedFrom time.Time
}

// Interval is a half-open range of time.
type Interval struct{ From, To time.Time }

// Completeness says how far the answers to queries from one time to another are complete. The error matches ErrNoDetails if
// the Store is not a DetailStore, and ErrInvalidQuery if from is after to.
func (e *Engine) Completeness(ctx context.Context, from, to time.Time) (*Completeness, error) {
	if from.After(to) {
		return nil, fmt.Errorf("%w: from (%s) must not be after to (%s)", ErrInvalidQuery, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	e.refresh(ctx)
	records, err := e.serverRecords(ctx)
	if err != nil {
		return nil, err
	}
	detailed, err := e.detailedFrom(ctx)
	if err != nil {
		return nil, fmt.Errorf("read since when there are details: %w", err)
	}
	c := newCompleteness(records, e.reporter.run, e.options.Now(), from, to)
	if detailed > 0 {
		c.DetailedFrom = detailed.Time()
	}
	return c, nil
}

func (e *Engine) detailedFrom(ctx context.Context) (from Hour, err error) {
	defer e.recoverStore(&err)
	return e.details.DetailedFrom(ctx)
}

// newCompleteness judges records that are sorted by name; that of the run self is of this moment.
func newCompleteness(records []ServerRecord, self string, now, from, to time.Time) *Completeness {
	c := &Completeness{UpTo: now}
	for _, s := range newFleet(records, now).Servers {
		c.Pending += s.Pending
		switch s.State {
		case StateSilent:
			c.Silent++
			c.Servers++
		case StateHeard:
			c.Servers++
		case StateEnded: // all that it counted is stored
		}
	}
	var running []Interval
	for _, r := range records {
		upTo := r.LastFlush
		if r.Run == self && r.Pending == 0 {
			upTo = now
		}
		if r.state(now) == StateHeard && upTo.Before(c.UpTo) {
			c.UpTo = upTo
		}
		// Between two records a server is running.
		last := r.At
		if !r.Ended && r.state(now) == StateHeard {
			last = now
		}
		running = append(running, Interval{r.Start, last})
		if drops := (Interval{r.FirstDrop, r.LastDrop.Add(time.Millisecond)}); !r.FirstDrop.IsZero() && drops.To.After(from) && drops.From.Before(to) {
			c.Dropped += addAll(map[string]int64{}, r.Dropped)
			c.Drops = append(c.Drops, drops.within(from, to))
		}
	}
	c.Drops = join(c.Drops)
	running = join(running)
	for i := 1; i < len(running); i++ {
		if gap := (Interval{running[i-1].To, running[i].From}); gap.To.After(from) && gap.From.Before(to) {
			c.Gaps = append(c.Gaps, gap.within(from, to))
		}
	}
	return c
}

func (i Interval) within(from, to time.Time) Interval {
	if i.From.Before(from) {
		i.From = from
	}
	if i.To.After(to) {
		i.To = to
	}
	return i
}

// join sorts intervals and makes one of those that meet.
func join(intervals []Interval) (joined []Interval) {
	slices.SortFunc(intervals, func(a, b Interval) int { return a.From.Compare(b.From) })
	for _, i := range intervals {
		last := len(joined) - 1
		switch {
		case last < 0 || i.From.After(joined[last].To):
			joined = append(joined, i)
		case i.To.After(joined[last].To):
			joined[last].To = i.To
		}
	}
	return joined
}

// QueryDetails adds up details as DetailStore.Details does, as fresh as QuerySummary. The error matches ErrNoDetails if the
// Store is not a DetailStore, and ErrInvalidQuery if an argument is out of range.
func (e *Engine) QueryDetails(ctx context.Context, query DetailsQuery) (rows []Row, err error) {
	switch {
	case e.details == nil:
		return nil, ErrNoDetails
	case query.FlagID < 0:
		return nil, fmt.Errorf("%w: the flag is %d, want 1 or more, or 0 for all", ErrInvalidQuery, query.FlagID)
	case query.GroupBy&GroupHour != 0 && query.GroupBy&GroupDay != 0:
		return nil, fmt.Errorf("%w: details are grouped by hour or by day, not both", ErrInvalidQuery)
	case query.From >= query.To:
		return nil, nil
	}
	e.refresh(ctx)
	defer e.recoverStore(&err)
	if rows, err = e.details.Details(ctx, query); err != nil {
		return nil, fmt.Errorf("add up details: %w", err)
	}
	return rows, nil
}

// QueryUnknown adds up requests for flags that do not exist, as DetailStore.Unknown does, as fresh as QuerySummary. The error
// matches ErrNoDetails if the Store is not a DetailStore, and ErrInvalidQuery if an argument is out of range.
func (e *Engine) QueryUnknown(ctx context.Context, query UnknownQuery) (rows []UnknownRow, err error) {
	switch {
	case e.details == nil:
		return nil, ErrNoDetails
	case query.Limit < 1:
		return nil, fmt.Errorf("%w: limit is %d, want 1 or more", ErrInvalidQuery, query.Limit)
	case query.Offset < 0:
		return nil, fmt.Errorf("%w: offset is %d, want 0 or more", ErrInvalidQuery, query.Offset)
	}
	e.refresh(ctx)
	defer e.recoverStore(&err)
	if rows, err = e.details.Unknown(ctx, query); err != nil {
		return nil, fmt.Errorf("add up requests for unknown flags: %w", err)
	}
	return rows, nil
}
