package insight

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Outcomes are the outcomes of the evaluations of one flag within a window.
type Outcomes struct {
	FlagID   int64
	FlagKey  string
	From, To time.Time
	// Total is the sum of Outcomes. It is also the sum of ByName and ByTag.
	Total int64
	// Outcomes are in descending order of counts.
	Outcomes []OutcomeCount
	// Segments are in evaluation order, followed by deleted ones. The sums of their Matched and
	// HeldOut equal the counts of these outcomes.
	Segments []SegmentOutcome
	// Unattributed are the evaluations with an unknown outcome, by variant, in the order of IDs.
	// VariantID 0 stands for those without a variant: it is unknown whether a segment matched them.
	Unattributed []VariantOutcome
	Asked        Asked
	Complete     *Complete
}

// OutcomeCount is the number of evaluations with one outcome.
type OutcomeCount struct {
	Outcome datar.Outcome
	Count   int64
	// Unevaluable is the part of Count in which a constraint could not be evaluated.
	Unevaluable int64
	// First and Last are the times of the earliest and the latest evaluation, zero if unknown.
	First, Last time.Time
}

// SegmentOutcome is the outcome of the evaluations that matched one segment.
type SegmentOutcome struct {
	// SegmentID is 0 for evaluations with an unknown segment.
	SegmentID   int64
	Description string
	Matched     int64
	HeldOut     int64
	// Variants are in descending order of counts. Their sum is Matched.
	Variants []VariantOutcome
}

// VariantOutcome is the number of evaluations that got one variant.
type VariantOutcome struct {
	VariantID  int64
	VariantKey string
	Count      int64
}

// Asked counts how the flag was requested. The sum of ByName and ByTag is the number of all
// evaluations.
type Asked struct {
	ByName, ByTag int64
	// Unknown is the part of ByName for which this is unknown: the unattributed evaluations.
	Unknown int64
	// WithoutEntityID is the number of evaluations without an entity ID, among both.
	WithoutEntityID int64
}

func (a *Asked) add(r *datar.Row) {
	if r.Asked&datar.AskedByTag != 0 {
		a.ByTag += r.Count
	} else {
		a.ByName += r.Count
	}
	if r.Outcome == datar.Unattributed {
		a.Unknown += r.Count
	}
	if r.Asked&datar.AskedWithoutEntityID != 0 {
		a.WithoutEntityID += r.Count
	}
}

// Names maps IDs of a flag's parts, current and deleted, to their names.
type Names struct {
	variants map[int64]string
	segments map[int64]segmentName
}

type segmentName struct {
	description string
	place       int // in the order of segments; segments of older snapshots come after those of newer ones
}

// NewNames returns the names of the flag's parts. They are empty if the flag is nil.
func NewNames(f *entity.Flag) *Names {
	n := &Names{variants: map[int64]string{}, segments: map[int64]segmentName{}}
	n.Add(f)
	return n
}

// Add adds missing names of parts from an older state of the flag.
func (n *Names) Add(f *entity.Flag) {
	if f == nil {
		return
	}
	for i := range f.Variants {
		v := &f.Variants[i]
		if _, ok := n.variants[int64(v.ID)]; !ok {
			n.variants[int64(v.ID)] = v.Key
		}
	}
	for _, s := range inOrder(f.Segments) {
		if _, ok := n.segments[int64(s.ID)]; !ok {
			n.segments[int64(s.ID)] = segmentName{s.Description, len(n.segments)}
		}
	}
}

// Complete reports whether every variant and segment of the rows has a name.
func (n *Names) Complete(rows []datar.Row) bool {
	for i := range rows {
		r := &rows[i]
		if _, ok := n.variants[r.VariantID]; !ok && r.VariantID != 0 {
			return false
		}
		if _, ok := n.segments[r.SegmentID]; !ok && r.SegmentID != 0 {
			return false
		}
	}
	return true
}

// Variant returns the key of a variant, or "" if it is unknown.
func (n *Names) Variant(id int64) string { return n.variants[id] }

