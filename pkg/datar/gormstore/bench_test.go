package gormstore_test

import (
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// The size of the history that BenchmarkQuery reads: 5,040,000 rows.
const (
	benchFlags    = 1000
	benchVariants = 7
)

var benchHours = flag.Int("bench.hours", 720, "hours of history for BenchmarkQuery, with 7,000 rows each")

// noLog keeps the log of New out of the benchmark results.
var noLog = slog.New(slog.DiscardHandler)

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
	s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog, UnpacedRollups: true})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	fillEvents(b, db)
	started := time.Now()
	testdb.RollUp(b, s, benchNow)
	b.Logf("rolled up %d hours in %v", *benchHours, time.Since(started))
	if db.Name() != "mysql" {
		if _, err := pool.ExecContext(b.Context(), "ANALYZE"); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// fillEvents writes the history into an existing table, without details, as Flagr does.
func fillEvents(b *testing.B, db *gorm.DB) {
	b.Helper()
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
}

// maxRollupMemory is the maximum memory of adding up old counts, in bytes.
const maxRollupMemory = 30 << 20

// BenchmarkRollupMemory adds up the events of another server. It reports by how much the resident
// memory of the process grew meanwhile at most, including SQLite.
func BenchmarkRollupMemory(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			dsn := kind.Fresh(b) // skips without a server
			db := openKind(b, kind, dsn)
			s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog, UnpacedRollups: true})
			if err != nil {
				b.Fatal(err)
			}
			fillEvents(b, db)
			var most int64
			for b.Loop() {
				for _, statement := range []string{"DELETE FROM datar_rollups", "DELETE FROM datar_rollup_details"} {
					if err := db.Exec(statement).Error; err != nil {
						b.Fatal(err)
					}
				}
				most = max(most, testdb.ResidentGrowth(b, func() { testdb.RollUp(b, s, benchNow) }))
			}
			b.ReportMetric(float64(most)/(1<<20), "extra-MiB")
			if most > maxRollupMemory {
				b.Errorf("adding up %d hours took %d MiB of memory, want at most %d", *benchHours, most>>20, maxRollupMemory>>20)
			}
		})
	}
}

// BenchmarkQuery compares the queries with the simple alternative: one sum over the hourly events.
func BenchmarkQuery(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			dsn := kind.Fresh(b) // skips without a server
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

// The size of the history that BenchmarkDetails reads. The default is 90 days of 1,000 flags,
// 5,076,000 details.
var detailDays = flag.Int("bench.days", 90, "days of history for BenchmarkDetails, with 56,400 details each")

// benchDetails returns a store with a history of details, after all due rollups have been made.
func benchDetails(b *testing.B, kind testdb.Kind, db *gorm.DB, pool *sql.DB) *gormstore.Store {
	b.Helper()
	s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog, UnpacedRollups: true})
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	kind.FillHistory(b, pool, *detailDays, benchNow)
	b.Logf("wrote %d days in %v", *detailDays, time.Since(started))
	started = time.Now()
	testdb.RollUp(b, s, benchNow)
	b.Logf("rolled up in %v", time.Since(started))
	if _, err := pool.ExecContext(b.Context(), "ANALYZE"); err != nil {
		b.Fatal(err)
	}
	return s
}

