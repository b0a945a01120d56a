package datar_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

func (f fixture) summary(t *testing.T, query datar.SummaryQuery) []datar.FlagSummary {
	t.Helper()
	got, err := f.QuerySummary(t.Context(), query)
	if err != nil {
		t.Fatalf("summary of %+v: %v", query, err)
	}
	return got
}

func TestQuerySummary(t *testing.T) {
	t.Parallel()
	info := datar.FlagInfo{Key: "checkout", Description: "new checkout", Enabled: true}
	f := setup(t, func(o *datar.Options) { o.Catalog = datar.StaticCatalog{2: info} })
	if got := f.summary(t, datar.SummaryQuery{}); got == nil || len(got) != 0 {
		t.Errorf("summary without traffic is %#v, want an empty list", got)
	}
	f.clock.advance(time.Minute)
	f.record(1, 1, 1, 3)
	f.record(2, 1, 1, 2)
	f.clock.advance(1234 * time.Millisecond)
	f.record(2, 2, 1, 3)
	f.record(3, 0, 0, 3)
	f.clock.advance(-time.Second) // a late goroutine is not the last evaluation
	f.record(2, 2, 1, 1)

	early, late := noon.Add(time.Minute), noon.Add(time.Minute+1234*time.Millisecond)
	want := []datar.FlagSummary{
		{FlagID: 2, FlagInfo: info, Total: 6, LastEvaluatedAt: late},
		{FlagID: 1, Total: 3, LastEvaluatedAt: early},
		{FlagID: 3, Total: 3, LastEvaluatedAt: late},
	}
	if got := f.summary(t, datar.SummaryQuery{}); !reflect.DeepEqual(got, want) {
		t.Errorf("summary is %+v, want %+v", got, want)
	}
	for name, test := range map[string]struct {
		limit, offset int32
		want          []datar.FlagSummary
	}{
		"first":          {1, 0, want[:1]},
		"second":         {1, 1, want[1:2]},
		"rest":           {1000, 1, want[1:]},
		"past the end":   {10, 3, []datar.FlagSummary{}},
		"largest offset": {10, math.MaxInt32, []datar.FlagSummary{}},
	} {
		got := f.summary(t, datar.SummaryQuery{Limit: new(test.limit), Offset: new(test.offset)})
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestQueryWindow(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		from, to *time.Time
		at       time.Time // of the one evaluation; now is 12:20
		want     bool
	}{
		"now":                         {nil, nil, noon.Add(20 * time.Minute), true},
		"later in this hour":          {nil, nil, noon.Add(59 * time.Minute), true},
		"next hour":                   {nil, nil, noon.Add(time.Hour), false},
		"start of the default window": {nil, nil, noon.Add(-7 * day), true},
		"before the default window":   {nil, nil, noon.Add(-7*day - 1), false},
		"from is widened":             {new(noon.Add(-time.Minute)), nil, noon.Add(-59 * time.Minute), true},
		"from is inclusive":           {new(noon), nil, noon, true},
		"from excludes what is before": {
			new(noon), nil, noon.Add(-1), false,
		},
		"to is exclusive": {nil, new(noon), noon, false},
		"to is widened":   {nil, new(noon.Add(1)), noon.Add(50 * time.Minute), true},
		"another zone": {
			new(noon.In(time.FixedZone("", 5*3600+1800))), new(noon.Add(time.Hour).In(time.FixedZone("", -9*3600-1800))), noon.Add(time.Minute), true,
		},
		"one instant within an hour": {new(noon.Add(time.Minute)), new(noon.Add(time.Minute)), noon, true},
		"one instant on the hour":    {new(noon), new(noon), noon, false},
		"all of time": {
			new(time.Time{}), new(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), noon, true,
		},
		"beyond all of time": {new(time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)), new(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)), noon, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.clock.set(test.at)
			f.Record(datar.Event{FlagID: 1, VariantID: 1, SegmentID: 1, Time: test.at})
			f.clock.set(noon.Add(20 * time.Minute))
			if got := len(f.summary(t, datar.SummaryQuery{From: test.from, To: test.to})) == 1; got != test.want {
				t.Errorf("summary has it: %v, want %v", got, test.want)
			}
			b, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{From: test.from, To: test.to})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(b.ByDay) == 1; got != test.want {
				t.Errorf("breakdown has it: %v, want %v", got, test.want)
			}
		})
	}
}

func TestQueriesRefuseBadArguments(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, test := range map[string]struct {
		query datar.SummaryQuery
		names string
	}{
		"from after to":      {datar.SummaryQuery{From: new(noon.Add(1)), To: new(noon)}, "from"},
		"from in the future": {datar.SummaryQuery{From: new(noon.Add(time.Hour))}, "from"},
		"to long ago":        {datar.SummaryQuery{To: new(noon.Add(-8 * 24 * time.Hour))}, "to"},
		"limit 0":            {datar.SummaryQuery{Limit: new(int32(0))}, "limit"},
		"limit negative":     {datar.SummaryQuery{Limit: new(int32(math.MinInt32))}, "limit"},
		"limit too large":    {datar.SummaryQuery{Limit: new(int32(1001))}, "limit"},
		"offset negative":    {datar.SummaryQuery{Offset: new(int32(-1))}, "offset"},
	} {
		_, err := f.QuerySummary(t.Context(), test.query)
		if !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s: %v, want ErrInvalidQuery that names %s", name, err, test.names)
		}
		if test.query.Limit != nil || test.query.Offset != nil {
			continue
		}
		_, err = f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{From: test.query.From, To: test.query.To})
		if !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), test.names) {
			t.Errorf("breakdown, %s: %v, want ErrInvalidQuery that names %s", name, err, test.names)
		}
	}
}

