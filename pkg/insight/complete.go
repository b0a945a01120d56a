package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

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

// CompleteOf judges the counts of a window: what follows from the records of servers, as package datar tells, and what
// follows from the history of a flag.
func CompleteOf(in *CompleteInput) *Complete {
	s := datar.CompletenessOf(in.Servers, in.From, in.To, in.Now)
	c := &Complete{
		Since: since(s.Since, in.Records), UpTo: s.UpTo, Servers: s.Servers, Silent: s.Silent, Pending: s.Pending, Dropped: s.Dropped,
		Holes: recordHoles(in.Records, in.From, in.To),
	}
	for _, d := range s.Drops {
		c.Holes = append(c.Holes, Hole{From: d.From, To: d.To, Why: WhyDropped})
	}
	for _, g := range s.Gaps {
		c.Holes = append(c.Holes, Hole{From: g.From, To: g.To, Why: WhyNoServer})
	}
	slices.SortStableFunc(c.Holes, func(a, b Hole) int { return a.From.Compare(b.From) })
	return c
}

// since returns the time since when servers have been running, as running says, and, if periods are given, the flag was to be
// counted. It is zero if it is not counted now.
func since(running time.Time, periods []Period) time.Time {
	if running.IsZero() {
		return running
	}
	for i, period := range slices.Backward(periods) {
		if !period.On {
			if i == len(periods)-1 {
				return time.Time{}
			}
			return later(running, periods[i+1].From).UTC()
		}
	}
	if len(periods) > 0 {
		running = later(running, periods[0].From)
	}
	return running.UTC()
}

// recordHoles returns the times within a window in which the flag was not to be counted.
func recordHoles(periods []Period, from, to time.Time) []Hole {
	holes := []Hole{}
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
