package insight

import (
	"cmp"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// silentAfter is how many flush intervals a server may be quiet until it counts as silent.
const silentAfter = 3

// Why tells the reason for a Hole.
type Why string

// The reasons.
const (
	// WhyRecordsOff: the flag was not counted, as its snapshots tell.
	WhyRecordsOff Why = "records_off"
	// WhyNoServer: no server counted.
	WhyNoServer Why = "no_server"
	// WhyDropped: some evaluations were lost.
	WhyDropped Why = "dropped"
)

// Hole is a time in which a flag was not counted, or not all of it.
type Hole struct {
	From, To time.Time
	Why      Why
	// By is who switched records off, if that is the reason and is known.
	By string
}

// Complete tells how far the counts of an answer can be trusted.
type Complete struct {
	// Since is from when on the flag was counted without a break, zero if it is not counted now.
	Since time.Time
	// UpTo: every server has stored what it counted until then.
	UpTo time.Time
	// Servers is the number of servers and edges that count, and Silent the part of them that neither ended nor were heard
	// of for three flush intervals.
	Servers, Silent int
	// Pending is the number of evaluations that servers had counted and not stored when they last reported, Dropped that of
	// those that they lost in the window, where that is known by server only.
	Pending, Dropped int64
	// Holes are those of the window, in the order of their times.
	Holes []Hole
}

// Period is a time in which something was on or off.
type Period struct {
	From time.Time
	On   bool
	// By is who switched it, empty if that is not known.
	By string
}

// CompleteInput is what CompleteOf looks at.
type CompleteInput struct {
	From, To, Now time.Time
	// Servers are the records of all runs, as the store has them.
	Servers []datar.ServerRecord
	// Records are the times in which the flag was to be counted, the oldest first, each until the next one begins. An answer about
	// many flags has none.
	Records []Period
}

// CompleteOf judges the counts of a window.
func CompleteOf(in *CompleteInput) *Complete {
	c := &Complete{UpTo: in.Now, Holes: []Hole{}}
	servers := LatestRuns(in.Servers)
	for i := range servers {
		s := &servers[i]
		if s.Kind == datar.KindApplication || s.Ended {
			continue
		}
		c.Servers++
		c.Pending += s.Pending
		if IsSilent(s, in.Now) {
			c.Silent++
		}
		if s.LastFlush.Before(c.UpTo) {
			c.UpTo = s.LastFlush
		}
	}
	for i := range in.Servers {
		s := &in.Servers[i]
		if n := droppedBy(s); n > 0 && s.FirstDrop.Before(in.To) && !s.LastDrop.Before(in.From) {
			c.Dropped += n
			c.Holes = append(c.Holes, Hole{later(s.FirstDrop, in.From), earlier(s.LastDrop.Add(time.Millisecond), in.To), WhyDropped, ""})
		}
	}
	for _, g := range serverGaps(in.Servers, in.Now) {
		if hole := (Hole{later(g.From, in.From), earlier(g.To, in.To), WhyNoServer, ""}); hole.From.Before(hole.To) {
			c.Holes = append(c.Holes, hole)
		}
	}
	c.Holes = append(c.Holes, recordHoles(in.Records, in.From, in.To)...)
	slices.SortStableFunc(c.Holes, func(a, b Hole) int { return a.From.Compare(b.From) })
	c.Since = newRunning(in.Servers, in.Now).since(in.Records)
	return c
}

// LatestRuns returns the newest run of each server, in the order of their names. A run that was killed is followed by
// another one that sends what it left behind.
func LatestRuns(records []datar.ServerRecord) []datar.ServerRecord {
	newest := map[string]datar.ServerRecord{}
	for _, r := range records {
		if other, ok := newest[r.Name]; !ok || r.At.After(other.At) {
			newest[r.Name] = r
		}
	}
	list := make([]datar.ServerRecord, 0, len(newest))
	for _, r := range newest {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b datar.ServerRecord) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// IsSilent tells whether a server neither ended nor was heard of for three flush intervals.
func IsSilent(r *datar.ServerRecord, now time.Time) bool {
	return !r.Ended && now.Sub(r.At) > silentAfter*r.FlushInterval+clockSkew
}

func droppedBy(r *datar.ServerRecord) (n int64) {
	for _, d := range r.Dropped {
		n += d
	}
	return n
}

// serverGaps returns the times, since the first server started, in which no server was running as far as their records tell.
// Gaps of up to five minutes are restarts: a server that was killed counted for a while after its last record, and what it
// counted is not lost.
func serverGaps(records []datar.ServerRecord, now time.Time) []Hole {
	const restart = 5 * time.Minute
	runs := slices.DeleteFunc(slices.Clone(records), func(r datar.ServerRecord) bool { return r.Kind == datar.KindApplication })
	slices.SortFunc(runs, func(a, b datar.ServerRecord) int { return a.Start.Compare(b.Start) })
	var gaps []Hole
	var end time.Time
	for i := range runs {
		r := &runs[i]
		if i > 0 && r.Start.Sub(end) > restart {
			gaps = append(gaps, Hole{end, r.Start, WhyNoServer, ""})
		}
		until := r.At
		if !r.Ended && !IsSilent(r, now) {
			until = now
		}
		end = later(end, until)
	}
	if len(runs) > 0 && now.Sub(end) > restart {
		gaps = append(gaps, Hole{end, now, WhyNoServer, ""})
	}
	return gaps
}

// running tells since when servers have been running without a gap.
type running struct{ servers time.Time }

func newRunning(records []datar.ServerRecord, now time.Time) running {
	var since time.Time
	for i := range records {
		if r := &records[i]; r.Kind != datar.KindApplication && (since.IsZero() || r.Start.Before(since)) {
			since = r.Start
		}
	}
	for _, g := range serverGaps(records, now) {
		since = later(since, g.To)
	}
	return running{since}
}

// since returns the time since when servers have been running and, if periods are given, the flag was to be counted. It is
// zero if it is not counted now.
func (r running) since(periods []Period) time.Time {
	since := r.servers
	if since.IsZero() {
		return since
	}
	for i := len(periods) - 1; i >= 0; i-- {
		if !periods[i].On {
			if i == len(periods)-1 {
				return time.Time{}
			}
			return later(since, periods[i+1].From).UTC()
		}
	}
	if len(periods) > 0 {
		since = later(since, periods[0].From)
	}
	return since.UTC()
}

// recordHoles returns the times within a window in which the flag was not to be counted.
func recordHoles(periods []Period, from, to time.Time) []Hole {
	var holes []Hole
	for i, p := range periods {
		end := to
		if i+1 < len(periods) {
			end = earlier(to, periods[i+1].From)
		}
		start := later(p.From, from)
		if p.On || !start.Before(end) {
			continue
		}
		if last := len(holes) - 1; last >= 0 && holes[last].To.Equal(start) {
			holes[last].To = end
			continue
		}
		holes = append(holes, Hole{start, end, WhyRecordsOff, p.By})
	}
	return holes
}

// sinceFirstOn leaves out the time before the flag was counted for the first time.
func sinceFirstOn(periods []Period) []Period {
	first := slices.IndexFunc(periods, func(p Period) bool { return p.On })
	if first < 0 {
		return nil
	}
	return periods[first:]
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
