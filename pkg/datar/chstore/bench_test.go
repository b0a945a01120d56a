package chstore_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// benchmarkServer returns an empty database of the server in the environment.
func benchmarkServer(b *testing.B) string {
	b.Helper()
	server := os.Getenv("FLAGR_TEST_CLICKHOUSE")
	if server == "" {
		b.Skip("FLAGR_TEST_CLICKHOUSE is not set")
	}
	return freshDatabase(b, server)
}

// BenchmarkApply measures a flush of 1,000 counters of one server.
func BenchmarkApply(b *testing.B) {
	const keys = 1000
	s := open(b, benchmarkServer(b))
	batch := datar.Batch{Writer: "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}
	for i := range int64(keys) {
		row := matched(i/10+1, firstHour, 1)
		row.VariantID = i%10 + 1
		batch.Rows = append(batch.Rows, row)
		batch.Counters = append(batch.Counters, datar.Counter{Key: row.Key, Number: i, First: row.First, Last: row.Last})
	}
	for b.Loop() {
		batch.Sequence++
		for i := range batch.Counters {
			batch.Counters[i].Total++
		}
		if err := s.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*keys/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkMonth measures queries over 30 days of 10 servers with 240 counters each hour: 1.7
// million counters. FLAGR_BENCH_FLUSHES is the number of times that each counter is written. The
// default is 1. A value of 60, as with a flush interval of a minute, makes 104 million rows.
func BenchmarkMonth(b *testing.B) {
	const servers, keys, days = 10, 240, 30
	flushes, err := strconv.Atoi(cmp.Or(os.Getenv("FLAGR_BENCH_FLUSHES"), "1"))
	if err != nil || flushes < 1 || flushes > 60 {
		b.Fatalf("FLAGR_BENCH_FLUSHES is %q, want a number from 1 to 60", os.Getenv("FLAGR_BENCH_FLUSHES"))
	}
	address := benchmarkServer(b)
	s, rows := open(b, address), open(b, address)
	rows.WithoutRollups()
	begin := time.Now()
	for hour := range datar.Hour(days * 24) {
		for flush := 0; flush < flushes; flush += flushesPerInsert {
			execute(b, address, fmt.Sprintf("INSERT INTO datar_counts (day, hour, flag_id, variant_id, segment_id, outcome, version, writer, counter, sequence, n, first_ms, last_ms) "+
				"SELECT %d, %d, 1 + number %% 24, 1 + intDiv(number, 24) %% 10, 1, 1, 7, "+
				"toUUID(concat('6ba7b810-9dad-41d1-80b4-00c04fd430', toString(10 + intDiv(number, %[3]d) %% %[4]d))), number %% %[3]d, 1, 1 + %[5]d + intDiv(number, %[6]d), 1, 2 FROM numbers(%[7]d)",
				int32(firstHour+hour)/24, firstHour+hour, keys, servers, flush, servers*keys, servers*keys*min(flushesPerInsert, flushes-flush)))
		}
	}
	written := float64(days * 24 * servers * keys * flushes)
	b.Logf("%.1f million rows written, %.0f a second", written/1e6, written/time.Since(begin).Seconds())
	begin = time.Now()
	stores := []benchmarkStore{{"rows", rows}}
	if s.UsesRollups() { // not on a cluster
		s.BuildAtOnce()
		for range days * 4 { // a few more than needed
			if err := s.Maintain(b.Context(), (firstHour + days*24 - 1).Time(), 0); err != nil {
				b.Fatal(err)
			}
		}
		if rolled, err := s.Rolled(b.Context(), firstHour, firstHour+days*24); err != nil || rolled != days*4-1 {
			b.Fatalf("%d partitions are rolled up, %v; want all but the last, which is not over", rolled, err)
		}
		b.Logf("rolled up in %s", time.Since(begin).Round(time.Second))
		stores = append(stores, benchmarkStore{"rollups", s})
	}
	for _, store := range stores {
		window := datar.TotalsQuery{From: firstHour, To: firstHour + days*24, GroupBy: datar.ByFlag}
		b.Run(store.name+"/all flags", func(b *testing.B) {
			for b.Loop() {
				if totals, err := store.Totals(b.Context(), window); err != nil || len(totals) != 24 {
					b.Fatal(len(totals), err)
				}
			}
		})
		b.Run(store.name+"/one flag", func(b *testing.B) {
			window.FlagID, window.GroupBy = 3, datar.ByOutcome
			for b.Loop() {
				if totals, err := store.Totals(b.Context(), window); err != nil || len(totals) != 10 {
					b.Fatal(len(totals), err)
				}
			}
		})
	}
	for _, table := range []string{"datar_counts", "datar_rollups"} {
		b.Logf("%s: rows and bytes on the disk of a host: %s", table, execute(b, address, "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND table LIKE '"+table+"%' AND database = currentDatabase()"))
	}
}

type benchmarkStore struct {
	name string
	*chstore.Store
}

// flushesPerInsert is the number of flushes of all servers that one statement writes, to save time.
const flushesPerInsert = 10
