package gormstore_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/driver/mysql"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/integration_tests/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// The size of the history that BenchmarkQuery reads: 5,040,000 rows.
const (
	benchFlags    = 1000
	benchVariants = 7
)

var benchHours = flag.Int("bench.hours", 720, "hours of history for BenchmarkQuery, with 7,000 rows each")

// benchNow is the time of the queries, in the middle of a day.
var benchNow = time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)

// fill writes the history with statements of the database.
var fill = map[string]string{
	"sqlite": `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 6999)
		INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, last_evaluated_ms, updated_at)
		SELECT i / 7 + 1, ?, i % 7 + 1, 1, i % 13 + 1, ?, ? FROM n`,
	"postgres": `INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, last_evaluated_ms, updated_at)
		SELECT i / 7 + 1, $1, i % 7 + 1, 1, i % 13 + 1, $2, $3 FROM generate_series(0, 6999) AS i`,
	"mysql": `INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, last_evaluated_ms, updated_at)
		SELECT seq DIV 7 + 1, ?, seq MOD 7 + 1, 1, seq MOD 13 + 1, ?, ? FROM seq_0_to_6999`,
}

func benchHistory(b *testing.B, db *gorm.DB) *gormstore.Store {
	b.Helper()
	s, err := gormstore.New(b.Context(), db, gormstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	for h := range *benchHours {
		at := benchNow.Truncate(time.Hour).Add(-time.Duration(h) * time.Hour)
		if _, err := pool.ExecContext(b.Context(), fill[db.Name()], at, at.UnixMilli(), at); err != nil {
			b.Fatal(err)
		}
	}
	started := time.Now()
	for range *benchHours/50 + 3 { // each call does a bounded amount
		if err := s.Maintain(b.Context(), benchNow, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("rolled up %d hours in %v", *benchHours, time.Since(started))
	if db.Name() != "mysql" {
		if _, err := pool.ExecContext(b.Context(), "ANALYZE"); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func openDatabase(b *testing.B, kind testdb.Kind, dsn string) *gorm.DB {
	b.Helper()
	var dialector gorm.Dialector
	switch kind.Driver {
	case "postgres":
		dialector = postgres.Open(dsn)
	case "mysql":
		dialector = mysql.Open(dsn + "?parseTime=true")
	default:
		dialector = sqlite.Open(dsn + "?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pool.Close() })
	return db
}

// BenchmarkQuery compares the queries with the plain way to get the same: one sum over the hourly events.
func BenchmarkQuery(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			dsn := kind.Fresh(b) // or skip
			db := openDatabase(b, kind, dsn)
			s := benchHistory(b, db)
			for _, days := range []int{7, 30} {
				from, to := datar.HourOf(benchNow.AddDate(0, 0, -days)), datar.HourOf(benchNow)+1
				b.Run(fmt.Sprintf("fleet=%dd/plain", days), func(b *testing.B) {
					for b.Loop() {
						var totals []datar.Total
						err := db.Raw("SELECT flag_id, SUM(eval_count) AS count FROM datar_hourly_events "+
							"WHERE bucket_hour >= ? AND bucket_hour < ? GROUP BY flag_id ORDER BY count DESC", from.Time(), to.Time()).Scan(&totals).Error
						if err != nil || len(totals) != benchFlags {
							b.Fatal(len(totals), err)
						}
					}
				})
				b.Run(fmt.Sprintf("fleet=%dd/rollups", days), func(b *testing.B) {
					for b.Loop() {
						totals, err := s.Totals(b.Context(), datar.TotalsQuery{From: from, To: to, GroupBy: datar.ByFlag})
						if err != nil || len(totals) != benchFlags {
							b.Fatal(len(totals), err)
						}
					}
				})
				b.Run(fmt.Sprintf("flag=%dd", days), func(b *testing.B) {
					for b.Loop() {
						for _, d := range []datar.Dimension{datar.ByOutcome, datar.ByDay} {
							totals, err := s.Totals(b.Context(), datar.TotalsQuery{From: from, To: to, FlagID: 500, GroupBy: d})
							if err != nil || len(totals) == 0 {
								b.Fatal(len(totals), err)
							}
						}
					}
				})
			}
		})
	}
}
