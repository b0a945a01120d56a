package ui_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// figures are ui.Numbers and ui.Statistics of one flag, which was asked 160,000 times. With err
// they do not answer.
type figures struct {
	m   *memory
	err error
	// boards is the number of calls of AllStates. Each of them calls block, if it is not nil, and
	// uses the flags that it returns, or the current ones.
	boards int
	block  func(ctx context.Context) *eval.Snapshot
	// change, if it is not nil, changes the result of AllStates.
	change func(all *insight.States)
	// asked is the last query for a series.
	asked insight.SeriesQuery
	// more are unknown keys beyond the first page, and servers the number of additional ones.
	more    []insight.Unknown
	servers int
	// unattributed: the outcomes of some evaluations are unknown.
	unattributed bool
	// none: there were no evaluations.
	none bool
	// missing is how many of the evaluations of each server are neither stored nor waiting nor
	// lost.
	missing int64
	// ahead is how far the clock of one server is ahead.
	ahead time.Duration
	// rollout is what a rollout is, if it is not nil.
	rollout *insight.Rollout
	// advice is what to do about each flag, if it is set.
	advice insight.Advice
}

func (f *figures) complete() *insight.Complete {
	return &insight.Complete{
		Since: f.m.now.AddDate(0, 0, -60), UpTo: f.m.now, Servers: 4, Silent: 1,
		Holes: []insight.Hole{{From: f.m.now.AddDate(0, 0, -19), To: f.m.now.AddDate(0, 0, -18), Why: insight.WhyRecordsOff}},
	}
}

func (f *figures) state(flag *entity.Flag) *insight.State {
	advice := insight.Advice{Do: insight.DoRemoveFromCode, Text: catalog.Say("api.advice.launched", "variant", "on", "days", 30)}
	if f.advice.Do != "" {
		advice = f.advice
	}
	return &insight.State{
		FlagID: int64(flag.ID), FlagKey: flag.Key, State: insight.StateActive, Evidence: insight.Evidence{Count: 640_000, Last: f.m.now},
		Advice: advice,
		CanDelete: insight.CanDelete{Answer: insight.AnswerNo, Checks: []insight.Check{
			{Check: insight.CheckCounted, OK: true, Answer: insight.AnswerYes, Text: catalog.Say("api.check.counted", "days", 60)},
			{Check: insight.CheckNotAsked, Answer: insight.AnswerNo, Text: catalog.Say("api.check.asked.name", "n", 640_000, "from", catalog.Day(f.m.now.AddDate(0, 0, -30)))},
			{Check: insight.CheckAllHeard, Answer: insight.AnswerUnknown, Text: catalog.Say("api.check.silent", "silent", 1, "n", 4)},
		}},
		Complete: f.complete(),
	}
}