// tableBytes returns the disk size of a table with its indexes.
func tableBytes(b *testing.B, db *gorm.DB, table string) (size int64) {
	b.Helper()
	query := "SELECT pg_total_relation_size($1::regclass)"
	if db.Name() == "sqlite" {
		query = "SELECT SUM(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)"
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	if err := pool.QueryRowContext(b.Context(), query, table).Scan(&size); err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkDetails measures typical queries about flags, and the disk size of details relative to
// events.
func BenchmarkDetails(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			if kind.Driver == "mysql" {
				b.Skip("the aims are for PostgreSQL and SQLite")
			}
			db := openKind(b, kind, kind.Fresh(b))
			pool, err := db.DB()
			if err != nil {
				b.Fatal(err)
			}
			pool.SetMaxOpenConns(1) // the connection whose CPU time is measured
			s := benchDetails(b, kind, db, pool)
			events := tableBytes(b, db, "datar_hourly_events")
			details, packs := tableBytes(b, db, "datar_hourly_details"), tableBytes(b, db, "datar_rollup_details")
			b.Logf("events take %d MB, details %d MB, packs %d MB: details and packs are %.2f of the events",
				events>>20, details>>20, packs>>20, float64(details+packs)/float64(events))
			now := datar.HourOf(benchNow) + 1
			const days = 24
			for _, test := range []struct {
				name    string
				queries []datar.DetailsQuery
			}{
				{"outcomes of a flag, 90 days", []datar.DetailsQuery{{From: now - 90*days, To: now, FlagID: 500,
					GroupBy: datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupAsked}}},
				{"series of a flag by day, 90 days", []datar.DetailsQuery{{From: now - 90*days, To: now, FlagID: 500, GroupBy: datar.GroupOutcome | datar.GroupDay}}},
				{"series of a flag by hour, 83 days", []datar.DetailsQuery{{From: now - 2000, To: now, FlagID: 500, GroupBy: datar.GroupOutcome | datar.GroupHour}}},
				{"rollout of a flag, 90 days", []datar.DetailsQuery{{From: now - 90*days, To: now, FlagID: 500,
					GroupBy: datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion}}},
				{"states of all flags, 30 days, and 28 daily counts", []datar.DetailsQuery{
					{From: now - 30*days, To: now, GroupBy: datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupAsked},
					{From: (now - 27*days).DayStart(), To: now, GroupBy: datar.GroupFlag | datar.GroupDay}}},
			} {
				b.Run(test.name, func(b *testing.B) {
					before := kind.CPUTime(b, pool)
					for b.Loop() {
						for _, query := range test.queries {
							if rows, err := s.Details(b.Context(), query); err != nil || len(rows) == 0 {
								b.Fatal(len(rows), err)
							}
						}
					}
					b.ReportMetric(float64((kind.CPUTime(b, pool)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
				})
			}
		})
	}
}

// maxFlushRatio is the maximum cost of a flush of events and details, relative to one of events
// only.
const maxFlushRatio = 1.8

// BenchmarkFlushDetails stores 100,000 changed keys in one batch: with their details, and as events
// only, in turns. It reports the CPU time of both and, because the machine may have other work,
// their ratio.
func BenchmarkFlushDetails(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			if kind.Driver == "mysql" {
				b.Skip("the aims are for PostgreSQL and SQLite")
			}
			events, details := newFlusher(b, kind, datar.Unattributed), newFlusher(b, kind, datar.Matched)
			events.flush(b) // inserts; the others add, like most batches of an hour
			details.flush(b)
			events.cpu, details.cpu = 0, 0
			events.wall, details.wall = 0, 0
			for b.Loop() {
				events.flush(b)
				details.flush(b)
			}
			ratio := details.cpu.Seconds() / events.cpu.Seconds()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(events.cpu.Milliseconds())/float64(b.N), "events-cpu-ms")
			b.ReportMetric(float64(details.cpu.Milliseconds())/float64(b.N), "both-cpu-ms")
			b.ReportMetric(ratio, "cpu-ratio")
			b.ReportMetric(details.wall.Seconds()/events.wall.Seconds(), "time-ratio")
			if ratio > maxFlushRatio {
				b.Errorf("a flush of both tables takes %.2f of the CPU time of one, want at most %.1f", ratio, maxFlushRatio)
			}
		})
	}
}

// flusher sends the same batch to a database of its own.
type flusher struct {
	kind      testdb.Kind
	store     *gormstore.Store
	pool      *sql.DB
	batch     datar.Batch
	cpu, wall time.Duration // of all flushes
}

