package gormstore_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// TestRollupsBesideRetention runs random operations of replicas on weeks of counts, some of them
// with an outdated view, and compares totals with the added counts.
func TestRollupsBesideRetention(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			db := openSQLite(t)
			w := weeks{
				store: newStore(t, db), db: db, random: rand.New(rand.NewPCG(seed, 3)), counts: map[datar.Key]int64{},
				now: datar.Hour(490_000).DayStart() + 40*24,
			}
			w.addDay(t, w.now-4*24) // more than one purge handles
			for range 40 {
				w.step(t)
				w.compare(t)
				if t.Failed() {
					t.Fatal(strings.Join(w.history, "\n"))
				}
			}
		})
	}
}

// TestRollupsAreRead checks that each kind of rollup is read instead of the events, by changing the
// rollup.
func TestRollupsAreRead(t *testing.T) {
	t.Parallel()
	day := datar.Hour(490_000).DayStart()
	for _, test := range []struct {
		name, table string
		span        int
		from, to    datar.Hour
		by          datar.Dimension
	}{
		{"an hour", "datar_rollup_totals", 1, day + 3, day + 4, datar.ByFlag},
		{"a quarter", "datar_rollup_totals", 6, day + 6, day + 12, datar.ByFlag},
		{"a day", "datar_rollup_totals", 24, day, day + 24, datar.ByFlag},
		{"days by day", "datar_rollup_totals", 24, day, day + 24, datar.ByDay},
		{"outcomes of a quarter", "datar_rollup_outcomes", 106, day + 6, day + 12, datar.ByOutcome},
		{"outcomes of a day", "datar_rollup_outcomes", 124, day, day + 24, datar.ByOutcome},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := openSQLite(t)
			w := weeks{store: newStore(t, db), db: db, counts: map[datar.Key]int64{}}
			w.addDay(t, day)
			if err := w.store.Maintain(t.Context(), (day + 40).Time(), 0); err != nil {
				t.Fatal(err)
			}
			sum := func() (n int64) {
				totals, err := w.store.Totals(t.Context(), datar.TotalsQuery{From: test.from, To: test.to, GroupBy: test.by})
				if err != nil {
					t.Fatal(err)
				}
				for _, total := range totals {
					n += total.Count
				}
				return n
			}
			if n, want := sum(), 50*int64(test.to-test.from); n != want {
				t.Errorf("sum is %d, want %d", n, want)
			}
			if err := db.Exec("UPDATE "+test.table+" SET eval_count = 7 * eval_count WHERE span = ?", test.span).Error; err != nil {
				t.Fatal(err)
			}
			if n, want := sum(), 7*50*int64(test.to-test.from); n != want {
				t.Errorf("sum is %d from rollups that were changed, want %d", n, want)
			}
		})
	}
}

// TestRollupOfADayThatIsBeingPurged checks that a replica does not roll up the remaining events of
// a day that another replica has begun to purge.
func TestRollupOfADayThatIsBeingPurged(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	w := weeks{store: newStore(t, db), db: db, counts: map[datar.Key]int64{}}
	day := datar.Hour(490_000).DayStart()
	w.addDay(t, day)
	for range 3 {
		if err := w.store.PurgeSome(t.Context(), day); err != nil {
			t.Fatal(err)
		}
		for kind := range gormstore.Kinds {
			for hour := range datar.Hour(24) {
				if err := w.store.RollUp(t.Context(), kind, day+hour); err != nil {
					t.Fatal(err)
				}
			}
		}
		totals, err := w.store.Totals(t.Context(), datar.TotalsQuery{From: day, To: day + 24, GroupBy: datar.ByDay})
		if err != nil || len(totals) != 1 || totals[0].Count != 1200 {
			t.Fatalf("totals are %+v (%v), want 1200", totals, err)
		}
	}
}

// weeks contains counts and the operations on them.
type weeks struct {
	store    *gormstore.Store
	db       *gorm.DB
	random   *rand.Rand
	now      datar.Hour
	counts   map[datar.Key]int64 // all added counts
	sequence int64
	history  []string
}

func (w *weeks) ago(most int) datar.Hour { return w.now - datar.Hour(w.random.IntN(most)) }

