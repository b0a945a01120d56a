package insight_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// rollout returns an input with version 115 from 8:00, version 117 from 10:00, and a window of that
// day.
func rollout(t *testing.T, versions map[int64]*entity.Flag, rows ...datar.Row) *insight.RolloutInput {
	t.Helper()
	return &insight.RolloutInput{
		FlagID: 42, From: at(t, "2026-01-24T00:00:00Z"), To: at(t, "2026-01-25T00:00:00Z"), Refresh: refresh,
		Timeline: heads(t, []int64{115, 117}, "2026-01-24T08:00:00Z", "2026-01-24T10:00:00Z"),
		Flags:    versions, Rows: rows, Hourly: rows,
	}
}

func TestEachFindingAndTheNearestCaseWithout(t *testing.T) {
	t.Parallel()
	later := at(t, "2026-01-24T12:00:00Z")
	off := func(f *entity.Flag) { f.Enabled = false }
	percent := func(n uint) func(f *entity.Flag) { return func(f *entity.Flag) { f.Segments[0].RolloutPercent = n } }
	onlyBlue := func(f *entity.Flag) {
		f.Segments[0].RolloutPercent, f.Segments[0].Distributions[0].Percent, f.Segments[0].Distributions[1].Percent = 100, 100, 0
	}
	behindAll := func(f *entity.Flag) {
		f.Segments = append([]entity.Segment{{Model: entity.Model{ID: 22}, RolloutPercent: 0}}, f.Segments...)
		f.Segments[1].Rank = 1
	}
	asked := func(r datar.Row, asked datar.Asked) datar.Row {
		r.Asked = asked
		return r
	}
	ingested := func(r datar.Row, n int64) datar.Row {
		r.Ingested = n
		return r
	}
	at := func(text string) time.Time { return at(t, text) }
	blue := func(n int64) datar.Row { return row(datar.Matched, 61, 23, 117, n, later) }
	green := func(n int64) datar.Row { return row(datar.Matched, 62, 23, 117, n, later) }
	heldOut := func(n int64) datar.Row { return row(datar.HeldOut, 0, 23, 117, n, later) }
	noMatch := func(n int64) datar.Row { return row(datar.NoMatch, 0, 0, 117, n, later) }
	for name, test := range map[string]struct {
		change func(f *entity.Flag) // applied to version 117
		rows   []datar.Row
		more   func(in *insight.RolloutInput)
		rule   insight.Rule
		want   string // a part of the text; empty means that the rule does not apply
		count  int64
	}{
		"variant without buckets": {onlyBlue, []datar.Row{blue(9), green(4)}, nil, insight.RuleImpossibleVariant, `4 evaluations got "green" from segment 23, which has no bucket`, 4},
		"variant with one bucket": {func(f *entity.Flag) {
			percent(1)(f)
			f.Segments[0].Distributions[0].Percent, f.Segments[0].Distributions[1].Percent = 99, 1
		}, []datar.Row{blue(9), green(4000)}, nil, insight.RuleImpossibleVariant, "", 0},
		"variant that is not there": {nil, []datar.Row{row(datar.Matched, 99, 23, 117, 2, later)}, nil, insight.RuleImpossibleVariant, "2 evaluations got variant 99", 2},
		"held out of everything":    {percent(100), []datar.Row{blue(9), heldOut(2)}, nil, insight.RuleImpossibleHoldOut, "2 evaluations were held out", 2},
		"held out of 99%":           {percent(99), []datar.Row{blue(9), heldOut(2000)}, nil, insight.RuleImpossibleHoldOut, "", 0},
		"assigned while off":        {off, []datar.Row{blue(3)}, nil, insight.RuleImpossibleAssignment, `3 evaluations got "blue" under version 117, in which the flag was off`, 3},
		"asked while off":           {off, []datar.Row{row(datar.Disabled, 0, 0, 117, 3, later)}, nil, insight.RuleImpossibleAssignment, "", 0},
		"assigned at 0%":            {percent(0), []datar.Row{blue(1)}, nil, insight.RuleImpossibleAssignment, "whose rollout is 0%", 1},
		"assigned at 1%":            {percent(1), []datar.Row{blue(1)}, nil, insight.RuleImpossibleAssignment, "", 0},
		"behind all":                {behindAll, []datar.Row{heldOut(1)}, nil, insight.RuleUnreachableCounted, "can match no entity under version 117. Segment 22", 1},
		"behind some": {func(f *entity.Flag) {
			behindAll(f)
			f.Segments[0].Constraints = []entity.Constraint{{Property: "x", Operator: "EQ", Value: "1"}}
		}, []datar.Row{heldOut(1)}, nil, insight.RuleUnreachableCounted, "", 0},
		"a segment of another version":    {nil, []datar.Row{row(datar.Matched, 61, 99, 117, 1, later)}, nil, insight.RuleUnreachableCounted, "Segment 99 is not part of version 117", 1},
		"a segment that is not known":     {nil, []datar.Row{row(datar.Matched, 61, 0, 117, 1, later)}, nil, insight.RuleUnreachableCounted, "", 0},
		"old version, hours later":        {nil, []datar.Row{row(datar.Matched, 61, 23, 115, 412, at("2026-01-24T11:41:00Z"))}, nil, insight.RuleOldVersion, "412 evaluations used version 115 up to 101 minutes after 117 replaced it.", 412},
		"old version, a millisecond late": {nil, []datar.Row{row(datar.Matched, 61, 23, 115, 1, at("2026-01-24T10:01:03.001Z"))}, nil, insight.RuleOldVersion, "up to 63 seconds after", 1},
		"old version, within a minute":    {nil, []datar.Row{row(datar.Matched, 61, 23, 115, 412, at("2026-01-24T10:01:03Z"))}, nil, insight.RuleOldVersion, "", 0},
		"the newest version":              {nil, []datar.Row{blue(1)}, nil, insight.RuleOldVersion, "", 0},
		"unreachable":                     {behindAll, nil, nil, insight.RuleUnreachable, "Segment 23 can match no entity.", 0},
		"unreachable, but off":            {func(f *entity.Flag) { behindAll(f); off(f) }, nil, nil, insight.RuleUnreachable, "", 0},
		"reachable":                       {nil, nil, nil, insight.RuleUnreachable, "", 0},
		"never matched":                   {nil, []datar.Row{noMatch(1000)}, nil, insight.RuleNeverMatched, "1,000 evaluations got as far as segment 23", 1000},
		"seldom asked":                    {nil, []datar.Row{noMatch(999)}, nil, insight.RuleNeverMatched, "", 0},
		"matched once":                    {nil, []datar.Row{noMatch(5000), heldOut(1)}, nil, insight.RuleNeverMatched, "", 0},
		"a later segment takes them": {func(f *entity.Flag) {
			f.Segments = append(f.Segments, entity.Segment{Model: entity.Model{ID: 24}, Rank: 1})
		}, []datar.Row{row(datar.HeldOut, 0, 24, 117, 1000, later)}, nil, insight.RuleNeverMatched, "as far as segment 23", 1000},
		"an earlier segment takes them": {func(f *entity.Flag) {
			f.Segments = append(f.Segments, entity.Segment{Model: entity.Model{ID: 24}, Rank: 1, Constraints: f.Segments[0].Constraints[:1]})
		}, []datar.Row{heldOut(1000)}, nil, insight.RuleNeverMatched, "", 0},
		"one-sided":         {nil, []datar.Row{blue(10), heldOut(5)}, nil, insight.RuleOneSided, `All 10 evaluations that got a variant got "blue"`, 10},
		"two sides":         {nil, []datar.Row{blue(10000), green(1)}, nil, insight.RuleOneSided, "", 0},
		"one side is set":   {onlyBlue, []datar.Row{blue(10)}, nil, insight.RuleOneSided, "", 0},
		"no side":           {nil, []datar.Row{heldOut(10)}, nil, insight.RuleOneSided, "", 0},
		"no entity id":      {nil, []datar.Row{asked(blue(12), datar.AskedWithoutEntityID), green(1)}, nil, insight.RuleNoEntityID, "12 evaluations had no entity ID", 12},
		"entity ids":        {nil, []datar.Row{asked(blue(12), datar.AskedByTag), green(1)}, nil, insight.RuleNoEntityID, "", 0},
		"unevaluable":       {nil, []datar.Row{asked(noMatch(7), datar.AskedUnevaluable)}, nil, insight.RuleUnevaluable, "In 7 evaluations a constraint could not be evaluated", 7},
		"evaluable":         {nil, []datar.Row{noMatch(7)}, nil, insight.RuleUnevaluable, "", 0},
		"twice":             {nil, []datar.Row{ingested(blue(12), 5)}, nil, insight.RuleTwice, "5 evaluations were sent in, and servers counted 7 more", 5},
		"sent in only":      {nil, []datar.Row{ingested(blue(12), 12)}, nil, insight.RuleTwice, "", 0},
		"counted only":      {nil, []datar.Row{blue(12)}, nil, insight.RuleTwice, "", 0},
		"deleted and asked": {nil, nil, func(in *insight.RolloutInput) { in.AskedDeleted = 3 }, insight.RuleAskedDeleted, "was asked for 3 times", 3},
		"deleted":           {nil, nil, nil, insight.RuleAskedDeleted, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := checkout()
			if test.change != nil {
				test.change(f)
			}
			in := rollout(t, map[int64]*entity.Flag{115: checkout(), 117: f}, test.rows...)
			if test.more != nil {
				test.more(in)
			}
			r := insight.RolloutOf(in)
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			var found []insight.Finding
			for _, one := range r.Findings {
				if one.Rule == test.rule {
					found = append(found, one)
				}
			}
			switch {
			case test.want == "" && len(found) > 0:
				t.Errorf("got %+v", found)
			case test.want != "" && (len(found) != 1 || !strings.Contains(found[0].Text.String(), test.want) || found[0].Count != test.count):
				t.Errorf("got %+v, want %q of %d, of all: %+v", found, test.want, test.count, r.Findings)
			}
		})
	}
}

