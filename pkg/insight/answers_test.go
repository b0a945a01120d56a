package insight_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

func TestSimilarKeys(t *testing.T) {
	t.Parallel()
	keys := []string{"checkout-button", "dark-mode", "ab", "new-onboarding", "Old.Banner"}
	for asked, want := range map[string]string{
		"checkout-button2": "checkout-button", // one inserted
		"chekout-button":   "checkout-button", // one deleted
		"chekcout-button":  "checkout-button", // two swapped
		"checkuot-buttn":   "checkout-button", // both
		"checkout_button":  "checkout-button", // one replaced
		"checkout-butt":    "checkout-button", // two deleted
		"checkout-but":     "",                // three deleted
		"CHECKOUT-BUTTON":  "checkout-button",
		"old.baner":        "Old.Banner",
		"ac":               "", // half of it differs
		"":                 "",
		"(other)":          "",
		"something-else":   "",
		"dark-mode":        "dark-mode",
	} {
		got := insight.UnknownOf([]datar.UnknownRow{{Asked: asked, Count: 3, First: 1000, Last: 2000}}, keys, map[string]int64{"gone": 12})
		if got[0].Similar != want || got[0].Count != 3 || got[0].Last.UnixMilli() != 2000 || got[0].DeletedFlagID != 0 {
			t.Errorf("%q: got %+v, want %q", asked, got[0], want)
		}
	}
	if got := insight.UnknownOf([]datar.UnknownRow{{Asked: "gone"}}, []string{"gone1"}, map[string]int64{"gone": 12})[0]; got.DeletedFlagID != 12 || got.Similar != "" {
		t.Errorf("deleted: %+v", got)
	}
}

func TestCSVIsSafe(t *testing.T) {
	t.Parallel()
	var rows [][]string
	want := "a,b\r\n"
	for _, c := range [][2]string{
		{"=1+1", "'=1+1"}, {"+1", "'+1"}, {"-1", "'-1"}, {"@x", "'@x"}, {"\tx", "'\tx"},
		{"\rx", `"'x"`}, {"\n=1", "\"'\r\n=1\""}, {"\r\n=1", "\"'\r\n=1\""}, // a return alone is omitted in quotes
		{"plain", "plain"}, {`a "quote", and`, `"a ""quote"", and"`}, {"two\nlines", "\"two\r\nlines\""}, {"", ""}, {"é", "é"},
	} {
		rows = append(rows, []string{c[0], "x"})
		want += c[1] + ",x\r\n"
	}
	table := insight.Table{Header: []string{"a", "b"}, Rows: slices.Values(rows)}
	var b strings.Builder
	if err := table.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(want, b.String()); difference != "" {
		t.Error(difference)
	}
}

