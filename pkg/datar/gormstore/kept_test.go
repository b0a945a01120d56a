package gormstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestDetailsOfAllFlags runs random operations on details in two processes. It compares their
// results with those of a process that has just started, and with the added rows.
func TestDetailsOfAllFlags(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		random := rand.New(rand.NewPCG(17, 45))
		processes := []*gormstore.Store{newStore(t, db), newStore(t, db)}
		now := datar.Hour(490_000).DayStart() + 10*24
		var added []datar.Row
		var history []string
		sequences := []int64{0, 0}
		for range 25 {
			at := random.IntN(len(processes))
			s := processes[at]
			var err error
			done := "asked"
			switch random.IntN(8) {
			case 0:
				now += datar.Hour(random.IntN(9))
			case 1, 2:
				done = "maintained"
				err = s.Maintain(t.Context(), now.Time(), 0)
			case 3:
				flag := randomFlag(random)
				done = fmt.Sprint("deleted flag ", flag)
				err = s.DeleteFlag(t.Context(), flag)
				added = slices.DeleteFunc(added, func(r datar.Row) bool { return r.FlagID == flag })
			case 4:
				from, to := randomFlag(random), randomFlag(random)
				done = fmt.Sprint("merged flag ", from, " into ", to)
				if from == to {
					continue
				}
				err = s.MergeFlag(t.Context(), from, to)
				for i := range added {
					if added[i].FlagID == from {
						added[i].FlagID = to
					}
				}
			default:
				rows := randomDetails(random, now)
				sequences[at]++
				done = fmt.Sprint("added ", len(rows))
				err = s.Apply(t.Context(), datar.Batch{Writer: fmt.Sprint("w", at), Sequence: sequences[at], Rows: rows})
				added = append(added, rows...)
			}
			if err != nil {
				t.Fatalf("%s: %v", done, err)
			}
			history = append(history, fmt.Sprint(at, " ", done))
			for range 3 {
				query := randomQuery(random, now)
				want := detailsOfRows(added, query)
				for i, s := range append(slices.Clone(processes), newStore(t, db)) {
					got, err := s.Details(t.Context(), query)
					if err != nil || !slices.Equal(got, want) {
						t.Fatalf("%s\nprocess %d answers %+v with\n%+v (%v), want\n%+v", strings.Join(history, "\n"), i, query, got, err, want)
					}
				}
			}
		}
	})
}

// randomFlag returns one of some flags in several packs.
func randomFlag(random *rand.Rand) int64 { return []int64{1, 2, 3, 31, 32, 40}[random.IntN(6)] }

func randomDetails(random *rand.Rand, now datar.Hour) []datar.Row {
	keys := map[datar.Key]bool{}
	for range 1 + random.IntN(40) {
		key := datar.Key{FlagID: randomFlag(random), Hour: now - datar.Hour(random.IntN(4)), Version: uint16(random.IntN(2)), Asked: datar.Asked(random.IntN(2))}
		if random.IntN(2) == 0 {
			key.Hour -= datar.Hour(random.IntN(2 * 24))
		}
		switch key.Outcome = datar.Outcome(random.IntN(5)); key.Outcome {
		case datar.Unattributed: // as Flagr counts
			key.Version, key.Asked = 0, 0
		case datar.Matched:
			key.VariantID, key.SegmentID = 7, 8
		case datar.HeldOut:
			key.SegmentID = 8
		default:
		}
		keys[key] = true
	}
	var rows []datar.Row
	for key := range keys {
		rows = append(rows, detailRow(key, random.Int64N(9)+1))
	}
	slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	return rows
}

// randomQuery often repeats an earlier query.
func randomQuery(random *rand.Rand, now datar.Hour) datar.DetailsQuery {
	parts := []datar.Parts{datar.GroupFlag, datar.GroupFlag | datar.GroupDay, datar.GroupFlag | datar.GroupVersion | datar.GroupAsked, datar.GroupHour}
	query := datar.DetailsQuery{From: (now - datar.Hour(24*random.IntN(3))).DayStart() + datar.Hour(random.IntN(2)), To: now + 1,
		FlagID: randomFlag(random) * random.Int64N(2), GroupBy: parts[random.IntN(len(parts))] | datar.GroupOutcome}
	if query.FlagID != 0 && random.IntN(2) == 0 { // for days that the window truncates, hours are read
		query.From += datar.Hour(random.IntN(24))
		query.To = query.From + datar.Hour(random.IntN(60))
	}
	return query
}