// TestOldVersionWithinTheHourIsALowerBound counts in the hour in which a version was replaced. That
// hour has counts from before and after.
func TestOldVersionWithinTheHourIsALowerBound(t *testing.T) {
	t.Parallel()
	r := row(datar.Matched, 61, 23, 115, 500, at(t, "2026-01-24T10:30:00Z"))
	r.First = at(t, "2026-01-24T10:00:00Z").UnixMilli()
	next := row(datar.Matched, 61, 23, 115, 20, at(t, "2026-01-24T11:30:00Z"))
	off := checkout()
	off.Enabled = false
	found := insight.RolloutOf(rollout(t, map[int64]*entity.Flag{115: off, 117: checkout()}, r, next)).Findings
	var got *insight.Finding
	for i := range found {
		if found[i].Rule == insight.RuleOldVersion {
			got = &found[i]
		}
	}
	if got == nil || got.Count != 21 || !got.AtLeast || got.SnapshotID != 115 || !got.Last.Equal(at(t, "2026-01-24T11:30:00Z")) ||
		got.Text.String() != "At least 21 evaluations used version 115, in which the flag was off, up to 90 minutes after 117 replaced it." {
		t.Errorf("got %+v", got)
	}
	if first, late := insight.UsedLate(heads(t, []int64{115, 117}, "2026-01-24T08:00:00Z", "2026-01-24T10:00:00Z"), refresh, []datar.Row{r}); !late || first != datar.HourOf(at(t, "2026-01-24T10:00:00Z")) {
		t.Errorf("late from %v, %t", first, late)
	}
}

