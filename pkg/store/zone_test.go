package store

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestTimesOfAnotherZoneAreConverted runs the statements of docs/operations.md on a database that
// Flagr wrote with loc= in its connection string, and expects the times that Flagr writes without
// it.
func TestTimesOfAnotherZoneAreConverted(t *testing.T) {
	script := conversion(t)
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		if kind.Driver != "mysql" {
			return // loc is a parameter of MySQL's connection strings
		}
		for _, zone := range []struct {
			offset    string
			minutes   int
			away      string // the order in which hours are moved to the time zone
			converted string // the documented statements for this side of Greenwich
		}{
			{"+02:00", 120, "DESC", script},
			{"-07:00", -420, "ASC", strings.Replace(script, "ORDER BY bucket_hour;", "ORDER BY bucket_hour DESC;", 1)},
		} {
			db := kind.Open(t, kind.FreshFromFlagr(t, flagrDatabases))
			hours := "SELECT * FROM datar_hourly_events ORDER BY id"
			wantRows, wantHours := dump(t, rawDB{db}), rowsOf(t, db, hours)
			move := func(table, order string, columns ...string) {
				for i, c := range columns {
					columns[i] = fmt.Sprintf("%[1]s = DATE_ADD(%[1]s, INTERVAL %[2]d MINUTE)", c, zone.minutes)
				}
				_, err := db.ExecContext(t.Context(), fmt.Sprintf("UPDATE %s SET %s %s", table, strings.Join(columns, ", "), order))
				ok(t, err)
			}
			for table := range wantRows {
				if table != "flags_tags" { // it has no times
					move(table, "", "created_at", "updated_at", "deleted_at")
				}
			}
			move("datar_hourly_events", "ORDER BY bucket_hour "+zone.away, "bucket_hour", "updated_at")
			if len(wantHours) == 0 || fmt.Sprint(rowsOf(t, db, hours)) == fmt.Sprint(wantHours) {
				t.Fatal("the times of the zone are those of UTC")
			}

			db.SetMaxOpenConns(1) // the time zone is a variable of the session
			_, err := db.ExecContext(t.Context(), strings.Replace(zone.converted, "Europe/Berlin", zone.offset, 1))
			ok(t, err)
			same(t, wantRows, dump(t, rawDB{db}))
			same(t, wantHours, rowsOf(t, db, hours))
		}
	})
}

// conversion returns the statements in the documentation.
func conversion(t *testing.T) string {
	t.Helper()
	page := string(must[[]byte](t)(os.ReadFile("../../docs/operations.md")))
	_, section, _ := strings.Cut(page, "\n## MySQL with times of another zone\n")
	_, block, _ := strings.Cut(section, "```sql\n")
	script, _, found := strings.Cut(block, "```")
	if !found || strings.Count(script, "Europe/Berlin") != 2 {
		t.Fatalf("docs/operations.md has other statements than were looked for: %s", script)
	}
	return script[strings.Index(script, "SET "):]
}