func (f *figures) AllStates(ctx context.Context, _ int) (*insight.States, error) {
	f.boards++
	var flags *eval.Snapshot
	if f.block != nil {
		flags = f.block(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	all := &insight.States{Complete: f.complete()}
	for _, flag := range cmp.Or(flags, f.m.Snapshot()).Flags() {
		one := insight.FlagState{State: f.state(flag), Flag: flag, Total: 640_000, Spark: make([]int64, 28), Findings: 3, Contradictions: 1, Warnings: 1}
		for i := range one.Spark {
			one.Spark[i] = int64(i)
		}
		for i, v := range flag.Variants {
			one.Given = append(one.Given, insight.VariantOutcome{VariantID: int64(v.ID), VariantKey: v.Key, Count: int64(200_000 - i)})
		}
		if flag.Key == "dark-mode" {
			one.State.State = insight.StateGivesNothing
			one.Holes = []insight.Hole{ // of a flag whose records are off
				{From: f.m.now.AddDate(0, 0, -9), To: f.m.now.AddDate(0, 0, -8), Why: insight.WhyRecordsOff, By: "grace@example.com"},
				{From: f.m.now.AddDate(0, 0, -1), To: f.m.now, Why: insight.WhyRecordsOff},
			}
		}
		all.Flags = append(all.Flags, one)
	}
	if f.change != nil {
		f.change(all)
	}
	return all, nil
}

func (f *figures) State(_ context.Context, id int64, _ *int64) (*insight.State, error) {
	return f.state(f.m.Snapshot().Flag(id, "")), f.err
}

func (f *figures) Outcomes(_ context.Context, id int64, _ insight.Window) (*insight.Outcomes, error) {
	o := &insight.Outcomes{FlagID: id, From: f.m.now.AddDate(0, 0, -7), To: f.m.now, Total: 160_000, Complete: f.complete(), Outcomes: []insight.OutcomeCount{
		{Outcome: datar.HeldOut, Count: 60_020}, {Outcome: datar.Matched, Count: 59_980}, {Outcome: datar.NoMatch, Count: 39_000, Unevaluable: 3_100}, {Outcome: datar.Disabled, Count: 1_000, Last: f.m.now},
	}}
	flag := f.m.Snapshot().Flag(id, "")
	s := insight.SegmentOutcome{SegmentID: int64(flag.Segments[0].ID), Matched: 59_980, HeldOut: 60_020}
	for i, n := range []int64{30_110, 29_870}[:min(2, len(flag.Variants))] {
		s.Variants = append(s.Variants, insight.VariantOutcome{VariantID: int64(flag.Variants[i].ID), VariantKey: flag.Variants[i].Key, Count: n})
	}
	o.Segments = []insight.SegmentOutcome{s}
	if f.none {
		o.Total, o.Outcomes, o.Segments = 0, nil, nil
	}
	return o, f.err
}

func (f *figures) Reasons(_ context.Context, id int64, _ insight.Window) (*insight.Reasons, error) {
	flag := f.m.Snapshot().Flag(id, "")
	return &insight.Reasons{FlagID: id, Examined: 1_840, Of: 39_000, Segments: []insight.SegmentReasons{{SegmentID: int64(flag.Segments[0].ID), Constraints: []insight.ConstraintReasons{
		{ConstraintID: 1, Text: `country EQ "FR"`, Stopped: 1_500, Missing: 930, False: 570}, {ConstraintID: 2, Text: "age GTE 18", Stopped: 340, OtherType: 290, False: 50},
	}}}}, f.err
}

func (f *figures) Rollout(_ context.Context, id int64, _ insight.Window) (*insight.Rollout, error) {
	if f.rollout != nil {
		return f.rollout, f.err
	}
	flag := f.m.Snapshot().Flag(id, "")
	v := insight.VersionRollout{SnapshotID: int64(flag.SnapshotID), From: f.m.now.AddDate(0, 0, -7), To: f.m.now, Enabled: true, Count: 160_000}
	for i := range flag.Segments {
		s := insight.SegmentRollout{SegmentID: int64(flag.Segments[i].ID), Description: flag.Segments[i].Description, Rank: i, RolloutPercent: 50, Count: 120_000}
		for _, share := range flag.Segments[i].Distributions {
			s.Given = append(s.Given, insight.Given{VariantID: int64(share.VariantID), VariantKey: share.VariantKey, Percent: 50, Buckets: 250, Set: .25, Count: 30_110, Got: .2509})
		}
		s.Given = append(s.Given, insight.Given{HeldOut: true, Buckets: 500, Set: .5, Count: 60_020, Got: .5002})
		v.Segments = append(v.Segments, s)
	}
	return &insight.Rollout{FlagID: id, Versions: []insight.VersionRollout{v}, Complete: f.complete(), Findings: []insight.Finding{
		{Rule: insight.RuleOldVersion, Severity: insight.Contradiction, Text: catalog.Say("api.finding.assigned_off", "n", 412, "variant", catalog.Code("<b>"), "version", catalog.Digits(115))}, {
			Rule: insight.RuleNeverMatched, Severity: insight.Warning, SegmentID: int64(flag.Segments[0].ID),
			Text: catalog.Say("api.finding.never_matched", "n", 1000, "segment", catalog.Segment(flag.Segments[0].ID)),
		},
	}}, f.err
}

func (f *figures) Series(_ context.Context, id int64, q insight.SeriesQuery) (*insight.Series, error) {
	f.asked = q
	if _, err := insight.ParseUnit(q.Bucket, *q.From, f.m.now); err != nil {
		return nil, err
	}
	zone, err := insight.LoadZone(q.Zone)
	if err != nil {
		return nil, err
	}
	flag := f.m.Snapshot().Flag(id, "")
	s := &insight.Series{FlagID: id, Unit: insight.UnitDay, Zone: zone, By: insight.By(q.By), Complete: f.complete()}
	buckets, start := 31, func(from time.Time, i int) time.Time { return from.AddDate(0, 0, i) }
	if q.Bucket == "hour" {
		s.Unit, buckets, start = insight.UnitHour, 73, func(from time.Time, i int) time.Time { return from.Add(time.Duration(15+i) * time.Hour) }
	}
	fill := func(b *insight.Buckets, from time.Time) {
		for i := range buckets {
			b.Starts = append(b.Starts, start(from, i))
			b.Whole = append(b.Whole, i < buckets-1)
		}
		b.End = start(from, buckets)
		for i := range len(flag.Variants) + 1 {
			line := insight.Line{Counts: make([]int64, buckets)}
			if i > 0 {
				line.VariantID, line.Name = int64(flag.Variants[i-1].ID), flag.Variants[i-1].Key
			}
			for j := range line.Counts {
				line.Counts[j] = int64(1000*i + j)
			}
			b.Lines = append(b.Lines, line)
		}
	}
	fill(&s.Buckets, time.Date(2026, 1, 1, 0, 0, 0, 0, zone))
	if s.By == insight.BySegment {
		for i := range s.Lines {
			line := &s.Lines[i]
			line.VariantID, line.Name = 0, ""
			if i > 0 {
				line.SegmentID, line.Name = int64(flag.Segments[i-1].ID), flag.Segments[i-1].Description
			}
		}
	}
	if s.By == insight.ByVariant {
		other := datar.NoMatch
		if f.unattributed {
			other = datar.Unattributed
		}
		s.Nothing = []insight.Line{{Outcome: datar.HeldOut, Counts: slices.Clone(s.Lines[0].Counts)}, {Outcome: other, Counts: make([]int64, buckets)}}
		s.Nothing[0].Counts[30], s.Nothing[1].Counts[30] = 21, 9
	}
	if q.Compare != "" {
		s.Comparison = &insight.Buckets{}
		fill(s.Comparison, time.Date(2025, 12, 1, 0, 0, 0, 0, zone))
		s.Comparison.Lines[0].Counts[3] = 9
	}
	s.Changes = []insight.Change{{SnapshotID: 2, At: f.m.now.AddDate(0, 0, -7), Affects: insight.AffectsAssignment}}
	return s, f.err
}

func (f *figures) Unknown(context.Context, insight.Window, *int64, *int64) (*insight.UnknownList, error) {
	list := &insight.UnknownList{Complete: f.complete(), Unknown: []insight.Unknown{
		{Asked: "checkout-buton", Count: 311, Last: f.m.now, Similar: "checkout-button"}, {Asked: "gone", Count: 7, DeletedFlagID: 18}, {Asked: datar.OtherUnknown, Count: 1}, {Asked: "<odd> key", Count: 1},
	}}
	for i := len(f.more); i > 0 && len(list.Unknown) < 101; i-- { // a full page
		list.Unknown = append(list.Unknown, insight.Unknown{Asked: fmt.Sprintf("key-%d", i), Count: 1})
	}
	return list, f.err
}

func (f *figures) UnknownSum(ctx context.Context, w insight.Window) (*insight.UnknownSum, error) {
	more := f.more
	f.more = nil
	defer func() { f.more = more }()
	list, err := f.Unknown(ctx, w, nil, nil)
	sum := &insight.UnknownSum{ByText: map[string]int64{}, ByDeletedFlag: map[int64]int64{}}
	for _, one := range append(list.Unknown, more...) {
		sum.Texts++
		sum.Count += one.Count
		sum.ByText[one.Asked] = one.Count
		sum.ByDeletedFlag[one.DeletedFlagID] += one.Count
	}
	return sum, err
}

func (f *figures) Forecast(_ context.Context, id int64, d *entity.Definition) (*insight.Forecast, error) {
	flag := f.m.Snapshot().Flag(id, "")
	blue := int64(flag.Variants[0].ID)
	if len(d.Segments) > len(flag.Segments) {
		return &insight.Forecast{FlagID: id, Unattributed: 5, Segments: []insight.SegmentForecast{{}, {}, {Unknown: true}}}, f.err
	}
	return &insight.Forecast{FlagID: id, Gained: 300, Now: []insight.Expected{{VariantID: blue, VariantKey: "blue", PerDay: 4301}, {PerDay: 8574}},
		Then: []insight.Expected{{VariantID: blue, VariantKey: "blue", PerDay: 6858}, {PerDay: 3427}}, Segments: []insight.SegmentForecast{{Unknown: true}}}, f.err
}

func (f *figures) Stats() datar.Stats { return datar.Stats{Recorded: 10, Stored: 8, Pending: 2} }

func (f *figures) Servers(context.Context) ([]datar.ServerRecord, error) {
	if f.err != nil {
		return nil, f.err
	}
	record := func(name string, kind datar.ServerKind, at time.Time) datar.ServerRecord {
		return datar.ServerRecord{Name: name, Run: "r", Kind: kind, Start: at.AddDate(0, 0, -60), At: at, LastFlush: at, FlushInterval: time.Minute, Recorded: 100 + f.missing, Stored: 98, Pending: 1, Dropped: map[string]int64{"closed": 1}}
	}
	all := []datar.ServerRecord{record("flagr-0", datar.KindServer, f.m.now.Add(f.ahead)), record("edge-berlin", datar.KindEdge, f.m.now.AddDate(0, 0, -6))}
	for i := range f.servers {
		all = append(all, record(fmt.Sprintf("pod-%d", i), datar.KindServer, f.m.now))
	}
	return all, nil
}

// counted is setup with numbers.
func counted(t testing.TB) (*fixture, *figures) {
	t.Helper()
	numbers := &figures{}
	f := setup(t, func(o *ui.Options) {
		numbers.m = o.Store.(*memory)
		o.Numbers, o.Statistics = numbers, numbers
	})
	return f, numbers
}

func TestPagesWithNumbersAreWellMade(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	pages := append(everyPage(), "/ui/flags/1/traffic", "/ui/flags/1/traffic?compare=previous&by=variant&days=7", "/ui/flags/1/nothing", "/ui/unknown", "/ui/?state=gives_nothing&sort=traffic", "/ui/?sort=last&days=30")
	for _, target := range pages {
		checkPage(t, f, target, f.ask(t, http.MethodGet, target, nil))
	}
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	checkPage(t, f, targeting, f.press(t, form, "review"))
	numbers.err = errors.New("dial tcp: no answer of postgres://secret")
	for _, target := range pages {
		a := f.ask(t, http.MethodGet, target, nil)
		if a.status != http.StatusOK || strings.Contains(a.body, "no answer of") {
			t.Errorf("%s without numbers: %d", target, a.status)
		}
	}
}

func TestNumbersStandInSentencesAndTables(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	form := f.form(t)
	form.Set("s.0.rollout", "80")
	for target, want := range map[string][]string{
		"/ui/": {"4 flags: 1 gives nothing, 4 contradict their settings", "Gives nothing 1", "1 contradiction", "1 warning", "1 note", "168", "3 of 4 servers, 1 silent"},
		"/ui/flags/1": {"Active: 18.8 % of 160,000 evaluations got blue, 18.7 % green, 62.5 % got nothing.", "Contradiction412 evaluations got <b> under version 115, in which the flag was off.", "25.0 %25.1 %30,110", "since version 2", "not counted", "No: see why",
			"got as far as segment 1, “Adults in France”, and none", "120,000 matched, 40,000 did not"},
		"/ui/flags/1/traffic?compare=previous": {"evaluations since 1 Jan; over the 30 whole days, 0 % less than before.", "Dotted: the time before",
			"DaybluegreenHeld outNo segmentAll All 31 days31,46562,465456994,395 Sat 31 Jan until 10:42:101,0302,0302193,090 Fri 30 Jan"},
		"/ui/flags/1/traffic?by=outcome":  {"All 31 days"},
		"/ui/flags/1/traffic?tail=1":      {"The live tail is off, because it shows what individual entities get. To turn it on, start the server with FLAGR_RECORDER_DATAR_TAIL_ENABLED=true."},
		"/ui/flags/1/traffic?bucket=year": {`No numbers: bucket is "year", want hour, day or week.`},
		"/ui/flags/1/nothing":             {"100,020 of 160,000 evaluations gave no variant: 60 % of them were held out by a rollout.", "All by segment 1, “Adults in France”, where the rollout is 50 %.", "3,100 of them had a property", "a sample: 1,840 of 39,000 looked at", "country missing 930", "Where it stops, by a sample: 1,840 of 39,000 looked at."},
		"/ui/unknown":                     {"4 keys do not exist, but applications asked for them 320 times in 7 days.", "Similar to checkout-button", "Deleted today 10:42 by ada. Restore it?", "Other keys"},
		"/ui/deleted":                     {"1 deleted flag.", "7 times in 7 days"},
		"/ui/deleted/18":                  {"Restore gone?", "It was off", "Applications asked for it 7 times in 7 days.", "Deleted today 10:42 by ada."},
		"/ui/server": {"The statistics balance: 2 of 200 evaluations are lost; 1 server or edge has been silent.", "Silent, last report 6 days ago", "hidden",
			"dark-mode30 Jan 10:42still offrecords off", "dark-mode22 Jan 10:4223 Jan 10:42records off (grace@example.com)", "every flag12 Jan"},
		"/ui/flags/1/delete": {"Delete checkout-button? Applications ask for it 21,333 times a day.", "Not yet", "OK", "Asked for 640,000 times since 1 Jan, by name.", "Make on the only way in the code."},
		targeting:            {"120,240 evaluations reached this segment"},
	} {
		a := f.ask(t, http.MethodGet, target, nil)
		body := strings.ReplaceAll(text(a.root), "\u00a0", " ")
		for _, one := range want {
			if !strings.Contains(body, one) {
				t.Errorf("%s lacks %q in\n%s", target, one, body)
			}
		}
	}
	review := strings.ReplaceAll(text(f.press(t, form, "review").root), "\u00a0", " ")
	for _, one := range []string{"blue4,3016,858+2,557", "nothing8,5743,427−5,147", "No bucket changes from one variant to another. 300 of the 1,000 buckets", "There is no forecast for 1 segment: it is new, or can match other entities than before."} {
		if !strings.Contains(review, one) {
			t.Errorf("the review lacks %q in\n%s", one, review)
		}
	}
	added := text(f.press(t, fields(t, f.press(t, f.form(t), "add-segment"), "edit"), "review").root)
	if !strings.Contains(added, "There is no forecast for 1 segment: it is new, or can match other entities than before.") || strings.Contains(added, "of the 1,000 buckets") || strings.Contains(added, "From the last 7 days.") {
		t.Errorf("the forecast of a new segment is\n%s", added)
	}
	csv := f.ask(t, http.MethodGet, "/ui/flags/1/traffic.csv", nil)
	if csv.status != http.StatusOK || !strings.Contains(csv.header.Get("Content-Type"), "csv") || !strings.Contains(csv.body, "blue") {
		t.Errorf("CSV: %d %.200s", csv.status, csv.body)
	}
}

func TestAdviceToDoNothingIsNoAlternative(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	const question = "/ui/flags/1/delete"
	if page := text(f.ask(t, http.MethodGet, question, nil).root); !strings.Contains(page, "Instead:") {
		t.Errorf("no alternative in\n%s", page)
	}
	numbers.advice = insight.Advice{Do: insight.DoNothing, Text: catalog.Say("api.advice.none")}
	if page := text(f.ask(t, http.MethodGet, question, nil).root); strings.Contains(page, "Instead:") || !strings.Contains(page, "Delete anyway") {
		t.Errorf("the question is\n%s", page)
	}
}

// statements names what pages ask for. A test in pkg/app runs the real statements of the pages.
type statements struct{}

func (statements) DetailsSQL(q datar.DetailsQuery) string {
	to := "now"
	if q.To != 0 {
		to = q.To.Time().Format(time.DateTime)
	}
	return fmt.Sprintf("flag %d by %d from %s to %s", q.FlagID, q.GroupBy, q.From.Time().Format(time.DateTime), to)
}

func (statements) UnknownSQL(from datar.Hour) string {
	return "unknown from " + from.Time().Format(time.DateTime)
}

func (statements) ServersSQL() string { return "servers" }

// The SQL of numbers is shown where it gives them: tables of ClickHouse have other names.
func TestSQLIsShownWhereCountsAreInTheDatabase(t *testing.T) {
	t.Parallel()
	for _, sql := range []bool{true, false} {
		numbers := &figures{}
		f := setup(t, func(o *ui.Options) {
			numbers.m = o.Store.(*memory)
			o.Numbers, o.Statistics = numbers, numbers
			if sql {
				o.SQL = statements{}
			}
		})
		parts := func(p datar.Parts) string { return fmt.Sprint(uint8(p)) }
		for target, want := range map[string][2]string{
			"/ui/":                {"/datar/states?sort=updated&#39;", ">flag 0 by " + parts(datar.GroupFlag) + " from 2026-01-25 00:00:00 to now<"},
			"/ui/?days=30":        {"/datar/states?sort=updated&#39;", ">flag 0 by " + parts(datar.GroupFlag) + " from 2026-01-01 10:00:00 to now<"},
			"/ui/flags/1":         {"/datar/flags/1/outcomes?from=", ">flag 1 by " + parts(datar.GroupOutcome|datar.GroupVariant) + " from "},
			targeting:             {"/datar/flags/1/rollout?from=", ">flag 1 by " + parts(datar.GroupVersion|datar.GroupSegment|datar.GroupVariant|datar.GroupOutcome) + " from "},
			"/ui/flags/1/traffic": {"/datar/flags/1/series?", ">flag 1 by " + parts(datar.GroupHour|datar.GroupOutcome|datar.GroupVariant) + " from "},
			"/ui/flags/1/nothing": {"/datar/flags/1/outcomes?from=", ">flag 1 by " + parts(datar.GroupOutcome) + " from "},
			"/ui/flags/1/delete":  {"/datar/flags/1/state&#39;", ">flag 1 by " + parts(datar.GroupOutcome) + " from "},
			"/ui/unknown":         {"/datar/unknown?from=", ">unknown from "},
			"/ui/deleted":         {"/datar/unknown?from=", ">unknown from "},
			"/ui/server":          {"/datar/fleet&#39;", ">servers<"},
		} {
			a := f.ask(t, http.MethodGet, target, nil)
			checkPage(t, f, target, a)
			if !strings.Contains(a.body, want[0]) {
				t.Errorf("%s: no curl of %s", target, want[0])
			}
			if strings.Contains(a.body, want[1]) != sql {
				t.Errorf("%s with SQL %t: has the statement %t", target, sql, !sql)
			}
		}
	}
}

// TestTheListWaitsForNewNumbers: of an hour ago, or without what was just created here, are none to
// show if new ones are soon there.
func TestTheListWaitsForNewNumbers(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	cells := func() int { // with a state
		return strings.Count(f.ask(t, http.MethodGet, "/ui/", nil).body, ">Active<")
	}
	before := cells()
	if _, err := f.CreateFlag(t.Context(), "", "by-the-api", "", true); err != nil {
		t.Fatal(err)
	}
	if n := cells(); n != before || numbers.boards != 1 {
		t.Errorf("within seconds the list has %d states and %d boards, want %d and 1", n, numbers.boards, before)
	}
	f.now = f.now.Add(time.Hour)
	if n := cells(); n != before+1 || numbers.boards != 2 {
		t.Errorf("an hour later the list has %d states and %d boards, want %d and 2", n, numbers.boards, before+1)
	}
	f.ask(t, http.MethodPost, "/ui/new", url.Values{"key": {"on-the-page"}, "kind": {"boolean"}})
	if n := cells(); n != before+2 || numbers.boards != 3 {
		t.Errorf("after a flag was created the list has %d states and %d boards, want %d and 3", n, numbers.boards, before+2)
	}
	numbers.err = errors.New("down")
	f.now = f.now.Add(time.Hour)
	if n := cells(); n != before+2 {
		t.Errorf("without new numbers the list has %d states, want %d as before", n, before+2)
	}
}

// TestLiveTail: the page names the stream relative to itself, keeps its other choices, and says
// what to do without scripts.
func TestLiveTail(t *testing.T) {
	t.Parallel()
	numbers := &figures{}
	f := setup(t, func(o *ui.Options) {
		numbers.m = o.Store.(*memory)
		o.Numbers, o.Statistics, o.Tail = numbers, numbers, true
	})
	closed := f.ask(t, http.MethodGet, "/ui/flags/1/traffic?days=7", nil)
	if strings.Contains(closed.body, "data-tail") || !strings.Contains(closed.body, `href="traffic?days=7&amp;tail=1#tail"`) {
		t.Errorf("want a link to the tail, and no tail:\n%s", closed.body)
	}
	const target = "/ui/flags/1/traffic?days=7&tail=1"
	a := f.ask(t, http.MethodGet, target, nil)
	checkPage(t, f, target, a)
	for _, want := range []string{
		`data-tail="./../../../api/v1/datar/flags/1/tail"`, `data-rows="100"`, `href="traffic?days=7"`, `<input type="hidden" name="tail" value="1">`,
		`<span data-word="held_out">held out</span>`, `<span data-word="count">{n} received, {skipped} skipped</span>`, "curl -N &#39;http://example.com/api/v1/datar/flags/1/tail&#39;",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// TestCountsAroundAChange: a version of the history leads to the evaluations of the day before and
// the day after.
func TestCountsAroundAChange(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	const target = "/ui/flags/1/history"
	f.now = f.now.Add(36 * time.Hour)
	page := f.ask(t, http.MethodGet, target, nil)
	checkPage(t, f, target, page)
	link := `href="./../../flags/1/traffic?bucket=hour&amp;from=2026-01-30T10%3A42%3A10Z&amp;to=2026-02-01T10%3A42%3A10Z"`
	if !strings.Contains(page.body, link) {
		t.Fatalf("the history lacks %s:\n%s", link, page.body)
	}
	chart := f.ask(t, http.MethodGet, "/ui/flags/1/traffic?bucket=hour&from=2026-01-30T10%3A42%3A10Z&to=2026-02-01T10%3A42%3A10Z", nil)
	q := numbers.asked
	if q.Bucket != "hour" || !q.From.Equal(time.Date(2026, 1, 30, 10, 42, 10, 0, time.UTC)) || !q.To.Equal(time.Date(2026, 2, 1, 10, 42, 10, 0, time.UTC)) {
		t.Errorf("the chart is of %+v", q)
	}
	if body := text(chart.root); !strings.Contains(body, "evaluations from 1 Jan 15:00 to 4 Jan 16:00.") || strings.Contains(body, "to now") {
		t.Errorf("the chart says:\n%s", body)
	}
}

// TestTheListWhileOldCountsAreAddedUp checks that the list names what is missing, and shows the
// other numbers.
func TestTheListWhileOldCountsAreAddedUp(t *testing.T) {
	t.Parallel()
	progress := &datar.RollupProgress{Made: 3, Due: 40}
	for name, test := range map[string]struct {
		change      func(all *insight.States, now time.Time)
		want, never []string
		csv         string // of checkout-button, from its state on
	}{
		"nothing yet": {
			func(all *insight.States, _ time.Time) { *all = insight.States{Preparing: progress} },
			[]string{"3 of 40 sums exist. Numbers appear here as soon as"}, []string{"does not answer", "Not known yet", "evaluations"}, ",,,,,",
		},
		"two days": {
			func(all *insight.States, now time.Time) {
				all.Preparing, all.CountsFrom = progress, now.AddDate(0, 0, -2)
				for i := range all.Flags {
					f := &all.Flags[i]
					*f = insight.FlagState{Flag: f.Flag, Total: 7, Spark: make([]int64, 28), State: &insight.State{FlagID: f.FlagID}}
					f.Spark[27] = 7
				}
			},
			[]string{"28 evaluations since 29 Jan", "Counts before 29 Jan", "3 of 40 sums exist", "Not known yet 7"}, []string{"since 25 Jan", "Active", "Never asked"}, ",,,,,",
		},
		"all but when a flag was last asked for": {
			func(all *insight.States, _ time.Time) {
				all.Preparing = progress
				for i := range all.Flags {
					if f := &all.Flags[i]; f.Flag.Key == "dark-mode" {
						*f = insight.FlagState{Flag: f.Flag, Spark: make([]int64, 28), State: &insight.State{FlagID: f.FlagID}}
					}
				}
			},
			[]string{"504 evaluations since 25 Jan 00:00. ", "flags without evaluations in the last 30 days have no state", "Not known yet 0 Not known", "Active"}, nil, "active,168,2026-01-31T10:42:10Z,1,1,1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, numbers := counted(t)
			numbers.change = func(all *insight.States) { test.change(all, f.now) }
			a := f.ask(t, http.MethodGet, "/ui/", nil)
			checkPage(t, f, "/ui/", a)
			body := strings.ReplaceAll(text(a.root), "\u00a0", " ")
			for _, want := range test.want {
				if !strings.Contains(body, want) {
					t.Errorf("the list lacks %q in\n%s", want, body)
				}
			}
			for _, never := range test.never {
				if strings.Contains(body, never) {
					t.Errorf("the list has %q in\n%s", never, body)
				}
			}
			if a := f.ask(t, http.MethodGet, "/ui/server", nil); a.status != http.StatusOK {
				t.Errorf("the page of servers has status %d", a.status)
			}
			csv := f.ask(t, http.MethodGet, "/ui/flags.csv", nil).body
			if !strings.Contains(csv, "checkout-button,") || !strings.Contains(csv, ","+test.csv+"\r\n") {
				t.Errorf("no line ends with %q in\n%s", test.csv, csv)
			}
		})
	}
}

func TestNumbersOfTheListAreKept(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	for range 5 {
		f.ask(t, http.MethodGet, "/ui/", nil)
	}
	if numbers.boards != 1 {
		t.Errorf("%d boards were made for five pages", numbers.boards)
	}
}

// TestPagesShareABoard: pages that wait for numbers at the same time cause one query. If the
// browser that caused it disconnects, the query continues for the others.
func TestPagesShareABoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, numbers := counted(t)
		release := make(chan struct{})
		numbers.block = func(ctx context.Context) *eval.Snapshot {
			select {
			case <-release:
			case <-ctx.Done():
				t.Error("the query ended with the page that caused it")
			}
			return nil
		}
		list := func(ctx context.Context) string {
			rw := httptest.NewRecorder()
			f.ServeHTTP(rw, httptest.NewRequestWithContext(ctx, http.MethodGet, "/ui/", nil))
			return rw.Body.String()
		}
		leaving, leave := context.WithCancel(t.Context())
		left := make(chan string, 1)
		go func() { left <- list(leaving) }()
		synctest.Wait()
		pages := make(chan string, 3)
		for range cap(pages) {
			go func() { pages <- list(t.Context()) }()
		}
		synctest.Wait()
		leave()
		if page := <-left; strings.Contains(page, ">Active<") {
			t.Error("a page has numbers before the query returned them")
		}
		close(release)
		for range cap(pages) {
			if page := <-pages; !strings.Contains(page, ">Active<") {
				t.Errorf("a page that waited has no numbers:\n%s", page)
			}
		}
		if numbers.boards != 1 {
			t.Errorf("%d queries for four pages, want 1", numbers.boards)
		}
	})
}

