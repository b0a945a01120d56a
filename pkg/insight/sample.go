package insight

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// samplesPerSecond is how many evaluations of one flag are explained in a second.
	samplesPerSecond = 5
	// sampleRates is the number of counters of rates, a power of two.
	sampleRates = 1 << 12
	// sampleEntries bounds the counters of constraints, of some 100 bytes each. When they are used up, the oldest hours are
	// forgotten.
	sampleEntries = 100_000
	// sampleQueue is how many evaluations wait to be explained. What comes when it is full is not explained.
	sampleQueue = 256
	// sampleHours is how long the sample is kept.
	sampleHours = 7 * 24
)

// Reasons tells which constraints stopped evaluations that no segment matched, from a sample.
type Reasons struct {
	FlagID int64
	// From and To are the part of the window that the sample covers, in whole hours.
	From, To time.Time
	// Examined is the size of the sample, and Of the number of all evaluations of the window that no segment matched.
	Examined, Of int64
	Segments     []SegmentReasons
	Complete     *Complete
}

// SegmentReasons are the constraints of one segment.
type SegmentReasons struct {
	SegmentID   int64
	Description string
	Constraints []ConstraintReasons
}

// ConstraintReasons counts evaluations for which the constraint was the first of its segment that did not hold. Stopped is the
// sum of Missing, OtherType and False.
type ConstraintReasons struct {
	ConstraintID int64
	// Text is the constraint, such as `country EQ "FR"`, empty if it is not known any more.
	Text                               string
	Stopped, Missing, OtherType, False int64
}

// Sampler explains some of the evaluations that no segment matched. Observe is called by requests; Run explains in a
// goroutine of its own. Values of contexts are never kept.
type Sampler struct {
	queue chan sampled
	// rates are a second since 1970 and how many evaluations were taken in it, by the low bits of flag ids.
	rates    [sampleRates]atomic.Uint64
	mu       sync.Mutex // guards the fields below
	examined map[flagHour]int64
	stops    map[stopKey]int64
	since    datar.Hour // what was examined before was forgotten
}

type sampled struct {
	eval.Unmatched
	flagID int64
	hour   datar.Hour
}

type flagHour struct {
	flagID int64
	hour   datar.Hour
}

type stopKey struct {
	flagHour
	eval.Stop
}

// NewSampler returns a Sampler whose sample begins at a time. Nothing is explained until Run is called.
func NewSampler(start time.Time) *Sampler {
	return &Sampler{queue: make(chan sampled, sampleQueue), examined: map[flagHour]int64{}, stops: map[stopKey]int64{}, since: datar.HourOf(start)}
}

// Observe takes an evaluation into the sample if no segment matched it, and if fewer than 5 of its flag were taken in the
// same second. It never waits, and keeps nothing of the result but copies. It allocates only for what it takes.
func (s *Sampler) Observe(r *eval.Result) {
	if r.Reason != eval.NoMatch || r.RecordSource != eval.SourceEvaluation || !s.take(r.FlagID, r.Timestamp.Unix()) {
		return
	}
	if unmatched, ok := eval.NewUnmatched(r); ok {
		select {
		case s.queue <- sampled{unmatched, r.FlagID, datar.HourOf(r.Timestamp)}:
		default:
		}
	}
}

// take counts one more of a flag in a second, unless there were enough. Flags whose ids are 4,096 apart share their rate.
func (s *Sampler) take(flagID, second int64) bool {
	const countBits = 8
	slot := &s.rates[flagID&(sampleRates-1)]
	for {
		rate := slot.Load()
		now := uint64(second) << countBits
		if rate>>countBits == uint64(second) {
			if rate&(1<<countBits-1) >= samplesPerSecond {
				return false
			}
			now = rate
		}
		if slot.CompareAndSwap(rate, now+1) {
			return true
		}
	}
}

// Run explains what Observe took until the context ends.
func (s *Sampler) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case taken := <-s.queue:
			s.explain(taken)
		}
	}
}

