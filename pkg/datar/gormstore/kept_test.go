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

// TestDetailsOfAllFlags has two processes do at random what they do to details, and compares what both answer with a process that
// has just started, and with what was added.
func TestDetailsOfAllFlags(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		random := rand.New(rand.NewPCG(17, 45))
		processes := []*gormstore.Store{newStore(t, db), newStore(t, db)}
		now := datar.Hour(490_000).DayStart() + 10*24
		var added []datar.Row
		var history []string
		sequences := []int64{0, 0}
		for range 40 {
			at := random.IntN(len(processes))
			s := processes[at]
			var err error
			done := "asked"
			switch random.IntN(7) {
			case 0:
				now += datar.Hour(random.IntN(9))
			case 1, 2:
				done = "maintained"
				err = s.Maintain(t.Context(), now.Time(), 0)
			case 3:
				flag := random.Int64N(40) + 1
				done = fmt.Sprint("deleted flag ", flag)
				err = s.DeleteFlag(t.Context(), flag)
				added = slices.DeleteFunc(added, func(r datar.Row) bool { return r.FlagID == flag })
			case 4:
				from, to := random.Int64N(40)+1, random.Int64N(40)+41
				done = fmt.Sprint("merged flag ", from, " into ", to)
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

func randomDetails(random *rand.Rand, now datar.Hour) []datar.Row {
	keys := map[datar.Key]bool{}
	for range 1 + random.IntN(40) {
		key := datar.Key{FlagID: random.Int64N(40) + 1, Hour: now - datar.Hour(random.IntN(4)), Version: uint16(random.IntN(2)), Asked: datar.Asked(random.IntN(2))}
		if random.IntN(2) == 0 {
			key.Hour -= datar.Hour(random.IntN(5 * 24))
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

// randomQuery often asks what was asked before.
func randomQuery(random *rand.Rand, now datar.Hour) datar.DetailsQuery {
	parts := []datar.Parts{datar.GroupFlag, datar.GroupFlag | datar.GroupDay, datar.GroupFlag | datar.GroupVersion | datar.GroupAsked, datar.GroupHour}
	return datar.DetailsQuery{From: (now - datar.Hour(24*random.IntN(5))).DayStart() + datar.Hour(random.IntN(2)), To: now + 1,
		FlagID: max(0, random.Int64N(8)-4), GroupBy: parts[random.IntN(len(parts))] | datar.GroupOutcome}
}

// detailsOfRows is the answer of a store that has these rows.
func detailsOfRows(rows []datar.Row, query datar.DetailsQuery) []datar.Row {
	var inside []datar.Row
	for _, r := range rows {
		if r.Hour >= query.From && r.Hour < query.To && (query.FlagID == 0 || query.FlagID == r.FlagID) {
			if r.Outcome == datar.Unattributed {
				r.First, r.Last = 0, 0 // which are not known
			}
			inside = append(inside, r)
		}
	}
	return datar.GroupRows(inside, query.GroupBy)
}

// A sum that is kept saves reading the packs until one of them is made anew, and no longer than others ask for it.
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
	// Rollups that an older version made have no numbers.
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

// Sums are within their bounds, and those stay that were used last.
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