// TestABoardBeforeAChange: a page after a change does not get the numbers of a query that began
// before it.
func TestABoardBeforeAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, numbers := counted(t)
		old := f.Snapshot() // what the first query sees
		release := make(chan struct{})
		numbers.block = func(context.Context) *eval.Snapshot {
			if numbers.boards > 1 {
				return nil
			}
			<-release
			return old
		}
		first := make(chan int, 1)
		cells := func() int { return strings.Count(f.ask(t, http.MethodGet, "/ui/", nil).body, ">Active<") }
		go func() { first <- cells() }()
		synctest.Wait()
		f.ask(t, http.MethodPost, "/ui/new", url.Values{"key": {"on-the-page"}, "kind": {"boolean"}})
		after := cells()
		close(release)
		if before := <-first; after != before+1 {
			t.Errorf("%d states in the list after a flag was created, want one more than %d", after, before)
		}
		if n := cells(); n != after || numbers.boards != 2 {
			t.Errorf("then the list has %d states after %d queries, want %d and 2", n, numbers.boards, after)
		}
	})
}

// TestAPanicOfNumbersFailsTheBoard checks that it ends neither the process nor the pages that wait,
// and that the next pages do not wait for another query at once.
func TestAPanicOfNumbersFailsTheBoard(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	numbers := &figures{block: func(context.Context) *eval.Snapshot { panic("broken store") }}
	f := setup(t, func(o *ui.Options) {
		numbers.m = o.Store.(*memory)
		o.Numbers, o.Statistics, o.Logger = numbers, numbers, slog.New(slog.NewTextHandler(&logged, nil))
	})
	for range 3 {
		if a := f.ask(t, http.MethodGet, "/ui/", nil); a.status != http.StatusOK || strings.Contains(a.body, ">Active<") {
			t.Fatalf("the list has status %d, want 200 without numbers:\n%s", a.status, a.body)
		}
	}
	for _, want := range []string{"level=ERROR", `panic="broken store"`, "stack=", "numbers of the list are missing"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &logged)
		}
	}
	if numbers.boards != 1 {
		t.Errorf("%d queries for three pages at the time of a panic, want 1", numbers.boards)
	}
}

