package insight_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// evaluation is one evaluation in the model.
type evaluation struct {
	at                           time.Time
	flagID, variantID, segmentID int64
	snapshotID                   int64
	outcome                      datar.Outcome
	asked                        datar.Asked
}

// world contains flags with histories, and a list of all evaluations.
type world struct {
	now         time.Time
	flags       map[int64]*entity.Flag // current states
	snapshots   []entity.FlagSnapshot  // in the order of their IDs
	evaluations []evaluation
	unknown     map[string]int64
	counts      datar.DetailStore
	late        map[int64]bool // flags for which an old version was used
	maintain    func()         // called after each batch of counts
}

// The methods through which a Service reads the world.

func (w *world) Refresh(context.Context) {}
func (w *world) Details(ctx context.Context, q datar.DetailsQuery) ([]datar.Row, error) {
	return w.counts.Details(ctx, q)
}
func (w *world) DetailedFrom(ctx context.Context) (datar.Hour, error) {
	return w.counts.DetailedFrom(ctx)
}
func (w *world) Unknown(ctx context.Context, q datar.UnknownQuery) ([]datar.UnknownRow, error) {
	return w.counts.Unknown(ctx, q)
}
func (w *world) Servers(ctx context.Context) ([]datar.ServerRecord, error) {
	return w.counts.Servers(ctx)
}
func (w *world) Totals(ctx context.Context, q datar.TotalsQuery) ([]datar.Total, error) {
	return w.counts.Totals(ctx, q)
}

func (w *world) AnyFlag(_ context.Context, id int64) (*entity.Flag, error) {
	if f := w.flags[id]; f != nil {
		return f, nil
	}
	return nil, entity.NotFound("unable to find flag %d in the database", id)
}

func (w *world) SnapshotHeads(ctx context.Context, flagID int64, limit int) ([]entity.SnapshotHead, error) {
	heads, err := w.HeadsOfFlags(ctx, []int64{flagID})
	slices.Reverse(heads)
	return heads[:min(limit, len(heads))], err
}

func (w *world) HeadsOfFlags(_ context.Context, ids []int64) (heads []entity.SnapshotHead, _ error) {
	for _, s := range w.snapshots {
		if slices.Contains(ids, int64(s.FlagID)) {
			heads = append(heads, entity.SnapshotHead{ID: s.ID, FlagID: s.FlagID, CreatedAt: s.CreatedAt, UpdatedBy: s.UpdatedBy})
		}
	}
	return heads, nil
}

func (w *world) SnapshotsByID(_ context.Context, ids []int64) (list []entity.FlagSnapshot, _ error) {
	for _, s := range w.snapshots {
		if slices.Contains(ids, int64(s.ID)) {
			list = append(list, s)
		}
	}
	return list, nil
}

func (w *world) EachSnapshot(_ context.Context, ids []int64, each func(*entity.FlagSnapshot)) error {
	byID := map[int64]*entity.FlagSnapshot{}
	for i := range w.snapshots {
		byID[int64(w.snapshots[i].ID)] = &w.snapshots[i]
	}
	for _, id := range ids {
		if s := byID[id]; s != nil {
			each(s)
		}
	}
	return nil
}

func (w *world) DeletedAmong(_ context.Context, keys []string, ids []int64) (list []entity.Flag, _ error) {
	for _, f := range w.flags {
		if f.DeletedAt.Valid && (slices.Contains(keys, f.Key) || slices.Contains(ids, int64(f.ID))) {
			list = append(list, *f)
		}
	}
	return list, nil
}

// Snapshot returns the current flags.
func (w *world) Snapshot() *eval.Snapshot {
	var flags []entity.Flag
	for _, f := range w.flags {
		flags = append(flags, *f)
	}
	return eval.Compile(flags)
}