// detailsOfRows returns the result of a store with these rows.
func detailsOfRows(rows []datar.Row, query datar.DetailsQuery) []datar.Row {
	var inside []datar.Row
	for _, r := range rows {
		if r.Hour >= query.From && r.Hour < query.To && (query.FlagID == 0 || query.FlagID == r.FlagID) {
			if r.Outcome == datar.Unattributed {
				r.First, r.Last = 0, 0 // they are unknown
			}
			inside = append(inside, r)
		}
	}
	return datar.GroupRows(inside, query.GroupBy)
}

// TestHoursOfADay checks that the hours of a day are read for one flag instead of its packs, until
// the day's rollup with the same number is deleted. A previous version does not use hours: it
// deletes only days, and makes days without numbers.
func TestHoursOfADay(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s := newStore(t, db)
	day := datar.Hour(490_000).DayStart()
	sequence := int64(0)
	apply := func(hour datar.Hour, count int64) {
		t.Helper()
		sequence++
		rows := []datar.Row{detailRow(datar.Key{FlagID: 7, Hour: hour, Outcome: datar.NoMatch}, count)}
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: sequence, Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	maintain := func() {
		t.Helper()
		for range 2 { // the hours need the day
			if err := s.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantCounts := func(when string, want ...int64) {
		t.Helper()
		got, err := s.Details(t.Context(), datar.DetailsQuery{From: day + 2, To: day + 24, FlagID: 7, GroupBy: datar.GroupHour})
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: got %+v (%v), want %v", when, got, err, want)
		}
		for i, r := range got {
			if r.Count != want[i] || r.First != r.Hour.Time().UnixMilli() || r.Last != r.First+1 {
				t.Errorf("%s: hour %d of the day is %+v, want a count of %d", when, r.Hour-day, r, want[i])
			}
		}
	}
	for _, hour := range []datar.Hour{1, 2, 23, 24} {
		apply(day+hour, int64(hour))
	}
	maintain()
	execute(t, db, "UPDATE datar_rollup_details SET details = '' WHERE span = 201 AND start_hour % 24 <> 0")
	wantCounts("without packs of hours", 2, 23)

	apply(day+3, 5)
	wantCountsOfDay := func(want int) {
		t.Helper()
		var found int
		if err := db.Raw("SELECT COUNT(*) FROM datar_rollups WHERE span = 225 AND start_hour = ?", day).Scan(&found).Error; err != nil || found != want {
			t.Fatalf("%d rollups of the hours of the day (%v), want %d", found, err, want)
		}
	}
	wantCountsOfDay(0)
	execute(t, db, "DELETE FROM datar_rollups WHERE span = 201")
	maintain()
	wantCountsOfDay(1)
	wantCounts("after a count that came late", 2, 5, 23)

	var made int64
	if err := db.Raw("SELECT made FROM datar_rollups WHERE span = 225 AND start_hour = ?", day).Scan(&made).Error; err != nil {
		t.Fatal(err)
	}
	apply(day+4, 6)
	if err := s.RollUp(t.Context(), gormstore.DayDetails, day); err != nil {
		t.Fatal(err)
	}
	execute(t, db, fmt.Sprintf("INSERT INTO datar_rollups (span, start_hour, made, purged) VALUES (225, %d, %d, false)", day, made),
		fmt.Sprint("UPDATE datar_rollups SET made = 0 WHERE span = 224 AND start_hour = ", day))
	wantCounts("after a count that the previous version added", 2, 5, 6, 23)
	maintain()
	execute(t, db, "UPDATE datar_rollup_details SET details = '' WHERE span = 201 AND start_hour % 24 <> 0")
	wantCounts("made again", 2, 5, 6, 23)
}

// TestPacksGetRowIDs checks that the packs of a previous version, which stored them in the tree of
// their primary key, are the same after the migration.
func TestPacksGetRowIDs(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s := newStore(t, db)
	day := datar.Hour(490_000).DayStart()
	rows := []datar.Row{detailRow(datar.Key{FlagID: 1, Hour: day, Outcome: datar.NoMatch}, 5), detailRow(datar.Key{FlagID: 99, Hour: day + 7, Outcome: datar.NoMatch}, 6)}
	if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
		t.Fatal(err)
	}
	execute(t, db,
		"CREATE TABLE packs (span smallint, start_hour integer, pack integer, details blob NOT NULL, PRIMARY KEY (span, start_hour, pack)) WITHOUT ROWID",
		"INSERT INTO packs SELECT span, start_hour, pack, details FROM datar_rollup_details", "DROP TABLE datar_rollup_details",
		"ALTER TABLE packs RENAME TO datar_rollup_details", "DELETE FROM datar_hourly_details", "DELETE FROM datar_hourly_events")
	for range 2 {
		got, err := newStore(t, db).Details(t.Context(), datar.DetailsQuery{From: day, To: day + 24, GroupBy: datar.GroupFlag})
		if err != nil || len(got) != 2 || got[0].Count != 5 || got[1].Count != 6 {
			t.Errorf("got %+v (%v), want counts of 5 and 6", got, err)
		}
	}
	var packs int64
	if err := db.Raw("SELECT COUNT(rowid) FROM datar_rollup_details").Scan(&packs).Error; err != nil || packs == 0 {
		t.Errorf("%d packs with row ids (%v)", packs, err)
	}
}

// TestKeptSums checks that a cached sum saves reading the packs until one of them is made again, or
// until it is unused for too long.
func TestKeptSums(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s, other := newStore(t, db), newStore(t, db)
	day := datar.Hour(490_000).DayStart()
	query := datar.DetailsQuery{From: day, To: day + 48, GroupBy: datar.GroupFlag}
	apply := func(sequence int64, hour datar.Hour) {
		t.Helper()
		rows := []datar.Row{detailRow(datar.Key{FlagID: 1, Hour: hour, Outcome: datar.NoMatch}, 5)}
		if err := other.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: sequence, Rows: rows}); err != nil {
			t.Fatal(err)
		}
		if err := other.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
			t.Fatal(err)
		}
	}
	wantCount := func(when string, want int64) {
		t.Helper()
		if rows, err := s.Details(t.Context(), query); err != nil || len(rows) != 1 || rows[0].Count != want {
			t.Fatalf("%s: got %+v (%v), want a count of %d", when, rows, err, want)
		}
	}
	apply(1, day)
	apply(2, day+30)
	wantCount("rolled up", 10)
	if n := s.KeptSums(); n != 1 {
		t.Fatalf("%d sums are kept, want 1", n)
	}
	execute(t, db, "UPDATE datar_rollup_details SET details = '' WHERE span = 224")
	wantCount("without what the sum was made of", 10)
	apply(3, day+3) // the other day cannot be read
	if rows, err := s.Details(t.Context(), query); err == nil {
		t.Fatalf("got %+v of a day that was made anew and one that is damaged, want an error", rows)
	}
	s.DropUnused(time.Now().Add(-time.Minute))
	if n := s.KeptSums(); n != 1 {
		t.Errorf("%d sums are kept, want 1, which was used just now", n)
	}
	s.DropUnused(time.Now().Add(time.Minute))
	if n := s.KeptSums(); n != 0 {
		t.Errorf("%d sums are kept that were not used, want none", n)
	}
	// Rollups of an older version have no numbers.
	apply(4, day+30)
	execute(t, db, "DELETE FROM datar_rollups")
	if err := other.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
		t.Fatal(err)
	}
	execute(t, db, "UPDATE datar_rollups SET made = 0")
	wantCount("without numbers", 20)
	if n := s.KeptSums(); n != 0 {
		t.Errorf("%d sums of rollups without numbers are kept, want none", n)
	}
}

