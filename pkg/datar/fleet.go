package datar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// ErrNoDetails is the error of a query that requires a DetailStore.
var ErrNoDetails = errors.New("the store keeps no details")

// silentAfter is the number of flush intervals without a report after which a server is silent.
const silentAfter = 3

// ServerState is the state of a server.
type ServerState string

// The states.
const (
	// StateHeard: the server wrote its record within three of its flush intervals.
	StateHeard ServerState = "heard"
	// StateSilent: the server has not ended, but has not written its record for longer than that.
	// Its counts may still arrive. A server is also silent if the time of one of its records, also
	// of a run that ended, is more than MaxAhead ahead of the clock of the server that reads it:
	// its counts may be in hours to come.
	StateSilent ServerState = "silent"
	// StateEnded: the server has stored its counts and ended.
	StateEnded ServerState = "ended"
)

// FleetServer is a server with the sums of its runs.
type FleetServer struct {
	Name  string
	Kind  ServerKind
	State ServerState
	// Start is the start of the newest run. LastHeard is the time of its newest record, and
	// LastFlush is from that record.
	Start, LastHeard, LastFlush time.Time
	// Recorded, Stored, Pending and Dropped are the sums over the runs in the store. If another run
	// followed a run that has not ended, the earlier one has nothing pending: another run has
	// adopted it, or it is lost. If the confirmation of a batch was lost just before a kill, the
	// batch is in Stored of both runs, the one that sent it and the one that adopted it.
	Recorded, Stored, Pending int64
	Dropped                   map[string]int64
	// Lost is the number of evaluations that were pending in runs that were followed by another one
	// without having ended, less those that others have adopted. Records of earlier versions do not
	// have whose counts a run adopted: if a run followed a killed one of its own server, all that
	// it adopted is taken to be from that one.
	Lost int64
	// Runs is the number of runs.
	Runs int
}

// Missing returns Recorded - Stored - Pending - the sum of Dropped. It is negative if there is more
// than was recorded.
func (s *FleetServer) Missing() int64 {
	missing := s.Recorded - s.Stored - s.Pending
	for _, n := range s.Dropped {
		missing -= n
	}
	return missing
}

// Fleet has the statistics of all servers that write to one store.
type Fleet struct {
	// Recorded, Stored, Pending and Dropped are the sums of the servers.
	Recorded, Stored, Pending int64
	Dropped                   map[string]int64
	// Lost is the sum of the servers: counts in the memory of killed processes.
	Lost int64
	// Balanced: Recorded = Stored + Pending + the sum of Dropped for each server, and Lost is 0.
	Balanced bool
	// Servers are sorted by name.
	Servers []FleetServer
}

// Fleet returns the statistics of the servers that write to the store, with the current state of
// this one. The error matches ErrNoDetails if the Store is not a DetailStore.
func (e *Engine) Fleet(ctx context.Context) (*Fleet, error) {
	e.refresh(ctx)
	records, err := e.serverRecords(ctx)
	if err != nil {
		return nil, err
	}
	return FleetOf(records, e.options.Now()), nil
}

// serverRecords returns the records of the store, with the current record of this engine, sorted by
// name and start.
func (e *Engine) serverRecords(ctx context.Context) ([]ServerRecord, error) {
	if e.details == nil {
		return nil, ErrNoDetails
	}
	records, err := e.storeServers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	records = slices.DeleteFunc(records, func(r ServerRecord) bool { return r.Run == e.flushing.reporter.run })
	return sortedRecords(append(records, e.currentRecord())), nil
}

// sortedRecords returns a copy of the records, sorted by name and start.
func sortedRecords(records []ServerRecord) []ServerRecord {
	return slices.SortedFunc(slices.Values(records), func(a, b ServerRecord) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Start.Compare(b.Start), cmp.Compare(a.Run, b.Run))
	})
}

func (e *Engine) storeServers(ctx context.Context) (records []ServerRecord, err error) {
	defer e.recoverStore(&err)
	return e.details.Servers(ctx)
}

