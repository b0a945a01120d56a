package chstore_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

const rollupDays = 1

// rollUp builds rollups of all partitions that were over at the end of the last of rollupDays.
func rollUp(t testing.TB, s *chstore.Store) {
	t.Helper()
	for range rollupDays * 4 {
		if err := s.Maintain(t.Context(), (firstHour + rollupDays*24 + 1).Time(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// wantRolled compares the number of partitions that are read from rollups. On a cluster there are
// none.
func wantRolled(t testing.TB, s *chstore.Store, want int) {
	t.Helper()
	if !s.UsesRollups() {
		want = 0
	}
	if got, err := s.Rolled(t.Context(), firstHour, firstHour+rollupDays*24); err != nil || got != want {
		t.Errorf("%d partitions are read from rollups, %v; want %d", got, err, want)
	}
}

// wantSameAnswers compares the results of two stores for random windows.
func wantSameAnswers(t *testing.T, got, want *chstore.Store) {
	t.Helper()
	for range 2 {
		from := firstHour + datar.Hour(rand.IntN(rollupDays*24-1))
		to := from + 1 + datar.Hour(rand.IntN(rollupDays*24))
		flag := rand.Int64N(4)
		for _, dimension := range []datar.Dimension{datar.ByFlag, datar.ByOutcome, datar.ByDay} {
			query := datar.TotalsQuery{From: from, To: to, FlagID: flag, GroupBy: dimension}
			a, errA := got.Totals(t.Context(), query)
			b, errB := want.Totals(t.Context(), query)
			order := func(x, y datar.Total) int {
				return datar.Key{FlagID: x.FlagID, VariantID: x.VariantID, SegmentID: x.SegmentID, Hour: x.Day}.Compare(
					datar.Key{FlagID: y.FlagID, VariantID: y.VariantID, SegmentID: y.SegmentID, Hour: y.Day})
			}
			slices.SortFunc(a, order)
			slices.SortFunc(b, order)
			if errA != nil || errB != nil || !slices.Equal(a, b) {
				t.Errorf("%+v: got %+v, %v; want %+v, %v", query, a, errA, b, errB)
			}
		}
		query := datar.DetailsQuery{From: from, To: to, FlagID: flag, GroupBy: datar.Parts(rand.IntN(128))}
		a, errA := got.Details(t.Context(), query)
		b, errB := want.Details(t.Context(), query)
		if errA != nil || errB != nil || !slices.Equal(a, b) {
			t.Errorf("%+v: got %+v, %v; want %+v, %v", query, a, errA, b, errB)
		}
	}
}

// TestRollups checks that results from rollups equal those from rows, even after late rows and
// repeated batches. storetest compares many more results.
func TestRollups(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		s, rows := open(t, address), open(t, address)
		if s.UsesRollups() == onCluster(t, address) {
			t.Errorf("rollups are used: %t, want that only on a single server", s.UsesRollups())
		}
		s.BuildAtOnce()
		rows.WithoutRollups()
		var batches []datar.Batch
		for sequence := range int64(3) {
			keys := map[datar.Key]bool{}
			batch := datar.Batch{Writer: "w", Sequence: sequence + 1}
			for range 40 {
				r := matched(1+rand.Int64N(3), firstHour+datar.Hour(rand.IntN(rollupDays*24)), 1+rand.Int64N(100))
				r.VariantID, r.Outcome = rand.Int64N(3), datar.Outcome(rand.IntN(int(datar.NotFound)))
				r.Ingested = rand.Int64N(r.Count)
				if !keys[r.Key] {
					keys[r.Key] = true
					batch.Rows = append(batch.Rows, r)
				}
			}
			slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
			batches = append(batches, batch)
			if err := s.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		rollUp(t, s)
		wantRolled(t, s, rollupDays*4)
		wantSameAnswers(t, s, rows)
		apply(t, s, "late", 1, matched(1, firstHour+7, 1000))
		wantRolled(t, s, rollupDays*4-1)
		wantSameAnswers(t, s, rows)
		rollUp(t, s)
		wantRolled(t, s, rollupDays*4)
		for _, batch := range batches {
			if err := s.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		wantSameAnswers(t, s, rows)
		merged := "datar_counts"
		if onCluster(t, address) {
			merged += "_local"
		}
		execute(t, address, "OPTIMIZE TABLE "+merged+" FINAL")
		rollUp(t, s)
		wantRolled(t, s, rollupDays*4)
		wantSameAnswers(t, s, rows)
	})
}

// TestRollupsWhileRowsComeLate checks that applied rows are in the next result, whatever two
// servers are building.
func TestRollupsWhileRowsComeLate(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		writer, builders := open(t, address), []*chstore.Store{open(t, address), open(t, address)}
		done := make(chan struct{})
		var group sync.WaitGroup
		for _, s := range builders {
			s.BuildAtOnce()
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if err := s.Maintain(t.Context(), (firstHour + 13).Time(), 0); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		sum := int64(0)
		for sequence := range int64(15) {
			sum += sequence + 1
			apply(t, writer, "w", sequence+1, matched(1, firstHour+datar.Hour(sequence%12), sequence+1))
			totals, err := writer.Totals(t.Context(), datar.TotalsQuery{From: firstHour, To: firstHour + 12, GroupBy: datar.ByFlag})
			if err != nil || len(totals) != 1 || totals[0].Count != sum {
				t.Errorf("after batch %d: totals are %+v, %v; want %d", sequence+1, totals, err, sum)
				break
			}
		}
		close(done)
		group.Wait()
		rollUp(t, builders[0])
		wantRolled(t, writer, 2)
		wantTotal(t, writer, 1, sum)
	})
}

// TestRollupsWait checks that partitions that may still get rows, or that another server is about
// to roll up, are not rolled up.
func TestRollupsWait(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		s, other := open(t, address), open(t, address)
		apply(t, s, "w", 1, matched(1, firstHour, 5), matched(1, firstHour+6, 6))
		maintainAt := func(s *chstore.Store, h datar.Hour) {
			t.Helper()
			if err := s.Maintain(t.Context(), h.Time().Add(time.Minute), 0); err != nil {
				t.Fatal(err)
			}
		}
		maintainAt(s, firstHour+100)
		wantRolled(t, s, 0) // the rows are new
		s.SetBuilds(0, 0)
		maintainAt(s, firstHour+5)
		wantRolled(t, s, 0) // the quarter is not over
		maintainAt(s, firstHour+6)
		wantRolled(t, s, 1)
		other.SetBuilds(time.Hour, 0)
		maintainAt(other, firstHour+12)
		wantRolled(t, s, 1) // a server has just built
		s.SetBuilds(0, 0)
		maintainAt(s, firstHour+12)
		wantRolled(t, s, 2)
		wantTotal(t, other, 1, 11)
	})
}
