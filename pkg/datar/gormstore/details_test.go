package gormstore_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

func detailRow(key datar.Key, count int64) datar.Row {
	ms := key.Hour.Time().UnixMilli()
	return datar.Row{Key: key, Count: count, First: ms, Last: ms + 1}
}

// TestDatabaseOfThePreviousVersion checks that counts from before there were details, or of Flagr,
// are unattributed: before and after they are rolled up, and by hour or not.
func TestDatabaseOfThePreviousVersion(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		day := datar.Hour(490_000).DayStart()
		old := detailRow(datar.Key{FlagID: 40, VariantID: 2, SegmentID: 3, Hour: day + 5}, 7)
		if err := newStore(t, db).Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{old}}); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"datar_hourly_details", "datar_unknown_hourly", "datar_servers", "datar_rollup_details", "datar_outcomes"} {
			execute(t, db, "DROP TABLE "+table)
		}
		s := newStore(t, db) // it finds the tables of the previous version
		matched := detailRow(datar.Key{FlagID: 40, VariantID: 2, SegmentID: 3, Hour: day + 5, Outcome: datar.Matched, Version: 9}, 4)
		disabled := detailRow(datar.Key{FlagID: 40, Hour: day + 30, Outcome: datar.Disabled, Version: 9}, 5)
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 2, Rows: []datar.Row{matched, disabled}}); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"live", "rolled up"} {
			for _, flag := range []int64{0, 40} {
				for _, by := range []datar.Parts{datar.GroupOutcome | datar.GroupVersion, datar.GroupOutcome | datar.GroupVersion | datar.GroupHour} {
					left := old
					left.First, left.Last, left.Ingested = 0, 0, 0
					want := []datar.Row{left, matched, disabled}
					for i := range want {
						want[i].Key = by.Of(want[i].Key)
					}
					slices.SortFunc(want, func(a, b datar.Row) int { return a.Compare(b.Key) })
					got, err := s.Details(t.Context(), datar.DetailsQuery{From: day, To: day + 48, FlagID: flag, GroupBy: by})
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("%s, flag %d, by %b: got %+v (%v), want %+v", when, flag, by, got, err, want)
					}
				}
			}
			if err := s.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
				t.Fatal(err)
			}
		}
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: day, To: day + 48, GroupBy: datar.ByFlag})
		if err != nil || len(totals) != 1 || totals[0].Count != 11 {
			t.Errorf("totals are %+v (%v), want 11: what is disabled is no event", totals, err)
		}
	})
}

// TestPacksAreRead checks that each kind of pack is read instead of the rows, by deleting the rows.
// A damaged pack must lead to an error, not to a wrong number.
func TestPacksAreRead(t *testing.T) {
	t.Parallel()
	day := datar.Hour(490_000).DayStart()
	for _, test := range []struct {
		name     string
		from, to datar.Hour
		flag     int64
		by       datar.Parts
	}{
		{"days of all flags", day, day + 24, 0, datar.GroupFlag | datar.GroupOutcome},
		{"days of one flag", day, day + 24, 33, datar.GroupDay | datar.GroupOutcome},
		{"hours of all flags", day + 3, day + 5, 0, datar.GroupFlag},
		{"all flags by hour", day + 3, day + 5, 0, datar.GroupHour},
		{"one flag by hour", day, day + 24, 33, datar.GroupHour | datar.GroupOutcome},
		{"hours of one flag", day + 3, day + 5, 33, datar.GroupOutcome},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := openSQLite(t)
			s := newStore(t, db)
			var rows []datar.Row
			for flag := range int64(70) {
				for hour := range datar.Hour(24) {
					rows = append(rows, detailRow(datar.Key{FlagID: flag + 1, Hour: day + hour, Outcome: datar.NoMatch, Asked: datar.AskedByTag}, flag+1))
				}
			}
			if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
				t.Fatal(err)
			}
			query := datar.DetailsQuery{From: test.from, To: test.to, FlagID: test.flag, GroupBy: test.by}
			want, err := s.Details(t.Context(), query)
			if err != nil || len(want) == 0 {
				t.Fatal(want, err)
			}
			if err := s.Maintain(t.Context(), (day + 40).Time(), 0); err != nil {
				t.Fatal(err)
			}
			execute(t, db, "DELETE FROM datar_hourly_details", "DELETE FROM datar_hourly_events")
			if got, err := s.Details(t.Context(), query); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %+v (%v) from packs, want %+v", got, err, want)
			}
			execute(t, db, "UPDATE datar_rollup_details SET details = substr(details, 1, length(details) - 3)")
			if got, err := newStore(t, db).Details(t.Context(), query); err == nil || !strings.Contains(err.Error(), "invalid pack") {
				t.Errorf("got %+v, %v from packs that were cut, want an error", got, err)
			}
		})
	}
}

