package chstore_test

import (
	"os"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// TestQueryOfTheDocs checks that the query of docs/clickhouse.md returns the same as the store,
// even while a counter has several rows.
func TestQueryOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../../docs/clickhouse.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "```sql\n")
	query, _, ended := strings.Cut(after, "```")
	if !found || !ended {
		t.Fatal("docs/clickhouse.md has no query")
	}
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		address := fresh(t)
		s := open(t, address)
		hour := datar.Hour(20_480 * 24)
		for sequence := range int64(3) {
			row := matched(1, hour, 4)
			other := datar.Row{Key: datar.Key{FlagID: 2, Hour: hour, Outcome: datar.Disabled}, Count: 9}
			batch := datar.Batch{Writer: "w", Sequence: sequence + 1, Rows: []datar.Row{row, other}}
			batch.Counters = []datar.Counter{{Key: row.Key, Number: 0, Total: 4 * (sequence + 1)}, {Key: other.Key, Number: 1, Total: 9 * (sequence + 1)}}
			if err := s.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		apply(t, s, "sender", 1, matched(1, hour+30, 7), matched(3, hour, 20))
		const want = "3\t20\n1\t19\n"
		got := execute(t, address, query+" FORMAT TabSeparated")
		if onCluster(t, address) { // the query may read a replica that does not have the rows yet
			await(t, "all replicas", func() bool {
				got = execute(t, address, query+" FORMAT TabSeparated")
				return got == want
			})
		}
		if got != want {
			t.Errorf("the query returns %q, want %q", got, want)
		}
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: hour, To: hour + 48, FlagID: 1, GroupBy: datar.ByFlag})
		if err != nil || len(totals) != 1 || totals[0].Count != 19 {
			t.Errorf("totals are %+v, %v; want 19", totals, err)
		}
	})
}
