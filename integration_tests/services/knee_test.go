package services_test

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// kneeInterval is the flush interval of BenchmarkKnee. The load is that of servers with an
	// interval of a minute, of which there are as many more as a minute is longer.
	kneeInterval = time.Second
	// kneeRun is how long a number of servers runs, and kneeWarm how long before it is measured.
	kneeRun, kneeWarm = 8 * time.Second, 3 * time.Second
	// kneeConnections is the maximum number of connections, less than PostgreSQL's default of 100.
	kneeConnections = 90
	// kneeLag is the lag, in intervals, from which servers are too many. It is 1 just before a
	// flush without any load.
	kneeLag = 2
)

// BenchmarkKnee finds the number of servers from which one database lags: engines in this process
// count the same keys, each flushes at its own interval, and there are more of them in each step.
// It logs the steps, and reports the knee for an interval of a minute and the cores that the
// database used there, of which docs/scaling.md computes a number of servers.
func BenchmarkKnee(b *testing.B) {
	for _, name := range []string{"postgres15", "mariadb"} {
		for _, keys := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s/keys=%d", name, keys), func(b *testing.B) {
				own := servicestest.Own(b, name)
				store, _ := openStore(b, own, kneeConnections)
				perMinute := float64(time.Minute / kneeInterval)
				for b.Loop() {
					carried := 0
					var cost time.Duration // CPU time of the database per flush
					for servers := 2; ; servers += (servers + 1) / 2 {
						before := cpuTime(b, own)
						lag, flushes, err := runServers(b, store, servers, keys)
						perFlush := (cpuTime(b, own) - before) / time.Duration(max(1, flushes))
						b.Logf("%d servers: lag %.2f intervals, %d flushes, %.2f ms of CPU per flush", servers, lag, flushes, float64(perFlush.Microseconds())/1000)
						if lag > kneeLag {
							break // err is not nil if a database that lags did not store the last counts in time
						}
						if err != nil {
							b.Fatal(err)
						}
						carried, cost = servers, perFlush
					}
					b.ReportMetric(float64(carried)*perMinute, "servers")
					b.ReportMetric(float64(carried)*cost.Seconds()/kneeInterval.Seconds(), "cores")
					b.ReportMetric(float64(cost.Microseconds())/1000, "cpu-ms/flush")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// runServers runs engines that count all keys in each interval. It returns the greatest lag, in
// intervals, the number of flushes, and the errors of the last flushes.
func runServers(b *testing.B, store datar.Store, servers, keys int) (lag float64, flushes int64, err error) {
	b.Helper()
	engines := make([]*datar.Engine, servers)
	done := make(chan struct{})
	var group sync.WaitGroup
	for i := range engines {
		e, err := datar.New(datar.Options{
			Store: store, FlushInterval: kneeInterval, Logger: slog.New(slog.DiscardHandler),
			Server: datar.ServerOptions{Name: fmt.Sprintf("server-%d", i)},
		})
		if err != nil {
			b.Fatal(err)
		}
		engines[i] = e
		group.Go(func() {
			// Servers do not start at the same time.
			select {
			case <-done:
				return
			case <-time.After(time.Duration(i) * kneeInterval / time.Duration(servers)):
			}
			e.Start()
			count(e, keys, done)
		})
	}
	began := time.Now()
	for tick := time.Tick(kneeInterval / 10); time.Since(began) < kneeRun; <-tick {
		if time.Since(began) < kneeWarm {
			continue
		}
		for _, e := range engines {
			since := time.Since(e.Stats().LastFlush)
			lag = max(lag, min(since.Seconds(), kneeRun.Seconds())/kneeInterval.Seconds())
		}
	}
	close(done)
	group.Wait()
	closed := make([]error, servers)
	for i, e := range engines {
		group.Go(func() { closed[i] = e.Close(b.Context()) })
	}
	group.Wait()
	for _, e := range engines {
		flushes += e.Stats().Flushes
	}
	return lag, flushes, errors.Join(closed...)
}

// count records all keys once in each interval, until done.
func count(e *datar.Engine, keys int, done <-chan struct{}) {
	tick := time.NewTicker(kneeInterval)
	defer tick.Stop()
	for {
		for i := range int64(keys) {
			e.Record(datar.Event{FlagID: i/10 + 1, VariantID: i%10 + 1, SegmentID: i%10 + 1, Outcome: datar.Matched, Version: 7, Time: time.Now()})
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}
