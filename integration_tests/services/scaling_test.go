package services_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gorm.io/driver/mysql"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/integration_tests/services"
	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
)

// BenchmarkServers flushes the same keys from 16 servers to one database at once, like servers
// behind one load balancer. It reports the CPU time of the database per flush, including its
// background work until the benchmark ends. From two numbers of keys follow the costs of a flush
// and of a key, which are constants of docs/scaling.md.
func BenchmarkServers(b *testing.B) {
	const servers = 16
	for _, name := range []string{"postgres15", "mariadb", "clickhouse"} {
		for _, keys := range []int{10, 1000} {
			b.Run(fmt.Sprintf("%s/keys=%d", name, keys), func(b *testing.B) {
				own := servicestest.Own(b, name)
				store, disk := openStore(b, own, servers)
				before := cpuTime(b, own)
				sequence := int64(0)
				for b.Loop() {
					sequence++
					var group sync.WaitGroup
					for server := range servers {
						group.Go(func() {
							if err := store.Apply(b.Context(), serverBatch(server, sequence, keys)); err != nil {
								b.Error(err)
							}
						})
					}
					group.Wait()
				}
				flushes := float64(b.N * servers)
				b.ReportMetric(float64((cpuTime(b, own)-before).Microseconds())/1000/flushes, "cpu-ms/flush")
				b.ReportMetric(float64(b.Elapsed().Milliseconds())/flushes, "ms/flush")
				b.ReportMetric(disk()/storedCounts(name, servers, keys), "bytes/count")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func cpuTime(b *testing.B, s *services.Server) time.Duration {
	b.Helper()
	used, err := s.CPUTime()
	if err != nil {
		b.Skip(err)
	}
	return used
}

// storedCounts returns the number of counts that servers with the same keys store for an hour:
// ClickHouse has those of each server, and SQL has their sums.
func storedCounts(name string, servers, keys int) float64 {
	if name == "clickhouse" {
		return float64(servers * keys)
	}
	return float64(keys)
}

// openStore also returns a function for the bytes of the counts on disk, which first merges parts
// or rebuilds tables.
func openStore(b *testing.B, own *services.Server, connections int) (store datar.Store, disk func() float64) {
	b.Helper()
	if own.Kind.Name == "clickhouse" {
		options, err := chstore.ParseURL(own.DSN)
		if err != nil {
			b.Fatal(err)
		}
		s, err := chstore.New(b.Context(), options)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		return s, func() float64 { return clickHouseDisk(b, own.DSN) }
	}
	dialector := postgres.Open(own.DSN)
	if own.Kind.Name == "mariadb" {
		createDatabase(b, own.DSN)
		dialector = mysql.Open(strings.TrimSuffix(own.DSN, "mysql") + "datar?parseTime=true")
	}
	db, err := gorm.Open(dialector, &gorm.Config{})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pool.Close() })
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	s, err := gormstore.New(context.Background(), db, gormstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return s, func() (bytes float64) {
		rebuild, query := "VACUUM FULL ", "SELECT pg_total_relation_size($1::regclass)"
		if own.Kind.Name == "mariadb" {
			rebuild, query = "ALTER TABLE ", "SELECT file_size FROM information_schema.innodb_sys_tablespaces WHERE name = CONCAT('datar/', ?)"
		}
		for _, table := range []string{"datar_hourly_events", "datar_hourly_details"} {
			statement := rebuild + table
			if own.Kind.Name == "mariadb" {
				statement += " FORCE"
			}
			if _, err := pool.ExecContext(b.Context(), statement); err != nil {
				b.Fatal(err)
			}
			var size float64
			if err := pool.QueryRowContext(b.Context(), query, table).Scan(&size); err != nil {
				b.Fatal(err)
			}
			bytes += size
		}
		return bytes
	}
}

// clickHouseDisk merges all parts and returns the bytes of datar_counts.
func clickHouseDisk(b *testing.B, dsn string) float64 {
	b.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		b.Fatal(err)
	}
	secret, _ := u.User.Password()
	var size float64
	for _, statement := range []string{
		"OPTIMIZE TABLE datar_counts FINAL",
		"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'datar_counts'",
	} {
		request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+u.Host+"/", strings.NewReader(statement))
		if err != nil {
			b.Fatal(err)
		}
		request.Close = true
		request.Header.Set("X-ClickHouse-User", u.User.Username())
		request.Header.Set("X-ClickHouse-Key", secret)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close() // it has been read to its end
		if err != nil || response.StatusCode != http.StatusOK {
			b.Fatalf("%s: status %d, %v: %s", statement, response.StatusCode, err, text)
		}
		size, _ = strconv.ParseFloat(strings.TrimSpace(string(text)), 64) // the first statement returns nothing
	}
	return size
}

func createDatabase(b *testing.B, dsn string) {
	b.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(b.Context(), "CREATE DATABASE datar"); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchmarkHour is the hour of all counts.
var benchmarkHour = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// serverBatch returns the flush of a server in which all keys have changed, with the record of the
// server.
func serverBatch(server int, sequence int64, keys int) datar.Batch {
	name := fmt.Sprintf("server-%03d", server)
	at := benchmarkHour.Add(time.Duration(sequence) * time.Second)
	batch := datar.Batch{
		Writer: fmt.Sprintf("6ba7b810-9dad-41d1-80b4-00c04fd43%03x", server), Sequence: sequence,
		Server: &datar.ServerRecord{Name: name, Run: name, Kind: datar.KindServer, Start: benchmarkHour, At: at, FlushInterval: time.Minute},
	}
	random := rand.New(rand.NewPCG(uint64(server), uint64(sequence)))
	for i := range int64(keys) {
		key := datar.Key{FlagID: i/10 + 1, VariantID: i%10 + 1, SegmentID: i%10 + 1, Hour: datar.HourOf(benchmarkHour), Outcome: datar.Matched, Version: 7}
		row := datar.Row{Key: key, Count: 3 + random.Int64N(1000), First: benchmarkHour.UnixMilli() + random.Int64N(1000), Last: at.UnixMilli() + random.Int64N(1000)}
		batch.Rows = append(batch.Rows, row)
		batch.Counters = append(batch.Counters, datar.Counter{Key: key, Number: i, Total: sequence*1000 + row.Count, First: row.First, Last: row.Last})
	}
	return batch
}