// currentRecord returns the current record of this engine.
func (e *Engine) currentRecord() ServerRecord {
	at := toMilli(e.options.Now()) // before Stats, so that later evaluations are not part of it
	s := e.Stats()
	record := e.newRecord(s)
	record.At = at
	record.Recorded, record.Stored, record.Pending = s.Recorded, s.Stored, s.Pending
	for reason, n := range s.Dropped {
		if n > 0 {
			record.Dropped[string(reason)] = n
		}
	}
	return record
}

// FleetOf adds up the records of all runs.
func FleetOf(records []ServerRecord, now time.Time) *Fleet {
	records = sortedRecords(records)
	f := &Fleet{Dropped: map[string]int64{}, Servers: []FleetServer{}, Balanced: true}
	lost := losses(records, recoveredRuns(records), now)
	for len(records) > 0 {
		n := slices.IndexFunc(records, func(r ServerRecord) bool { return r.Name != records[0].Name })
		if n < 0 {
			n = len(records)
		}
		server := newFleetServer(records[:n], now)
		for _, one := range lost[:n] {
			server.Lost += one
		}
		f.Servers = append(f.Servers, server)
		f.Lost += server.Lost
		f.Recorded += server.Recorded
		f.Stored += server.Stored
		f.Pending += server.Pending
		addAll(f.Dropped, server.Dropped)
		f.Balanced = f.Balanced && server.Missing() == 0
		records, lost = records[n:], lost[n:]
	}
	f.Balanced = f.Balanced && f.Lost == 0
	return f
}

// newFleetServer adds up the runs of one server, without Lost.
func newFleetServer(runs []ServerRecord, now time.Time) FleetServer {
	newest := runs[len(runs)-1]
	s := FleetServer{
		Name: newest.Name, Kind: newest.Kind, State: StateEnded, Start: newest.Start, LastHeard: newest.At, LastFlush: newest.LastFlush,
		Dropped: map[string]int64{}, Runs: len(runs),
	}
	ahead := false
	for i, r := range runs {
		state := r.state(now)
		dropped := addAll(s.Dropped, r.Dropped)
		s.Stored += r.Stored
		ahead = ahead || r.isAhead(now)
		settled := state == StateEnded || r.isFollowed(runs[i+1:], now)
		if r.At.After(s.LastHeard) && (!settled || r.isAhead(now)) {
			s.LastHeard, s.LastFlush = r.At, r.LastFlush
		}
		if settled {
			s.Recorded += r.Stored + dropped
			continue
		}
		s.Recorded += r.Recorded
		s.Pending += r.Pending
		if s.State != StateHeard {
			s.State = state
		}
	}
	if ahead {
		s.State = StateSilent
	}
	return s
}

// losses returns, for each record, how much of what was pending in it is lost: the run was followed
// by another one without having ended, and no run has adopted the rest. recovered has the
// recoveredRuns. The records are sorted by name and start.
//
// A record has how much the run adopted from all journals that it found. It includes what killed
// runs counted after their last records, so it may be more than was pending. What a run adopted is
// credited only to runs that may have had it: see mayHaveAdopted. The runs that directly followed a
// killed run of the same server are credited to it, and all that they adopted is from such runs.
// What other runs adopted is credited to any server, because servers can share journals.
func losses(records []ServerRecord, recovered map[string]bool, now time.Time) []int64 {
	lost := make([]int64, len(records))
	adopted := make([]int64, len(records)) // and not credited
	for i, r := range records {
		adopted[i] = r.Adopted
	}
	explained := make([]bool, len(records))
	for i, r := range records {
		if r.Ended {
			continue
		}
		left := r.Pending
		for j := range followers(records, i) {
			explained[j] = true
			if records[j].mayHaveAdopted(r) {
				left -= take(&adopted[j], left)
			}
		}
		if r.isFollowed(records[i+1:], now) && !r.isKept(recovered) {
			lost[i] = left
		}
	}
	var others []int // runs that may have adopted counts of any server
	for i, n := range adopted {
		if n > 0 && !explained[i] {
			others = append(others, i)
		}
	}
	for i := range lost {
		for _, j := range others {
			if lost[i] == 0 {
				break
			}
			if records[j].At.After(records[i].At) && records[j].mayHaveAdopted(records[i]) {
				lost[i] -= take(&adopted[j], lost[i])
			}
		}
	}
	return lost
}