func TestFlagSummaryAsCSV(t *testing.T) {
	t.Parallel()
	table := insight.FlagSummaryTable(&datar.FlagBreakdown{
		FlagID:    7,
		ByVariant: []datar.VariantCount{{VariantID: 61, Count: 5, Name: "=1+1"}, {Count: 2}},
		BySegment: []datar.SegmentCount{{SegmentID: 23, Count: 5, Name: "Adults, in France"}},
		ByDay:     []datar.DayCount{{Day: at(t, "2026-01-30T00:00:00Z"), Count: 7}},
	})
	var b strings.Builder
	if err := table.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	want := "by,variantID,variantName,segmentID,segmentName,date,count\r\n" +
		"variant,61,'=1+1,,,,5\r\nvariant,,,,,,2\r\nsegment,,,23,\"Adults, in France\",,5\r\nday,,,,,2026-01-30,7\r\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	when := at(t, "2026-01-24T12:00:00Z")
	asked := row(datar.NoMatch, 0, 0, 117, 7, when.Add(time.Hour))
	asked.Asked = datar.AskedUnevaluable | datar.AskedByTag | datar.AskedWithoutEntityID
	rows := []datar.Row{
		row(datar.Matched, 61, 23, 117, 30, when), row(datar.Matched, 62, 23, 117, 20, when), row(datar.HeldOut, 0, 23, 117, 60, when),
		row(datar.NoMatch, 0, 0, 117, 40, when), asked, row(datar.Disabled, 0, 0, 115, 1, when),
		row(datar.Matched, 99, 0, 0, 2, when), // folded for lack of space, and a deleted variant
		{Key: datar.Key{FlagID: 42, VariantID: 61, SegmentID: 23}, Count: 5},
	}
	names := insight.NewNames(checkout())
	if names.Complete(rows) {
		t.Error("names are complete without the deleted variant")
	}
	names.Add(&entity.Flag{Variants: []entity.Variant{{Model: entity.Model{ID: 99}, Key: "old"}, {Model: entity.Model{ID: 61}, Key: "navy"}}})
	if !names.Complete(rows) || names.Variant(61) != "blue" || names.Variant(99) != "old" {
		t.Error("names of older snapshots are not added, or replace newer ones")
	}
	o := insight.OutcomesOf(checkout(), names, when, when, rows)
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range o.Outcomes {
		got = append(got, fmt.Sprintf("%s %d/%d", c.Outcome, c.Count, c.Unevaluable))
	}
	if text := strings.Join(got, ", "); text != "held_out 60/0, matched 52/0, no_match 47/7, unattributed 5/0, disabled 1/0" || o.Total != 165 {
		t.Errorf("got %s of %d", text, o.Total)
	}
	if o.Asked != (insight.Asked{ByName: 158, ByTag: 7, Unknown: 5, WithoutEntityID: 7}) ||
		!slices.Equal(o.Unattributed, []insight.VariantOutcome{{VariantID: 61, VariantKey: "blue", Count: 5}}) || len(o.Segments) != 2 || o.Segments[0].SegmentID != 23 || o.Segments[0].Matched != 50 ||
		o.Segments[1].Variants[0].VariantKey != "old" || !o.Outcomes[3].Last.IsZero() || !o.Outcomes[2].Last.Equal(when.Add(time.Hour)) {
		t.Errorf("got %+v", o)
	}
	o.Total++
	if o.Check() == nil {
		t.Error("sums that do not add up are accepted")
	}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T00:00:00Z")
	flag := checkout()
	timeline := insight.NewTimeline([]insight.Head{{SnapshotID: 115, At: now.Add(-30 * 24 * time.Hour)}, {SnapshotID: 117, At: now.Add(-2 * 24 * time.Hour)}})
	off := checkout()
	off.Enabled = false
	flags := map[int64]*entity.Flag{115: off, 117: flag}
	rows := []datar.Row{row(datar.Matched, 61, 23, 117, 500, now), row(datar.HeldOut, 0, 23, 117, 1500, now), row(datar.Disabled, 0, 0, 115, 999, now), row(datar.NoMatch, 0, 0, 117, 77, now)}
	segment := func(change func(s *entity.SegmentDefinition)) *entity.Definition {
		d := entity.Definition{Segments: entity.DefinitionOf(flag).Segments}
		if change != nil {
			change(&d.Segments[0])
		}
		return &d
	}
	forecast := func(d *entity.Definition) *insight.Forecast {
		draft, err := insight.DraftOf(flag, d)
		if err != nil {
			t.Fatal(err)
		}
		return insight.ForecastOf(flag, draft, timeline, flags, rows, now)
	}
	same := forecast(segment(nil))
	if same.Moved+same.Gained+same.Lost != 0 || same.Segments[0].PerDay != 1000 || len(same.Now) != 3 || same.Now[0].PerDay != 250 || same.Now[2].PerDay != 500 {
		t.Errorf("no change: %+v", same)
	}
	wider := forecast(segment(func(s *entity.SegmentDefinition) { s.RolloutPercent = 80 }))
	if wider.Moved != 0 || wider.Gained != 300 || wider.Lost != 0 || wider.Then[0].PerDay != 400 || wider.Then[2].PerDay != 200 {
		t.Errorf("a wider rollout: %+v", wider)
	}
	shifted := forecast(segment(func(s *entity.SegmentDefinition) { s.Distributions[0].Percent, s.Distributions[1].Percent = 60, 40 }))
	// blue: 0-299 of 0-599, green: 600-799 of 600-999, compared with 0-249 and 500-749.
	if shifted.Moved != 0 || shifted.Gained != 100 || shifted.Lost != 100 {
		t.Errorf("a shifted distribution: moved %d, gained %d, lost %d", shifted.Moved, shifted.Gained, shifted.Lost)
	}
	swapped := forecast(segment(func(s *entity.SegmentDefinition) {
		s.RolloutPercent = 100
		s.Distributions[0].Percent, s.Distributions[1].Percent = 10, 90
	}))
	if swapped.Moved != 150 { // 100-249 were blue and are green now
		t.Errorf("moved %d, want 150", swapped.Moved)
	}
	narrowed := forecast(segment(func(s *entity.SegmentDefinition) { s.Constraints[0].Value = `"DE"` }))
	if !narrowed.Segments[0].Unknown || narrowed.Segments[0].Reason != "Its constraints change." || narrowed.Moved != 0 || len(narrowed.Now) != 0 {
		t.Errorf("other constraints: %+v", narrowed)
	}
	before := segment(nil)
	before.Segments = append([]entity.SegmentDefinition{{RolloutPercent: 5}}, before.Segments...)
	if f := forecast(before); !f.Segments[0].Unknown || f.Segments[0].Reason != "It is new." || !insight.IsDraftID(f.Segments[0].SegmentID) || !f.Segments[1].Unknown || len(f.Removed) != 0 {
		t.Errorf("a segment before: %+v", f)
	}
	behind := segment(nil)
	behind.Segments = append(behind.Segments, entity.SegmentDefinition{RolloutPercent: 5})
	if f := forecast(behind); f.Segments[0].Unknown || !f.Segments[1].Unknown {
		t.Errorf("a segment behind: %+v", f)
	}
	if f := forecast(&entity.Definition{Segments: []entity.SegmentDefinition{}}); len(f.Removed) != 1 || f.Removed[0] != 23 {
		t.Errorf("no segments: %+v", f)
	}
}

