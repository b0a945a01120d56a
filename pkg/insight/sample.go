package insight

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// samplesPerSecond is the maximum number of evaluations per flag that are explained per second.
	samplesPerSecond = 5
	// sampleWindows is the number of rate counters, a power of two.
	sampleWindows = 1 << 12
	// sampleEntries bounds the counters of constraints, which take about 150 bytes each. When the
	// limit is reached, the oldest hours are dropped.
	sampleEntries = 100_000
	// sampleQueue is the number of evaluations that can wait for their explanation. While the queue
	// is full, further evaluations are not explained.
	sampleQueue = 256
	// sampleHours is how long the sample is kept.
	sampleHours = 7 * 24
)

// Reasons counts, from a sample, which constraints stopped evaluations that matched no segment.
type Reasons struct {
	FlagID int64
	// From and To limit the part of the window that the sample covers, in whole hours.
	From, To time.Time
	// Examined is the size of the sample. Of is the number of all evaluations of the window that
	// matched no segment.
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

// ConstraintReasons counts the evaluations in which this constraint was the first of its segment
// that did not hold. Stopped is the sum of Missing, OtherType and False.
type ConstraintReasons struct {
	ConstraintID int64
	// Text is the constraint, such as `country EQ "FR"`. It is empty if the constraint no longer
	// exists.
	Text                               string
	Stopped, Missing, OtherType, False int64
}

// Sampler explains some of the evaluations that matched no segment. Requests call Observe. Run
// explains in its own goroutine. Sampler never keeps values of contexts.
type Sampler struct {
	queue chan sampled
	// windows has one for each value of the low bits of flag IDs. Flags whose IDs differ by a
	// multiple of 4,096 share one.
	windows [sampleWindows]eval.Window
	mu      struct {
		sync.Mutex
		examined map[flagHour]int64
		stops    map[stopKey]int64
		since    datar.Hour // hours before it were dropped
	}
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

// NewSampler returns a Sampler whose sample begins at start. It explains nothing until Run is
// called.
func NewSampler(start time.Time) *Sampler {
	s := &Sampler{queue: make(chan sampled, sampleQueue)}
	s.mu.examined, s.mu.stops, s.mu.since = map[flagHour]int64{}, map[stopKey]int64{}, datar.HourOf(start)
	return s
}

// Observe adds an evaluation to the sample if it matched no segment, and if fewer than 5
// evaluations of its flag were sampled in the same second. It never blocks, and does not retain r.
// It allocates only for sampled evaluations.
func (s *Sampler) Observe(r *eval.Result) {
	if r.Reason != eval.NoMatch || r.RecordSource != eval.SourceEvaluation || !s.windows[r.FlagID&(sampleWindows-1)].Take(r.Timestamp.Unix(), samplesPerSecond) {
		return
	}
	if unmatched, ok := eval.NewUnmatched(r); ok {
		select {
		case s.queue <- sampled{unmatched, r.FlagID, datar.HourOf(r.Timestamp)}:
		default:
		}
	}
}

// Run explains the evaluations that Observe sampled, until the context ends.
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
	if at.hour < s.mu.since {
		return
	}
	s.forgetLocked(at.hour - sampleHours)
	for len(s.mu.stops)+len(stops) > sampleEntries && s.mu.since < at.hour {
		s.forgetLocked(s.oldestLocked() + 1)
	}
	if len(s.mu.stops)+len(stops) > sampleEntries {
		return
	}
	s.mu.examined[at]++
	for _, stop := range stops {
		s.mu.stops[stopKey{at, stop}]++
	}
}

// oldestLocked returns the first hour of the sample.
func (s *Sampler) oldestLocked() datar.Hour {
	first := true
	var oldest datar.Hour
	for k := range s.mu.examined {
		if first || k.hour < oldest {
			first, oldest = false, k.hour
		}
	}
	return oldest
}

// forgetLocked drops the hours before an hour.
func (s *Sampler) forgetLocked(before datar.Hour) {
	if before <= s.mu.since {
		return
	}
	s.mu.since = before
	for k := range s.mu.examined {
		if k.hour < before {
			delete(s.mu.examined, k)
		}
	}
	for k := range s.mu.stops {
		if k.hour < before {
			delete(s.mu.stops, k)
		}
	}
}

// Reasons returns the reasons for one flag and a window. The caller sets Of. flag provides the
// constraints and may be nil.
func (s *Sampler) Reasons(flagID int64, flag *entity.Flag, from, to datar.Hour) *Reasons {
	s.mu.Lock()
	defer s.mu.Unlock()
	from = max(from, s.mu.since)
	r := &Reasons{FlagID: flagID, From: from.Time(), To: to.Time(), Segments: []SegmentReasons{}}
	for k, n := range s.mu.examined {
		if k.flagID == flagID && k.hour >= from && k.hour < to {
			r.Examined += n
		}
	}
	bySegment := map[int64]map[int64]*ConstraintReasons{}
	for k, n := range s.mu.stops {
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
			texts[int64(c.ID)] = reasonText(c)
		}
	}
	return texts
}

// reasonText returns the text of a constraint in ConstraintReasons.
func reasonText(c *entity.Constraint) string { return cut(ConstraintText(c)) }

// IsOf reports whether the reasons are those of a constraint, and it has the same text.
func (r *ConstraintReasons) IsOf(c *entity.Constraint) bool {
	return r.ConstraintID == int64(c.ID) && r.Text == reasonText(c)
}

// Table has one row for each constraint.
func (r *Reasons) Table() *Table {
	return tableOf([]string{"segmentID", "segmentDescription", "constraintID", "constraint", "stopped", "missing", "otherType", "false", "examined", "of"}, func(add func(cells ...string)) {
		for _, s := range r.Segments {
			for _, c := range s.Constraints {
				add(id(s.SegmentID), rowName(s.Description), id(c.ConstraintID), c.Text, number(c.Stopped), number(c.Missing), number(c.OtherType), number(c.False),
					number(r.Examined), number(r.Of))
			}
		}
	})
}