// recoveredRuns returns the runs whose journals another run has found.
func recoveredRuns(records []ServerRecord) map[string]bool {
	recovered := map[string]bool{}
	for _, r := range records {
		if r.Journal != nil {
			for _, run := range r.Journal.Adopted {
				recovered[run] = true
			}
		}
	}
	return recovered
}

// mayHaveAdopted reports whether counts of another run may be among those that r adopted.
func (r ServerRecord) mayHaveAdopted(of ServerRecord) bool {
	return r.Journal == nil || of.Journal == nil || len(r.Journal.Adopted) >= MaxAdoptedRuns || slices.Contains(r.Journal.Adopted, of.Run)
}

// isKept reports whether all counts of a killed run were in a journal that another run has found.
func (r ServerRecord) isKept(recovered map[string]bool) bool {
	return r.Journal != nil && !r.Journal.InMemory && recovered[r.Run]
}

// take reduces from by n or to 0, and returns by how much.
func take(from *int64, n int64) int64 {
	n = min(*from, n)
	*from -= n
	return n
}

// followers iterates over the runs that directly followed a run: those of the same server that
// began after its last record, without another one in between. They are several if their times
// overlap. The records are sorted by name and start.
func followers(records []ServerRecord, of int) iter.Seq[int] {
	return func(yield func(int) bool) {
		var first time.Time // of the last records of the followers
		for i := of + 1; i < len(records) && records[i].Name == records[of].Name; i++ {
			next := records[i]
			if !next.Start.After(records[of].At) {
				continue
			}
			if !first.IsZero() && next.Start.After(first) || !yield(i) {
				return
			}
			if first.IsZero() || next.At.Before(first) {
				first = next.At
			}
		}
	}
}

// isAhead reports whether the record's time is further ahead of the clock of the server that reads
// it than the times of events may be. Counts of the run may be in hours to come, whether it has
// ended or not.
func (r ServerRecord) isAhead(now time.Time) bool { return r.At.Sub(now) > MaxAhead }

// state returns the state of a single run.
func (r ServerRecord) state(now time.Time) ServerState {
	switch {
	case r.Ended:
		return StateEnded
	case now.Sub(r.At) > silentAfter*max(r.FlushInterval, time.Second), r.isAhead(now):
		return StateSilent
	default:
		return StateHeard
	}
}

// isFollowed reports whether the run is silent, and another run of the same server began after its
// last record: that run has adopted what this one left, or it is lost. The records after it are
// sorted by name and start.
func (r ServerRecord) isFollowed(after []ServerRecord, now time.Time) bool {
	return r.state(now) == StateSilent && !nextStart(r, after).IsZero()
}

// nextStart returns the start of the first run of the same server that began after the last record
// of r, or zero. The records after it are sorted by name and start.
func nextStart(r ServerRecord, after []ServerRecord) time.Time {
	for _, next := range after {
		if next.Name != r.Name {
			break
		}
		if next.Start.After(r.At) {
			return next.Start
		}
	}
	return time.Time{}
}

// addAll adds counts to others, and returns their sum.
func addAll(to, counts map[string]int64) (sum int64) {
	for name, n := range counts {
		to[name] += n
		sum += n
	}
	return sum
}

// restartGap is the maximum time without a server that counts as a restart. A killed server counted
// for a while after its last record, and these counts are not lost.
const restartGap = 5 * time.Minute

