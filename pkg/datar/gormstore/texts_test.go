package gormstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// TestStatementsHaveFewTexts checks that there are few different statement texts, however batches,
// windows and maintenance vary, because drivers and databases cache each text.
func TestStatementsHaveFewTexts(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		texts := testdb.CountTexts(t, db)
		s := newStore(t, db)
		random := rand.New(rand.NewPCG(1, 2))
		now := datar.Hour(490_000)
		work := func(turns int) {
			for range turns {
				now += datar.Hour(random.IntN(3))
				rows := randomRows(random, now, random.IntN(300))
				if _, err := s.ApplyReceipt(t.Context(), rows, ingest.Receipt{Key: fmt.Sprint(random.Int64()), Answer: "{}"}); err != nil {
					t.Fatal(err)
				}
				var unknown []datar.UnknownRow
				for i := range random.IntN(80) {
					unknown = append(unknown, datar.UnknownRow{Asked: fmt.Sprint(i), Hour: now, Count: 1})
				}
				if err := s.Apply(t.Context(), datar.Batch{Writer: fmt.Sprint(random.Int64()), Sequence: 1, Unknown: unknown}); err != nil {
					t.Fatal(err)
				}
				if random.IntN(4) == 0 {
					if err := s.Maintain(t.Context(), now.Time(), datar.MinRetention*time.Duration(random.IntN(2))); err != nil {
						t.Fatal(err)
					}
				}
				window := datar.TotalsQuery{From: now - datar.Hour(random.IntN(200)), To: now, FlagID: random.Int64N(2)}
				for _, window.GroupBy = range []datar.Dimension{datar.ByFlag, datar.ByDay, datar.ByOutcome} {
					if _, err := s.Totals(t.Context(), window); err != nil {
						t.Fatal(err)
					}
				}
				for _, by := range []datar.Parts{datar.GroupFlag | datar.GroupOutcome, datar.GroupHour | datar.GroupOutcome} {
					if _, err := s.Details(t.Context(), datar.DetailsQuery{From: window.From, To: window.To, FlagID: window.FlagID, GroupBy: by}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		work(20)
		some := texts()
		work(60)
		if n, most := texts(), some*13/10+20; n > most || n > 250 {
			t.Errorf("%d texts after 20 turns, %d after 80, want at most %d and 250", some, n, most)
		}
	})
}

// randomRows returns rows of the last days in key order, each key once.
func randomRows(random *rand.Rand, now datar.Hour, n int) []datar.Row {
	var rows []datar.Row
	for range n {
		h := now - datar.Hour(random.IntN(60))
		ms := h.Time().UnixMilli()
		key := datar.Key{FlagID: random.Int64N(100) + 1, Hour: h, Outcome: datar.NoMatch, Version: uint16(random.IntN(3))}
		rows = append(rows, datar.Row{Key: key, Count: 1, First: ms, Last: ms})
	}
	slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	return slices.CompactFunc(rows, func(a, b datar.Row) bool { return a.Key == b.Key })
}

// TestTextsOfCallersSpoilNoBatch counts texts that databases cannot store, such as zero bytes and
// invalid UTF-8, in the same flush as evaluations. All counts must be stored.
func TestTextsOfCallersSpoilNoBatch(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := newStore(t, openKind(t, kind, kind.Fresh(t)))
		e, err := datar.New(datar.Options{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = e.Close(context.Background()) }()
		now := time.Now()
		texts := map[string]string{ // as requested, and as stored
			"a\x00b":                   "a?b",
			"\x00":                     "?",
			"\xff\xfe":                 "?",
			"caf\xe9":                  "caf?",
			"\xed\xa0\x80 surrogate":   "? surrogate",
			"\xc0\x80 overlong":        "? overlong",
			strings.Repeat("é", 40):    strings.Repeat("é", datar.MaxAsked/2),
			"\U0010ffff 4 bytes":       "\U0010ffff 4 bytes",
			"'); DROP TABLE flags; --": "'); DROP TABLE flags; --",
		}
		want := map[string]int64{}
		for asked, kept := range texts {
			e.RecordUnknown(asked, now)
			e.Record(datar.Event{FlagID: 1, Outcome: datar.NoMatch, Time: now})
			want[kept]++
		}
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if stats := e.Stats(); stats.Stored != int64(len(texts)) || stats.Unknown.Stored != int64(len(texts)) || stats.Pending != 0 || stats.Unknown.Pending != 0 {
			t.Errorf("statistics are %+v, want %d stored of both", stats, len(texts))
		}
		hour := datar.HourOf(now)
		rows, err := s.Unknown(t.Context(), datar.UnknownQuery{From: hour, To: hour + 1, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, r := range rows {
			got[r.Asked] = r.Count
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("texts (-want +got):\n%s", diff)
		}
	})
}
