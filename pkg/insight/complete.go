package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Why is the reason for a Hole.
type Why string

// The reasons.
const (
	// WhyRecordsOff: the flag's records were off, according to its snapshots.
	WhyRecordsOff Why = "records_off"
	// WhyNoServer: no server counted.
	WhyNoServer Why = "no_server"
	// WhyDropped: some evaluations were dropped, or may be lost with a killed server.
	WhyDropped Why = "dropped"
)

// Hole is a period in which a flag was not counted, or not completely.
type Hole struct {
	From, To time.Time
	Why      Why
	// By is the user who turned records off, if that is the reason and the user is known.
	By string
}

// Complete describes how complete the counts of a response are.
type Complete struct {
	// Since is the time since which the flag has been counted without a gap. It is zero if the flag
	// is not counted now.
	Since time.Time
	// UpTo is the time up to which all servers have stored their counts.
	UpTo time.Time
	// Servers is the number of servers and edges that count. Silent is the number of those that
	// have neither ended nor reported for three flush intervals.
	Servers, Silent int
	// Pending is the number of evaluations that servers had counted but not stored at their last
	// report. Dropped is the number of those that they lost in the window, if the loss is known
	// only per server.
	Pending, Dropped int64
	// Holes are the holes of the window, in chronological order.
	Holes []Hole
}

// Period is a period in which something was on or off.
type Period struct {
	From time.Time
	On   bool
	// By is the user who switched it, empty if unknown.
	By string
}

// CompleteInput is the input of CompleteOf.
type CompleteInput struct {
	From, To, Now time.Time
	// Servers are the records of all runs, as stored.
	Servers []datar.ServerRecord
	// Records are the periods in which counting of the flag was on or off, oldest first. Each lasts
	// until the next one begins. They are empty for a response about many flags.
	Records []Period
}

// CompleteOf computes the completeness of the counts of a window from the records of servers, as
// package datar does, and from the history of a flag.
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

// since returns the time since which servers have been running and, if there are periods, the flag
// has been counted. running is the first of these two times. The result is zero if the flag is not
// counted now.
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

// setup is the time after its creation within which switching on a flag's records leaves no hole:
// clients create a flag and switch its records on in two requests.
const setup = 5 * time.Second

// recordHoles returns the periods within a window in which counting of the flag was off.
func recordHoles(periods []Period, from, to time.Time) []Hole {
	holes := []Hole{}
	for i, p := range periods {
		end := to
		if i+1 < len(periods) {
			end = earlier(to, periods[i+1].From)
		}
		start := later(p.From, from)
		if p.On || !start.Before(end) || i == 0 && i+1 < len(periods) && periods[1].From.Sub(p.From) < setup {
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

// sinceFirstOn skips the time before the flag was counted for the first time.
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