func TestSampleOfReasons(t *testing.T) {
	t.Parallel()
	start := at(t, "2026-01-24T12:00:00Z")
	s := insight.NewSampler(start)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	snapshot := eval.Compile([]entity.Flag{*checkout()})
	observe := func(when time.Time, context map[string]any) {
		s.Observe(snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: "e", EntityContext: context}, when, false))
	}
	for second := range 4 {
		when := start.Add(time.Duration(second) * time.Second)
		for range 100 { // 5 of them are sampled
			observe(when, map[string]any{"country": "DE"})
			observe(when, map[string]any{"country": "FR", "age": 40.0}) // matches
		}
	}
	observe(start.Add(time.Hour), map[string]any{"country": "FR", "age": "19"})
	observe(start.Add(time.Hour), map[string]any{"age": 19.0})
	from := datar.HourOf(start)
	var r *insight.Reasons
	testwait.Until(t, "all to be explained", func() bool {
		r = s.Reasons(42, checkout(), from, from+2)
		return r.Examined >= 22
	})
	c := r.Segments[0].Constraints
	if r.Examined != 22 || len(r.Segments) != 1 || len(c) != 2 || c[0].Text != `country EQ "FR"` || c[0].Stopped != 21 || c[0].False != 20 || c[0].Missing != 1 ||
		c[1].OtherType != 1 || c[1].Stopped != 1 {
		t.Errorf("got %+v", r)
	}
	if other := s.Reasons(42, nil, from+1, from+2); other.Examined != 2 || other.Segments[0].Constraints[0].Text != "" {
		t.Errorf("of the second hour: %+v", other)
	}
	observe(start.Add(8*24*time.Hour), map[string]any{}) // drops the first hours
	testwait.Until(t, "old hours to be forgotten", func() bool { return s.Reasons(42, nil, from, from+2).Examined == 0 })
	cancel()
	<-done
}

