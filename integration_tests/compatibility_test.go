package integration_tests

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// widened has the type of the one column that the migration changes: eval_count gets 64 bits.
var widened = map[string]map[string]string{
	"postgres": {"datar_hourly_events.eval_count": "optional bigint  NO 0"},
	"mysql":    {"datar_hourly_events.eval_count": "optional bigint(20) NO 0 "},
}

// content returns all rows of the tables of Flagr, without the columns that the migration added.
func content(t *testing.T, kind testdb.Kind, dsn string, before testdb.Schema) map[string][][]string {
	t.Helper()
	db := kind.Open(t, dsn)
	quote := "`"
	if kind.Driver == "postgres" {
		quote = `"`
	}
	rows := map[string][][]string{}
	for table, columns := range before.Tables() {
		var quoted []string
		for _, column := range slices.Sorted(slices.Values(columns)) {
			quoted = append(quoted, quote+column+quote)
		}
		rows[table] = testdb.Rows(t, db, fmt.Sprintf("SELECT %s FROM %s ORDER BY %[1]s", strings.Join(quoted, ", "), table))
	}
	return rows
}

// TestDatabaseOfFlagr opens a database that Flagr 1.2.3 wrote. The API must return its content, its
// rows must not change, and Flagr must be able to write to it again.
func TestDatabaseOfFlagr(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.FreshFromFlagr(t, filepath.Join("testdata", "databases"))
		before := kind.Schema(t, kind.Open(t, dsn))
		rows := content(t, kind, dsn, before)
		s := start(t, databaseOf(kind), dsn, nil)
		for path, want := range map[string]int{
			"/flags": 7, "/flags?preload=true": 7, "/flags/1/variants": 2, "/tags": 2, "/flags/1/snapshots": 33,
		} {
			if got := len(get[[]any](t, s, path)); got != want {
				t.Errorf("%s has %d entries, want %d", path, got, want)
			}
		}
		if got := get[struct{ MaxID int }](t, s, "/flags/snapshots/max_id").MaxID; got != 44 {
			t.Errorf("newest snapshot is %d, want 44", got)
		}
		const window = "from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z"
		want := []any{object{"flagID": 1., "flagKey": "first-flag", "description": "first, edited", "enabled": true, "totalEvalCount": 8.}}
		if diff := cmp.Diff(want, get[object](t, s, "/datar/summary?"+window)["flags"]); diff != "" {
			t.Errorf("summary (-want +got):\n%s", diff)
		}
		var b object
		decode(t, []byte(`{"flagID":1,"trafficByDay":[{"count":8,"date":"2026-11-21"}],
		"trafficBySegment":[{"count":5,"segmentID":2},{"count":3,"segmentID":1}],
		"trafficByVariant":[{"count":5,"variantID":3},{"count":2,"variantID":2},{"count":1,"variantID":1}]}`), &b)
		breakdown := get[object](t, s, "/datar/flags/1/summary?"+window)
		delete(breakdown, "complete") // not in the responses of Flagr
		if diff := cmp.Diff(b, breakdown); diff != "" {
			t.Errorf("breakdown (-want +got):\n%s", diff)
		}
		s.stop(t, syscall.SIGTERM)
		kind.Schema(t, kind.Open(t, dsn)).CheckAdditions(t, before, widened[kind.Driver])
		if diff := cmp.Diff(rows, content(t, kind, dsn, before)); diff != "" {
			t.Errorf("opening the database changed rows (-before +after):\n%s", diff)
		}

		s = s.again(t)
		f := newFlag(t, s, "ours")
		send[any](t, s, http.MethodPut, "/flags/2", object{"description": "changed", "dataRecordsEnabled": true})
		third := get[[]flagAnswer](t, s, "/flags")[2]
		send[any](t, s, http.MethodPost, third.path()+"/tags", object{"value": "new"})
		newVariant(t, s, third, "new")
		awaitChanges(t, s)
		begin := time.Now()
		evaluate(t, s, f, "u", nil)
		evaluate(t, s, flagAnswer{ID: 1}, "u1", object{"country": "FR", "age": 30, "x": "b"})
		s.stop(t, syscall.SIGTERM)
		kind.Schema(t, kind.Open(t, dsn)).CheckAdditions(t, before, widened[kind.Driver])
		if kind.Driver == "sqlite3" { // which stores times as text
			bucket := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:00:00\+00:00$`) // as Flagr writes them
			for _, row := range testdb.Rows(t, kind.Open(t, dsn), "SELECT CAST(bucket_hour AS text) FROM datar_hourly_events") {
				if !bucket.MatchString(row[0]) {
					t.Errorf("the hour of a row differs from the format of Flagr: %s", row[0])
				}
			}
		}

		s = s.again(t)
		at := begin.UTC().Format(time.RFC3339)
		if got := get[summary](t, s, "/datar/summary?from="+at); got.total(f.ID) != 1 || got.total(1) < 1 {
			t.Errorf("counts after both wrote: %+v", got)
		}
		all := get[summary](t, s, "/datar/summary?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z")
		if all.total(1) != 9 {
			t.Errorf("flag 1 has %d evaluations, want the 8 of Flagr and 1 of this server", all.total(1))
		}
	})
}
