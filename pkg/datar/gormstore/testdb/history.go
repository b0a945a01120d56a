package testdb

import (
	"database/sql"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// The history that FillHistory writes.
const (
	// HistoryFlags is the number of flags. Their IDs are 1 to HistoryFlags. The variants of flag n
	// have the IDs 2n-1 and 2n, and its segment has the ID n.
	HistoryFlags = 1000
	// HistoryVersionHours is how long a flag has the same version. In hour h of the history, the
	// version of flag n is n + HistoryFlags*(h/HistoryVersionHours).
	HistoryVersionHours = 240
	// HistoryRows is the number of details per hour.
	HistoryRows = 2350
)

// fillHistory writes the details and events of one hour. Each flag has matches, with its variants
// in turn, and evaluations without a match. Some flags have held-out evaluations.
var fillHistory = map[string][]string{
	"sqlite3": {
		`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2349)
			INSERT INTO datar_hourly_details (flag_id, bucket_hour, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms)
			SELECT i % 1000 + 1, ?1, CASE i / 1000 WHEN 0 THEN 1 WHEN 1 THEN 3 ELSE 2 END,
			CASE WHEN i < 1000 THEN 2 * i + 1 + (i + ?2) % 2 ELSE 0 END, CASE i / 1000 WHEN 1 THEN 0 ELSE i % 1000 + 1 END,
			i % 1000 + 1 + 1000 * (?2 / 240), i % 2, i % 13 + 1, 0, ?3, ?3 FROM n`,
		`INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms, updated_at)
			SELECT flag_id, bucket_hour, variant_id, segment_id, SUM(eval_count), 0, MIN(first_evaluated_ms), MAX(last_evaluated_ms), '2026-03-31 14:30:00.123456+00:00'
			FROM datar_hourly_details WHERE bucket_hour = ?1 GROUP BY flag_id, bucket_hour, variant_id, segment_id ORDER BY flag_id, variant_id, segment_id`,
	},
	"postgres": {
		`INSERT INTO datar_hourly_details (flag_id, bucket_hour, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms)
			SELECT i % 1000 + 1, $1::timestamptz, CASE i / 1000 WHEN 0 THEN 1 WHEN 1 THEN 3 ELSE 2 END,
			CASE WHEN i < 1000 THEN 2 * i + 1 + (i + $2::int) % 2 ELSE 0 END, CASE i / 1000 WHEN 1 THEN 0 ELSE i % 1000 + 1 END,
			i % 1000 + 1 + 1000 * ($2::int / 240), i % 2, i % 13 + 1, 0, $3::bigint, $3::bigint
			FROM generate_series(0, 2349) AS i`,
		`INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms, updated_at)
			SELECT flag_id, bucket_hour, variant_id, segment_id, SUM(eval_count), 0, MIN(first_evaluated_ms), MAX(last_evaluated_ms), now()
			FROM datar_hourly_details WHERE bucket_hour = $1 GROUP BY flag_id, bucket_hour, variant_id, segment_id ORDER BY flag_id, variant_id, segment_id`,
	},
}

// FillHistory writes details and events for benchmarks into existing tables of SQLite or
// PostgreSQL, 56,400 details per day. The last hour is that of end.
func (k Kind) FillHistory(b testing.TB, db *sql.DB, days int, end time.Time) {
	b.Helper()
	for first := 0; first < days*24; first += 24 {
		tx, err := db.BeginTx(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		for h := first; h < first+24; h++ {
			hour := end.UTC().Truncate(time.Hour).Add(time.Duration(h+1-days*24) * time.Hour)
			var at any = hour
			if k.Driver == "sqlite3" {
				at = hour.Format("2006-01-02 15:04:05+00:00")
			}
			for i, statement := range fillHistory[k.Driver] {
				values := []any{at, h, hour.UnixMilli()}
				if i > 0 {
					values = values[:1]
				}
				if _, err := tx.ExecContext(b.Context(), statement, values...); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// RollUp makes all rollups that are due at a time. The store should have
// gormstore.Options.UnpacedRollups.
func RollUp(b testing.TB, store interface {
	datar.Maintainer
	datar.RollupStore
}, now time.Time) {
	b.Helper()
	for last := -1; ; {
		if err := store.Maintain(b.Context(), now, 0); err != nil {
			b.Fatal(err)
		}
		progress := store.Rollups()
		if progress.Made == progress.Due {
			return
		}
		if progress.Made == last {
			b.Fatalf("%d of %d rollups are made, and no more of them", progress.Made, progress.Due)
		}
		last = progress.Made
	}
}

// CPUTime returns the CPU time of this process and, for PostgreSQL on Linux, of the server process
// behind the only connection that db may have. Unlike elapsed time, it excludes other programs. It
// skips the benchmark on other systems.
func (k Kind) CPUTime(b testing.TB, db *sql.DB) time.Duration {
	b.Helper()
	const ticksPerSecond = 100 // of /proc on Linux
	processes := []string{"self"}
	if k.Driver == "postgres" {
		var pid string
		if err := db.QueryRowContext(b.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			b.Fatal(err)
		}
		processes = append(processes, pid)
	}
	var sum time.Duration
	for _, process := range processes {
		text, err := os.ReadFile("/proc/" + process + "/stat")
		if err != nil {
			b.Skipf("the CPU time of processes is read from /proc: %v", err)
		}
		_, fields, _ := strings.Cut(string(text), ") ") // after the name, which may contain spaces
		for _, field := range strings.Fields(fields)[11:13] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	return sum
}

// ResidentGrowth runs f and returns the peak growth of the resident memory of this process during
// the call, in bytes. Unlike the heap of Go, it includes the memory of SQLite. It skips the
// benchmark on other systems than Linux.
func ResidentGrowth(b testing.TB, f func()) int64 {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // forgets the peak
		b.Skipf("the peak of the memory is in /proc: %v", err)
	}
	before := resident(b, "VmRSS")
	f()
	return resident(b, "VmHWM") - before
}

// resident returns a line of /proc/self/status in bytes.
func resident(b testing.TB, name string) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skipf("the memory of a process is read from /proc: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	line, _, _ := strings.Cut(rest, " kB")
	kibibytes, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return kibibytes << 10
}