// TestObserversDoNotAllocate checks that observing does not allocate, except for sampled
// evaluations.
func TestObserversDoNotAllocate(t *testing.T) {
	s, tail := insight.NewSampler(time.Unix(0, 0)), insight.NewTail()
	snapshot := eval.Compile([]entity.Flag{*checkout()})
	noMatch := snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: "e"}, time.Unix(1000, 0), false)
	for range 10 {
		s.Observe(noMatch)
	}
	if n := testing.AllocsPerRun(100, func() { s.Observe(noMatch); tail.Observe(noMatch) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// endsAfter is the context of a request whose client disconnects after a number of checks.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestTryEndsWithItsRequest checks that a Try ends with its request. Patterns of a draft may take a
// third of a second for each of 1,000 entities.
func TestTryEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	trial, err := insight.NewTrial(checkout(), make([]eval.Entity, insight.MaxTryEntities), insight.TrialLimits{})
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	err = trial.Each(&endsAfter{t.Context(), 10}, time.Unix(1000, 0), func(insight.Tried) (int, error) { tried++; return 0, nil })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "10 of 1000 entities were evaluated") || tried != 10 {
		t.Errorf("the error is %v after %d results, want that of the client that left after 10 entities", err, tried)
	}
}

// TestTrialsAreBounded checks that the entities of a Trial are checked before any is evaluated.
func TestTrialsAreBounded(t *testing.T) {
	t.Parallel()
	deep := any("end")
	for range entity.MaxJSONDepth {
		deep = []any{deep}
	}
	entities := make([]eval.Entity, insight.MaxTryEntities)
	for name, test := range map[string]struct {
		entities []eval.Entity
		limit    int
		bytes    int
		want     string
	}{
		"as many as allowed":   {entities, 0, 0, ""},
		"a batch":              {entities[:2], 2, 0, ""},
		"as deep as allowed":   {[]eval.Entity{{EntityContext: deep}}, 0, 0, ""},
		"none":                 {nil, 0, 0, "entities has 0 entries, want 1 to 1000"},
		"one too many":         {make([]eval.Entity, insight.MaxTryEntities+1), 5_000, 0, "entities has 1001 entries, want 1 to 1000"},
		"more than in a batch": {entities[:3], 2, 0, "entities has 3 entries, want 1 to 2"},
		"too deep": {[]eval.Entity{{}, {EntityContext: map[string]any{"a": deep}}}, 0, 0,
			"entities.1.entityContext nests more than the 100 levels of objects and lists allowed"},
		"a short answer": {entities[:2], 0, 1_000, ""},
		"a long answer": {entities, 0, 1_000,
			"trial of 1000 entities and 1 segments: the answer would have about 395000 bytes, the limit is 1000 (FLAGR_EVAL_ANSWER_BYTES); send fewer entities"},
	} {
		_, err := insight.NewTrial(checkout(), test.entities, insight.TrialLimits{Entities: test.limit, AnswerBytes: test.bytes})
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, entity.ErrInvalid) || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

// TestAFlagWithAnUnreadableValueIsNotTried: it is not evaluated either.
func TestAFlagWithAnUnreadableValueIsNotTried(t *testing.T) {
	t.Parallel()
	flag := checkout()
	flag.Unreadable = "segment 3: rank is -1"
	want := fmt.Sprintf("flag %d is not evaluated: segment 3: rank is -1", flag.ID)
	if _, err := insight.NewTrial(flag, make([]eval.Entity, 1), insight.TrialLimits{}); !errors.Is(err, entity.ErrInvalid) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// wide returns a flag with many segments whose constraints cannot be evaluated without a context,
// which gives the longest debug logs.
func wide(segments int) *entity.Flag {
	flag := checkout()
	one := flag.Segments[0]
	flag.Segments = nil
	for i := range segments {
		s := one
		s.ID, s.Rank = uint(i+1), uint(i)
		flag.Segments = append(flag.Segments, s)
	}
	return flag
}

// TestTrialsEstimateTheirAnswers checks that the estimate of a Trial is at least the length of its
// results, but not many times as long.
func TestTrialsEstimateTheirAnswers(t *testing.T) {
	t.Parallel()
	for name, entityContext := range map[string]any{
		"no context": nil, "missing": map[string]any{}, "other type": map[string]any{"country": []any{}},
		"false": map[string]any{"country": "DE"}, "second": map[string]any{"country": "FR", "age": "old"},
	} {
		for _, segments := range []int{0, 1, 50} {
			entities := []eval.Entity{{EntityID: "a", EntityContext: entityContext}, {EntityID: strings.Repeat("b", 300), EntityContext: entityContext}}
			length := 0
			trial, err := insight.NewTrial(wide(segments), entities, insight.TrialLimits{})
			if err != nil {
				t.Fatal(err)
			}
			if err := trial.Each(t.Context(), time.Unix(1000, 0), func(tried insight.Tried) (kept int, err error) {
				length += len(tried.Request.EntityID) + 150
				for _, log := range tried.SegmentLogs {
					length += len(log.Message) + len(`{"msg":"","segmentID":1000},`)
				}
				return 0, nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := insight.NewTrial(wide(segments), entities, insight.TrialLimits{AnswerBytes: length - 1}); err == nil {
				t.Errorf("%s, %d segments: the estimate is below %d bytes", name, segments, length)
			}
			if _, err := insight.NewTrial(wide(segments), entities, insight.TrialLimits{AnswerBytes: 5 * length}); err != nil {
				t.Errorf("%s, %d segments of %d bytes: %v", name, segments, length, err)
			}
		}
	}
}

// TestLargeTrialsTakeTurns checks that a large Trial waits for a turn for each entity, and that a
// small one does not wait.
func TestLargeTrialsTakeTurns(t *testing.T) {
	t.Parallel()
	turns := budget.NewTurns(1)
	if err := turns.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, segments int) error {
		trial, err := insight.NewTrial(wide(segments), make([]eval.Entity, 3), insight.TrialLimits{Turns: turns})
		if err != nil {
			return err
		}
		return trial.Each(ctx, time.Unix(1000, 0), func(insight.Tried) (int, error) { return 0, nil })
	}
	if err := run(t.Context(), 1); err != nil {
		t.Errorf("a small trial: %v", err)
	}
	passed, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	var unfinished *insight.UnfinishedError
	if err := run(passed, 500); !errors.As(err, &unfinished) || !errors.Is(err, context.DeadlineExceeded) ||
		err.Error() != "0 of 3 entities were evaluated within the time limit: send less, or retry later" {
		t.Errorf("without a turn: %v", err)
	}
	turns.Release()
	if err := run(t.Context(), 500); err != nil {
		t.Errorf("with a turn: %v", err)
	}
	if err := turns.Take(passed); err != nil {
		t.Errorf("the turn was not returned: %v", err)
	}
}

// TestTrialsShareMemory checks that a Trial takes the memory of its results before it evaluates.
func TestTrialsShareMemory(t *testing.T) {
	t.Parallel()
	trial, err := insight.NewTrial(wide(100), make([]eval.Entity, 100), insight.TrialLimits{})
	if err != nil {
		t.Fatal(err)
	}
	memory := budget.NewMemory(1 << 20)
	if err := memory.Take(1 << 19); err != nil {
		t.Fatal(err)
	}
	ctx, release := memory.Share(t.Context())
	defer release()
	if err := trial.Each(ctx, time.Unix(1000, 0), func(insight.Tried) (int, error) { return 0, errors.New("evaluated") }); !errors.Is(err, budget.ErrExhausted) {
		t.Errorf("with half of the memory: %v", err)
	}
	memory.Release(1 << 19)
	tried := 0
	if err := trial.Each(ctx, time.Unix(1000, 0), func(insight.Tried) (int, error) { tried++; return 0, nil }); err != nil || tried != 100 {
		t.Errorf("with all memory: %d entities, %v", tried, err)
	}
	if err := memory.Take(1 << 20); err != nil {
		t.Error("memory of results that are not kept was not returned")
	}
	memory.Release(1 << 20)
	if err := trial.Each(ctx, time.Unix(1000, 0), func(insight.Tried) (int, error) { return 1000, nil }); err != nil {
		t.Fatal(err)
	}
	if err := memory.Take(1<<20 - 100_000); err != nil || memory.Take(1) == nil {
		t.Errorf("the request does not have 100 times 1,000 bytes: %v", err)
	}
}

// TestVersionsShareMemory checks that a request has memory for all versions that it keeps, although
// they are read in parts.
func TestVersionsShareMemory(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:00:00Z")
	const versions, size = 60, 20_000 // bytes
	w := &world{now: now, flags: map[int64]*entity.Flag{1: checkout()}, counts: &memstore.Store{}}
	for i := range versions {
		w.snapshots = append(w.snapshots, entity.FlagSnapshot{
			Model: entity.Model{ID: uint(i + 1), CreatedAt: now.Add(time.Duration(i-versions) * time.Minute)}, FlagID: 1,
			Flag: []byte(`{"ID":1,"Notes":"` + strings.Repeat("n", size) + `"}`),
		})
	}
	s := insight.NewService(insight.Options{Counts: &fixedRows{w, nil}, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
	memory := budget.NewMemory(8 << 20)
	ctx, release := memory.Share(t.Context())
	if _, err := s.Rollout(ctx, 1, insight.Window{}); err != nil {
		t.Fatal(err)
	}
	if memory.Take(8<<20-versions*size) == nil {
		t.Errorf("a request with %d versions of %d bytes has less memory", versions, size)
	}
	release()
	if err := memory.Take(7 << 20); err != nil {
		t.Fatal(err)
	}
	ctx, release = memory.Share(t.Context())
	defer release()
	if _, err := s.Rollout(ctx, 1, insight.Window{}); !errors.Is(err, budget.ErrExhausted) {
		t.Errorf("without memory for all versions: %v", err)
	}
}

// TestTailKeepsNoLongEntities checks that waiting events are small, however long the entity IDs
// are, and that equal IDs have equal hashes. It measures the memory of the process, so it is not
// parallel.
func TestTailKeepsNoLongEntities(t *testing.T) {
	tail, l := listening(t)
	snapshot := eval.Compile([]entity.Flag{*checkout()})
	const length, events = 4 << 20, 10
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range events {
		id := strings.Repeat(strconv.Itoa(i%2), length)
		tail.Observe(snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: id}, time.Unix(1000, 0), false))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+events*length/2 {
		t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, after.HeapAlloc)
	}
	hashes := map[string]bool{}
	for range events {
		hashes[l.Next(nil, nil).Entity] = true
	}
	if len(hashes) != 2 {
		t.Errorf("%d hashes of 2 entities", len(hashes))
	}
}

// listening returns a tail with a listener for flag 42.
func listening(t *testing.T) (*insight.Tail, *insight.Listener) {
	t.Helper()
	tail := insight.NewTail()
	l, err := tail.Listen(42)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return tail, l
}

// TestTailHasBucketsOfEntities checks the bucket and the rollout of events, also of an entity ID
// that is too long to wait for its listener.
func TestTailHasBucketsOfEntities(t *testing.T) {
	t.Parallel()
	tail, l := listening(t)
	snapshot := eval.Compile([]entity.Flag{*checkout()})
	adult := map[string]any{"country": "FR", "age": 30.0}
	for _, id := range []string{"a", "b", "c", strings.Repeat("long", 1000)} {
		tail.Observe(snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: id, EntityContext: adult}, time.Unix(1000, 0), false))
		e, bucket := l.Next(nil, nil), eval.BucketOf(42, id)
		if e.SegmentID != 23 || e.Bucket != bucket || e.RolloutPercent != 50 || e.Text != fmt.Sprintf("bucket %d of 1000, rollout 50%%", bucket) {
			t.Errorf("%.9s is in bucket %d: %+v", id, bucket, e)
		}
		tail.Observe(snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: id}, time.Unix(1000, 0), false))
		if e := l.Next(nil, nil); e.Outcome != datar.NoMatch || e.Bucket != 0 || e.RolloutPercent != 0 {
			t.Errorf("%.9s matches no segment: %+v", id, e)
		}
	}
}

