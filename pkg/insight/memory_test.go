package insight_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// fixedRows is a world whose counts are given. Reading them allocates nothing.
type fixedRows struct {
	*world
	rows []datar.Row
}

func (f *fixedRows) Details(context.Context, datar.DetailsQuery) ([]datar.Row, error) {
	return f.rows, nil
}

// manyRows returns counts of one flag, or of many flags with 10 rows each.
func manyRows(n int, flags bool, now time.Time) []datar.Row {
	rows := make([]datar.Row, n)
	for i := range rows {
		at := now.Add(-time.Duration(i%(90*24)) * time.Hour)
		rows[i] = row(datar.Matched, int64(100+i%2), 150, 1, 1, at)
		rows[i].FlagID = 1
		if flags {
			rows[i].FlagID = int64(1 + i/10)
			rows[i].Hour = datar.HourOf(now).DayStart()
		}
	}
	return rows
}

// TestMemoryOfAnswersIsBoundedByTheirRows measures the memory that responses allocate for 2,000 and
// for 20,000 rows of counts. A row has 72 bytes. It is not parallel, because TotalAlloc includes
// all goroutines.
func TestMemoryOfAnswersIsBoundedByTheirRows(t *testing.T) {
	now := at(t, "2026-01-31T14:00:00Z")
	ctx := t.Context()
	from := now.Add(-90 * 24 * time.Hour)
	window := insight.Window{From: &from}
	for name, test := range map[string]struct {
		flags  bool
		perRow float64 // bytes
		answer func(s *insight.Service) error
	}{
		"outcomes": {false, 16, func(s *insight.Service) error { _, err := s.Outcomes(ctx, 1, window); return err }},
		"series": {false, 16, func(s *insight.Service) error {
			_, err := s.Series(ctx, 1, insight.SeriesQuery{Window: window, Bucket: "day", Zone: "Europe/Berlin"})
			return err
		}},
		"rollout": {false, 400, func(s *insight.Service) error { _, err := s.Rollout(ctx, 1, window); return err }},
		"states":  {true, 700, func(s *insight.Service) error { _, err := s.States(ctx, insight.StatesQuery{}); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			allocated := func(n int) float64 {
				w := &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}
				flags := 1
				if test.flags {
					flags = n / 10
				}
				for id := uint(1); id <= uint(flags); id++ {
					f := checkout()
					f.ID, f.SnapshotID, f.Key = id, id, fmt.Sprint("flag-", id)
					w.flags[int64(id)] = f
					w.snapshots = append(w.snapshots, entity.FlagSnapshot{Model: entity.Model{ID: f.SnapshotID, CreatedAt: from}, FlagID: f.ID, Flag: []byte(`{}`)})
				}
				counts := &fixedRows{w, manyRows(n, test.flags, now)}
				snapshot := w.Snapshot()
				s := insight.NewService(insight.Options{Counts: counts, Flags: w, Snapshots: fixedFlags{snapshot}, Refresh: refresh, Now: func() time.Time { return now }})
				if err := test.answer(s); err != nil { // fills the caches
					t.Fatal(err)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if err := test.answer(s); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				return float64(after.TotalAlloc - before.TotalAlloc)
			}
			few, many := allocated(2_000), allocated(20_000)
			t.Logf("%.0f and %.0f bytes, %.0f more for each row", few, many, (many-few)/18_000)
			if perRow := (many - few) / 18_000; perRow > test.perRow {
				t.Errorf("%.0f bytes for each row of counts, want at most %.0f", perRow, test.perRow)
			}
		})
	}
}

// TestMemoryOfReasonsIsBounded samples 1,000 flags with 10 constraints each for 10 hours. Each
// constraint stops evaluations for 3 causes, so an hour has 30,000 counters. It is not parallel,
// because the heap includes all goroutines.
func TestMemoryOfReasonsIsBounded(t *testing.T) {
	const hours, most, bytes = 10, 100_000, 20 << 20
	flags := make([]entity.Flag, 1000)
	for i := range flags {
		f := &flags[i]
		f.ID, f.Key, f.Enabled = uint(i+1), fmt.Sprint("flag-", i+1), true
		f.Variants = []entity.Variant{{Model: entity.Model{ID: f.ID}, Key: "on"}}
		for j := range uint(5) {
			id := f.ID*10 + j
			f.Segments = append(f.Segments, entity.Segment{Model: entity.Model{ID: id}, Rank: j, RolloutPercent: 100,
				Constraints: []entity.Constraint{
					{Model: entity.Model{ID: 2 * id}, Property: "country", Operator: "EQ", Value: `"FR"`},
					{Model: entity.Model{ID: 2*id + 1}, Property: "age", Operator: "GTE", Value: "18"}},
				Distributions: []entity.Distribution{{VariantID: f.ID, VariantKey: "on", Percent: 100}}})
		}
	}
	snapshot := eval.Compile(flags)
	contexts := []map[string]any{{}, {"country": 5.0}, {"country": "DE"}, {"country": "FR"}, {"country": "FR", "age": "x"}, {"country": "FR", "age": 5.0}}
	start := at(t, "2026-01-24T12:00:00Z")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s, highest, ofOneHour := insight.NewSampler(start), 0, 0
	for hour := range hours {
		for i := range flags {
			for _, context := range contexts {
				r := snapshot.Evaluate(eval.Request{FlagID: int64(flags[i].ID), EntityID: "e", EntityContext: context}, start.Add(time.Duration(hour)*time.Hour), false)
				highest = max(highest, s.Explain(r))
			}
		}
		if hour == 0 {
			ofOneHour = highest
		}
	}
	used := int64(heap()) - int64(before)
	newest := datar.HourOf(start) + hours - 1
	if r := s.Reasons(1000, nil, newest, newest+1); ofOneHour != 30_000 || highest > most || used > bytes || r.Examined != int64(len(contexts)) {
		t.Errorf("%d counters of an hour, %d at most, %d bytes, %d evaluations of the newest hour; want 30,000, at most %d, at most %d, and %d",
			ofOneHour, highest, used, r.Examined, most, bytes, len(contexts))
	}
	t.Logf("%d counters take %d bytes, %d each", highest, used, used/int64(highest))
	runtime.KeepAlive(snapshot)
}

