package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// Rule is the kind of a Finding.
type Rule string

// The rules. A difference between the configured shares and the measured ones is never a finding.
const (
	// RuleImpossibleVariant: a variant has counts under a version in which a segment gives it no
	// buckets.
	RuleImpossibleVariant Rule = "impossible_variant"
	// RuleImpossibleHoldOut: evaluations were held out, but all buckets of the segment give
	// variants.
	RuleImpossibleHoldOut Rule = "impossible_hold_out"
	// RuleImpossibleAssignment: evaluations got a variant, but the flag was off or the rollout was
	// 0.
	RuleImpossibleAssignment Rule = "impossible_assignment"
	// RuleUnreachableCounted: a segment that cannot match any entity has counts.
	RuleUnreachableCounted Rule = "unreachable_counted"
	// RuleOldVersion: a version was used after its replacement plus the refresh interval plus a
	// minute.
	RuleOldVersion Rule = "old_version"
	// RuleUnreachable: a segment cannot match any entity.
	RuleUnreachable Rule = "unreachable"
	// RuleNeverMatched: 1,000 evaluations reached a segment, and no evaluation matched it.
	RuleNeverMatched Rule = "never_matched"
	// RuleOneSided: all assignments were the same variant, but other variants have buckets.
	RuleOneSided Rule = "one_sided"
	// RuleNoEntityID: evaluations had no entity ID.
	RuleNoEntityID Rule = "no_entity_id"
	// RuleUnevaluable: a constraint could not be evaluated.
	RuleUnevaluable Rule = "unevaluable"
	// RuleTwice: servers count the flag, and clients also send its counts.
	RuleTwice Rule = "twice"
	// RuleAskedDeleted: the flag is deleted but still requested.
	RuleAskedDeleted Rule = "asked_deleted"
)

// Severity is the strength of a Finding.
type Severity string

// The severities. No distribution of traffic can explain a contradiction.
const (
	Contradiction Severity = "contradiction"
	Warning       Severity = "warning"
	Note          Severity = "note"
)

func (s Severity) rank() int { return slices.Index([]Severity{Contradiction, Warning, Note}, s) }

// neverMatchedAfter is the number of evaluations that must reach a segment before RuleNeverMatched
// applies.
const neverMatchedAfter = 1_000

// Finding is a fact about a rollout.
type Finding struct {
	Rule     Rule
	Severity Severity
	// SnapshotID, SegmentID and VariantID identify the subject. They are 0 if they do not apply.
	SnapshotID, SegmentID, VariantID int64
	// Count is the number of affected evaluations. With AtLeast it is a lower bound, because counts
	// are kept by hour.
	Count   int64
	AtLeast bool
	// Last is the time of the last of these evaluations, zero if unknown.
	Last time.Time
	Text catalog.Message
}

// finder collects findings.
type finder struct {
	in   *RolloutInput
	list []Finding
}

func (f *finder) add(found Finding) { f.list = append(f.list, found) }