// TestRefusedRequestsHaveNoOutcome checks that a rejected request has no outcome. The tail skips
// it, and so do the counts.
func TestRefusedRequestsHaveNoOutcome(t *testing.T) {
	t.Parallel()
	tail, l := listening(t)
	for _, reason := range []eval.Reason{eval.FlagNotFound, eval.EntityIDMissing, eval.HeldOut} {
		r := &eval.Result{FlagID: 42, Reason: reason, HeldOutSegmentID: 7, RecordSource: eval.SourceEvaluation, Timestamp: time.Unix(1000, 0)}
		if outcome, _ := r.Outcome(); (outcome != eval.OutcomeNone) != (reason == eval.HeldOut) {
			t.Errorf("reason %d has outcome %d", reason, outcome)
		}
		tail.Observe(r)
	}
	if e := l.Next(nil, nil); e.Outcome != datar.HeldOut || e.SegmentID != 7 {
		t.Errorf("the first event is %+v, want the one that was held out", e)
	}
}

func TestTailHasRoomForTwenty(t *testing.T) {
	t.Parallel()
	tail := insight.NewTail()
	var all []*insight.Listener
	for range insight.TailListeners {
		l, err := tail.Listen(42)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	if _, err := tail.Listen(43); err != insight.ErrTailFull { //nolint:errorlint // the sentinel itself is what callers compare
		t.Errorf("one more: %v", err)
	}
	all[0].Close()
	all[0].Close()
	if l, err := tail.Listen(43); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	snapshot := eval.Compile([]entity.Flag{*checkout()})
	adult := map[string]any{"country": "FR", "age": 40.0}
	for i := range 100 {
		tail.Observe(snapshot.Evaluate(eval.Request{FlagID: 42, EntityID: fmt.Sprint(i % 2), EntityContext: adult}, time.Unix(1000, 0), false))
	}
	hashes := map[string]bool{}
	for range 20 {
		e := all[1].Next(nil, nil)
		hashes[e.Entity] = true
		if e.Outcome != datar.Matched && e.Outcome != datar.HeldOut || e.SegmentID != 23 || !strings.HasPrefix(e.Text, "bucket ") {
			t.Errorf("got %+v", e)
		}
	}
	if len(hashes) != 2 || all[1].Skipped() != 80 || all[1].Skipped() != 0 {
		t.Errorf("%d hashes of 2 entities, or not 80 skipped", len(hashes))
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:05:00Z")
	run := func(name string, start, last string, change func(r *datar.ServerRecord)) datar.ServerRecord {
		r := datar.ServerRecord{Name: name, Run: name + start, Kind: datar.KindServer, Start: at(t, start), At: at(t, last), LastFlush: at(t, last), FlushInterval: time.Minute, Pending: 5}
		if change != nil {
			change(&r)
		}
		return r
	}
	in := &insight.CompleteInput{
		From: at(t, "2026-01-10T00:00:00Z"), To: now, Now: now,
		Servers: []datar.ServerRecord{
			run("a", "2025-12-02T08:00:00Z", "2026-01-20T00:00:00Z", nil), // killed
			run("a", "2026-01-20T00:01:00Z", "2026-01-31T14:04:40Z", func(r *datar.ServerRecord) { r.Adopted = 5 }),
			run("b", "2026-01-25T00:00:00Z", "2026-01-30T00:00:00Z", nil), // silent
			run("c", "2026-01-15T00:00:00Z", "2026-01-15T01:00:00Z", func(r *datar.ServerRecord) {
				r.Ended, r.Pending, r.Dropped = true, 0, map[string]int64{"capacity": 3}
				r.FirstDrop, r.LastDrop = at(t, "2026-01-15T00:10:00Z"), at(t, "2026-01-15T00:20:00Z")
			}),
			run("app", "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z", func(r *datar.ServerRecord) { r.Kind = datar.KindApplication }),
		},
		Records: []insight.Period{{From: at(t, "2025-11-01T00:00:00Z"), On: true}, {From: at(t, "2026-01-12T03:00:00Z")}, {From: at(t, "2026-01-12T04:00:00Z"), On: true}},
	}
	c := insight.CompleteOf(in)
	want := []insight.Hole{
		{From: at(t, "2026-01-12T03:00:00Z"), To: at(t, "2026-01-12T04:00:00Z"), Why: insight.WhyRecordsOff},
		{From: at(t, "2026-01-15T00:10:00Z"), To: at(t, "2026-01-15T00:20:00.001Z"), Why: insight.WhyDropped},
	}
	if difference := cmp.Diff(want, c.Holes); difference != "" {
		t.Error(difference)
	}
	if c.Servers != 2 || c.Silent != 1 || c.Dropped != 3 || !c.Since.Equal(at(t, "2026-01-12T04:00:00Z")) {
		t.Errorf("got %+v", c)
	}
	in.Servers[1].Adopted = 1 // 4 of the 5 were in the memory of the killed process
	lost := insight.Hole{From: at(t, "2026-01-20T00:00:00Z"), To: at(t, "2026-01-20T00:01:00Z"), Why: insight.WhyDropped}
	if c := insight.CompleteOf(in); c.Dropped != 3+4 || len(c.Holes) != 3 || c.Holes[2] != lost {
		t.Errorf("got %+v", c)
	}
	in.Servers[0].Pending, in.Servers[0].Journal = 0, &datar.JournalRecord{} // and no run found the journal
	if c := insight.CompleteOf(in); c.Dropped != 3 || len(c.Holes) != 3 || c.Holes[2] != lost {
		t.Errorf("got %+v", c)
	}
	in.Servers = in.Servers[:1] // no server has run since
	if c := insight.CompleteOf(in); len(c.Holes) != 2 || c.Holes[1].Why != insight.WhyNoServer || !c.Holes[1].To.Equal(now) {
		t.Errorf("got %+v", c.Holes)
	}
	in.Records = append(in.Records, insight.Period{From: at(t, "2026-01-30T00:00:00Z")})
	if c := insight.CompleteOf(in); !c.Since.IsZero() {
		t.Errorf("counted since %s, although records are off", c.Since)
	}
}

// TestRecordsThatAreSwitchedOnAtOnce: a flag is created with its records off. If they are on within
// five seconds, that is no hole.
func TestRecordsThatAreSwitchedOnAtOnce(t *testing.T) {
	t.Parallel()
	created, now := at(t, "2026-01-10T00:00:00Z"), at(t, "2026-01-31T00:00:00Z")
	later := func(d time.Duration) time.Time { return created.Add(d) }
	for name, c := range map[string]struct {
		records []insight.Period
		holes   int
	}{
		"at once":    {[]insight.Period{{From: created}, {From: later(4 * time.Second), On: true}}, 0},
		"later":      {[]insight.Period{{From: created}, {From: later(5 * time.Second), On: true}}, 1},
		"never":      {[]insight.Period{{From: created}}, 1},
		"off and on": {[]insight.Period{{From: created, On: true}, {From: later(time.Second)}, {From: later(2 * time.Second), On: true}}, 1},
	} {
		if got := insight.CompleteOf(&insight.CompleteInput{From: created, To: now, Now: now, Records: c.records}).Holes; len(got) != c.holes {
			t.Errorf("%s: got %v, want %d holes", name, got, c.holes)
		}
	}
}