// Completeness describes how complete the results of queries over a window are. It omits senders of
// KindApplication, which count for themselves, except in Dropped and Drops. Package insight adds
// what follows from the history of a flag.
type Completeness struct {
	// Since is the start of the time during which servers have been running without a gap. It is
	// zero if none is running.
	Since time.Time
	// UpTo is the time up to which every server has stored its counts, and this one all counts
	// until now unless something is pending. A silent server holds it back, because its counts may
	// still arrive, unless its clock is ahead. So does a run that has ended while queries may miss
	// its counts.
	UpTo time.Time
	// Servers is the number of servers that are running, as far as known, and Silent how many of
	// them are silent.
	Servers, Silent int
	// Pending is the number of evaluations that servers have counted but not stored.
	Pending int64
	// Dropped is the number of evaluations dropped by runs that dropped some within the window. A
	// run does not record how many of them were within it. It includes those that were pending in
	// runs that were followed by another one without having ended, and that no run has adopted.
	Dropped int64
	// Drops are times within the window in which runs dropped evaluations, or from the last flush
	// of a run that did not end to the start of the next, unless all of its counts were in a
	// journal that another run has found. How many evaluations that are is not known, so Dropped
	// can be 0. Gaps are times of more than five minutes without a running server, after the first
	// server in the store. Both are in ascending order.
	Drops, Gaps []Interval
	// DetailedFrom is the start of the details in the store: before it there are only totals of
	// days. It is zero if nothing was reduced.
	DetailedFrom time.Time
}

// Interval is a half-open range of time.
type Interval struct{ From, To time.Time }