// TestChangedDetailsOfAnHour checks that of an hour without a rollup, only the details that were
// evaluated lately are read again, that late counts are found nevertheless, and that events of
// another program are.
func TestChangedDetailsOfAnHour(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		s, other := newStore(t, db), newStore(t, db)
		hour := datar.Hour(490_000)
		minute := func(n int64) int64 { return hour.Time().UnixMilli() + n*time.Minute.Milliseconds() }
		sequence := int64(0)
		add := func(flag, count, at int64) {
			t.Helper()
			sequence++
			row := datar.Row{Key: datar.Key{FlagID: flag, Hour: hour, Outcome: datar.NoMatch}, Count: count, First: at, Last: at}
			if err := other.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: sequence, Rows: []datar.Row{row}}); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when string, want ...[3]int64) {
			t.Helper()
			rows, err := s.Details(t.Context(), datar.DetailsQuery{From: hour - 1, To: hour + 2, GroupBy: datar.GroupFlag | datar.GroupOutcome})
			if err != nil {
				t.Fatal(err)
			}
			var got [][3]int64
			for _, r := range rows {
				got = append(got, [3]int64{r.FlagID, r.Count, r.Last})
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: got flags, counts and last times %v, want %v", when, got, want)
			}
		}
		add(1, 5, minute(2))
		add(2, 6, minute(30))
		want("two flags", [3]int64{1, 5, minute(2)}, [3]int64{2, 6, minute(30)})

		execute(t, db, fmt.Sprint("UPDATE datar_hourly_details SET last_evaluated_ms = ", minute(3), " WHERE flag_id = 1")) // no server does so
		add(2, 1, minute(31))
		add(3, 2, minute(30))
		want("only the flags that were evaluated lately have changed", [3]int64{1, 5, minute(2)}, [3]int64{2, 7, minute(31)}, [3]int64{3, 2, minute(30)})

		add(1, 1, minute(1))
		want("a late count of another server", [3]int64{1, 6, minute(3)}, [3]int64{2, 7, minute(31)}, [3]int64{3, 2, minute(30)})

		execute(t, db, "UPDATE datar_hourly_events SET eval_count = eval_count + 3 WHERE flag_id = 2")
		unattributed := [3]int64{2, 3, 0}
		want("events of another program", [3]int64{1, 6, minute(3)}, unattributed, [3]int64{2, 7, minute(31)}, [3]int64{3, 2, minute(30)})

		add(2, 1, minute(32))
		want("both", [3]int64{1, 6, minute(3)}, unattributed, [3]int64{2, 8, minute(32)}, [3]int64{3, 2, minute(30)})

		add(4, 1, minute(0))
		if err := s.DeleteFlag(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		want("a deleted flag", [3]int64{1, 6, minute(3)}, [3]int64{3, 2, minute(30)}, [3]int64{4, 1, minute(0)})
	})
}

