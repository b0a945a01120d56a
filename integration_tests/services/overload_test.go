package services_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// BenchmarkOverload applies the batches of many servers with the same keys, more than a database
// can store at their pace. It reports how many are stored per second, and what each one costs, so
// that both can be compared with fewer servers.
func BenchmarkOverload(b *testing.B) {
	const keys, duration = 200, 15 * time.Second
	for _, name := range []string{"postgres15", "mariadb"} {
		for _, servers := range []int{2, 40} {
			b.Run(name+"/servers="+strconv.Itoa(servers), func(b *testing.B) {
				own := servicestest.Own(b, name)
				store, _ := openStore(b, own, servers)
				var sequence atomic.Int64
				var flushes int64
				var elapsed time.Duration
				flushFor(b, store, &sequence, servers, keys, 0) // opens the connections
				before := cpuTime(b, own)
				for b.Loop() {
					began := time.Now()
					flushes += flushFor(b, store, &sequence, servers, keys, duration)
					elapsed += time.Since(began)
				}
				b.ReportMetric(float64(flushes)/elapsed.Seconds(), "flushes/s")
				b.ReportMetric(float64((cpuTime(b, own)-before).Microseconds())/1000/float64(flushes), "cpu-ms/flush")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// flushFor flushes all keys from each server, at least once and again and again for a duration, and
// returns how many flushes were stored.
func flushFor(b *testing.B, store datar.Store, sequence *atomic.Int64, servers, keys int, duration time.Duration) int64 {
	b.Helper()
	var flushes atomic.Int64
	var group sync.WaitGroup
	end := time.Now().Add(duration)
	for server := range servers {
		group.Go(func() {
			for more := true; more; more = time.Now().Before(end) {
				if err := store.Apply(b.Context(), serverBatch(server, sequence.Add(1), keys)); err != nil {
					b.Error(err)
					return
				}
				flushes.Add(1)
			}
		})
	}
	group.Wait()
	return flushes.Load()
}
