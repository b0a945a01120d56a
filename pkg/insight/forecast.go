package insight

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// ForecastDays is the number of days of counts on which a Forecast is based.
const ForecastDays = 7

// Forecast describes the effect of a draft of a flag's segments. Numbers of buckets are exact.
// Numbers of evaluations are an estimate. It assumes as many evaluations as in the last days,
// evenly distributed over the buckets.
type Forecast struct {
	FlagID int64
	// Now and Then are the evaluations per day by variant, and those without a variant, of all
	// segments that are not Unknown. Their sums are equal except for rounding.
	Now, Then []Expected
	// Moved is the number of the 1,000 buckets whose entities change from one variant to another,
	// in at least one of the segments that are not Unknown. Gained is the number that change from
	// no variant to a variant, and Lost from a variant to no variant.
	Moved, Gained, Lost int
	// Segments are the segments of the draft, in order.
	Segments []SegmentForecast
	// Removed are the IDs of segments that the draft leaves out.
	Removed []int64
	// Unattributed is the number of evaluations of the last days with an unknown version. They are
	// not part of the estimate.
	Unattributed int64
	// Complete is the completeness of the counts of the last days.
	Complete *Complete
}

// Expected is the number of evaluations per day that get a variant.
type Expected struct {
	// VariantID is 0 for evaluations without a variant.
	VariantID  int64
	VariantKey string
	PerDay     int64
}

// SegmentForecast describes the changes of one segment.
type SegmentForecast struct {
	SegmentID int64
	// Unknown is true if other entities may match the segment: it is new, or constraints or the
	// order of segments change before or in it. Then the other fields are 0.
	Unknown bool
	// Reason explains Unknown.
	Reason string
	// PerDay is the number of evaluations per day that match the segment.
	PerDay              int64
	Moved, Gained, Lost int
	// Now and Then are the numbers of buckets by variant. VariantID 0 means no variant.
	Now, Then []Given
}

// firstDraftID is higher than the ID of any row. New parts of a draft get IDs from here on.
const firstDraftID = 1 << 52

// IsDraftID reports whether an ID belongs to a part that is not saved yet.
func IsDraftID(id int64) bool { return id >= firstDraftID }

// DraftOf returns the flag as it would be after the definition is saved. IsDraftID is true for the
// IDs of new variants, segments and constraints. The error matches entity.ErrInvalid and names what
// is wrong.
func DraftOf(flag *entity.Flag, d *entity.Definition) (*entity.Flag, error) {
	draft, problems := d.Apply(flag)
	if err := entity.ProblemsError(problems); err != nil {
		return nil, err
	}
	next := uint(firstDraftID)
	number := func(id *uint) {
		if *id == 0 {
			*id = next
			next++
		}
	}
	draft.Variants = slices.Clone(draft.Variants)
	byKey := map[string]uint{}
	for i := range draft.Variants {
		number(&draft.Variants[i].ID)
		byKey[draft.Variants[i].Key] = draft.Variants[i].ID
	}
	for i := range draft.Segments {
		s := &draft.Segments[i]
		number(&s.ID)
		s.Constraints, s.Distributions = slices.Clone(s.Constraints), slices.Clone(s.Distributions)
		for j := range s.Constraints {
			number(&s.Constraints[j].ID)
		}
		for j := range s.Distributions {
			if d := &s.Distributions[j]; d.VariantID == 0 {
				d.VariantID = byKey[d.VariantKey]
			}
		}
	}
	return draft, nil
}

// ForecastOf compares the flag with a draft of it. rows are the counts of the days before now,
// grouped at least by outcome, segment and version. flags contains the versions in rows.
func ForecastOf(flag, draft *entity.Flag, t Timeline, flags map[int64]*entity.Flag, rows []datar.Row, now time.Time) *Forecast {
	f := &Forecast{FlagID: int64(flag.ID), Segments: []SegmentForecast{}, Removed: []int64{}}
	layoutNow, layoutThen := eval.SegmentLayouts(flag), eval.SegmentLayouts(draft)
	current := inOrder(flag.Segments)
	rates := newRates(current, t, flags, rows, now)
	moved, gained, lost := map[int]bool{}, map[int]bool{}, map[int]bool{}
	perNow, perThen := map[int64]float64{}, map[int64]float64{}
	same := true // all segments so far match the same entities as before
	kept := map[uint]bool{}
	for i, s := range inOrder(draft.Segments) {
		kept[s.ID] = true
		forecast := SegmentForecast{SegmentID: int64(s.ID), Now: []Given{}, Then: []Given{}}
		if same && i < len(current) && current[i].ID == s.ID {
			same = sameConstraints(current[i], s)
			forecast.Reason = "Its constraints change."
		} else {
			same = false
			forecast.Reason = "The order of segments changes."
			switch {
			case IsDraftID(int64(s.ID)):
				forecast.Reason = "It is new."
			case i < len(current) && current[i].ID == s.ID:
				forecast.Reason = "Constraints or the order of segments change before it."
			}
		}
		if !same {
			forecast.Unknown = true
			f.Segments = append(f.Segments, forecast)
			continue
		}
		forecast.Reason = ""
		a, b := layoutNow(i), layoutThen(i)
		rate := rates.perDay(i)
		forecast.PerDay = int64(math.Round(rate))
		forecast.Now, forecast.Then = givenBy(&a), givenBy(&b)
		for bucket := range eval.Buckets {
			from, to := a.ByBucket[bucket], b.ByBucket[bucket]
			perNow[from] += rate / eval.Buckets
			perThen[to] += rate / eval.Buckets
			switch {
			case from == to:
			case from == 0:
				forecast.Gained++
				gained[bucket] = true
			case to == 0:
				forecast.Lost++
				lost[bucket] = true
			default:
				forecast.Moved++
				moved[bucket] = true
			}
		}
		f.Segments = append(f.Segments, forecast)
	}
	for _, s := range current {
		if !kept[s.ID] {
			f.Removed = append(f.Removed, int64(s.ID))
		}
	}
	for i := range rows {
		if rows[i].Outcome == datar.Unattributed {
			f.Unattributed += rows[i].Count
		}
	}
	f.Moved, f.Gained, f.Lost = len(moved), len(gained), len(lost)
	f.Now, f.Then = expected(flag, draft, perNow, perThen), expected(flag, draft, perThen, perNow)
	return f
}