// Completeness describes how complete the results of queries from one time to another are, as fresh
// as QuerySummary. The error matches ErrNoDetails if the Store is not a DetailStore, and
// ErrInvalidQuery if from is after to.
func (e *Engine) Completeness(ctx context.Context, from, to time.Time) (*Completeness, error) {
	if from.After(to) {
		return nil, fmt.Errorf("%w: from (%s) must not be after to (%s)", ErrInvalidQuery, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	e.refresh(ctx)
	return e.completeness(ctx, from, to)
}

// QueryCompleteness is Completeness over the window of a query: nil from is 7 days ago, nil to is
// now, and the window is widened to whole UTC hours. It does not flush, so it is as fresh as the
// query before it.
func (e *Engine) QueryCompleteness(ctx context.Context, from, to *time.Time) (*Completeness, error) {
	first, last, err := Window(from, to, e.options.Now())
	if err != nil {
		return nil, err
	}
	return e.completeness(ctx, first.Time(), earliest(last.Time(), e.options.Now()))
}

func (e *Engine) completeness(ctx context.Context, from, to time.Time) (*Completeness, error) {
	records, err := e.Servers(ctx)
	if err != nil {
		return nil, err
	}
	detailed, err := e.detailedFrom(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the start of the details: %w", err)
	}
	c := CompletenessOf(records, from, to, e.options.Now())
	if detailed > 0 {
		c.DetailedFrom = detailed.Time()
	}
	return c, nil
}

// Servers returns the records of the store, and the current record of this engine: its LastFlush is
// At if nothing is pending. They are sorted by name and start. While queries lag behind the store,
// LastFlush is the time up to which they include the counts of the run. CompletenessOf holds UpTo
// back until they include all counts of a run that has ended. The error matches ErrNoDetails if the
// Store is not a DetailStore.
func (e *Engine) Servers(ctx context.Context) ([]ServerRecord, error) {
	records, err := e.serverRecords(ctx)
	if err != nil {
		return nil, err
	}
	lag, err := e.lag(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the lag of the store: %w", err)
	}
	now := e.options.Now()
	for i := range records {
		r := &records[i]
		if r.Run == e.flushing.reporter.run && r.Pending == 0 {
			r.LastFlush = r.At
		}
		if lag > 0 {
			r.limitTo(now.Add(-lag))
		}
	}
	return records, nil
}

func (e *Engine) lag(ctx context.Context) (lag time.Duration, err error) {
	store, ok := capability[LagReporter](e.options.Store)
	if !ok {
		return 0, nil
	}
	defer e.recoverStore(&err)
	return store.Lag(ctx)
}

// limitTo changes a record to what is known if queries may miss batches that were applied after a
// time. If the last flush is missing, the counts are complete up to the flush before it. This one
// may be missing although it started before that time, because a batch may have been retried.
func (r *ServerRecord) limitTo(applied time.Time) {
	r.missing = r.At.After(applied.Add(-r.FlushInterval))
	if !r.LastFlush.IsZero() {
		r.LastFlush = earliest(r.LastFlush, applied).Add(-r.FlushInterval)
	}
}

func (e *Engine) detailedFrom(ctx context.Context) (from Hour, err error) {
	defer e.recoverStore(&err)
	return e.details.DetailedFrom(ctx)
}

// CompletenessOf computes the Completeness of a window from the records of all runs.
func CompletenessOf(records []ServerRecord, from, to, now time.Time) *Completeness {
	records = sortedRecords(records)
	c := &Completeness{UpTo: now}
	for _, s := range FleetOf(slices.DeleteFunc(slices.Clone(records), isApplication), now).Servers {
		c.Pending += s.Pending
		switch s.State {
		case StateSilent:
			c.Silent++
			c.Servers++
		case StateHeard:
			c.Servers++
		case StateEnded: // all of its counts are stored
		}
	}
	c.addLost(records, from, to, now)
	var running []Interval
	for i, r := range records {
		if drops := (Interval{r.FirstDrop, r.LastDrop.Add(time.Millisecond)}); !r.FirstDrop.IsZero() && drops.To.After(from) && drops.From.Before(to) {
			c.Dropped += addAll(map[string]int64{}, r.Dropped)
			c.Drops = append(c.Drops, drops.within(from, to))
		}
		if isApplication(r) {
			continue
		}
		state := r.state(now)
		if r.missing || state != StateEnded && !r.isFollowed(records[i+1:], now) {
			c.UpTo = earliest(c.UpTo, latest(r.LastFlush, r.Start))
		}
		if r.Start.After(now) {
			continue // its clock is ahead
		}
		// Between two records the server was running.
		last := earliest(r.At, now)
		if state == StateHeard {
			last = now
		}
		running = append(running, Interval{r.Start, last})
	}
	c.Drops = join(c.Drops)
	if running = join(running); len(running) > 0 {
		c.Since = running[0].From
	}
	for i, r := range running {
		next, last := now, i+1 == len(running)
		if !last {
			next = running[i+1].From
		}
		if next.Sub(r.To) <= restartGap {
			continue
		}
		if c.Since = next; last {
			c.Since = time.Time{}
		}
		if gap := (Interval{r.To, next}); gap.To.After(from) && gap.From.Before(to) {
			c.Gaps = append(c.Gaps, gap.within(from, to))
		}
	}
	return c
}

// addLost adds what was lost within the window with runs that did not end. A run without a journal,
// or whose journal no other run has found, may also have lost what it counted after its last
// record: how much that was is not known.
func (c *Completeness) addLost(records []ServerRecord, from, to, now time.Time) {
	recovered := recoveredRuns(records)
	for i, n := range losses(records, recovered, now) {
		r := records[i]
		doubtful := r.Journal != nil && !r.Ended && !r.isKept(recovered) && r.isFollowed(records[i+1:], now)
		if n == 0 && !doubtful {
			continue
		}
		unknown := Interval{latest(r.LastFlush, r.Start), nextStart(r, records[i+1:])}
		if !unknown.To.After(from) || !unknown.From.Before(to) {
			continue
		}
		c.Dropped += n
		c.Drops = append(c.Drops, unknown.within(from, to))
	}
}

func isApplication(r ServerRecord) bool { return r.Kind == KindApplication }

func (i Interval) within(from, to time.Time) Interval {
	return Interval{latest(i.From, from), earliest(i.To, to)}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// join sorts intervals and merges those that meet.
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

// QueryDetails adds up details like DetailStore.Details, as fresh as QuerySummary. The error
// matches ErrNoDetails if the Store is not a DetailStore, and ErrInvalidQuery if an argument is out
// of range.
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

// QueryUnknown adds up requests for flags that do not exist, like DetailStore.Unknown, as fresh as
// QuerySummary. The error matches ErrNoDetails if the Store is not a DetailStore, and
// ErrInvalidQuery if an argument is out of range.
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