// newWorld creates flags, changes and evaluations of 20 days, and counts them in batches of two
// servers.
func newWorld(t *testing.T, r *rand.Rand, counts datar.DetailStore, maintain func(now time.Time)) *world {
	t.Helper()
	start := at(t, "2026-03-15T00:00:00Z")
	w := &world{now: start.Add(20 * 24 * time.Hour).Add(1234567 * time.Millisecond), flags: map[int64]*entity.Flag{}, counts: counts, late: map[int64]bool{}, unknown: map[string]int64{}}
	w.maintain = func() { maintain(w.now) }
	snapshotID := uint(65_530) // version numbers wrap around soon
	for id := uint(1); id <= 5; id++ {
		f := randomFlag(r, id)
		f.CreatedAt = start.Add(-40 * 24 * time.Hour)
		changed := f.CreatedAt
		var before *entity.Flag // the previous version, while an old server uses it
		for day := range 20 {
			if day == 0 || r.IntN(3) == 0 {
				if day > 0 {
					before = f
					f = randomChange(t, r, f)
					changed = start.Add(time.Duration(day) * 24 * time.Hour).Add(-time.Duration(r.IntN(3600)) * time.Second)
				}
				snapshotID++
				if text, err := json.Marshal(f); err != nil {
					t.Fatal(err)
				} else {
					w.snapshots = append(w.snapshots, entity.FlagSnapshot{Model: entity.Model{ID: snapshotID, CreatedAt: changed}, FlagID: id, Flag: text})
				}
				f.SnapshotID = snapshotID
			}
			for range r.IntN(60) {
				used, when := f, start.Add(time.Duration(day)*24*time.Hour).Add(time.Duration(r.Int64N(int64(23*time.Hour))))
				if id == 5 && before != nil && r.IntN(4) == 0 && !before.DeletedAt.Valid { // one server keeps the old version
					used, w.late[5] = before, true
				}
				if !used.DeletedAt.Valid {
					w.evaluate(r, used, when.Truncate(time.Millisecond))
				}
			}
		}
		w.flags[int64(id)] = f
	}
	slices.SortFunc(w.snapshots, func(a, b entity.FlagSnapshot) int { return cmp.Compare(a.ID, b.ID) })
	w.count(t, r)
	return w
}

func randomChange(t *testing.T, r *rand.Rand, f *entity.Flag) *entity.Flag {
	f = clone(t, f)
	switch r.IntN(6) {
	case 0:
		f.Enabled = !f.Enabled
	case 1:
		f.Segments = append(f.Segments, randomSegment(r, f, f.ID*100+60+uint(r.IntN(30))))
		slices.SortFunc(f.Segments, func(a, b entity.Segment) int { return cmp.Compare(a.ID, b.ID) })
		f.Segments = slices.CompactFunc(f.Segments, func(a, b entity.Segment) bool { return a.ID == b.ID })
	case 2:
		if len(f.Segments) > 0 {
			f.Segments = f.Segments[1:]
		}
	case 3:
		f.DeletedAt = entity.DeletedAt{Valid: !f.DeletedAt.Valid, Time: f.CreatedAt}
	default:
		for i := range f.Segments {
			f.Segments[i].RolloutPercent = uint(r.IntN(101))
		}
	}
	return f
}

func (w *world) evaluate(r *rand.Rand, f *entity.Flag, when time.Time) {
	request := eval.Request{FlagID: int64(f.ID), EntityID: fmt.Sprint("e", r.IntN(50)), EntityContext: randomContext(r)}
	result := eval.Compile([]entity.Flag{*f}).Evaluate(request, when, true)
	e := evaluation{at: when, flagID: int64(f.ID), variantID: result.VariantID, snapshotID: int64(f.SnapshotID)}
	e.outcome, e.segmentID, e.asked = outcomeOf(result)
	if r.IntN(5) == 0 {
		e.asked |= datar.AskedByTag
	}
	if r.IntN(20) == 0 {
		e.asked |= datar.AskedWithoutEntityID
	}
	w.evaluations = append(w.evaluations, e)
}