// TestAFailedBoardIsRemembered checks that pages do not wait for a query that has just failed,
// until 2 s later or after a change.
func TestAFailedBoardIsRemembered(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.err = errors.New("down")
	wantBoards := func(when string, want int, shown bool) {
		t.Helper()
		body := f.ask(t, http.MethodGet, "/ui/", nil).body
		if has := strings.Contains(body, ">Active<"); numbers.boards != want || has != shown {
			t.Errorf("%s: %d queries and numbers %t, want %d and %t", when, numbers.boards, has, want, shown)
		}
	}
	wantBoards("first", 1, false)
	f.now = f.now.Add(2*time.Second - 1)
	wantBoards("before 2 s", 1, false)
	f.now = f.now.Add(1)
	wantBoards("after 2 s", 2, false)
	f.ask(t, http.MethodPost, "/ui/new", url.Values{"key": {"on-the-page"}, "kind": {"boolean"}})
	wantBoards("after a change", 3, false)
	numbers.err = nil
	wantBoards("soon after the database is back", 3, false)
	f.now = f.now.Add(2 * time.Second)
	wantBoards("2 s after that", 4, true)
}

// many is a fixture with 10,000 flags.
func many(t testing.TB) *fixture {
	t.Helper()
	f, _ := counted(t)
	for i := range 10_000 {
		flag := &entity.Flag{Key: fmt.Sprintf("some-experiment-%d", i), Description: fmt.Sprintf("Experiment %d of the shop, with a description of usual length", i), UpdatedBy: "ada@example.com"}
		flag.ID, flag.UpdatedAt, flag.Tags = uint(1000+i), f.now, []entity.Tag{{Value: "web"}, {Value: fmt.Sprintf("team-%d", i%40)}}
		f.flags[flag.ID] = flag
	}
	f.fixed = f.Snapshot()
	return f
}

