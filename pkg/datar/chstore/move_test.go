package chstore_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// movedFrom is an in-memory store with the other data that Move reads.
type movedFrom struct {
	*memstore.Store
	receipts []ingest.Receipt
	writers  map[string]int64
	// failAfter is the number of calls of Details that succeed before they fail. If it is negative,
	// all calls succeed.
	failAfter atomic.Int64
	// onDetails is called before each result.
	onDetails func()
}

var errEnded = errors.New("the move was ended")

func (m *movedFrom) Details(ctx context.Context, query datar.DetailsQuery) ([]datar.Row, error) {
	if m.failAfter.Load() == 0 {
		return nil, errEnded
	}
	m.failAfter.Add(-1)
	if m.onDetails != nil {
		m.onDetails()
	}
	return m.Store.Details(ctx, query)
}

func (m *movedFrom) Receipts(_ context.Context, after string, limit int) ([]ingest.Receipt, error) {
	rest := slices.DeleteFunc(slices.Clone(m.receipts), func(r ingest.Receipt) bool { return r.Key <= after })
	return rest[:min(limit, len(rest))], nil
}

func (m *movedFrom) LastSequences(context.Context) (map[string]int64, error) { return m.writers, nil }

func newSource(t *testing.T) *movedFrom {
	t.Helper()
	m := &movedFrom{Store: &memstore.Store{}}
	m.failAfter.Store(-1)
	for sequence := range int64(3) {
		batch := datar.Batch{Writer: "w", Sequence: sequence + 1}
		keys := map[datar.Key]bool{}
		for range 60 {
			r := matched(1+rand.Int64N(3), firstHour+datar.Hour(rand.IntN(rollupDays*24)), 1+rand.Int64N(100))
			r.VariantID, r.Outcome = rand.Int64N(3), datar.Outcome(rand.IntN(int(datar.NotFound)))
			if r.Outcome == datar.Unattributed {
				r.Version = 0
			}
			r.Ingested = rand.Int64N(r.Count)
			if !keys[r.Key] {
				keys[r.Key] = true
				batch.Rows = append(batch.Rows, r)
			}
		}
		slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
		batch.Unknown = []datar.UnknownRow{{Asked: "gone", Hour: firstHour + 5, Count: 2, First: 1, Last: 2}}
		batch.Server = &datar.ServerRecord{Name: "s", Run: "r", At: firstHour.Time(), Recorded: sequence}
		addTo(t, m, batch)
	}
	return m
}

func addTo(t *testing.T, m *movedFrom, batch datar.Batch) {
	t.Helper()
	if err := m.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, s *chstore.Store, m *movedFrom) error {
	t.Helper()
	return s.Move(t.Context(), m, (firstHour + rollupDays*24).Time(), slog.New(slog.DiscardHandler))
}

// wantMoved compares all results of the two stores.
func wantMoved(t *testing.T, s *chstore.Store, m *movedFrom) {
	t.Helper()
	window := datar.DetailsQuery{From: firstHour - 24, To: firstHour + 100*24, GroupBy: 127}
	got, err := s.Details(t.Context(), window)
	want, wantErr := m.Store.Details(t.Context(), window)
	if err != nil || wantErr != nil || !slices.Equal(got, want) {
		t.Errorf("details are %+v, %v; want %+v, %v", got, err, want, wantErr)
	}
	for _, dimension := range []datar.Dimension{datar.ByFlag, datar.ByDay} {
		query := datar.TotalsQuery{From: window.From, To: window.To, GroupBy: dimension}
		got, err := s.Totals(t.Context(), query)
		want, wantErr := m.Totals(t.Context(), query)
		order := func(a, b datar.Total) int { return int(a.FlagID - b.FlagID + int64(a.Day-b.Day)) }
		slices.SortFunc(got, order)
		slices.SortFunc(want, order)
		if err != nil || wantErr != nil || !slices.Equal(got, want) {
			t.Errorf("totals are %+v, %v; want %+v, %v", got, err, want, wantErr)
		}
	}
	unknown := datar.UnknownQuery{From: window.From, To: window.To, Limit: 10}
	gotUnknown, err := s.Unknown(t.Context(), unknown)
	wantUnknown, wantErr := m.Unknown(t.Context(), unknown)
	if err != nil || wantErr != nil || !slices.Equal(gotUnknown, wantUnknown) {
		t.Errorf("unknown flags are %+v, %v; want %+v, %v", gotUnknown, err, wantUnknown, wantErr)
	}
	servers, err := s.Servers(t.Context())
	wantServers, wantErr := m.Servers(t.Context())
	if err != nil || wantErr != nil || len(servers) != 1 || servers[0].Recorded != wantServers[0].Recorded {
		t.Errorf("servers are %+v, %v; want %+v, %v", servers, err, wantServers, wantErr)
	}
}

