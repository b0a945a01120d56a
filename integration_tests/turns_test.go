package integration_tests

import (
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// otherWriter writes only datar_hourly_events, with the statements of Flagr 1.2.3, and reads sums
// of it. It represents Flagr, which these tests do not run.
type otherWriter struct {
	t    *testing.T
	kind testdb.Kind
	db   *sql.DB
}

type otherCount struct {
	flagID, variantID, segmentID int64
	hour                         time.Time
	count                        int
}

func (w otherWriter) write(counts []otherCount) (sum int64) {
	w.t.Helper()
	statement := map[string]string{
		"sqlite3": `INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at`,
		"postgres": `INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at`,
		"mysql": `INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?)
			ON DUPLICATE KEY UPDATE eval_count = eval_count + VALUES(eval_count), updated_at = VALUES(updated_at)`,
	}[w.kind.Driver]
	for _, c := range counts {
		var hour, now any = c.hour, time.Now().UTC()
		if w.kind.Driver == "sqlite3" { // which stores times as text
			hour, now = c.hour.Format("2006-01-02 15:04:05+00:00"), time.Now().UTC().Format("2006-01-02 15:04:05.999999999+00:00")
		}
		if _, err := w.db.ExecContext(w.t.Context(), statement, c.flagID, hour, c.variantID, c.segmentID, c.count, now); err != nil {
			w.t.Fatal(err)
		}
		sum += int64(c.count)
	}
	return sum
}

// sums returns the sums of the counts by a column, for one flag, or for all flags if it is 0.
func (w otherWriter) sums(column string, flagID int64) map[string]int64 {
	w.t.Helper()
	sums := map[string]int64{}
	for _, row := range testdb.Rows(w.t, w.db, fmt.Sprintf(
		"SELECT %s, SUM(eval_count) FROM datar_hourly_events WHERE flag_id = %d OR %[2]d = 0 GROUP BY %[1]s", column, flagID)) {
		n, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			w.t.Fatal(err)
		}
		sums[row[0]] = n
	}
	return sums
}

// agrees compares the server's summaries with the sums of the other writer.
func (w otherWriter) agrees(s *server, when string, want int64) {
	w.t.Helper()
	const ever = "?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
	flags, variants, segments := map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, f := range get[summary](w.t, s, "/datar/summary"+ever).Flags {
		flags[fmt.Sprint(f.FlagID)] = f.TotalEvalCount
	}
	of := get[breakdown](w.t, s, "/datar/flags/1/summary"+ever)
	for _, v := range of.TrafficByVariant {
		variants[fmt.Sprint(v.VariantID)] = v.Count
	}
	for _, v := range of.TrafficBySegment {
		segments[fmt.Sprint(v.SegmentID)] = v.Count
	}
	bySegment := w.sums("segment_id", 1)
	delete(bySegment, "0") // summaries omit evaluations without a segment
	for what, both := range map[string][2]map[string]int64{
		"flags":    {w.sums("flag_id", 0), flags},
		"variants": {w.sums("variant_id", 1), variants},
		"segments": {bySegment, segments},
	} {
		if diff := cmp.Diff(both[0], both[1]); diff != "" {
			w.t.Errorf("%s: the sums of %s differ (-other writer +server):\n%s", when, what, diff)
		}
	}
	if flags["1"] != want {
		w.t.Errorf("%s: flag 1 has %d evaluations, want %d", when, flags["1"], want)
	}
}

// TestTurnsWithAWriterOfEvents writes to a database of Flagr 1.2.3 with this server and with a
// writer that knows only Flagr's table, in turns and at the same time, to common and separate rows.
// Their sums must be equal each time, and the counts of the other writer must be shown as
// unattributed.
func TestTurnsWithAWriterOfEvents(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.FreshFromFlagr(t, filepath.Join("testdata", "databases"))
		w := otherWriter{t, kind, kind.Open(t, dsn)}
		if kind.Driver == "sqlite3" { // waits while the server writes
			w.db.SetMaxOpenConns(1)
			if _, err := w.db.ExecContext(t.Context(), "PRAGMA busy_timeout = 60000"); err != nil {
				t.Fatal(err)
			}
		}
		s := start(t, databaseOf(kind), dsn, counting("50ms"))
		begin := time.Now().UTC().Truncate(time.Hour)
		ours, others := int64(0), int64(8) // of Flagr
		var rows []otherCount              // rows of this server, to which the other writer adds
		evaluateSome := func() {
			for i := range 30 {
				e := evaluate(t, s, flagAnswer{ID: 1}, fmt.Sprint("u", i), object{"country": []string{"FR", "DE", "US"}[i%3], "age": 10 + i, "x": "b"})
				ours++
				at, err := time.Parse(time.RFC3339, e.Timestamp)
				if err != nil {
					t.Fatal(err)
				}
				row := otherCount{1, e.VariantID, e.SegmentID, at.UTC().Truncate(time.Hour), 0}
				if e.VariantID != 0 && !slices.Contains(rows, row) {
					rows = append(rows, row)
				}
			}
		}
		writeSome := func(round int) {
			counts := []otherCount{{1, 0, 0, begin, 7}, {1, 2, 1, begin.Add(-time.Hour), 5}, {1, 77, 0, begin, 3}}
			for _, row := range rows {
				row.count = 10 + round
				counts = append(counts, row)
			}
			others += w.write(counts)
		}
		for round := range 2 { // in turns
			evaluateSome()
			s.stop(t, syscall.SIGTERM)
			writeSome(round)
			s = s.again(t)
			w.agrees(s, fmt.Sprint("turn ", round), ours+others)
		}
		if len(rows) == 0 {
			t.Fatal("no evaluation was assigned")
		}
		evaluateSome() // while both run
		writeSome(2)
		evaluateSome()
		poll(t, "the server's counts to be stored", func() bool { return statistics(t, s).Pending == 0 })
		w.agrees(s, "both at once", ours+others)

		outcomes := send[struct {
			Total    int64
			Outcomes []struct {
				Outcome string
				Count   int64
			}
		}](t, s, http.MethodGet, "/datar/flags/1/outcomes?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z", nil)
		var unattributed int64
		for _, o := range outcomes.Outcomes {
			if o.Outcome == "unattributed" {
				unattributed = o.Count
			}
		}
		if unattributed != others || outcomes.Total != ours+others {
			t.Errorf("%d of %d evaluations are unattributed, want %d of %d", unattributed, outcomes.Total, others, ours+others)
		}
	})
}