// withVersions returns a world with hourly versions of a flag, which has an attachment of numbers.
// change makes the versions differ.
func withVersions(t *testing.T, now time.Time, versions uint, numbers int, change func(f *entity.Flag, i uint)) (*world, *entity.Flag) {
	t.Helper()
	w := &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}
	f := checkout()
	list := strings.TrimSuffix(strings.Repeat("1,", numbers), ",")
	for i := range versions {
		f.Variants[0].Attachment = entity.Attachment(`{"numbers":[` + list + `]}`)
		change(f, i)
		row := entity.FlagSnapshot{Model: entity.Model{ID: i + 1, CreatedAt: now.Add(-time.Duration(versions-i) * time.Hour)}, FlagID: f.ID}
		var err error
		if row.Flag, err = json.Marshal(f); err != nil {
			t.Fatal(err)
		}
		w.snapshots = append(w.snapshots, row)
	}
	f.Variants[0].Attachment, f.SnapshotID = "", versions
	w.flags[int64(f.ID)] = f
	return w, f
}

// TestAttachmentsOfHistoriesAreNotDecoded measures the memory that responses allocate for 10
// versions of a flag with an attachment of 200,000 numbers, which would take 6 MB when it is
// decoded, and takes 0.4 MB as JSON. It is not parallel, because TotalAlloc includes all
// goroutines.
func TestAttachmentsOfHistoriesAreNotDecoded(t *testing.T) {
	const versions, text = 10, 400_000
	now := at(t, "2026-01-31T14:00:00Z")
	w, f := withVersions(t, now, versions, text/2, func(f *entity.Flag, i uint) { f.Description = fmt.Sprint("version ", i) })
	window := insight.Window{From: new(now.Add(-24 * time.Hour))}
	for name, test := range map[string]struct {
		most int
		ask  func(s *insight.Service) error
	}{
		"rollout": {9 * versions * text, func(s *insight.Service) error { _, err := s.Rollout(t.Context(), int64(f.ID), window); return err }},
		"changes": {9 * versions * text, func(s *insight.Service) error { _, err := s.Changes(t.Context(), int64(f.ID), nil, nil); return err }},
	} {
		s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := test.ask(s); err != nil {
			t.Fatal(name, err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(test.most) {
			t.Errorf("%s: %d bytes, want at most %d", name, got, test.most)
		} else {
			t.Logf("%s: %d bytes", name, got)
		}
	}
}

// TestChangesKeepAttachmentsOfTwoVersions measures the memory in use while the changes of 60
// versions are read whose attachments differ. Each takes 0.6 MB. It is not parallel, because
// HeapAlloc includes all goroutines.
func TestChangesKeepAttachmentsOfTwoVersions(t *testing.T) {
	const versions, most = 60, 10 << 20
	now := at(t, "2026-01-31T14:00:00Z")
	made, f := withVersions(t, now, versions, 300_000, func(f *entity.Flag, i uint) {
		a := &f.Variants[0].Attachment
		*a = (*a)[:len(*a)-1] + entity.Attachment(fmt.Sprintf(`,"version":%d}`, i))
	})
	w := &measured{world: made}
	s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
	before := inUse()
	list, err := s.Changes(t.Context(), int64(f.ID), new(int64(versions)), nil)
	if err != nil || len(list.Changes) != versions {
		t.Fatal(len(list.Changes), err)
	}
	if got := int64(w.most) - int64(before); got > most {
		t.Errorf("%d bytes in use, want at most %d", got, most)
	}
}

// measured is a world that measures the memory in use whenever snapshots are read.
type measured struct {
	*world
	most uint64
}

func (w *measured) SnapshotsByID(ctx context.Context, ids []int64) ([]entity.FlagSnapshot, error) {
	w.most = max(w.most, inUse())
	return w.world.SnapshotsByID(ctx, ids)
}

func inUse() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
