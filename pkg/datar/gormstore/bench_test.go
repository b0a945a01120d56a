package gormstore_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"gorm.io/gorm"

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

// BenchmarkQuery compares the queries with the plain way to get the same: one sum over the hourly events.
func BenchmarkQuery(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			dsn := kind.Fresh(b) // or skip
			db := openKind(b, kind, dsn)
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

// noCatalog is for engines that answer no queries.
type noCatalog struct{}

func (noCatalog) Flags(context.Context, []int64) (map[int64]datar.FlagInfo, error) { return nil, nil }

// BenchmarkFlush stores 100,000 changed keys: by one flush of an engine, and by one upsert for each row in one transaction,
// the plain way. Extra memory is the highest that the heap grew to while it flushed.
func BenchmarkFlush(b *testing.B) {
	const keys = 100_000
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name+"/engine", func(b *testing.B) {
			db := openKind(b, kind, kind.Fresh(b))
			s, err := gormstore.New(b.Context(), db, gormstore.Options{})
			if err != nil {
				b.Fatal(err)
			}
			e, err := datar.New(datar.Options{Store: s, Catalog: noCatalog{}, MaxKeys: 2 * keys})
			if err != nil {
				b.Fatal(err)
			}
			var extra uint64
			for b.Loop() {
				b.StopTimer()
				for i := range int64(keys) {
					e.Record(datar.Event{FlagID: i%1000 + 1, VariantID: i / 1000, SegmentID: 1, Time: benchNow})
				}
				b.StartTimer()
				extra = max(extra, heapGrowth(func() {
					if err := e.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}))
			}
			b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(extra)/(1<<20), "extra-MiB")
		})
		b.Run(kind.Name+"/single rows", func(b *testing.B) {
			db := openKind(b, kind, kind.Fresh(b))
			if _, err := gormstore.New(b.Context(), db, gormstore.Options{}); err != nil {
				b.Fatal(err)
			}
			pool, err := db.DB()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				tx, err := pool.BeginTx(b.Context(), nil)
				if err != nil {
					b.Fatal(err)
				}
				statement, err := tx.PrepareContext(b.Context(), singleUpsert[db.Name()])
				if err != nil {
					b.Fatal(err)
				}
				for i := range int64(keys) {
					if _, err := statement.ExecContext(b.Context(), i%1000+1, benchNow.Truncate(time.Hour), i/1000, 1, 1, benchNow); err != nil {
						b.Fatal(err)
					}
				}
				if err := tx.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// singleUpsert adds one row of counts, in a prepared statement.
var singleUpsert = map[string]string{
	"sqlite": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at",
	"postgres": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES ($1, $2, $3, $4, $5, $6) " +
		"ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at",
	"mysql": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON DUPLICATE KEY UPDATE eval_count = eval_count + VALUES(eval_count), updated_at = VALUES(updated_at)",
}

// heapGrowth runs f and returns by how many bytes the heap was larger meanwhile, at the most.
func heapGrowth(f func()) uint64 {
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before := inUse()
	var highest uint64
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			highest = max(highest, inUse())
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	}()
	f()
	close(done)
	<-watched
	return max(highest, before) - before
}
