package gormstore_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestDocumentedQueries checks that the queries of docs/datar.md, and the statements of the store
// for users, return the same as the store, on every database.
func TestDocumentedQueries(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.Fresh(t)
		s := newStore(t, openKind(t, kind, dsn))
		beside := kind.Open(t, dsn)
		from := datar.HourOf(time.Date(2026, 1, 24, 0, 0, 0, 0, time.UTC))
		to := datar.HourOf(time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
		random := rand.New(rand.NewPCG(7, 8))
		rows := map[datar.Key]datar.Row{}
		unknown := map[string]datar.UnknownRow{}
		for i := range 600 {
			h := from - 3 + datar.Hour(random.IntN(int(to-from)+6)) // including hours around the window
			if i < 40 {
				h = []datar.Hour{from - 1, from, to - 1, to}[i%4]
			}
			key := datar.Key{FlagID: random.Int64N(4) + 1, Hour: h, Outcome: datar.Outcome(random.IntN(int(datar.NotFound))), SegmentID: random.Int64N(3)}
			if key.Outcome == datar.Matched {
				key.VariantID = random.Int64N(3) + 1
			}
			if key.Outcome != datar.Unattributed {
				key.Asked, key.Version = datar.Asked(random.IntN(8)), uint16(random.IntN(2))*40_000
			}
			rows[key] = detailRow(key, random.Int64N(9)+1)
			asked := fmt.Sprint("key-", random.IntN(5))
			unknown[fmt.Sprint(asked, h)] = datar.UnknownRow{Asked: asked, Hour: h, Count: random.Int64N(9) + 1, First: 1, Last: 2}
		}
		batch := datar.Batch{Writer: "w", Sequence: 1}
		for _, r := range rows {
			batch.Rows = append(batch.Rows, r)
		}
		for _, r := range unknown {
			batch.Unknown = append(batch.Unknown, r)
		}
		slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
		if err := s.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if err := s.Maintain(t.Context(), to.Time().AddDate(0, 0, 1), 0); err != nil {
			t.Fatal(err)
		}

		ask := func(heading string) (answer []string) {
			query := documented(t, heading)
			if kind.Driver == "mysql" {
				query = strings.ReplaceAll(query, "+00:00", "")
			}
			for _, row := range testdb.Rows(t, beside, strings.TrimSuffix(strings.TrimSpace(query), ";")) {
				answer = append(answer, strings.Join(row, " "))
			}
			return answer
		}
		check := func(heading string, want []string) {
			t.Helper()
			if got := ask(heading); !slices.Equal(got, want) || len(want) == 0 {
				t.Errorf("%s:\n got %q\nwant %q", heading, got, want)
			}
		}
		totals := func(query datar.TotalsQuery) []datar.Total {
			query.From, query.To = from, to
			totals, err := s.Totals(t.Context(), query)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(totals, func(a, b datar.Total) int {
				if query.GroupBy == datar.ByFlag && a.Count != b.Count {
					return int(b.Count - a.Count)
				}
				return datar.Key{FlagID: a.FlagID, VariantID: a.VariantID, SegmentID: a.SegmentID}.
					Compare(datar.Key{FlagID: b.FlagID, VariantID: b.VariantID, SegmentID: b.SegmentID})
			})
			return totals
		}
		details := func(by datar.Parts) []datar.Row {
			rows, err := s.Details(t.Context(), datar.DetailsQuery{From: from, To: to, FlagID: 1, GroupBy: by})
			if err != nil {
				t.Fatal(err)
			}
			return rows
		}
		var want []string
		for _, total := range totals(datar.TotalsQuery{GroupBy: datar.ByFlag}) {
			want = append(want, fmt.Sprint(total.FlagID, total.Count))
		}
		check("Totals of all flags", want)
		want = nil
		for _, total := range totals(datar.TotalsQuery{FlagID: 1, GroupBy: datar.ByOutcome}) {
			want = append(want, fmt.Sprint(total.VariantID, total.SegmentID, total.Count))
		}
		check("Variants and segments of a flag", want)
		want = nil
		for _, r := range details(datar.GroupOutcome) {
			want = append(want, fmt.Sprintf("%s %d", r.Outcome, r.Count))
		}
		slices.Sort(want)
		check("Outcomes of a flag", want)
		var asked [3]int64
		for _, r := range details(datar.GroupAsked) {
			for bit := range asked {
				if r.Asked&(1<<bit) != 0 {
					asked[bit] += r.Count
				}
			}
		}
		check("How a flag was asked for", []string{fmt.Sprint(asked[0], asked[1], asked[2])})
		rowsUnknown, err := s.Unknown(t.Context(), datar.UnknownQuery{From: from, To: to, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		want = nil
		for _, r := range rowsUnknown {
			want = append(want, fmt.Sprintf("%s %d", r.Asked, r.Count))
		}
		check("Flags that do not exist", want)
		want = nil
		given := slices.DeleteFunc(details(datar.GroupVersion|datar.GroupVariant|datar.GroupSegment|datar.GroupOutcome), func(r datar.Row) bool {
			return r.Outcome != datar.Matched && r.Outcome != datar.HeldOut
		})
		slices.SortFunc(given, func(a, b datar.Row) int {
			return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.VariantID, b.VariantID), cmp.Compare(a.SegmentID, b.SegmentID))
		})
		for _, r := range given {
			want = append(want, fmt.Sprint(r.Version, r.VariantID, r.SegmentID, r.Count))
		}
		check("Versions of a flag", want)

		want = nil
		for i := range int64(3) {
			record := datar.ServerRecord{
				Name: fmt.Sprint("server-", i), Run: fmt.Sprint("run-", i), Kind: datar.KindServer, Start: to.Time(), At: to.Time(), FlushInterval: time.Minute,
				Recorded: 10 + i, Stored: 7 + i, Pending: 3,
			}
			if err := s.Apply(t.Context(), datar.Batch{Writer: record.Run, Sequence: 1, Server: &record}); err != nil {
				t.Fatal(err)
			}
		}
		servers, err := s.Servers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range datar.FleetOf(servers, to.Time()).Servers {
			want = append(want, fmt.Sprint(r.Name, " ", r.Recorded, r.Stored, r.Pending))
		}
		check("Servers", want)

		checkStatements(t, s, beside, from, to)
	})
}