func TestQueryFlagSummaryBreakdown(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *datar.Options) { o.Catalog = datar.StaticCatalog{1: {}, 5: {}} })
	f.clock.set(noon.Add(-36 * time.Hour)) // midnight
	f.record(1, 10, 100, 2)
	f.clock.set(noon)
	f.record(1, 10, 200, 1)
	f.record(1, 20, 200, 4)
	f.record(1, 0, 0, 9)
	f.record(2, 10, 100, 50)

	want := &datar.FlagBreakdown{
		FlagID:    1,
		ByVariant: []datar.VariantCount{{VariantID: 0, Count: 9}, {VariantID: 20, Count: 4}, {VariantID: 10, Count: 3}},
		BySegment: []datar.SegmentCount{{SegmentID: 200, Count: 5}, {SegmentID: 100, Count: 2}},
		ByDay: []datar.DayCount{
			{Day: time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), Count: 2},
			{Day: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC), Count: 14},
		},
	}
	got, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("breakdown is %+v, %v; want %+v", got, err, want)
	}

	empty := func(flag int64) *datar.FlagBreakdown {
		return &datar.FlagBreakdown{FlagID: flag, ByVariant: []datar.VariantCount{}, BySegment: []datar.SegmentCount{}, ByDay: []datar.DayCount{}}
	}
	got, err = f.QueryFlagSummaryBreakdown(t.Context(), 5, datar.BreakdownQuery{})
	if err != nil || !reflect.DeepEqual(got, empty(5)) {
		t.Errorf("a flag without traffic: %+v, %v; want empty lists", got, err)
	}
	future := datar.BreakdownQuery{From: new(noon.Add(-24 * 300 * time.Hour)), To: new(noon.Add(-24 * 200 * time.Hour))}
	got, err = f.QueryFlagSummaryBreakdown(t.Context(), 2, future)
	if err != nil || !reflect.DeepEqual(got, empty(2)) {
		t.Errorf("a flag that is gone, outside of its traffic: %+v, %v; want empty lists", got, err)
	}
	for _, unknown := range []int64{3, 0, -1, math.MinInt64, math.MaxInt64} {
		if _, err := f.QueryFlagSummaryBreakdown(t.Context(), unknown, datar.BreakdownQuery{}); !errors.Is(err, datar.ErrFlagNotFound) {
			t.Errorf("flag %d: %v, want ErrFlagNotFound", unknown, err)
		}
	}
}

func TestQueriesAreFresh(t *testing.T) {
	t.Parallel()
	f := setup(t)
	total := func() int64 {
		t.Helper()
		got := f.summary(t, datar.SummaryQuery{})
		if len(got) == 0 {
			return 0
		}
		return got[0].Total
	}
	f.record(1, 1, 1, 1)
	if got := total(); got != 1 {
		t.Errorf("first query sees %d, want 1", got)
	}
	f.record(1, 1, 1, 1)
	f.clock.advance(999 * time.Millisecond)
	if got := total(); got != 1 {
		t.Errorf("a query within the second sees %d, want no second flush", got)
	}
	f.clock.advance(time.Millisecond)
	if got := total(); got != 2 {
		t.Errorf("a query after a second sees %d, want 2", got)
	}
	f.clock.advance(-time.Hour) // a clock that was set back must not stop the flushes
	f.record(1, 1, 1, 1)
	if got := total(); got != 1 {
		t.Errorf("a query of the hour before sees %d, want 1", got)
	}
}

func TestQueriesOfAFailingStore(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 1)
	f.store.fail(errors.New("cannot write"), nil)
	if got := f.summary(t, datar.SummaryQuery{}); len(got) != 0 {
		t.Errorf("summary is %+v, want what is stored: nothing", got)
	}
	down := errors.New("down")
	f.store.totalsErr = down
	if _, err := f.QuerySummary(t.Context(), datar.SummaryQuery{}); !errors.Is(err, down) {
		t.Errorf("summary: %v, want the store's error", err)
	}
	if _, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{}); !errors.Is(err, down) {
		t.Errorf("breakdown: %v, want the store's error", err)
	}
	f.store.totalsErr = nil
	f.store.fail(nil, nil)
	f.clock.advance(time.Second)
	if got := f.summary(t, datar.SummaryQuery{}); len(got) != 1 || got[0].Total != 1 {
		t.Errorf("summary is %+v after the store recovered, want 1", got)
	}
}

