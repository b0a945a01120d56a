package insight

import (
	"fmt"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// Rollout compares the configuration of a flag with the results of its evaluations.
type Rollout struct {
	FlagID   int64
	From, To time.Time
	// Versions are the versions that were current or used in the window, oldest first.
	Versions []VersionRollout
	// Unattributed is the number of evaluations within the window with an unknown version.
	Unattributed int64
	// OtherVersions is the number of older versions that are left out if there are too many, and
	// OtherCount is the number of their evaluations.
	OtherVersions int
	OtherCount    int64
	Findings      []Finding
	Complete      *Complete
}

// VersionRollout is one version of a flag.
type VersionRollout struct {
	SnapshotID int64
	// From and To limit the time in which the version was current, within the window if it overlaps
	// the window.
	From, To time.Time
	// Enabled is false if the flag was off or deleted in this version. Then no entity gets a
	// variant.
	Enabled bool
	// Count is the number of evaluations that used the version, whatever their outcome. Unassigned
	// is the number of those that matched no segment, or for which there was no segment.
	Count, Unassigned int64
	Segments          []SegmentRollout
}

// SegmentRollout is one segment of a version.
type SegmentRollout struct {
	// SegmentID is 0 for evaluations with an unknown segment.
	SegmentID   int64
	Description string
	// Rank is the segment's position in the evaluation order, from 0. It is -1 if the segment is
	// not part of the version.
	Rank           int
	RolloutPercent int
	Reach          eval.Reach
	ReachText      catalog.Message
	// Count is the number of evaluations that matched the segment. It is the sum of the counts of
	// Given.
	Count int64
	Given []Given
}

// Given is the result of a part of a segment's buckets: a variant, or no variant.
type Given struct {
	// VariantID is 0 for held-out entities.
	VariantID  int64
	VariantKey string
	HeldOut    bool
	// Percent is the variant's distribution. Buckets is the number of its buckets among the
	// segment's 1,000, and Set is its configured share, 0 to 1.
	Percent, Buckets int
	Set              float64
	// Count is the number of evaluations. Got is their share of the segment's Count, 0 if that is
	// 0. Evaluations are not independent, so Set and Got differ if some entities are evaluated more
	// often than others.
	Count int64
	Got   float64
}

// RolloutInput is the input of RolloutOf.
type RolloutInput struct {
	FlagID   int64
	From, To time.Time
	Timeline Timeline
	// Flags maps snapshot IDs to states of the flag. It contains at least those that VersionsNeeded
	// returns.
	Flags map[int64]*entity.Flag
	// Layouts are known layouts of Flags. Missing ones are computed.
	Layouts map[int64]*eval.Layout
	// Rows are the counts of the window, grouped at least by outcome, variant, segment, version and
	// asked, and by hour if the timeline is ambiguous.
	Rows []datar.Row
	// Hourly are counts of the window, grouped by outcome, version and hour. Only versions that
	// NeedsHours returns are used.
	Hourly []datar.Row
	// Refresh is the interval at which servers check for changes of flags.
	Refresh time.Duration
	// AskedDeleted is the number of requests for the flag since its deletion. LastAskedDeleted is
	// the time of the last one.
	AskedDeleted     int64
	LastAskedDeleted time.Time
}

// MaxVersions is the maximum number of versions in a Rollout.
const MaxVersions = 100

// VersionsNeeded lists the snapshots of the versions that were current or used in the window,
// oldest first. It returns at most the newest MaxVersions of them.
func VersionsNeeded(t Timeline, from, to time.Time, rows []datar.Row) []int64 {
	needed := map[int]bool{}
	for i := range rows {
		if at := t.resolveRow(&rows[i]); at >= 0 {
			needed[at] = true
		}
	}
	if from.Before(to) { // else the window begins in the future
		for _, v := range t.Alive(from, to) {
			needed[t.Index(v.SnapshotID)] = true
		}
	}
	places := make([]int, 0, len(needed))
	for place := range needed {
		places = append(places, place)
	}
	slices.Sort(places)
	places = places[max(0, len(places)-MaxVersions):]
	ids := make([]int64, len(places))
	for i, place := range places {
		ids[i] = t[place].SnapshotID
	}
	return ids
}

// RolloutOf compares the layouts of versions with their counts.
func RolloutOf(in *RolloutInput) *Rollout {
	r := &Rollout{FlagID: in.FlagID, From: in.From, To: in.To, Versions: []VersionRollout{}, Findings: []Finding{}}
	rows := map[int64][]datar.Row{} // by snapshot
	for i := range in.Rows {
		row := &in.Rows[i]
		at := in.Timeline.resolveRow(row)
		if at < 0 {
			r.Unattributed += row.Count
			continue
		}
		id := in.Timeline[at].SnapshotID
		rows[id] = append(rows[id], *row)
	}
	shown := VersionsNeeded(in.Timeline, in.From, in.To, in.Rows)
	for _, id := range shown {
		version := in.Timeline[in.Timeline.Index(id)]
		r.Versions = append(r.Versions, versionRollout(in, version, rows[id]))
		delete(rows, id)
	}
	for _, others := range rows {
		r.OtherVersions++
		r.OtherCount += sum(others)
	}
	r.Findings = findings(in, r)
	return r
}

// newestFindings returns the findings about the newest version and about the counts of all
// versions.
func newestFindings(in *RolloutInput) []Finding {
	r := &Rollout{}
	if last := len(in.Timeline) - 1; last >= 0 && in.Timeline[last].From.Before(in.To) {
		rows := make([]datar.Row, 0, len(in.Rows))
		for i := range in.Rows {
			if in.Timeline.resolveRow(&in.Rows[i]) == last {
				rows = append(rows, in.Rows[i])
			}
		}
		r.Versions = []VersionRollout{versionRollout(in, in.Timeline[last], rows)}
	}
	return findings(in, r)
}

func sum(rows []datar.Row) (n int64) {
	for i := range rows {
		n += rows[i].Count
	}
	return n
}

func versionRollout(in *RolloutInput, v Version, rows []datar.Row) VersionRollout {
	r := VersionRollout{SnapshotID: v.SnapshotID, From: v.From, To: v.To, Segments: []SegmentRollout{}}
	if v.To.IsZero() || v.To.After(in.To) {
		r.To = in.To
	}
	if v.From.Before(in.From) && r.To.After(in.From) {
		r.From = in.From
	}
	flag := in.Flags[v.SnapshotID]
	if flag != nil {
		r.Enabled = flag.Enabled && !flag.DeletedAt.Valid
		layout := in.Layouts[v.SnapshotID]
		if layout == nil {
			layout = eval.LayoutOf(flag)
		}
		r.Segments = segmentRollouts(flag, layout)
	}
	for i := range rows {
		row := &rows[i]
		r.Count += row.Count
		if row.Outcome != datar.Matched && row.Outcome != datar.HeldOut {
			r.Unassigned += row.Count
			continue
		}
		s := r.segment(row.SegmentID)
		s.Count += row.Count
		g := s.given(row.VariantID, flag)
		g.Count += row.Count
	}
	for i := range r.Segments {
		s := &r.Segments[i]
		for j := range s.Given {
			if s.Count > 0 {
				s.Given[j].Got = float64(s.Given[j].Count) / float64(s.Count)
			}
		}
	}
	return r
}

// segmentRollouts returns the configuration of a flag's segments.
func segmentRollouts(flag *entity.Flag, layout *eval.Layout) []SegmentRollout {
	descriptions := byID(flag.Segments, func(s *entity.Segment) uint { return s.ID })
	segments := make([]SegmentRollout, len(layout.Segments))
	for i := range layout.Segments {
		l := &layout.Segments[i]
		segments[i] = SegmentRollout{SegmentID: l.SegmentID, Description: descriptions[uint(l.SegmentID)].Description, Rank: i,
			RolloutPercent: l.RolloutPercent, Reach: l.Reach, ReachText: l.ReachText, Given: givenBy(l)}
	}
	return segments
}

// givenBy lists the variants of a segment, followed by the held-out part.
func givenBy(l *eval.SegmentLayout) []Given {
	given := make([]Given, 0, len(l.Given)+1)
	for _, g := range l.Given {
		given = append(given, Given{VariantID: g.VariantID, VariantKey: g.VariantKey, Percent: g.Percent, Buckets: g.Buckets, Set: shareOf(g.Buckets)})
	}
	return append(given, Given{HeldOut: true, Buckets: l.HeldOut, Set: shareOf(l.HeldOut)})
}

func shareOf(buckets int) float64 { return float64(buckets) / eval.Buckets }

// segment returns the segment with that ID. It adds the segment if the version does not have it.
func (r *VersionRollout) segment(id int64) *SegmentRollout {
	i := slices.IndexFunc(r.Segments, func(s SegmentRollout) bool { return s.SegmentID == id })
	if i < 0 {
		i = len(r.Segments)
		s := SegmentRollout{SegmentID: id, Rank: -1, Given: []Given{{HeldOut: true}}}
		if id != 0 {
			s.Reach, s.ReachText = eval.ReachNobody, catalog.Say("api.reach.gone", "segment", catalog.Segment(id), "version", catalog.Digits(r.SnapshotID))
		}
		r.Segments = append(r.Segments, s)
	}
	return &r.Segments[i]
}

// given returns the part of the segment that gives a variant. It adds the part if it is missing.
// Variant 0 is the held-out part.
func (s *SegmentRollout) given(variantID int64, flag *entity.Flag) *Given {
	i := slices.IndexFunc(s.Given, func(g Given) bool { return g.VariantID == variantID })
	if i < 0 {
		i = len(s.Given) - 1 // before the held-out part
		g := Given{VariantID: variantID}
		if flag != nil {
			for j := range flag.Variants {
				if int64(flag.Variants[j].ID) == variantID {
					g.VariantKey = flag.Variants[j].Key
				}
			}
		}
		s.Given = slices.Insert(s.Given, i, g)
	}
	return &s.Given[i]
}

// Count returns the number of all evaluations of the window.
func (r *Rollout) Count() int64 {
	n := r.Unattributed + r.OtherCount
	for i := range r.Versions {
		n += r.Versions[i].Count
	}
	return n
}

// Check returns an error if the sums of the rollout do not match.
func (r *Rollout) Check() error {
	for i := range r.Versions {
		v := &r.Versions[i]
		total := v.Unassigned
		for j := range v.Segments {
			s := &v.Segments[j]
			total += s.Count
			var count int64
			buckets := 0
			for _, g := range s.Given {
				count += g.Count
				buckets += g.Buckets
			}
			if count != s.Count {
				return fmt.Errorf("version %d, segment %d: parts add up to %d of %d evaluations", v.SnapshotID, s.SegmentID, count, s.Count)
			}
			if s.Rank >= 0 && buckets != eval.Buckets {
				return fmt.Errorf("version %d, segment %d: %d buckets", v.SnapshotID, s.SegmentID, buckets)
			}
		}
		if total != v.Count {
			return fmt.Errorf("version %d: segments and others add up to %d of %d evaluations", v.SnapshotID, total, v.Count)
		}
	}
	return nil
}

// Table has one row for each version, segment and part.
func (r *Rollout) Table() *Table {
	header := []string{"snapshotID", "from", "to", "segmentID", "rank", "rolloutPercent", "reach", "variantID", "variantKey", "heldOut", "percent", "buckets", "set", "count", "got"}
	return &Table{header, func(yield func([]string) bool) {
		for i := range r.Versions {
			v := &r.Versions[i]
			for j := range v.Segments {
				s := &v.Segments[j]
				for _, g := range s.Given {
					if !yield([]string{
						number(v.SnapshotID), timeText(v.From), timeText(v.To), id(s.SegmentID), fmt.Sprint(s.Rank), fmt.Sprint(s.RolloutPercent), string(s.Reach),
						id(g.VariantID), g.VariantKey, fmt.Sprint(g.HeldOut), fmt.Sprint(g.Percent), fmt.Sprint(g.Buckets),
						fmt.Sprintf("%.3f", g.Set), number(g.Count), fmt.Sprintf("%.4f", g.Got),
					}) {
						return
					}
				}
			}
		}
	}}
}