// TestKeptSumsOfDaysStay checks that the sums of days and of hours stay in the cache if the sum of
// both does not fit beside them.
func TestKeptSumsOfDaysStay(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	day := datar.Hour(490_000).DayStart()
	const flags = 10
	var rows []datar.Row
	for flag := range int64(flags) {
		for _, hour := range []datar.Hour{day + 1, day + 24} {
			rows = append(rows, detailRow(datar.Key{FlagID: flag + 1, Hour: hour, Outcome: datar.NoMatch}, 1))
		}
	}
	maker := newStore(t, db)
	if err := maker.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	if err := maker.Maintain(t.Context(), (day + 27).Time(), 0); err != nil {
		t.Fatal(err)
	}
	readers := map[int]*gormstore.Store{3 * flags: newStore(t, db), 3*flags - 1: newStore(t, db), 2 * flags: newStore(t, db)}
	count := func(most int, s *gormstore.Store, to datar.Hour, want int64) {
		t.Helper()
		got, err := s.Details(t.Context(), datar.DetailsQuery{From: day, To: to, GroupBy: datar.GroupFlag})
		if err != nil || len(got) != flags || got[0].Count != want {
			t.Fatalf("at most %d rows: got %+v (%v), want %d flags with a count of %d", most, got, err, flags, want)
		}
	}
	for most, s := range readers {
		s.KeepRows(most)
		count(most, s, day+25, 2)
		want := 2
		if most == 3*flags {
			want = 3
		}
		if n := s.KeptSums(); n != want {
			t.Errorf("at most %d rows: %d sums are kept, want %d", most, n, want)
		}
	}
	execute(t, db, "UPDATE datar_rollup_details SET details = ''") // reading a pack is an error now
	for most, s := range readers {
		count(most, s, day+24, 1)
		count(most, s, day+25, 2)
	}
}

// TestBoundsOfKeptSums checks that the cached sums stay within their limits, and that the last used
// ones stay.
func TestBoundsOfKeptSums(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s := newStore(t, db)
	day := datar.Hour(490_000).DayStart()
	var rows []datar.Row
	for flag := range int64(10) {
		rows = append(rows, detailRow(datar.Key{FlagID: flag + 1, Hour: day, Outcome: datar.NoMatch}, 1))
	}
	if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context(), (day + 60).Time(), 0); err != nil {
		t.Fatal(err)
	}
	for by := range datar.Parts(64) {
		if _, err := s.Details(t.Context(), datar.DetailsQuery{From: day, To: day + 24, GroupBy: by}); err != nil {
			t.Fatal(err)
		}
		if n := s.KeptSums(); n != min(int(by)+1, gormstore.MaxKeptSums) {
			t.Fatalf("%d sums are kept after %d queries", n, by+1)
		}
	}
}