// count sends all evaluations to the store.
func (w *world) count(t *testing.T, r *rand.Rand) {
	t.Helper()
	rows := [2]map[datar.Key]datar.Row{{}, {}}
	for _, e := range w.evaluations {
		key := datar.Key{FlagID: e.flagID, VariantID: e.variantID, SegmentID: e.segmentID, Hour: datar.HourOf(e.at), Outcome: e.outcome, Asked: e.asked, Version: uint16(e.snapshotID % 65_536)}
		of := rows[r.IntN(2)]
		row, ok := of[key]
		if !ok {
			row = datar.Row{Key: key, First: e.at.UnixMilli(), Last: e.at.UnixMilli()}
		}
		row.Count++
		row.First, row.Last = min(row.First, e.at.UnixMilli()), max(row.Last, e.at.UnixMilli())
		of[key] = row
	}
	for i, of := range rows {
		batch := datar.Batch{Writer: fmt.Sprint("writer-", i), Sequence: 1}
		for _, row := range of {
			batch.Rows = append(batch.Rows, row)
		}
		slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
		for n := range 5 {
			asked := fmt.Sprint("flag-", n+3) // some of them exist
			ms := w.now.Add(-time.Hour).UnixMilli()
			batch.Unknown = append(batch.Unknown, datar.UnknownRow{Asked: asked, Hour: datar.HourOf(time.UnixMilli(ms)), Count: int64(n + 1), First: ms, Last: ms})
			w.unknown[asked] += int64(n + 1)
		}
		for range 1 + r.IntN(2) { // a server that was killed before the confirmation sends its batch again
			if err := w.counts.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		w.maintain()
	}
}

// of returns the evaluations of a flag in the hours from, inclusive, to, exclusive.
func (w *world) of(flagID int64, from, to time.Time) (list []evaluation) {
	for _, e := range w.evaluations {
		hour := e.at.Truncate(time.Hour)
		if e.flagID == flagID && !hour.Before(from) && hour.Before(to) {
			list = append(list, e)
		}
	}
	return list
}

// TestAnswersAreThoseOfAList compares all responses with results from a list of all evaluations.
func TestAnswersAreThoseOfAList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		checkWorld(t, rand.New(rand.NewPCG(seed, 17)), &memstore.Store{}, func(time.Time) {})
	}
}

// TestAnswersAreThoseOfAListOnEachDatabase is the same for databases. Some hours and days are
// rolled up when later batches add to them, and some are not rolled up when the responses read
// them.
func TestAnswersAreThoseOfAListOnEachDatabase(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		counts := countsOn(t, kind)
		checkWorld(t, rand.New(rand.NewPCG(99, 17)), counts, func(now time.Time) {
			if err := counts.Maintain(t.Context(), now, 0); err != nil { // rolls up some hours and days, the newest first
				t.Fatal(err)
			}
		})
	})
}