// TestMove interrupts a move and runs it again. It must continue, and add counts that were stored
// in the meantime.
func TestMove(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		s, m := open(t, fresh(t)), newSource(t)
		m.failAfter.Store(20)
		if err := move(t, s, m); !errors.Is(err, errEnded) {
			t.Fatalf("got %v, want the error of the source", err)
		}
		m.failAfter.Store(-1)
		addTo(t, m, datar.Batch{Writer: "w", Sequence: 4, Rows: []datar.Row{matched(1, firstHour+1, 1000)}})
		for range 2 {
			if err := move(t, s, m); err != nil {
				t.Fatal(err)
			}
			wantMoved(t, s, m)
		}
		addTo(t, m, datar.Batch{Writer: "w", Sequence: 5, Rows: []datar.Row{matched(2, firstHour+1, 1), matched(3, firstHour+30, 2)}})
		if err := move(t, s, m); err != nil {
			t.Fatal(err)
		}
		wantMoved(t, s, m)
	})
}

// TestMoveWhileServersWrite checks that a move reports unequal sums while servers write to the
// source and to ClickHouse, and equal sums afterward.
func TestMoveWhileServersWrite(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		s, m := open(t, fresh(t)), newSource(t)
		sequence := int64(3)
		m.onDetails = func() {
			sequence++
			addTo(t, m, datar.Batch{Writer: "w", Sequence: sequence, Rows: []datar.Row{matched(1, firstHour+25, 1)}})
		}
		if err := move(t, s, m); !errors.Is(err, chstore.ErrNotEqual) {
			t.Fatalf("got %v, want that sums are not equal", err)
		}
		apply(t, s, "switched", 1, matched(1, firstHour+26, 10_000))
		m.onDetails = nil
		if err := move(t, s, m); err != nil {
			t.Fatal(err)
		}
		addTo(t, m, datar.Batch{Writer: "switched", Sequence: 1, Rows: []datar.Row{matched(1, firstHour+26, 10_000)}})
		wantMoved(t, s, m)
		if err := m.DeleteFlag(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if err := move(t, s, m); !errors.Is(err, chstore.ErrNotEqual) {
			t.Errorf("a flag is gone from the source: got %v, want that sums are not equal", err)
		}
	})
}

// TestMoveToReducedDays checks that a move adds missing totals to a day that ClickHouse has
// reduced.
func TestMoveToReducedDays(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		s, m := open(t, fresh(t)), newSource(t)
		m.failAfter.Store(10) // some hours of the first day
		if err := move(t, s, m); !errors.Is(err, errEnded) {
			t.Fatalf("got %v, want the error of the source", err)
		}
		m.failAfter.Store(-1)
		apply(t, s, "other", 1, matched(9, firstHour, 1))
		for range 2 {
			if err := s.Maintain(t.Context(), (firstHour + 4*24).Time().Add(time.Minute), 48*time.Hour); err != nil {
				t.Fatal(err)
			}
			if err := move(t, s, m); err != nil {
				t.Fatal(err)
			}
			for _, want := range []int64{1, 2, 3} {
				totals, err := m.Totals(t.Context(), datar.TotalsQuery{From: firstHour, To: firstHour + 7*24, FlagID: want, GroupBy: datar.ByFlag})
				if err != nil {
					t.Fatal(err)
				}
				wantTotal(t, s, want, totals[0].Count)
			}
		}
	})
}

// TestMoveKnowsSenders checks that a batch that a sender has sent to the source is recognized after
// a move.
func TestMoveKnowsSenders(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		s, m := open(t, fresh(t)), newSource(t)
		m.writers = map[string]int64{"sender:a": 7, "6ba7b810-9dad-41d1-80b4-00c04fd430c8": 3}
		m.receipts = []ingest.Receipt{{Key: chstore.KeyHash("k"), Digest: "d", Answer: "{}"}}
		if err := move(t, s, m); err != nil {
			t.Fatal(err)
		}
		rows := []datar.Row{matched(1, firstHour, 5)}
		if known, _, err := s.ApplyBatch(t.Context(), datar.Batch{Writer: "sender:a", Sequence: 7, Rows: rows}, ingest.Receipt{}); !known || err != nil {
			t.Errorf("a batch that the source has: known %t, %v", known, err)
		}
		if found, err := s.ApplyReceipt(t.Context(), rows, ingest.Receipt{Key: "k", Digest: "d"}); err != nil || found == nil || found.Answer != "{}" {
			t.Errorf("a key that the source has: %+v, %v", found, err)
		}
		wantMoved(t, s, m)
	})
}
