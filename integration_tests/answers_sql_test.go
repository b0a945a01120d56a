package integration_tests

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// sqlOf returns the statement below a heading of a page, for a flag and a window.
func sqlOf(t *testing.T, page, heading, driver string, from, to time.Time) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)\n### " + regexp.QuoteMeta(heading) + "\n[^#]*?\n```sql\n(.*?);\n```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/%s has no SQL below %q", page, heading)
	}
	const layout = "2006-01-02 15:04:05"
	statement := strings.NewReplacer("2026-01-24 00:00:00", from.Format(layout), "2026-01-31 00:00:00", to.Format(layout), "flag_id = 1 ", "flag_id = 7 ").Replace(string(found[1]))
	if driver == "mysql" {
		statement = strings.ReplaceAll(statement, "+00:00", "")
	}
	return statement
}

// answersOf are the parts of responses that the statements of the pages return.
type answersOf struct {
	Total    int64
	Outcomes []struct {
		Outcome            string
		Count, Unevaluable int64
	}
	Segments []struct {
		SegmentID, HeldOut int64
		Variants           []struct{ VariantID, Count int64 }
	}
	Asked struct{ ByName, ByTag, WithoutEntityID int64 }
	Flags []struct {
		FlagID, Total, TotalEvalCount int64
		LastAt                        time.Time
	}
	Evidence struct{ LastAt time.Time }
	Starts   []time.Time
	Lines    []struct {
		Outcome string
		Counts  []int64
	}
	Changes []struct {
		SnapshotID int64
		By         string
	}
	Unknown []struct {
		Asked string
		Count int64
	}
	Versions []struct {
		SnapshotID int64
		Segments   []struct {
			SegmentID int64
			Given     []struct {
				VariantID, Count int64
			}
		}
	}
	TrafficByVariant []struct{ VariantID, Count int64 }
	Servers          []struct {
		Name                      string
		Recorded, Stored, Pending int64
	}
}