// countsOn returns a store of counts in an empty database.
func countsOn(t *testing.T, kind testdb.Kind) *gormstore.Store {
	t.Helper()
	dsn := kind.Fresh(t)
	if kind.Driver == "sqlite3" {
		dsn += "?_pragma=synchronous(OFF)" // a busy disk takes long
	}
	db, err := store.Open(t.Context(), store.Options{Driver: kind.Driver, DSN: dsn, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	counts, err := gormstore.New(t.Context(), db.DB(), gormstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

func checkWorld(t *testing.T, r *rand.Rand, counts datar.DetailStore, maintain func(now time.Time)) {
	t.Helper()
	w := newWorld(t, r, counts, maintain)
	s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: w, Refresh: refresh, Now: func() time.Time { return w.now }})
	contradictions := 0
	for range 25 {
		flagID := int64(1 + r.IntN(5))
		first := datar.HourOf(w.now) - datar.Hour(1+r.IntN(21*24))
		from, to := first.Time(), (first + datar.Hour(1+r.IntN(10*24))).Time()
		window := insight.Window{From: &from, To: &to}
		list := w.of(flagID, from, to)
		checkOutcomes(t, s, flagID, window, list)
		contradictions += checkRollout(t, w, s, flagID, window, list)
		checkSeries(t, r, w, s, flagID, window)
	}
	if contradictions > 0 && !w.late[5] {
		t.Error("contradictions without an old version in use")
	}
	for _, days := range []int64{30, 5, 1, 5} { // flags that were not requested in 1 day were requested in 5
		checkStates(t, w, s, days)
	}
	unknown, err := s.Unknown(t.Context(), insight.Window{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range unknown.Unknown {
		flag := w.flags[map[string]int64{"flag-3": 3, "flag-4": 4, "flag-5": 5}[u.Asked]]
		deleted := flag != nil && flag.DeletedAt.Valid
		if u.Count != w.unknown[u.Asked] || (u.DeletedFlagID != 0) != deleted {
			t.Errorf("unknown: got %+v, want %d, deleted %t", u, w.unknown[u.Asked], deleted)
		}
	}
	sum, err := s.UnknownSum(t.Context(), insight.Window{})
	if err != nil {
		t.Fatal(err)
	}
	count, ofDeleted := int64(0), map[int64]int64{}
	for _, u := range unknown.Unknown {
		count += u.Count
		if u.DeletedFlagID != 0 {
			ofDeleted[u.DeletedFlagID] += u.Count
		}
	}
	if sum.Texts != len(w.unknown) || sum.Count != count || sum.AtLeast || !maps.Equal(sum.ByText, w.unknown) || !maps.Equal(sum.ByDeletedFlag, ofDeleted) {
		t.Errorf("the sum of unknown texts is %+v, want %d texts, %d requests, %v and %v", sum, len(w.unknown), count, w.unknown, ofDeleted)
	}
	if len(unknown.Unknown) != len(w.unknown) {
		t.Errorf("%d of %d unknown texts", len(unknown.Unknown), len(w.unknown))
	}
}

func checkOutcomes(t *testing.T, s *insight.Service, flagID int64, window insight.Window, list []evaluation) {
	t.Helper()
	o, err := s.Outcomes(t.Context(), flagID, window)
	if err == nil {
		err = o.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]int64{}, map[string]int64{}
	for _, e := range list {
		want["total"]++
		want[e.outcome.String()]++
		if e.asked&datar.AskedUnevaluable != 0 {
			want["unevaluable "+e.outcome.String()]++
		}
		if e.asked&datar.AskedByTag != 0 {
			want["tag"]++
		}
		if e.asked&datar.AskedWithoutEntityID != 0 {
			want["no id"]++
		}
		want["last "+e.outcome.String()] = max(want["last "+e.outcome.String()], e.at.UnixMilli())
		if e.segmentID != 0 {
			want[fmt.Sprint("segment ", e.segmentID, " ", e.variantID)]++
		}
	}
	got["total"], got["tag"], got["no id"] = o.Total, o.Asked.ByTag, o.Asked.WithoutEntityID
	for _, c := range o.Outcomes {
		got[c.Outcome.String()], got["unevaluable "+c.Outcome.String()], got["last "+c.Outcome.String()] = c.Count, c.Unevaluable, c.Last.UnixMilli()
	}
	for _, segment := range o.Segments {
		got[fmt.Sprint("segment ", segment.SegmentID, " 0")] = segment.HeldOut
		for _, v := range segment.Variants {
			got[fmt.Sprint("segment ", segment.SegmentID, " ", v.VariantID)] = v.Count
			if v.VariantKey == "" {
				t.Errorf("variant %d has no name", v.VariantID)
			}
		}
	}
	compareSums(t, "outcomes", want, got)
}

// compareSums compares sums and ignores those that are 0.
func compareSums(t *testing.T, what string, want, got map[string]int64) {
	t.Helper()
	for name := range want {
		if want[name] != got[name] {
			t.Fatalf("%s: %s is %d, want %d", what, name, got[name], want[name])
		}
	}
	for name := range got {
		if want[name] != got[name] {
			t.Fatalf("%s: %s is %d, want %d", what, name, got[name], want[name])
		}
	}
}

func checkRollout(t *testing.T, w *world, s *insight.Service, flagID int64, window insight.Window, list []evaluation) (contradictions int) {
	t.Helper()
	rollout, err := s.Rollout(t.Context(), flagID, window)
	if err == nil {
		err = rollout.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]int64{}, map[string]int64{}
	for _, e := range list {
		want[fmt.Sprint(e.snapshotID)]++
		if e.segmentID != 0 {
			want[fmt.Sprint(e.snapshotID, " ", e.segmentID, " ", e.variantID)]++
		}
	}
	for _, v := range rollout.Versions {
		got[fmt.Sprint(v.SnapshotID)] = v.Count
		for _, segment := range v.Segments {
			for _, g := range segment.Given {
				got[fmt.Sprint(v.SnapshotID, " ", segment.SegmentID, " ", g.VariantID)] = g.Count
			}
		}
	}
	compareSums(t, "rollout", want, got)
	for _, f := range rollout.Findings {
		if f.Severity == insight.Contradiction {
			contradictions++
			if flagID != 5 || f.Rule != insight.RuleOldVersion {
				t.Fatalf("flag %d: %+v", flagID, f)
			}
			checkOldVersion(t, w, list, &f)
		}
	}
	return contradictions
}

// checkOldVersion compares a finding with the late evaluations.
func checkOldVersion(t *testing.T, w *world, list []evaluation, f *insight.Finding) {
	t.Helper()
	i := slices.IndexFunc(w.snapshots, func(s entity.FlagSnapshot) bool { return int64(s.ID) == f.SnapshotID })
	var replaced time.Time
	for _, s := range w.snapshots[i+1:] {
		if s.FlagID == w.snapshots[i].FlagID {
			replaced = s.CreatedAt
			break
		}
	}
	var late int64
	var last time.Time
	for _, e := range list {
		if e.snapshotID == f.SnapshotID && e.at.After(replaced.Add(refresh+time.Minute)) {
			late++
			if e.at.After(last) {
				last = e.at
			}
		}
	}
	if !f.AtLeast && f.Count != late || f.AtLeast && (f.Count > late || f.Count == 0) || !f.Last.Equal(last) {
		t.Fatalf("%d were late, the last at %s: %+v", late, last, f)
	}
}

func checkSeries(t *testing.T, r *rand.Rand, w *world, s *insight.Service, flagID int64, window insight.Window) {
	t.Helper()
	q := insight.SeriesQuery{
		Window: window,
		Bucket: []string{"hour", "day", "week", ""}[r.IntN(4)],
		Zone:   []string{"UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", ""}[r.IntN(6)],
		By:     []string{"outcome", "variant", "segment", "version"}[r.IntN(4)],
	}
	if r.IntN(2) == 0 {
		q.Compare = []string{"previous", "week"}[r.IntN(2)]
	}
	series, err := s.Series(t.Context(), flagID, q)
	if err == nil {
		err = series.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	checkBuckets(t, &series.Buckets, series.By, w.of(flagID, *window.From, *window.To))
	if series.Comparison != nil {
		if err := series.Comparison.Check(); err != nil || len(series.Comparison.Starts) != len(series.Starts) {
			t.Fatal(err)
		}
		checkBuckets(t, series.Comparison, series.By, w.of(flagID, series.Comparison.Starts[0].UTC(), series.Comparison.End.UTC()))
	}
	for _, c := range series.Changes {
		if c.At.Before(*window.From) || !c.At.Before(*window.To) {
			t.Fatalf("change at %s, outside of %s to %s", c.At, window.From, window.To)
		}
	}
}

func checkBuckets(t *testing.T, b *insight.Buckets, by insight.By, list []evaluation) {
	t.Helper()
	want, got := map[string]int64{}, map[string]int64{}
	name := func(start time.Time, outcome datar.Outcome, variantID, segmentID, snapshotID int64) string {
		part := map[insight.By]string{insight.ByOutcome: outcome.String(), insight.ByVariant: fmt.Sprint(variantID), insight.BySegment: fmt.Sprint(segmentID), insight.ByVersion: fmt.Sprint(snapshotID)}[by]
		return start.Format(time.RFC3339) + " " + part
	}
	for _, e := range list {
		hour := e.at.Truncate(time.Hour)
		at := 0
		for i, start := range b.Starts {
			if !start.After(hour) {
				at = i
			}
		}
		want[name(b.Starts[at], e.outcome, e.variantID, e.segmentID, e.snapshotID)]++
		if by == insight.ByVariant && e.variantID == 0 {
			want["nothing "+b.Starts[at].Format(time.RFC3339)+" "+e.outcome.String()]++
		}
	}
	for _, line := range b.Nothing {
		for i, n := range line.Counts {
			got["nothing "+b.Starts[i].Format(time.RFC3339)+" "+line.Outcome.String()] = n
		}
	}
	for _, line := range b.Lines {
		for i, n := range line.Counts {
			got[name(b.Starts[i], line.Outcome, line.VariantID, line.SegmentID, line.SnapshotID)] = n
		}
	}
	compareSums(t, "series by "+string(by), want, got)
	if b.Total() != int64(len(list)) {
		t.Fatalf("lines add up to %d, want %d", b.Total(), len(list))
	}
}

func checkStates(t *testing.T, w *world, s *insight.Service, days int64) {
	t.Helper()
	states, err := s.States(t.Context(), insight.StatesQuery{Days: &days})
	if err != nil {
		t.Fatal(err)
	}
	live, inStates := 0, 0
	for _, f := range w.flags {
		if !f.DeletedAt.Valid {
			live++
		}
	}
	for _, n := range states.ByState {
		inStates += n
	}
	if states.Total != live || len(states.Flags) != live || inStates != live {
		t.Fatalf("%d flags of %d, %d in states", states.Total, live, inStates)
	}
	for i := range states.Flags {
		f := &states.Flags[i]
		list := w.of(f.FlagID, w.now.Add(-time.Duration(days)*24*time.Hour).Truncate(time.Hour), w.now.Add(time.Hour))
		var spark int64
		for _, n := range f.Spark {
			spark += n
		}
		var last time.Time
		all := w.of(f.FlagID, time.Time{}, w.now.Add(time.Hour)) // of 20 days
		for _, e := range all {
			if e.at.After(last) {
				last = e.at
			}
		}
		if f.Total != int64(len(list)) || spark != int64(len(all)) || !f.Evidence.Last.Equal(last) {
			t.Fatalf("%d days, flag %d: total %d, spark %d, last %s; want %d, %d and %s", days, f.FlagID, f.Total, spark, f.Evidence.Last, len(list), len(all), last)
		}
		one, err := s.State(t.Context(), f.FlagID, &days)
		if err != nil {
			t.Fatal(err)
		}
		if one.State != f.State.State || one.Reason != f.Reason || one.CanDelete.Answer != f.CanDelete.Answer || one.Evidence != f.Evidence {
			t.Fatalf("alone it is %+v, in the list %+v", one, f.State)
		}
		if i > 0 && states.Flags[i-1].Total < f.Total {
			t.Error("flags are not in the order of their traffic")
		}
	}
	if q, err := s.States(t.Context(), insight.StatesQuery{Q: strings.ToUpper("flag-1")}); err != nil || w.flags[1].DeletedAt.Valid == (q.Total > 0) {
		t.Errorf("search: %+v, %v", q, err)
	}
}