// expected lists the evaluations per day by variant. It includes a variant with 0 if other has more
// than 0.
func expected(flag, draft *entity.Flag, perDay, other map[int64]float64) []Expected {
	list := []Expected{}
	add := func(id int64, key string) {
		if perDay[id] > 0 || other[id] > 0 {
			list = append(list, Expected{id, key, int64(math.Round(perDay[id]))})
		}
	}
	variants := slices.Clone(draft.Variants)
	for i := range flag.Variants {
		if !slices.ContainsFunc(variants, func(v entity.Variant) bool { return v.ID == flag.Variants[i].ID }) {
			variants = append(variants, flag.Variants[i])
		}
	}
	slices.SortFunc(variants, func(a, b entity.Variant) int { return cmp.Compare(a.ID, b.ID) })
	for i := range variants {
		add(int64(variants[i].ID), variants[i].Key)
	}
	add(0, "")
	return list
}

// rates estimates how many evaluations per day match the segments of a flag.
type rates struct {
	segments []*entity.Segment
	// versions are those of the last days in which the flag was on, and begin is how many of the
	// segments each of them begins with, by snapshot ID.
	versions []liveVersion
	begin    map[int64]int
	// counts are the evaluations that matched a segment, by its ID and the snapshot ID.
	counts map[int64]map[int64]int64
}

// liveVersion is how long a version was the newest in the last days.
type liveVersion struct {
	snapshotID int64
	alive      time.Duration
}

func newRates(segments []*entity.Segment, t Timeline, flags map[int64]*entity.Flag, rows []datar.Row, now time.Time) *rates {
	r := &rates{segments: segments, begin: map[int64]int{}, counts: map[int64]map[int64]int64{}}
	from := now.Add(-ForecastDays * 24 * time.Hour)
	for _, v := range t.Alive(from, now) {
		flag := flags[v.SnapshotID]
		if !isOn(flag) {
			continue
		}
		end := v.To
		if end.IsZero() || end.After(now) {
			end = now
		}
		r.versions = append(r.versions, liveVersion{v.SnapshotID, end.Sub(later(v.From, from))})
		r.begin[v.SnapshotID] = sameBeginning(flag, segments)
	}
	for i := range rows {
		row := &rows[i]
		at := t.resolveRow(row)
		if at < 0 || row.Outcome != datar.Matched && row.Outcome != datar.HeldOut {
			continue
		}
		of := r.counts[row.SegmentID]
		if of == nil {
			of = map[int64]int64{}
			r.counts[row.SegmentID] = of
		}
		of[t[at].SnapshotID] += row.Count
	}
	return r
}

// perDay returns the evaluations per day that match segment i. It uses the time in which the flag
// was on and began with the same segments up to i, with the same constraints.
func (r *rates) perDay(i int) float64 {
	var alive time.Duration
	for _, v := range r.versions {
		if r.begin[v.snapshotID] > i {
			alive += v.alive
		}
	}
	var n int64
	for snapshotID, count := range r.counts[int64(r.segments[i].ID)] {
		if r.begin[snapshotID] > i {
			n += count
		}
	}
	const shortest = time.Hour // less time is not enough for an estimate
	if alive < shortest {
		alive = shortest
	}
	return float64(n) / (alive.Hours() / 24)
}

// sameBeginning returns how many of the segments the flag begins with, with the same constraints.
func sameBeginning(flag *entity.Flag, segments []*entity.Segment) int {
	n := 0
	for i, s := range inOrder(flag.Segments) {
		if i >= len(segments) || s.ID != segments[i].ID || !sameConstraints(s, segments[i]) {
			break
		}
		n++
	}
	return n
}

// sameConstraints reports whether two segments have the same constraints, in any order.
func sameConstraints(a, b *entity.Segment) bool {
	texts := func(s *entity.Segment) []string {
		list := make([]string, len(s.Constraints))
		for i := range s.Constraints {
			list[i] = ConstraintText(&s.Constraints[i])
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(texts(a), texts(b))
}
