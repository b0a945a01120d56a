package chstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

const firstHour = datar.Hour(490_008) // a midnight

func matched(flag int64, h datar.Hour, n int64) datar.Row {
	ms := h.Time().UnixMilli() + 5
	return datar.Row{Key: datar.Key{FlagID: flag, VariantID: 1, SegmentID: 1, Hour: h, Outcome: datar.Matched, Version: 3}, Count: n, First: ms, Last: ms}
}

func apply(t *testing.T, s *chstore.Store, writer string, sequence int64, rows ...datar.Row) {
	t.Helper()
	if err := s.Apply(t.Context(), datar.Batch{Writer: writer, Sequence: sequence, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

// wantTotal compares the sum of a flag over a week.
func wantTotal(t *testing.T, s *chstore.Store, flag, want int64) {
	t.Helper()
	for _, dimension := range []datar.Dimension{datar.ByFlag, datar.ByDay} {
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: firstHour, To: firstHour + 7*24, FlagID: flag, GroupBy: dimension})
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, total := range totals {
			sum += total.Count
		}
		if sum != want {
			t.Errorf("flag %d has %d by dimension %d, want %d", flag, sum, dimension, want)
		}
	}
}

// maintain runs Maintain on the fifth day. The retention keeps two days.
func maintain(t *testing.T, s *chstore.Store) {
	t.Helper()
	if err := s.Maintain(t.Context(), (firstHour + 4*24).Time().Add(time.Minute), 48*time.Hour); err != nil {
		t.Fatal(err)
	}
}

// TestPurgeIsExact repeats steps of a purge, and sends batches again before, between and after
// them. Each batch must count once.
func TestPurgeIsExact(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		s, other := open(t, address), open(t, address)
		day := int64(firstHour / 24)
		early := []datar.Row{matched(1, firstHour, 3), matched(1, firstHour+5, 4), matched(2, firstHour, 8)}
		apply(t, s, "w", 1, early...)
		apply(t, s, "w", 2, matched(1, firstHour+23, 10), matched(1, firstHour+4*24, 100))
		wantTotal(t, s, 1, 117)
		wantTotal(t, other, 1, 117)

		s.SetGrace(time.Hour, time.Hour)
		maintain(t, s) // the day is reduced, but its rows still exist
		apply(t, s, "w", 1, early...)
		apply(t, s, "late", 1, matched(1, firstHour+2, 1000))
		wantTotal(t, s, 1, 1117)
		if from, err := s.DetailedFrom(t.Context()); err != nil || from != firstHour+2*24 {
			t.Errorf("details are from hour %d on (%v), want %d", from, err, firstHour+2*24)
		}
		wantTotal(t, other, 1, 1117)

		// A batch whose first insert took long may be in both tables.
		apply(t, s, "straggler", 1, matched(2, firstHour+1, 32))
		execute(t, address, fmt.Sprintf("INSERT INTO datar_counts (day, hour, flag_id, outcome, writer, counter, sequence, n) "+
			"SELECT day, %d, flag_id, 1, writer, sequence, sequence, n FROM datar_days WHERE flag_id = 2", firstHour+1))
		wantTotal(t, s, 2, 40)

		if err := s.PurgeDay(t.Context(), day); err != nil { // as another server may do at the same time
			t.Fatal(err)
		}
		s.SetGrace(0, time.Hour)
		maintain(t, s)
		wantTotal(t, s, 1, 1117)
		wantTotal(t, s, 2, 40)
		apply(t, s, "w", 1, early...) // the rows still exist, but are not read

		s.SetGrace(0, 0)
		maintain(t, s)
		await(t, "the rows of the purged day to be dropped on all shards", func() bool {
			rows := execute(t, address, fmt.Sprintf("SELECT count() FROM datar_counts WHERE day = %d", day))
			return strings.TrimSpace(rows) == "0" || !onCluster(t, address)
		})
		rows := execute(t, address, fmt.Sprintf("SELECT count() FROM datar_counts WHERE day = %d", day))
		if strings.TrimSpace(rows) != "0" {
			t.Errorf("%s rows of the purged day are left", strings.TrimSpace(rows))
		}
		apply(t, s, "w", 1, early...)
		apply(t, other, "late", 1, matched(1, firstHour+2, 1000))
		apply(t, s, "late", 2, matched(1, firstHour, 5000))
		wantTotal(t, s, 1, 6117)
		wantTotal(t, s, 2, 40)
		wantTotal(t, other, 1, 6117)
		maintain(t, other)
		wantTotal(t, other, 1, 6117)
	})
}
