package services_test

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// BenchmarkHour stores an hour of servers that flush the same keys once a minute, as fast as the
// database takes them. FLAGR_BENCH_WRITERS is the number of servers and FLAGR_BENCH_KEYS that of
// keys, both 1,000 by default: 60 million rows. It reports the rows per second, the CPU time of the
// database per flush, the duration of two queries about the hour, and the bytes on disk after
// merges for each stored count.
func BenchmarkHour(b *testing.B) {
	const flushes, connections = 60, 8
	writers, keys := numberIn(b, "FLAGR_BENCH_WRITERS", 4096), numberIn(b, "FLAGR_BENCH_KEYS", 100_000)
	for _, name := range []string{"clickhouse", "postgres15", "mariadb"} {
		b.Run(name, func(b *testing.B) {
			own := servicestest.Own(b, name)
			store, disk := openStore(b, own, connections)
			before, begin := cpuTime(b, own), time.Now()
			var next, repeated atomic.Int64
			var group sync.WaitGroup
			for range connections {
				group.Go(func() {
					for n := next.Add(1) - 1; n < int64(writers*flushes) && !b.Failed(); n = next.Add(1) - 1 {
						repeated.Add(applyInHour(b, store, serverBatch(int(n)%writers, n/int64(writers)+1, keys)))
						if stored := n + 1; stored%int64(10*writers) == 0 {
							b.Logf("minute %d of the hour after %s", stored/int64(writers), time.Since(begin).Round(time.Second))
						}
					}
				})
			}
			group.Wait()
			taken, used := time.Since(begin), cpuTime(b, own)-before
			b.Logf("%d flushes were sent again", repeated.Load())
			b.ReportMetric(float64(writers*flushes*keys)/taken.Seconds(), "rows/s")
			b.ReportMetric(float64(used.Microseconds())/1000/float64(writers*flushes), "cpu-ms/flush")
			b.ReportMetric(queryMilliseconds(b, store, datar.TotalsQuery{GroupBy: datar.ByFlag}), "summary-ms")
			b.ReportMetric(queryMilliseconds(b, store, datar.TotalsQuery{GroupBy: datar.ByOutcome, FlagID: 3}), "flag-ms")
			b.ReportMetric(disk()/storedCounts(name, writers, keys), "bytes/count")
			b.ReportMetric(0, "ns/op")
			if err := own.Kill(); err != nil { // to stop takes ClickHouse long, because it removes old parts
				b.Error(err)
			}
		})
	}
}

// numberIn returns the number in an environment variable, from 1 to most. The default is 1,000.
func numberIn(b *testing.B, variable string, most int) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(variable), "1000"))
	if err != nil || n < 1 || n > most {
		b.Fatalf("%s is %q, want a number from 1 to %d", variable, os.Getenv(variable), most)
	}
	return n
}

// applyInHour stores a batch and returns how often it was sent again. Like an engine, it waits when
// the database has too much to do.
func applyInHour(b *testing.B, store datar.Store, batch datar.Batch) (repeated int64) {
	var err error
	for delay := 100 * time.Millisecond; delay < time.Minute; delay *= 2 {
		if err = store.Apply(b.Context(), batch); err == nil {
			return repeated
		}
		repeated++
		select {
		case <-b.Context().Done():
		case <-time.After(delay):
		}
	}
	b.Error(err)
	return repeated
}

// queryMilliseconds returns the duration of the median of five queries about the hour.
func queryMilliseconds(b *testing.B, store datar.Store, query datar.TotalsQuery) float64 {
	b.Helper()
	query.From = datar.HourOf(benchmarkHour)
	query.To = query.From + 1
	var durations []time.Duration
	for range 5 {
		begin := time.Now()
		if totals, err := store.Totals(b.Context(), query); err != nil || len(totals) == 0 {
			b.Fatal(len(totals), err)
		}
		durations = append(durations, time.Since(begin))
	}
	slices.Sort(durations)
	return float64(durations[2].Microseconds()) / 1000
}