// findings applies all rules. It orders the findings by severity, then by rule and version.
func findings(in *RolloutInput, r *Rollout) []Finding {
	f := &finder{in: in, list: []Finding{}}
	for i := range r.Versions {
		f.contradictions(&r.Versions[i])
	}
	f.oldVersions()
	f.unreachable(r)
	f.neverMatched(r)
	f.oneSided(r)
	f.ofRows()
	if in.AskedDeleted > 0 {
		f.add(Finding{Rule: RuleAskedDeleted, Severity: Warning, Count: in.AskedDeleted, Last: in.LastAskedDeleted,
			Text: catalog.Say("api.finding.asked_deleted", "n", in.AskedDeleted)})
	}
	slices.SortStableFunc(f.list, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
	return f.list
}

// contradictions compares the counts of one version with the possible results of the version.
func (f *finder) contradictions(v *VersionRollout) {
	flag := f.in.Flags[v.SnapshotID]
	if flag == nil {
		return
	}
	for i := range v.Segments {
		s := &v.Segments[i]
		if s.SegmentID == 0 || s.Count == 0 {
			continue
		}
		if s.Reach == eval.ReachNobody {
			f.contradiction(v, s, RuleUnreachableCounted, 0, s.Count, "api.finding.unreachable_counted", "why", s.ReachText)
		}
		if s.Rank < 0 {
			continue
		}
		for _, g := range s.Given {
			switch {
			case g.Count == 0 || !g.HeldOut && g.Buckets > 0 && v.Enabled || g.HeldOut && g.Buckets > 0:
			case g.HeldOut:
				f.contradiction(v, s, RuleImpossibleHoldOut, 0, g.Count, "api.finding.impossible_hold_out")
			case !v.Enabled:
				f.contradiction(v, s, RuleImpossibleAssignment, g.VariantID, g.Count, "api.finding.assigned_off", "variant", variantText(&g))
			case s.RolloutPercent == 0:
				f.contradiction(v, s, RuleImpossibleAssignment, g.VariantID, g.Count, "api.finding.assigned_rollout", "variant", variantText(&g))
			default:
				f.contradiction(v, s, RuleImpossibleVariant, g.VariantID, g.Count, "api.finding.impossible_variant", "variant", variantText(&g))
			}
		}
	}
}

// contradiction adds a finding about a segment of a version. more are arguments of the text beside
// the number of evaluations, the segment and the version.
func (f *finder) contradiction(v *VersionRollout, s *SegmentRollout, rule Rule, variantID, count int64, text string, more ...any) {
	args := append([]any{"n", count, "segment", catalog.Segment(s.SegmentID), "version", catalog.Digits(v.SnapshotID)}, more...)
	found := Finding{Rule: rule, Severity: Contradiction, SnapshotID: v.SnapshotID, SegmentID: s.SegmentID, VariantID: variantID, Count: count, Text: catalog.Say(text, args...)}
	for i := range f.in.Rows {
		r := &f.in.Rows[i]
		at := f.in.Timeline.resolveRow(r)
		if at < 0 || f.in.Timeline[at].SnapshotID != v.SnapshotID || r.SegmentID != s.SegmentID {
			continue
		}
		if matches := rule == RuleUnreachableCounted || r.VariantID == variantID; matches && r.Last > 0 && time.UnixMilli(r.Last).After(found.Last) {
			found.Last = time.UnixMilli(r.Last).UTC()
		}
	}
	f.add(found)
}

// Deadline returns the latest time at which a connected server can use the version. This is the
// time of the replacement plus the refresh interval plus a minute for clock skew. It returns false
// for the newest version.
func (v Version) Deadline(refresh time.Duration) (time.Time, bool) {
	if v.To.IsZero() {
		return time.Time{}, false
	}
	return v.To.Add(refresh + clockSkew), true
}

// UsedLate returns the first hour in which a version was counted after its Deadline, and false if
// there is no such hour. Rows are grouped at least by version.
func UsedLate(t Timeline, refresh time.Duration, rows []datar.Row) (first datar.Hour, late bool) {
	for i := range rows {
		r := &rows[i]
		at := t.resolveRow(r)
		if at < 0 {
			continue
		}
		deadline, replaced := t[at].Deadline(refresh)
		if !replaced || !time.UnixMilli(r.Last).After(deadline) {
			continue
		}
		if hour := datar.HourOf(deadline); !late || hour < first {
			first, late = hour, true
		}
	}
	return first, late
}

// oldVersions reports versions that were used after their deadline.
func (f *finder) oldVersions() {
	late := map[int]*Finding{}
	for i := range f.in.Hourly {
		r := &f.in.Hourly[i]
		at := f.in.Timeline.resolveRow(r)
		if at < 0 {
			continue
		}
		deadline, replaced := f.in.Timeline[at].Deadline(f.in.Refresh)
		last := time.UnixMilli(r.Last).UTC()
		if !replaced || !last.After(deadline) {
			continue
		}
		found := late[at]
		if found == nil {
			found = &Finding{Rule: RuleOldVersion, Severity: Contradiction, SnapshotID: f.in.Timeline[at].SnapshotID}
			late[at] = found
		}
		if last.After(found.Last) {
			found.Last = last
		}
		if time.UnixMilli(r.First).After(deadline) {
			found.Count += r.Count
		} else { // some evaluations of this hour were in time, but not the last one
			found.Count++
			found.AtLeast = found.AtLeast || r.Count > 1
		}
	}
	for at, v := range f.in.Timeline {
		if found := late[at]; found != nil {
			found.Text = f.oldVersionText(v, f.in.Timeline[at+1].SnapshotID, found)
			f.add(*found)
		}
	}
}

func (f *finder) oldVersionText(v Version, next int64, found *Finding) catalog.Message {
	var which catalog.Message
	if flag := f.in.Flags[v.SnapshotID]; flag != nil {
		switch {
		case flag.DeletedAt.Valid:
			which = catalog.Say("api.finding.which.deleted")
		case !flag.Enabled:
			which = catalog.Say("api.finding.which.off")
		}
	}
	name := "api.finding.old_version"
	if found.AtLeast {
		name = "api.finding.old_version.atleast"
	}
	return catalog.Say(name, "n", found.Count, "version", catalog.Digits(v.SnapshotID), "which", which, "span", catalog.Span(found.Last.Sub(v.To)), "next", catalog.Digits(next))
}

// newest returns the newest version of the rollout, or nil. Warnings about settings refer to it.
func newest(r *Rollout) *VersionRollout {
	if len(r.Versions) == 0 {
		return nil
	}
	return &r.Versions[len(r.Versions)-1]
}

func (f *finder) unreachable(r *Rollout) {
	v := newest(r)
	if v == nil || !v.Enabled {
		return
	}
	for i := range v.Segments {
		if s := &v.Segments[i]; s.Rank >= 0 && s.Reach == eval.ReachNobody {
			f.add(Finding{Rule: RuleUnreachable, Severity: Warning, SnapshotID: v.SnapshotID, SegmentID: s.SegmentID,
				Text: catalog.Say("api.finding.unreachable", "segment", catalog.Segment(s.SegmentID), "why", s.ReachText)})
		}
	}
}

// neverMatched reports segments of the newest version that no evaluation matched although many
// reached them. Evaluations reach a segment if they match a later segment or no segment.
func (f *finder) neverMatched(r *Rollout) {
	v := newest(r)
	if v == nil || !v.Enabled {
		return
	}
	var reached int64
	for i := range f.in.Rows {
		row := &f.in.Rows[i]
		if at := f.in.Timeline.resolveRow(row); at >= 0 && f.in.Timeline[at].SnapshotID == v.SnapshotID && row.Outcome == datar.NoMatch {
			reached += row.Count
		}
	}
	for i := len(v.Segments) - 1; i >= 0; i-- {
		s := &v.Segments[i]
		if s.Rank < 0 {
			continue
		}
		reached += s.Count
		if s.Count == 0 && s.Reach == eval.ReachSome && reached >= neverMatchedAfter {
			f.add(Finding{Rule: RuleNeverMatched, Severity: Warning, SnapshotID: v.SnapshotID, SegmentID: s.SegmentID, Count: reached,
				Text: catalog.Say("api.finding.never_matched", "n", reached, "segment", catalog.Segment(s.SegmentID))})
		}
	}
}

// oneSided applies RuleOneSided to the newest version.
func (f *finder) oneSided(r *Rollout) {
	v := newest(r)
	if v == nil || !v.Enabled {
		return
	}
	var only Given
	var others bool // have buckets
	var count int64
	set := map[int64]bool{}
	for i := range v.Segments {
		s := &v.Segments[i]
		for _, g := range s.Given {
			if g.HeldOut {
				continue
			}
			if g.Buckets > 0 && s.Reach != eval.ReachNobody {
				set[g.VariantID] = true
			}
			if g.Count == 0 {
				continue
			}
			if count > 0 && g.VariantID != only.VariantID {
				return
			}
			only = g
			count += g.Count
		}
	}
	for id := range set {
		others = others || id != only.VariantID
	}
	if count > 0 && others {
		f.add(Finding{Rule: RuleOneSided, Severity: Note, SnapshotID: v.SnapshotID, VariantID: only.VariantID, Count: count,
			Text: catalog.Say("api.finding.one_sided", "n", count, "variant", variantText(&only))})
	}
}

// ofRows applies the rules that need only counts.
func (f *finder) ofRows() {
	noEntity := Finding{Rule: RuleNoEntityID, Severity: Warning}
	unevaluable := Finding{Rule: RuleUnevaluable, Severity: Warning}
	twice := Finding{Rule: RuleTwice, Severity: Warning}
	var counted int64
	for i := range f.in.Rows {
		r := &f.in.Rows[i]
		if r.Asked&datar.AskedWithoutEntityID != 0 {
			noEntity.take(r, r.Count)
		}
		if r.Asked&datar.AskedUnevaluable != 0 {
			unevaluable.take(r, r.Count)
		}
		if r.Ingested > 0 {
			twice.take(r, r.Ingested)
		}
		counted += r.Count - r.Ingested
	}
	if noEntity.Count > 0 {
		noEntity.Text = catalog.Say("api.finding.no_entity_id", "n", noEntity.Count)
		f.add(noEntity)
	}
	if unevaluable.Count > 0 {
		unevaluable.Text = catalog.Say("api.finding.unevaluable", "n", unevaluable.Count)
		f.add(unevaluable)
	}
	if twice.Count > 0 && counted > 0 {
		twice.Text = catalog.Say("api.finding.twice", "n", twice.Count, "counted", counted)
		f.add(twice)
	}
}

func (f *Finding) take(r *datar.Row, count int64) {
	f.Count += count
	if last := time.UnixMilli(r.Last).UTC(); r.Last > 0 && last.After(f.Last) {
		f.Last = last
	}
}

// variantText returns the key of a variant, or its ID if the key is unknown.
func variantText(g *Given) any {
	if g.VariantKey != "" {
		return catalog.Code(g.VariantKey)
	}
	return catalog.Say("api.variant.number", "id", catalog.Digits(g.VariantID))
}

// isOn reports whether a version of a flag can give a variant.
func isOn(flag *entity.Flag) bool { return flag != nil && flag.Enabled && !flag.DeletedAt.Valid }