func (s *Sampler) explain(taken sampled) {
	stops := taken.Stops()
	if len(stops) == 0 { // held out
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := flagHour{taken.flagID, taken.hour}
	if at.hour < s.since {
		return
	}
	s.forget(at.hour - sampleHours)
	for len(s.stops)+len(stops) > sampleEntries && s.since < at.hour {
		s.forget(s.oldest() + 1)
	}
	if len(s.stops)+len(stops) > sampleEntries {
		return
	}
	s.examined[at]++
	for _, stop := range stops {
		s.stops[stopKey{at, stop}]++
	}
}

// oldest runs under mu.
func (s *Sampler) oldest() datar.Hour {
	first := true
	var oldest datar.Hour
	for k := range s.examined {
		if first || k.hour < oldest {
			first, oldest = false, k.hour
		}
	}
	return oldest
}

// forget drops what was examined before an hour. It runs under mu.
func (s *Sampler) forget(before datar.Hour) {
	if before <= s.since {
		return
	}
	s.since = before
	for k := range s.examined {
		if k.hour < before {
			delete(s.examined, k)
		}
	}
	for k := range s.stops {
		if k.hour < before {
			delete(s.stops, k)
		}
	}
}

// Reasons answers for one flag and a window. Of is left to the caller. Flag names the constraints; it may be nil.
func (s *Sampler) Reasons(flagID int64, flag *entity.Flag, from, to datar.Hour) *Reasons {
	s.mu.Lock()
	defer s.mu.Unlock()
	from = max(from, s.since)
	r := &Reasons{FlagID: flagID, From: from.Time(), To: to.Time(), Segments: []SegmentReasons{}}
	for k, n := range s.examined {
		if k.flagID == flagID && k.hour >= from && k.hour < to {
			r.Examined += n
		}
	}
	bySegment := map[int64]map[int64]*ConstraintReasons{}
	for k, n := range s.stops {
		if k.flagID != flagID || k.hour < from || k.hour >= to {
			continue
		}
		constraints := bySegment[k.SegmentID]
		if constraints == nil {
			constraints = map[int64]*ConstraintReasons{}
			bySegment[k.SegmentID] = constraints
		}
		c := constraints[k.ConstraintID]
		if c == nil {
			c = &ConstraintReasons{ConstraintID: k.ConstraintID}
			constraints[k.ConstraintID] = c
		}
		c.Stopped += n
		switch k.Cause {
		case eval.CauseMissing:
			c.Missing += n
		case eval.CauseOtherType:
			c.OtherType += n
		default:
			c.False += n
		}
	}
	names := NewNames(flag)
	texts := constraintTexts(flag)
	for id, constraints := range bySegment {
		segment := SegmentReasons{SegmentID: id, Description: names.segments[id].description, Constraints: []ConstraintReasons{}}
		for _, c := range constraints {
			c.Text = texts[c.ConstraintID]
			segment.Constraints = append(segment.Constraints, *c)
		}
		slices.SortFunc(segment.Constraints, func(a, b ConstraintReasons) int {
			return cmp.Or(cmp.Compare(b.Stopped, a.Stopped), cmp.Compare(a.ConstraintID, b.ConstraintID))
		})
		r.Segments = append(r.Segments, segment)
	}
	slices.SortFunc(r.Segments, func(a, b SegmentReasons) int { return names.compareSegments(a.SegmentID, b.SegmentID) })
	return r
}

func constraintTexts(flag *entity.Flag) map[int64]string {
	texts := map[int64]string{}
	if flag == nil {
		return texts
	}
	for i := range flag.Segments {
		for j := range flag.Segments[i].Constraints {
			c := &flag.Segments[i].Constraints[j]
			texts[int64(c.ID)] = cut(ConstraintText(c))
		}
	}
	return texts
}

// Table has one row for each constraint.
func (r *Reasons) Table() *Table {
	t := &Table{Header: []string{"segmentID", "segmentDescription", "constraintID", "constraint", "stopped", "missing", "otherType", "false", "examined", "of"}}
	for _, s := range r.Segments {
		for _, c := range s.Constraints {
			t.add(id(s.SegmentID), s.Description, id(c.ConstraintID), c.Text, number(c.Stopped), number(c.Missing), number(c.OtherType), number(c.False),
				number(r.Examined), number(r.Of))
		}
	}
	return t
}
