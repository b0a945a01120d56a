package gormstore_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// checkStatements runs the statements for users, and compares their rows with the results of the
// store.
func checkStatements(t *testing.T, s *gormstore.Store, db *sql.DB, from, to datar.Hour) {
	t.Helper()
	run := func(statement string) [][]string {
		return testdb.Rows(t, db, strings.TrimSuffix(statement, ";"))
	}
	for _, query := range []datar.DetailsQuery{
		{From: from, To: to},
		{From: from, To: to, GroupBy: datar.GroupFlag},
		{From: from, GroupBy: datar.GroupOutcome | datar.GroupVariant, FlagID: 1},
		{From: from, To: to, GroupBy: datar.GroupHour | datar.GroupOutcome | datar.GroupVariant, FlagID: 2},
		{From: from, To: to, GroupBy: datar.GroupVersion | datar.GroupSegment | datar.GroupVariant | datar.GroupOutcome, FlagID: 1},
		{From: from + 5, To: to - 5, GroupBy: datar.GroupFlag | datar.GroupSegment | datar.GroupAsked},
	} {
		statement := s.DetailsSQL(query)
		var got, want []string
		for _, row := range run(statement) {
			if query.GroupBy&datar.GroupHour != 0 { // each database has its own text for times
				row = row[1:]
			}
			got = append(got, strings.Join(row, " "))
		}
		if query.To == 0 {
			query.To = to + 1_000
		}
		rows, err := s.Details(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			var cells []any
			for _, part := range []struct {
				bit   datar.Parts
				value int64
			}{
				{datar.GroupFlag, r.FlagID}, {datar.GroupOutcome, int64(r.Outcome)}, {datar.GroupVariant, r.VariantID},
				{datar.GroupSegment, r.SegmentID}, {datar.GroupVersion, int64(r.Version)}, {datar.GroupAsked, int64(r.Asked)},
			} {
				if query.GroupBy&part.bit != 0 {
					cells = append(cells, part.value)
				}
			}
			want = append(want, strings.TrimSuffix(fmt.Sprintln(append(cells, r.Count)...), "\n"))
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s\n got %q\nwant %q", statement, got, want)
		}
	}
	unknown, err := s.Unknown(t.Context(), datar.UnknownQuery{From: from, To: to + 1_000, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range unknown {
		want = append(want, fmt.Sprintf("%s %d", r.Asked, r.Count))
	}
	var got []string
	for _, row := range run(s.UnknownSQL(from)) {
		got = append(got, strings.Join(row, " "))
	}
	if !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("unknown flags:\n got %q\nwant %q", got, want)
	}
	servers, err := s.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rows := run(s.ServersSQL()); len(rows) != len(servers) || len(rows) == 0 {
		t.Errorf("%d rows of servers, want %d", len(rows), len(servers))
	}
}