func TestThePageOfAHundredFlagsIsSmall(t *testing.T) {
	t.Parallel()
	f := many(t)
	a := f.ask(t, http.MethodGet, "/ui/", nil)
	if n := len(a.body); n > 200_000 || strings.Count(a.body, `class="key"`) != 100 {
		t.Errorf("%d bytes for %d flags, want at most 200,000 for 100", n, strings.Count(a.body, `class="key"`))
	}
}

// BenchmarkList is the CPU of the first page of 10,000 flags, and of a search in them. The bound is
// 50 ms.
func BenchmarkList(b *testing.B) {
	f := many(b)
	for name, target := range map[string]string{"first": "/ui/", "search": "/ui/?q=experiment+77,shop&sort=key"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f.ask(b, http.MethodGet, target, nil)
			}
		})
	}
}

// TestTheWorkOfAPageIsThatOfItsRows: 10,000 flags are searched with a few allocations for each, and
// only the rows of the page are made. It is not parallel, since AllocsPerRun counts what all
// goroutines allocate.
func TestTheWorkOfAPageIsThatOfItsRows(t *testing.T) {
	f := many(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ui/?q=experiment", nil)
	serve := func() { f.ServeHTTP(httptest.NewRecorder(), r) }
	serve() // makes the board
	if n := testing.AllocsPerRun(3, serve); n > 60_000 {
		t.Errorf("%.0f allocations for a page of 100 flags of 10,000", n)
	}
}

// TestFiguresAreOfAllPages: sums are not those of the rows that a page has room for.
func TestFiguresAreOfAllPages(t *testing.T) {
	t.Parallel()
	numbers := &figures{servers: 250}
	f := setup(t, func(o *ui.Options) {
		numbers.m = o.Store.(*memory)
		o.Numbers, o.Statistics, o.Database, o.Retention = numbers, numbers, "sqlite3 flags.sqlite", 90*24*time.Hour
	})
	for i := range 2_000 {
		numbers.more = append(numbers.more, insight.Unknown{Asked: fmt.Sprintf("key-%d", i), Count: 2, DeletedFlagID: int64(i % 2 * 20)})
	}
	for i := range 150 {
		flag := &entity.Flag{Key: fmt.Sprintf("old-%d", i)}
		flag.ID, flag.DeletedAt.Valid, flag.DeletedAt.Time = uint(1000+i), true, f.now
		f.flags[flag.ID] = flag
	}
	for target, want := range map[string][]string{
		"/ui/unknown":          {"2,004 keys do not exist, but applications asked for them 4,320 times in 7 days."},
		"/ui/deleted":          {"151 deleted flags.", "old-0"},
		"/ui/deleted?page=2":   {"151 deleted flags.", "old-149"},
		"/ui/new?key=key-1999": {"Applications asked for it 2 times in 7 days."},
		"/ui/server":           {"252 of 25,200 evaluations are lost", "52 more servers are not listed. The sums include them.", "sqlite3 flags.sqlite", "counts are kept by the hour for 90 days"},
	} {
		a := f.ask(t, http.MethodGet, target, nil)
		body := strings.ReplaceAll(text(a.root), "\u00a0", " ")
		for _, one := range want {
			if !strings.Contains(body, one) {
				t.Errorf("%s lacks %q in\n%.2000s", target, one, body)
			}
		}
	}
}

func TestPagesWithoutNumbersOfferToTryAgain(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.err = errors.New("no answer")
	for _, target := range []string{"/ui/", "/ui/unknown", "/ui/flags/1", "/ui/flags/1/traffic", "/ui/flags/1/nothing"} {
		a := f.ask(t, http.MethodGet, target, nil)
		again := false
		each(a.root, func(n *html.Node) {
			href, ok := attr(n, "href")
			again = again || n.Data == "a" && ok && href == "" && text(n) == "Try again"
		})
		if !again {
			t.Errorf("%s without numbers has no link to try again", target)
		}
	}
}

// TestReasonsThatAreUnknownAreNoColumns: evaluations that another program counted have no outcome.
func TestReasonsThatAreUnknownAreNoColumns(t *testing.T) {
	t.Parallel()
	f, numbers := counted(t)
	numbers.unattributed = true
	if body := text(f.ask(t, http.MethodGet, "/ui/flags/1/traffic", nil).root); !strings.Contains(body, "DaybluegreennothingAll") {
		t.Errorf("the table is %s", body)
	}
}

// TestChangeMarksAreLinks: the keyboard reaches them, and each has a name.
func TestChangeMarksAreLinks(t *testing.T) {
	t.Parallel()
	f, _ := counted(t)
	found := 0
	each(f.ask(t, http.MethodGet, "/ui/flags/1/traffic", nil).root, func(n *html.Node) {
		if href, _ := attr(n, "href"); !strings.Contains(href, "/history?snapshot=2#v2") || n.Data != "a" || text(n) != "2" {
			return
		}
		name, _ := attr(n, "aria-label")
		if _, skipped := attr(n, "tabindex"); skipped || strings.ReplaceAll(name, "\u00a0", " ") != "Version 2, 24 Jan 10:42" {
			t.Errorf("the mark is %v", n.Attr)
		}
		for p := n.Parent; p != nil; p = p.Parent {
			hidden, _ := attr(p, "aria-hidden")
			if role, _ := attr(p, "role"); hidden == "true" || role == "img" {
				t.Errorf("the mark is within a %s that hides it", p.Data)
			}
		}
		found++
	})
	if found == 0 {
		t.Error("there is no mark")
	}
}