// TestSetIsBuckets checks that the configured share is a number of buckets, not a calculation with
// percentages.
func TestSetIsBuckets(t *testing.T) {
	t.Parallel()
	f := checkout()
	f.Segments[0].RolloutPercent, f.Segments[0].Distributions[0].Percent, f.Segments[0].Distributions[1].Percent = 1, 1, 99
	r := insight.RolloutOf(rollout(t, map[int64]*entity.Flag{115: checkout(), 117: f},
		row(datar.Matched, 61, 23, 117, 1, at(t, "2026-01-24T12:00:00Z")), row(datar.HeldOut, 0, 23, 117, 3, at(t, "2026-01-24T12:00:00Z")),
		row(datar.NoMatch, 0, 0, 117, 5, at(t, "2026-01-24T12:00:00Z")), row(datar.Unattributed, 61, 23, 0, 7, at(t, "2026-01-24T12:00:00Z"))))
	if err := r.Check(); err != nil || r.Count() != 16 || r.Unattributed != 7 || len(r.Versions) != 2 {
		t.Fatalf("%v: %+v", err, r)
	}
	v := r.Versions[1]
	given := v.Segments[0].Given
	if len(given) != 3 || given[0].Buckets != 1 || given[1].Buckets != 10 || given[2].Buckets != 989 || !given[2].HeldOut ||
		given[0].Set != 0.001 || given[0].Got != 0.25 || given[2].Got != 0.75 || v.Unassigned != 5 || v.Segments[0].Count != 4 {
		t.Errorf("got %+v", v)
	}
	if !v.From.Equal(at(t, "2026-01-24T10:00:00Z")) || !v.To.Equal(at(t, "2026-01-25T00:00:00Z")) || r.Versions[0].SnapshotID != 115 {
		t.Errorf("from %s to %s", v.From, v.To)
	}
}

