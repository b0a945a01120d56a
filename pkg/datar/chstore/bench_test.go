package chstore_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// benchmarkServer returns an empty database of the server that the environment names.
func benchmarkServer(b *testing.B) string {
	b.Helper()
	server := os.Getenv("FLAGR_TEST_CLICKHOUSE")
	if server == "" {
		b.Skip("FLAGR_TEST_CLICKHOUSE is not set")
	}
	return freshDatabase(b, server)
}

// BenchmarkApply is a flush of 1,000 counters of one server.
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

// BenchmarkMonth answers from 30 days of 10 servers with 240 counters each: 1.7 million counters, which are 104 million written rows
// at a flush interval of 60 s. They are generated as they are after merges.
func BenchmarkMonth(b *testing.B) {
	const servers, keys, days = 10, 240, 30
	address := benchmarkServer(b)
	s := open(b, address)
	first := int32(firstHour / 24)
	for day := range int32(days) {
		execute(b, address, fmt.Sprintf("INSERT INTO datar_counts (day, hour, flag_id, variant_id, segment_id, outcome, version, writer, counter, sequence, n, first_ms, last_ms) "+
			"SELECT %[1]d, %[1]d * 24 + intDiv(number, %[2]d), 1 + number %% 24, 1 + intDiv(number, 24) %% 10, 1, 1, 7, "+
			"toUUID(concat('6ba7b810-9dad-41d1-80b4-00c04fd430', toString(10 + intDiv(number, %[3]d) %% %[4]d))), number %% %[3]d, 1, 1 + rand() %% 10000, 1, 2 FROM numbers(%[5]d)",
			first+day, servers*keys, keys, servers, 24*servers*keys))
	}
	window := datar.TotalsQuery{From: firstHour, To: firstHour + days*24, GroupBy: datar.ByFlag}
	b.Run("all flags", func(b *testing.B) {
		for b.Loop() {
			if totals, err := s.Totals(b.Context(), window); err != nil || len(totals) != 24 {
				b.Fatal(len(totals), err)
			}
		}
	})
	b.Run("one flag", func(b *testing.B) {
		window.FlagID, window.GroupBy = 3, datar.ByOutcome
		for b.Loop() {
			if totals, err := s.Totals(b.Context(), window); err != nil || len(totals) != 10 {
				b.Fatal(len(totals), err)
			}
		}
	})
	b.Log("rows and bytes on disk: ", execute(b, address, "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'datar_counts' AND database = currentDatabase()"))
}