func newFlusher(b *testing.B, kind testdb.Kind, outcome datar.Outcome) *flusher {
	b.Helper()
	const keys = 100_000
	db := openKind(b, kind, kind.Fresh(b))
	s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	pool.SetMaxOpenConns(1) // the connection whose CPU time is measured
	f := &flusher{kind: kind, store: s, pool: pool, batch: datar.Batch{Writer: "w", Rows: make([]datar.Row, keys)}}
	for i := range f.batch.Rows {
		key := datar.Key{FlagID: int64(i/100) + 1, VariantID: int64(i%100) + 1, SegmentID: 1, Hour: datar.HourOf(benchNow), Outcome: outcome}
		if outcome != datar.Unattributed {
			key.Version = 7
		}
		f.batch.Rows[i] = datar.Row{Key: key, Count: 3, First: benchNow.UnixMilli(), Last: benchNow.UnixMilli() + 5}
	}
	return f
}

func (f *flusher) flush(b *testing.B) {
	b.Helper()
	f.batch.Sequence++
	before, began := f.kind.CPUTime(b, f.pool), time.Now()
	if err := f.store.Apply(b.Context(), f.batch); err != nil {
		b.Fatal(err)
	}
	f.wall += time.Since(began)
	f.cpu += f.kind.CPUTime(b, f.pool) - before
}

// BenchmarkStatementMemory sends 3,000 batches of different sizes through 10 connections, and
// reports the memory of all connections in PostgreSQL, which caches each statement text.
func BenchmarkStatementMemory(b *testing.B) {
	const flushes, connections = 3000, 10
	for _, kind := range testdb.Kinds() {
		if kind.Driver != "postgres" || kind.Name == "postgres10" { // it does not report its memory
			continue
		}
		b.Run(kind.Name, func(b *testing.B) {
			db := openKind(b, kind, kind.Fresh(b))
			pool, err := db.DB()
			if err != nil {
				b.Fatal(err)
			}
			pool.SetMaxOpenConns(connections)
			pool.SetMaxIdleConns(connections)
			s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				var group sync.WaitGroup
				for worker := range connections {
					group.Go(func() {
						random := rand.New(rand.NewPCG(uint64(worker), 1))
						for i := range int64(flushes / connections) {
							rows := randomRows(random, datar.HourOf(benchNow), 1+random.IntN(400))
							if err := s.Apply(b.Context(), datar.Batch{Writer: fmt.Sprint(b.N, " ", worker), Sequence: i + 1, Rows: rows}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				group.Wait()
			}
			var all []*sql.Conn
			var bytes int64
			for range connections { // held, so that each is a different connection
				connection, err := pool.Conn(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, connection)
				var size int64
				if err := connection.QueryRowContext(b.Context(), "SELECT SUM(total_bytes)::bigint FROM pg_backend_memory_contexts").Scan(&size); err != nil {
					b.Fatal(err)
				}
				bytes += size
			}
			for _, connection := range all {
				_ = connection.Close()
			}
			b.ReportMetric(float64(bytes)/1e6, "backend-MB")
			if bytes > 100e6 {
				b.Errorf("%d connections hold %d MB, want less than 100", connections, bytes/1e6)
			}
		})
	}
}

// BenchmarkFlush stores 100,000 changed keys by one flush of an engine, and, as the simple
// alternative, by one upsert per row in one transaction. The extra memory is the peak growth of the
// heap during the flush.
func BenchmarkFlush(b *testing.B) {
	const keys = 100_000
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name+"/engine", func(b *testing.B) {
			db := openKind(b, kind, kind.Fresh(b))
			s, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog})
			if err != nil {
				b.Fatal(err)
			}
			e, err := datar.New(datar.Options{Store: s, MaxKeys: 2 * keys})
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
			if _, err := gormstore.New(b.Context(), db, gormstore.Options{Logger: noLog}); err != nil {
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
				if err := errors.Join(statement.Close(), tx.Commit()); err != nil { //nolint:sqlclosecheck // the commit comes after
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// singleUpsert adds one row of counts in a prepared statement.
var singleUpsert = map[string]string{
	"sqlite": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at",
	"postgres": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES ($1, $2, $3, $4, $5, $6) " +
		"ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET eval_count = datar_hourly_events.eval_count + excluded.eval_count, updated_at = excluded.updated_at",
	"mysql": "INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, updated_at) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON DUPLICATE KEY UPDATE eval_count = eval_count + VALUES(eval_count), updated_at = VALUES(updated_at)",
}

// heapGrowth runs f and returns the peak growth of the heap during the call, in bytes.
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
