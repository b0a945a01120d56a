package insight

import (
	"fmt"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// Rollout compares what a flag was set to give with what its evaluations got.
type Rollout struct {
	FlagID   int64
	From, To time.Time
	// Versions are those that were alive in the window, or were used in it, the oldest first.
	Versions []VersionRollout
	// Unattributed is the number of evaluations within the window of which the version is not known.
	Unattributed int64
	// OtherVersions is the number of further versions and OtherCount that of their evaluations, if there are more versions than
	// are shown: then these are the newest.
	OtherVersions int
	OtherCount    int64
	Findings      []Finding
	Complete      *Complete
}

// VersionRollout is one version of a flag.
type VersionRollout struct {
	SnapshotID int64
	// From and To are the time in which the version was alive, cut to the window if it overlaps it.
	From, To time.Time
	// Enabled is false if the version was off, or deleted: then no entity gets a variant.
	Enabled bool
	// Count is the number of evaluations that used the version, whatever their outcome; Unassigned is the part of it that
	// no segment matched, or for which there was none to try.
	Count, Unassigned int64
	Segments          []SegmentRollout
}

// SegmentRollout is one segment of a version.
type SegmentRollout struct {
	// SegmentID is 0 for evaluations of which the segment is not known.
	SegmentID   int64
	Description string
	// Rank is the segment's place in the order in which segments are tried, from 0; -1 if it is not part of the version.
	Rank           int
	RolloutPercent int
	Reach          eval.Reach
	ReachText      string
	// Count is the number of evaluations that matched the segment. The counts of Given add up to it.
	Count int64
	Given []Given
}

// Given is what a part of a segment's buckets gives: a variant, or nothing.
type Given struct {
	// VariantID is 0 for what is held out.
	VariantID  int64
	VariantKey string
	HeldOut    bool
	// Percent is the variant's distribution. Buckets is the number of the segment's 1,000 buckets, and Set the share, 0 to 1.
	Percent, Buckets int
	Set              float64
	// Count is the number of evaluations and Got their share of the segment's Count, 0 if that is 0. Evaluations are not
	// independent, so Set and Got differ when some entities are evaluated more often than others.
	Count int64
	Got   float64
}

// RolloutInput is what RolloutOf looks at.
type RolloutInput struct {
	FlagID   int64
	From, To time.Time
	Timeline Timeline
	// Flags are the flag's states by the ids of their snapshots, at least those that VersionsNeeded names.
	Flags map[int64]*entity.Flag
	// Layouts are those of Flags that are known already; of the others, they are computed.
	Layouts map[int64]*eval.Layout
	// Rows are those of the window, grouped at least by outcome, variant, segment, version and asked, and by hour if the
	// timeline is ambiguous.
	Rows []datar.Row
	// Hourly are rows of the window grouped by outcome, version and hour. Only versions that NeedsHours names are looked at.
	Hourly []datar.Row
	// Refresh is the interval at which servers look for changes of flags.
	Refresh time.Duration
	// AskedDeleted counts requests for the flag since it was deleted, and LastAskedDeleted is the time of the newest.
	AskedDeleted     int64
	LastAskedDeleted time.Time
}

// MaxVersions is the most versions that a Rollout shows.
const MaxVersions = 100

// VersionsNeeded lists the snapshots of the versions that were alive in the window or that were used in it, the oldest
// first, and no more than the newest MaxVersions of them.
func VersionsNeeded(t Timeline, from, to time.Time, rows []datar.Row) []int64 {
	needed := map[int]bool{}
	for i := range rows {
		if at := t.resolveRow(&rows[i]); at >= 0 {
			needed[at] = true
		}
	}
	for _, v := range t.Alive(from, to) {
		needed[t.Index(v.SnapshotID)] = true
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

// newestFindings is the findings of a rollout that looks at the newest version only, and at counts of all of them.
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

// segmentRollouts is what the segments of a flag are set to give.
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

// givenBy lists the variants of a segment, and then what is held out.
func givenBy(l *eval.SegmentLayout) []Given {
	given := make([]Given, 0, len(l.Given)+1)
	for _, g := range l.Given {
		given = append(given, Given{VariantID: g.VariantID, VariantKey: g.VariantKey, Percent: g.Percent, Buckets: g.Buckets, Set: shareOf(g.Buckets)})
	}
	return append(given, Given{HeldOut: true, Buckets: l.HeldOut, Set: shareOf(l.HeldOut)})
}

func shareOf(buckets int) float64 { return float64(buckets) / eval.Buckets }

// segment returns the segment with that id, which it adds if the version has none.
func (r *VersionRollout) segment(id int64) *SegmentRollout {
	i := slices.IndexFunc(r.Segments, func(s SegmentRollout) bool { return s.SegmentID == id })
	if i < 0 {
		i = len(r.Segments)
		s := SegmentRollout{SegmentID: id, Rank: -1, Given: []Given{{HeldOut: true}}}
		if id != 0 {
			s.Reach, s.ReachText = eval.ReachNobody, fmt.Sprintf("Segment %d is not part of version %d.", id, r.SnapshotID)
		}
		r.Segments = append(r.Segments, s)
	}
	return &r.Segments[i]
}

// given returns the part of the segment that gives a variant, which it adds if there is none. Variant 0 is what is held out.
func (s *SegmentRollout) given(variantID int64, flag *entity.Flag) *Given {
	i := slices.IndexFunc(s.Given, func(g Given) bool { return g.VariantID == variantID })
	if i < 0 {
		i = len(s.Given) - 1 // before what is held out
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

// Count is the number of all evaluations of the window.
func (r *Rollout) Count() int64 {
	n := r.Unattributed + r.OtherCount
	for i := range r.Versions {
		n += r.Versions[i].Count
	}
	return n
}

// Check returns an error if the sums of the answer do not add up.
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
	t := &Table{Header: []string{"snapshotID", "from", "to", "segmentID", "rank", "rolloutPercent", "reach", "variantID", "variantKey", "heldOut", "percent", "buckets", "set", "count", "got"}}
	for i := range r.Versions {
		v := &r.Versions[i]
		for j := range v.Segments {
			s := &v.Segments[j]
			for _, g := range s.Given {
				t.add(number(v.SnapshotID), timeText(v.From), timeText(v.To), id(s.SegmentID), fmt.Sprint(s.Rank), fmt.Sprint(s.RolloutPercent), string(s.Reach),
					id(g.VariantID), g.VariantKey, fmt.Sprint(g.HeldOut), fmt.Sprint(g.Percent), fmt.Sprint(g.Buckets),
					fmt.Sprintf("%.3f", g.Set), number(g.Count), fmt.Sprintf("%.4f", g.Got))
			}
		}
	}
	return t
}
