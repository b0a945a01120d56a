package integration_tests

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// column is one column of a table, as SQLite describes it.
type column struct {
	Type     string
	NotNull  bool
	Default  string
	InKey    int
	Optional bool // a writer that does not know it need not fill it
}

// sqliteFile is what the tests need of a SQLite file: its structure, and each row as text.
type sqliteFile struct {
	Columns map[string]map[string]column // by table and name
	Indexes map[string]string            // how each was made, by name
	Rows    map[string][]string          // by table
}

// readSQLite reads a whole file. Rows have only the columns of a file that was read before, if there is one.
func readSQLite(t *testing.T, dsn string, before *sqliteFile) *sqliteFile {
	t.Helper()
	db := openSQLite(t, dsn)
	file := &sqliteFile{map[string]map[string]column{}, map[string]string{}, map[string][]string{}}
	eachRow(t, db, "SELECT type, name, coalesce(sql, '') FROM sqlite_master", func(scan func(...any)) {
		var kind, name, made string
		scan(&kind, &name, &made)
		switch kind {
		case "table":
			file.Columns[name] = map[string]column{}
		case "index":
			file.Indexes[name] = made
		}
	})
	for table, columns := range file.Columns {
		var names []string
		eachRow(t, db, fmt.Sprintf("SELECT name, type, \"notnull\", coalesce(dflt_value, ''), pk FROM pragma_table_info('%s')", table),
			func(scan func(...any)) {
				var name string
				var c column
				scan(&name, &c.Type, &c.NotNull, &c.Default, &c.InKey)
				c.Optional = !c.NotNull || c.Default != ""
				columns[name] = c
				if before == nil {
					names = append(names, name)
				} else if _, ok := before.Columns[table][name]; ok {
					names = append(names, name)
				}
			})
		if len(names) == 0 {
			continue // a table of ours
		}
		var quoted []string
		for _, name := range names {
			quoted = append(quoted, fmt.Sprintf("quote(`%s`)", name))
		}
		query := fmt.Sprintf("SELECT %s FROM `%s` ORDER BY rowid", strings.Join(quoted, "||' '||"), table)
		eachRow(t, db, query, func(scan func(...any)) {
			var row string
			scan(&row)
			file.Rows[table] = append(file.Rows[table], row)
		})
	}
	return file
}

func eachRow(t *testing.T, db *sql.DB, query string, take func(scan func(...any))) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says what went wrong
	for rows.Next() {
		take(func(into ...any) {
			if err := rows.Scan(into...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		})
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// checkStructure checks that everything that was there is there, and that a writer who knows only that can go on.
func checkStructure(t *testing.T, before, after *sqliteFile) {
	t.Helper()
	for table, columns := range before.Columns {
		for name, want := range columns {
			if diff := cmp.Diff(want, after.Columns[table][name]); diff != "" {
				t.Errorf("column %s.%s (-before +after):\n%s", table, name, diff)
			}
		}
		for name, c := range after.Columns[table] {
			if _, old := columns[name]; !old && !c.Optional {
				t.Errorf("new column %s.%s must be filled, but older writers do not know it", table, name)
			}
		}
	}
	for name, made := range before.Indexes {
		if after.Indexes[name] != made {
			t.Errorf("index %s was %q and is %q", name, made, after.Indexes[name])
		}
	}
}

// TestDatabaseOfFlagr opens a file that Flagr 1.2.3 wrote: what is in it is answered, and stays as it was.
func TestDatabaseOfFlagr(t *testing.T) {
	t.Parallel()
	original, err := os.ReadFile(filepath.Join("testdata", "databases", "flagr-1.2.3.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	sqlite := databases[0]
	dsn := sqlite.fresh(t)
	if err := os.WriteFile(dsn, original, 0o600); err != nil {
		t.Fatal(err)
	}
	before := readSQLite(t, dsn, nil)

	s := start(t, sqlite, dsn, nil)
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
	var b any
	decode(t, []byte(`{"flagID":1,"trafficByDay":[{"count":8,"date":"2026-11-21"}],
		"trafficBySegment":[{"count":5,"segmentID":2},{"count":3,"segmentID":1}],
		"trafficByVariant":[{"count":5,"variantID":3},{"count":2,"variantID":2},{"count":1,"variantID":1}]}`), &b)
	if diff := cmp.Diff(b, get[any](t, s, "/datar/flags/1/summary?"+window)); diff != "" {
		t.Errorf("breakdown (-want +got):\n%s", diff)
	}
	s.stop(t, syscall.SIGTERM)
	opened := readSQLite(t, dsn, before)
	checkStructure(t, before, opened)
	if diff := cmp.Diff(before.Rows, opened.Rows); diff != "" {
		t.Errorf("opening the file changed rows (-before +after):\n%s", diff)
	}

	s = s.again(t)
	f := newFlag(t, s, "ours")
	send[any](t, s, http.MethodPut, "/flags/2", object{"description": "changed", "dataRecordsEnabled": true})
	send[any](t, s, http.MethodPost, "/flags/3/tags", object{"value": "new"})
	newVariant(t, s, flagAnswer{ID: 3}, "new")
	awaitChanges(t, s)
	begin := time.Now()
	evaluate(t, s, f, "u", nil)
	evaluate(t, s, flagAnswer{ID: 1}, "u1", object{"country": "FR", "age": 30, "x": "b"})
	s.stop(t, syscall.SIGTERM)
	written := readSQLite(t, dsn, before)
	checkStructure(t, before, written)
	bucket := regexp.MustCompile(`'\d{4}-\d\d-\d\d \d\d:00:00\+00:00'`) // as Flagr writes them
	for _, row := range written.Rows["datar_hourly_events"] {
		if !bucket.MatchString(row) {
			t.Errorf("the hour of a row is not written as Flagr does it: %s", row)
		}
	}

	s = s.again(t)
	at := begin.UTC().Format(time.RFC3339)
	if got := get[summary](t, s, "/datar/summary?from="+at); got.total(f.ID) != 1 || got.total(1) < 1 {
		t.Errorf("counts after both wrote: %+v", got)
	}
	all := get[summary](t, s, "/datar/summary?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z")
	if all.total(1) != 9 {
		t.Errorf("flag 1 has %d evaluations, want the 8 that were there and 1 of ours", all.total(1))
	}
}