func (w *weeks) step(t *testing.T) {
	t.Helper()
	var err error
	var done string
	switch w.random.IntN(8) {
	case 0:
		w.now += datar.Hour(w.random.IntN(30))
	case 1:
		err = w.store.Maintain(t.Context(), w.now.Time(), 0)
		done = "maintained"
	case 2:
		err = w.store.Maintain(t.Context(), w.now.Time(), 48*time.Hour)
		done = "maintained with a retention"
	case 3, 4, 5:
		hour, kind := w.ago(6*24)-24, w.random.IntN(gormstore.Kinds)
		err = w.store.RollUp(t.Context(), kind, hour)
		done = fmt.Sprint("rolled up the hour ", hour, ", kind ", kind)
	case 6:
		day := (w.ago(3*24) - 72).DayStart()
		err = w.store.PurgeSome(t.Context(), day)
		done = fmt.Sprint("purged some of the day ", day)
	default:
		for range 1 + w.random.IntN(30) {
			w.add(t, datar.Key{FlagID: w.random.Int64N(5) + 1, VariantID: w.random.Int64N(3), SegmentID: w.random.Int64N(3), Hour: w.ago(35 * 24)})
		}
		done = "added"
	}
	if err != nil {
		t.Fatalf("%s: %v", done, err)
	}
	w.history = append(w.history, done)
}

func (w *weeks) add(t *testing.T, keys ...datar.Key) {
	t.Helper()
	w.sequence++
	batch := datar.Batch{Writer: "w", Sequence: w.sequence}
	for _, k := range keys {
		w.counts[k]++
		batch.Rows = append(batch.Rows, datar.Row{Key: k, Count: 1, Ingested: k.SegmentID % 2, First: k.Hour.Time().UnixMilli(), Last: k.Hour.Time().UnixMilli()})
	}
	if err := w.store.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// addDay adds 1200 counts with different keys.
func (w *weeks) addDay(t *testing.T, day datar.Hour) {
	t.Helper()
	var keys []datar.Key
	for i := range int64(1200) {
		keys = append(keys, datar.Key{FlagID: i%5 + 1, VariantID: i / 5 / 24, Hour: day + datar.Hour(i/5%24)})
	}
	slices.SortFunc(keys, datar.Key.Compare)
	w.add(t, keys...)
}

func outcomeGroup(variantID, segmentID int64) int64 { return 1000*variantID + segmentID }

// compare queries a random window. For a day that is purged or being purged, the result may include
// the whole day.
func (w *weeks) compare(t *testing.T) {
	t.Helper()
	var purged []datar.Hour
	if err := w.db.Raw("SELECT start_hour FROM datar_rollups WHERE span = 24 AND purged").Scan(&purged).Error; err != nil {
		t.Fatal(err)
	}
	from := w.ago(40 * 24)
	query := datar.TotalsQuery{From: from, To: from + datar.Hour(w.random.IntN(40*24)) + 1, FlagID: w.random.Int64N(3)}
	if w.random.IntN(3) == 0 {
		query.From, query.To = query.From.DayStart(), query.To.DayStart()+24
	}
	for _, query.GroupBy = range []datar.Dimension{datar.ByFlag, datar.ByDay, datar.ByOutcome} {
		least, most := map[int64]int64{}, map[int64]int64{}
		last := map[int64]datar.Hour{} // of days that are not purged
		for k, n := range w.counts {
			day, group := k.Hour.DayStart(), k.FlagID
			switch query.GroupBy {
			case datar.ByFlag:
			case datar.ByDay:
				group = int64(day)
			case datar.ByOutcome:
				group = outcomeGroup(k.VariantID, k.SegmentID)
			}
			inside, isPurged := k.Hour >= query.From && k.Hour < query.To, slices.Contains(purged, day)
			switch {
			case query.FlagID != 0 && query.FlagID != k.FlagID:
			case query.GroupBy == datar.ByOutcome && isPurged: // some of its events may remain
				if inside {
					most[group] += n
				}
			case inside:
				least[group] += n
				most[group] += n
				last[group] = max(last[group], k.Hour)
			case isPurged && day < query.To && day+24 > query.From:
				most[group] += n
			}
		}
		totals, err := w.store.Totals(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		got := map[int64]int64{}
		for _, total := range totals {
			group := total.FlagID + int64(total.Day) // one of them is 0, or both
			if query.GroupBy == datar.ByOutcome {
				group = outcomeGroup(total.VariantID, total.SegmentID)
				if total.Ingested != total.Count*(total.SegmentID%2) {
					t.Errorf("%+v: of %+v all or nothing was sent in, by the segment", query, total)
				}
			}
			got[group] += total.Count
			if at := last[group].Time().UnixMilli(); total.Last < at {
				t.Errorf("%+v: the last of %+v was at %d", query, total, at)
			}
		}
		for group, count := range got {
			if count < least[group] || count > most[group] {
				t.Errorf("%+v: group %d has %d, want %d to %d", query, group, count, least[group], most[group])
			}
		}
		for group := range maps.Keys(least) {
			if got[group] == 0 {
				t.Errorf("%+v: group %d is missing, want %d", query, group, least[group])
			}
		}
	}
}