// randomFlag returns a flag with up to four variants and three segments.
func randomFlag(r *rand.Rand, id uint) *entity.Flag {
	f := &entity.Flag{Model: entity.Model{ID: id}, Key: fmt.Sprintf("flag-%d", id), Enabled: true, DataRecordsEnabled: true}
	variants := 1 + r.IntN(4)
	for v := range variants {
		f.Variants = append(f.Variants, entity.Variant{Model: entity.Model{ID: id*100 + uint(v)}, Key: fmt.Sprintf("v%d", v)})
	}
	for s := range r.IntN(4) {
		f.Segments = append(f.Segments, randomSegment(r, f, id*100+50+uint(s)))
	}
	return f
}

func randomSegment(r *rand.Rand, f *entity.Flag, id uint) entity.Segment {
	s := entity.Segment{Model: entity.Model{ID: id}, Rank: id, RolloutPercent: uint(r.IntN(101))}
	if r.IntN(3) == 0 {
		s.RolloutPercent = 100
	}
	if r.IntN(3) > 0 {
		s.Constraints = append(s.Constraints, entity.Constraint{Model: entity.Model{ID: id * 10}, Property: "country", Operator: "EQ", Value: []string{`"FR"`, `"DE"`}[r.IntN(2)]})
	}
	if r.IntN(3) == 0 {
		s.Constraints = append(s.Constraints, entity.Constraint{Model: entity.Model{ID: id*10 + 1}, Property: "age", Operator: "GTE", Value: "18"})
	}
	left := uint(100)
	for i := range f.Variants {
		percent := uint(r.IntN(int(left) + 1))
		if i == len(f.Variants)-1 {
			percent = left
		}
		left -= percent
		s.Distributions = append(s.Distributions, entity.Distribution{VariantID: f.Variants[i].ID, VariantKey: f.Variants[i].Key, Percent: percent})
	}
	return s
}

// randomContext returns a context that sometimes lacks properties, or has them with another type.
func randomContext(r *rand.Rand) map[string]any {
	c := map[string]any{"country": []any{"FR", "DE", "GB", 7.0}[r.IntN(4)], "age": []any{17.0, 18.0, 40.0, "19"}[r.IntN(4)]}
	if r.IntN(5) == 0 {
		delete(c, "age")
	}
	return c
}