// TestDetailsOfAFlagFromTheBeginning queries whether a flag was ever requested, which covers half a
// million hours with few rows.
func TestDetailsOfAFlagFromTheBeginning(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		var statements atomic.Int64
		if err := db.Callback().Row().After("gorm:row").Register("count", func(*gorm.DB) { statements.Add(1) }); err != nil {
			t.Fatal(err)
		}
		s := newStore(t, db)
		const now = datar.Hour(490_000)
		rows := []datar.Row{
			detailRow(datar.Key{FlagID: 1, Hour: now - 9_000, Outcome: datar.NoMatch}, 2), detailRow(datar.Key{FlagID: 1, Hour: now, Outcome: datar.NoMatch}, 3),
			detailRow(datar.Key{FlagID: 2, Hour: now, Outcome: datar.NoMatch}, 5),
		}
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"live", "rolled up"} {
			statements.Store(0)
			got, err := s.Details(t.Context(), datar.DetailsQuery{To: now + 1, FlagID: 1, GroupBy: datar.GroupFlag})
			if err != nil || len(got) != 1 || got[0].Count != 5 || got[0].Last != rows[1].Last {
				t.Errorf("%s: got %+v (%v)", when, got, err)
			}
			if n := statements.Load(); n > 20 {
				t.Errorf("%s: %d statements", when, n)
			}
			if err := s.Maintain(t.Context(), (now + 60).Time(), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRunsOfPacks checks that hours at both ends of a window are read without those between them,
// and that a few missing hours do not lead to more queries.
func TestRunsOfPacks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		starts []int64
		hours  int64
		want   [][]int64
	}{
		{"none", nil, 1, nil},
		{"one", []int64{7}, 1, [][]int64{{7}}},
		{"both ends of 30 days", []int64{14, 15, 16, 720, 721}, 1, [][]int64{{14, 15, 16}, {720, 721}}},
		{"a day is missing", []int64{0, 1, 26}, 1, [][]int64{{0, 1, 26}}},
		{"an hour more is missing", []int64{0, 1, 27}, 1, [][]int64{{0, 1}, {27}}},
		{"days", []int64{0, 24, 72, 144}, 24, [][]int64{{0, 24, 72}, {144}}},
	} {
		if got := gormstore.RunsOf(test.starts, test.hours); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// TestGroupsInAnyOrder adds up random rows in the order of keys, with a few disorders, and in any
// order, and compares the sums with those of datar.GroupRows.
func TestGroupsInAnyOrder(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 17))
	maps := 0
	for round := range 300 {
		rows := make([]datar.Row, 1+r.IntN(200))
		for i := range rows {
			rows[i] = detailRow(datar.Key{FlagID: 1 + r.Int64N(2), Hour: datar.Hour(490_000 + r.IntN(50)), VariantID: r.Int64N(3), SegmentID: r.Int64N(4), Version: uint16(r.IntN(3))}, 1+r.Int64N(5))
		}
		if round%3 > 0 {
			slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
		}
		if round%3 > 1 {
			i, j := r.IntN(len(rows)), r.IntN(len(rows))
			rows[i], rows[j] = rows[j], rows[i]
		}
		by := datar.Parts(r.IntN(256)) &^ datar.GroupDay
		got, withMap := gormstore.GroupInOneGo(rows, by)
		if withMap {
			maps++
		}
		if want := datar.GroupRows(rows, by); !slices.Equal(got, want) {
			t.Fatalf("round %d, by %b: got %+v, want %+v", round, by, got, want)
		}
	}
	if maps < 50 || maps > 250 {
		t.Errorf("%d of 300 rounds needed a map: one of the two cases is not tested", maps)
	}
}