// compareSegments orders segments in evaluation order, followed by unknown segments by their IDs.
func (n *Names) compareSegments(a, b int64) int {
	place := func(id int64) int {
		if s, ok := n.segments[id]; ok {
			return s.place
		}
		return len(n.segments)
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
}

// OutcomesOf adds up rows of one flag, which are grouped at least by outcome, variant, segment and
// asked.
func OutcomesOf(flag *entity.Flag, names *Names, from, to time.Time, rows []datar.Row) *Outcomes {
	o := &Outcomes{FlagID: int64(flag.ID), FlagKey: flag.Key, From: from, To: to, Outcomes: []OutcomeCount{}, Segments: []SegmentOutcome{}}
	outcomes := map[datar.Outcome]*OutcomeCount{}
	segments := map[int64]*SegmentOutcome{}
	variants := map[int64]map[int64]int64{} // by segment, by variant
	unattributed := map[int64]int64{}       // by variant
	for i := range rows {
		r := &rows[i]
		o.Total += r.Count
		o.Asked.add(r)
		count := outcomes[r.Outcome]
		if count == nil {
			count = &OutcomeCount{Outcome: r.Outcome}
			outcomes[r.Outcome] = count
		}
		count.add(r)
		if r.Outcome == datar.Unattributed {
			unattributed[r.VariantID] += r.Count
		}
		if r.Outcome != datar.Matched && r.Outcome != datar.HeldOut {
			continue
		}
		s := segments[r.SegmentID]
		if s == nil {
			s = &SegmentOutcome{SegmentID: r.SegmentID, Description: names.segments[r.SegmentID].description, Variants: []VariantOutcome{}}
			segments[r.SegmentID], variants[r.SegmentID] = s, map[int64]int64{}
		}
		if r.Outcome == datar.HeldOut {
			s.HeldOut += r.Count
			continue
		}
		s.Matched += r.Count
		variants[r.SegmentID][r.VariantID] += r.Count
	}
	for _, count := range outcomes {
		o.Outcomes = append(o.Outcomes, *count)
	}
	slices.SortFunc(o.Outcomes, func(a, b OutcomeCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Outcome, b.Outcome))
	})
	for id, s := range segments {
		for variantID, n := range variants[id] {
			s.Variants = append(s.Variants, VariantOutcome{variantID, names.variants[variantID], n})
		}
		slices.SortFunc(s.Variants, func(a, b VariantOutcome) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.VariantID, b.VariantID))
		})
		o.Segments = append(o.Segments, *s)
	}
	slices.SortFunc(o.Segments, func(a, b SegmentOutcome) int { return names.compareSegments(a.SegmentID, b.SegmentID) })
	for variantID, n := range unattributed {
		o.Unattributed = append(o.Unattributed, VariantOutcome{variantID, names.variants[variantID], n})
	}
	slices.SortFunc(o.Unattributed, func(a, b VariantOutcome) int { return cmp.Compare(a.VariantID, b.VariantID) })
	return o
}

func (c *OutcomeCount) add(r *datar.Row) {
	c.Count += r.Count
	if r.Asked&datar.AskedUnevaluable != 0 {
		c.Unevaluable += r.Count
	}
	if r.First != 0 && (c.First.IsZero() || r.First < c.First.UnixMilli()) {
		c.First = time.UnixMilli(r.First).UTC()
	}
	if r.Last > c.lastMilli() {
		c.Last = time.UnixMilli(r.Last).UTC()
	}
}

func (c *OutcomeCount) lastMilli() int64 {
	if c.Last.IsZero() {
		return 0
	}
	return c.Last.UnixMilli()
}

// Check returns an error if the sums of the outcomes do not match.
func (o *Outcomes) Check() error {
	var total, assigned, bySegment, unattributed int64
	for _, v := range o.Unattributed {
		unattributed -= v.Count
	}
	for _, c := range o.Outcomes {
		total += c.Count
		if c.Outcome == datar.Unattributed {
			unattributed += c.Count
		}
		if c.Outcome == datar.Matched || c.Outcome == datar.HeldOut {
			assigned += c.Count
		}
		if c.Unevaluable > c.Count {
			return fmt.Errorf("%d of %d evaluations with outcome %s were unevaluable", c.Unevaluable, c.Count, c.Outcome)
		}
	}
	for _, s := range o.Segments {
		bySegment += s.Matched + s.HeldOut
		var matched int64
		for _, v := range s.Variants {
			matched += v.Count
		}
		if matched != s.Matched {
			return fmt.Errorf("variants of segment %d add up to %d, and %d matched", s.SegmentID, matched, s.Matched)
		}
	}
	switch {
	case total != o.Total:
		return fmt.Errorf("outcomes add up to %d, and the total is %d", total, o.Total)
	case assigned != bySegment:
		return fmt.Errorf("segments add up to %d, and %d matched or were held out", bySegment, assigned)
	case unattributed != 0:
		return fmt.Errorf("the unattributed evaluations and their variants differ by %d", unattributed)
	case o.Asked.ByName+o.Asked.ByTag != o.Total:
		return fmt.Errorf("%d by name and %d by tag are not the total of %d", o.Asked.ByName, o.Asked.ByTag, o.Total)
	}
	return nil
}

// Table lists the outcomes. It lists outcomes with segments by segment and variant.
func (o *Outcomes) Table() *Table {
	return tableOf([]string{"outcome", "segmentID", "segmentDescription", "variantID", "variantKey", "count", "unevaluable", "firstAt", "lastAt"}, func(add func(cells ...string)) {
		for _, c := range o.Outcomes {
			if c.Outcome != datar.Matched && c.Outcome != datar.HeldOut {
				add(c.Outcome.String(), "", "", "", "", number(c.Count), number(c.Unevaluable), timeText(c.First), timeText(c.Last))
			}
		}
		for _, s := range o.Segments {
			for _, v := range s.Variants {
				add(datar.Matched.String(), id(s.SegmentID), rowName(s.Description), id(v.VariantID), v.VariantKey, number(v.Count), "", "", "")
			}
			if s.HeldOut > 0 {
				add(datar.HeldOut.String(), id(s.SegmentID), rowName(s.Description), "", "", number(s.HeldOut), "", "", "")
			}
		}
	})
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// id formats an ID. It returns "" for 0, which stands for no ID.
func id(n int64) string {
	if n == 0 {
		return ""
	}
	return number(n)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}