// outcomeOf returns the outcome and the segment of a result with debug logs.
func outcomeOf(result *eval.Result) (outcome datar.Outcome, segmentID int64, asked datar.Asked) {
	for _, log := range result.SegmentLogs {
		if strings.Contains(log.Message, "cannot be evaluated") || strings.Contains(log.Message, "not an object") {
			asked = datar.AskedUnevaluable
		}
	}
	switch result.Reason {
	case eval.FlagDisabled:
		return datar.Disabled, 0, 0
	case eval.NoSegments:
		return datar.NoSegments, 0, 0
	case eval.Matched:
		return datar.Matched, result.SegmentID, asked
	default:
		last := result.SegmentLogs[len(result.SegmentLogs)-1]
		if strings.HasPrefix(last.Message, "match:") {
			return datar.HeldOut, last.SegmentID, asked
		}
		return datar.NoMatch, 0, asked
	}
}

// TestHealthyRolloutsContradictNothing checks that a correct rollout never leads to a
// contradiction, however skewed its traffic is.
func TestHealthyRolloutsContradictNothing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 17))
	start := at(t, "2026-01-24T00:00:00Z")
	notes := 0
	for id := uint(1); id <= 1000; id++ {
		versions, list := map[int64]*entity.Flag{}, []insight.Head{}
		f := randomFlag(r, id)
		rows := map[datar.Key]datar.Row{}
		for v := range int64(1 + r.IntN(4)) {
			if v > 0 {
				f = clone(t, f)
				switch r.IntN(4) {
				case 0:
					f.Enabled = !f.Enabled
				case 1:
					f.Segments = append(f.Segments, randomSegment(r, f, id*100+60+uint(v)))
				default:
					for i := range f.Segments {
						f.Segments[i].RolloutPercent = uint(r.IntN(101))
					}
				}
			}
			from := start.Add(time.Duration(v) * 5 * time.Hour)
			versions[100+v] = f
			list = append(list, insight.Head{SnapshotID: 100 + v, At: from})
			snapshot := eval.Compile([]entity.Flag{*f})
			for range 30 {
				// A few entities are evaluated many times. Some evaluations use a version up to a
				// minute plus the refresh interval after its replacement, or up to a minute before
				// its start.
				n := int64(1 + r.IntN(10)*r.IntN(10)*r.IntN(10))
				when := from.Add(time.Duration(r.Int64N(int64(5*time.Hour + 2*time.Minute + refresh)))).Add(-time.Minute).Truncate(time.Millisecond)
				result := snapshot.Evaluate(eval.Request{FlagID: int64(id), EntityID: fmt.Sprint("e", r.IntN(12)), EntityContext: randomContext(r)}, when, true)
				outcome, segmentID, asked := outcomeOf(result)
				key := datar.Key{FlagID: int64(id), Outcome: outcome, VariantID: result.VariantID, SegmentID: segmentID, Version: uint16(100 + v), Asked: asked, Hour: datar.HourOf(when)}
				row, ok := rows[key]
				if !ok {
					row = datar.Row{Key: key, First: when.UnixMilli(), Last: when.UnixMilli()}
				}
				row.Count += n
				row.First, row.Last = min(row.First, when.UnixMilli()), max(row.Last, when.UnixMilli())
				rows[key] = row
			}
		}
		in := &insight.RolloutInput{FlagID: int64(id), From: start, To: start.Add(24 * time.Hour), Refresh: refresh, Timeline: insight.NewTimeline(list), Flags: versions}
		var total int64
		for _, row := range rows {
			in.Rows = append(in.Rows, row)
			total += row.Count
		}
		in.Hourly = in.Rows
		got := insight.RolloutOf(in)
		if err := got.Check(); err != nil || got.Count() != total || got.Unattributed != 0 {
			t.Fatalf("flag %d: %v, %d of %d evaluations, %d unattributed", id, err, got.Count(), total, got.Unattributed)
		}
		for _, found := range got.Findings {
			if found.Severity == insight.Contradiction {
				t.Fatalf("flag %d: %+v", id, found)
			}
			notes++
		}
	}
	if notes == 0 {
		t.Error("no warnings and notes either: the test sees too little")
	}
}