// TestSQLOfTheAnswers compares the statements of docs/answers.md and docs/datar.md with the
// responses that they stand for, on each database.
func TestSQLOfTheAnswers(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, nil)
		_, entity := documentedFlag(t, s)
		send[any](t, s, http.MethodPost, "/flags/7/tags", object{"value": "web"})
		awaitChanges(t, s)
		for range 2 {
			send[any](t, s, http.MethodPost, "/evaluation/batch", object{"flagTags": []string{"web"}, "entities": []object{
				{"entityID": entity, "entityContext": object{"country": "FR", "age": 30}}, {"entityContext": object{"age": 30}}}})
		}
		poll(t, "the counts of the flag", func() bool { return get[answersOf](t, s, "/datar/flags/7/outcomes").Total == 12 })
		poll(t, "everything to be stored", func() bool { return statistics(t, s).Pending == 0 })

		from, to := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour), time.Now().UTC().Truncate(time.Hour).Add(2*time.Hour)
		window := "?" + url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}}.Encode()
		beside := db.open(t, dsn)
		beside.SetMaxOpenConns(1)
		if db.driver == "postgres" {
			if _, err := beside.ExecContext(t.Context(), "SET TIME ZONE 'UTC'"); err != nil {
				t.Fatal(err)
			}
		}
		check := func(page, heading string, want []string) {
			t.Helper()
			var got []string
			for _, row := range testdb.Rows(t, beside, sqlOf(t, page, heading, db.driver, from, to)) {
				got = append(got, strings.Join(row, " "))
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
				t.Errorf("%s: %s (-response +SQL):\n%s", page, heading, diff)
			}
		}
		outcomes := get[answersOf](t, s, "/datar/flags/7/outcomes"+window)
		last := get[answersOf](t, s, "/datar/flags/7/state").Evidence.LastAt.UnixMilli()

		var want []string
		for _, f := range get[answersOf](t, s, "/datar/states").Flags {
			if f.Total > 0 {
				want = append(want, fmt.Sprint(f.FlagID, f.Total, f.LastAt.UnixMilli()))
			}
		}
		check("answers.md", "Evaluations of all flags", want)
		check("answers.md", "Evaluations by name and by tag", []string{fmt.Sprint(outcomes.Total, outcomes.Asked.ByName, outcomes.Asked.ByTag, last)})
		want = nil
		for _, segment := range outcomes.Segments {
			want = append(want, fmt.Sprint(segment.SegmentID, 0, segment.HeldOut))
			for _, v := range segment.Variants {
				want = append(want, fmt.Sprint(segment.SegmentID, v.VariantID, v.Count))
			}
		}
		check("answers.md", "Results of each segment", want)
		want = nil
		series := get[answersOf](t, s, "/datar/flags/7/series"+window+"&bucket=day")
		for _, line := range series.Lines {
			for i, n := range line.Counts {
				if n > 0 {
					want = append(want, fmt.Sprint(series.Starts[i].Format(time.DateOnly), " ", line.Outcome, " ", n))
				}
			}
		}
		check("answers.md", "Outcomes by UTC day", want)
		want = nil
		for _, c := range get[answersOf](t, s, "/datar/flags/7/changes?limit=100").Changes {
			want = append(want, fmt.Sprint(c.SnapshotID, " ", c.By))
		}
		check("answers.md", "Changes of a flag", want)

		want = nil
		for _, f := range get[answersOf](t, s, "/datar/summary"+window).Flags {
			want = append(want, fmt.Sprint(f.FlagID, f.TotalEvalCount))
		}
		check("datar.md", "Totals of all flags", want)
		want = nil
		var unevaluable int64
		for _, o := range outcomes.Outcomes {
			want = append(want, fmt.Sprint(o.Outcome, " ", o.Count))
			unevaluable += o.Unevaluable
		}
		check("datar.md", "Outcomes of a flag", want)
		check("datar.md", "How a flag was asked for", []string{fmt.Sprint(outcomes.Asked.ByTag, outcomes.Asked.WithoutEntityID, unevaluable)})
		want = nil
		for _, u := range get[answersOf](t, s, "/datar/unknown"+window).Unknown {
			want = append(want, fmt.Sprint(u.Asked, " ", u.Count))
		}
		check("datar.md", "Flags that do not exist", want)
		want = nil
		for _, v := range get[answersOf](t, s, "/datar/flags/7/rollout"+window).Versions {
			for _, segment := range v.Segments {
				for _, g := range segment.Given {
					if g.Count > 0 {
						want = append(want, fmt.Sprint(v.SnapshotID%65_536, g.VariantID, segment.SegmentID, g.Count))
					}
				}
			}
		}
		check("datar.md", "Versions of a flag", want)
		byVariant := map[string]int64{}
		for _, row := range testdb.Rows(t, beside, sqlOf(t, "datar.md", "Variants and segments of a flag", db.driver, from, to)) {
			var n int64
			if _, err := fmt.Sscan(row[2], &n); err != nil {
				t.Fatal(err)
			}
			byVariant[row[0]] += n
		}
		for _, v := range get[answersOf](t, s, "/datar/flags/7/summary"+window).TrafficByVariant {
			if byVariant[fmt.Sprint(v.VariantID)] != v.Count {
				t.Errorf("variant %d has %d, and SQL returns %v", v.VariantID, v.Count, byVariant)
			}
		}
		want = nil
		poll(t, "the record of the server", func() bool {
			want = nil
			for _, one := range get[answersOf](t, s, "/datar/fleet").Servers {
				want = append(want, fmt.Sprint(one.Name, " ", one.Recorded, one.Stored, one.Pending))
			}
			var got []string
			for _, row := range testdb.Rows(t, beside, sqlOf(t, "datar.md", "Servers", db.driver, from, to)) {
				got = append(got, strings.Join(row, " "))
			}
			return slices.Equal(got, want)
		})
	})
}