// sharedStore is one that others write to: after each of the next queries, somebody adds an
// evaluation.
type sharedStore struct {
	memstore.Store
	t        *testing.T
	adds     int
	queries  int
	sequence int64
	purged   bool // outcomes are gone, days are not
}

func (s *sharedStore) add() {
	s.t.Helper()
	s.sequence++
	row := datar.Row{Key: datar.Key{FlagID: 1, VariantID: 1, SegmentID: 1, Hour: datar.HourOf(noon)}, Count: 1}
	if err := s.Apply(s.t.Context(), datar.Batch{Writer: "other", Sequence: s.sequence, Rows: []datar.Row{row}}); err != nil {
		s.t.Error(err)
	}
}

func (s *sharedStore) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	s.queries++
	totals, err := s.Store.Totals(ctx, query)
	if s.adds > 0 {
		s.adds--
		s.add()
	}
	if s.purged && query.GroupBy == datar.ByOutcome {
		return nil, err
	}
	return totals, err
}

func TestABreakdownIsOfOneMoment(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		adds, queries int
		purged, equal bool
	}{
		"nobody writes":     {0, 2, false, true},
		"one write":         {1, 3, false, true},
		"two writes":        {2, 4, false, true},
		"writes all along":  {100, 7, false, false},
		"old days":          {0, 3, true, false},
		"old days, a write": {1, 3, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &sharedStore{t: t, purged: test.purged}
			f := setup(t, func(o *datar.Options) { o.Store = store })
			store.add()
			store.adds = test.adds
			b, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{})
			if err != nil {
				t.Fatal(err)
			}
			var variants, days int64
			for _, v := range b.ByVariant {
				variants += v.Count
			}
			for _, d := range b.ByDay {
				days += d.Count
			}
			if (variants == days) != test.equal {
				t.Errorf("%d evaluations by variant, %d by day", variants, days)
			}
			if store.queries != test.queries {
				t.Errorf("%d queries, want %d", store.queries, test.queries)
			}
		})
	}
}

type failingCatalog struct{}

func (failingCatalog) Flags(context.Context, []int64) (map[int64]datar.FlagInfo, error) {
	return nil, errors.New("no catalog today")
}

func TestQueriesOfAFailingCatalog(t *testing.T) {
	t.Parallel()
	f := setup(t, func(o *datar.Options) { o.Catalog = failingCatalog{} })
	if _, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{}); err == nil {
		t.Error("breakdown without counts succeeded")
	}
	f.clock.advance(time.Minute)
	f.record(1, 1, 1, 1)
	if _, err := f.QuerySummary(t.Context(), datar.SummaryQuery{}); err == nil {
		t.Error("summary succeeded")
	}
}

func TestQueriesTryOnceASecondWhileTheStoreIsDown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 1)
	f.store.fail(errors.New("cannot write"), nil)
	for range 10 {
		f.summary(t, datar.SummaryQuery{})
	}
	if n := len(f.store.sent()); n != 1 {
		t.Errorf("10 queries within a second made %d attempts, want 1", n)
	}
	f.clock.advance(time.Second)
	f.summary(t, datar.SummaryQuery{})
	if n := len(f.store.sent()); n != 2 {
		t.Errorf("%d attempts after another second, want 2", n)
	}
}

func TestQueriesDoNotWaitForAStoreThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		f.record(1, 1, 1, 1)
		f.store.applyStarted = make(chan struct{}, 100)
		for range 3 {
			started := time.Now()
			f.summary(t, datar.SummaryQuery{})
			if took := time.Since(started); took > time.Second {
				t.Errorf("a query took %v", took)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if f.Close(ctx) == nil {
			t.Error("Close succeeded")
		}
	})
}

func TestACallerThatLeavesIsNoFailure(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.record(1, 1, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Flush(ctx); err == nil {
		t.Error("flush succeeded")
	}
	if err := f.Stats().LastError; err != nil {
		t.Errorf("LastError is %v, though the store has not failed", err)
	}
}

// A breakdown has the names that the catalog has, and an empty one for each id that it does not
// name.
func TestBreakdownNamesVariantsAndSegments(t *testing.T) {
	t.Parallel()
	names := datar.StaticCatalog{1: {Key: "k", Variants: map[int64]string{1: "on"}, Segments: map[int64]string{5: "staff"}}}
	f := setup(t, func(o *datar.Options) { o.Catalog = names })
	f.record(1, 1, 5, 3)
	f.record(1, 2, 6, 2)
	b, err := f.QueryFlagSummaryBreakdown(t.Context(), 1, datar.BreakdownQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []datar.VariantCount{{VariantID: 1, Count: 3, Name: "on"}, {VariantID: 2, Count: 2}}; !reflect.DeepEqual(b.ByVariant, want) {
		t.Errorf("variants are %+v, want %+v", b.ByVariant, want)
	}
	if want := []datar.SegmentCount{{SegmentID: 5, Count: 3, Name: "staff"}, {SegmentID: 6, Count: 2}}; !reflect.DeepEqual(b.BySegment, want) {
		t.Errorf("segments are %+v, want %+v", b.BySegment, want)
	}
}
