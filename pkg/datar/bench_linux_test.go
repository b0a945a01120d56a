package datar_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// processTime returns the CPU time of this process, user and system, of all its threads.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkRecordRatio measures Record and the reference of BenchmarkReference in turns of some
// milliseconds, by the CPU time of the process: other work on the machine hits both alike. What is
// reported are medians of all turns; the aim for ratio is 0.4.
func BenchmarkRecordRatio(b *testing.B) {
	const turn = 100_000
	for _, journal := range []string{"off", "on"} {
		for _, c := range countingCases {
			for _, goroutines := range []int{1, 2} {
				b.Run(fmt.Sprintf("journal=%s/%s/goroutines=%d", journal, c.name, goroutines), func(b *testing.B) {
					options := datar.Options{Store: &memstore.Store{}}
					if journal == "on" {
						options.Journal = datar.JournalOptions{Dir: b.TempDir(), Required: true}
					}
					engine, err := datar.New(options)
					if err != nil {
						b.Fatal(err)
					}
					defer func() { _ = engine.Close(context.Background()) }()
					events := countingEvents(c.keys)
					take := func(record func(datar.Event)) float64 {
						before := processTime(b)
						var group sync.WaitGroup
						for range goroutines {
							group.Go(func() {
								i := 0
								for range turn {
									record(events[i])
									if i++; i == len(events) {
										i = 0
									}
								}
							})
						}
						group.Wait()
						return float64(processTime(b)-before) / float64(turn*goroutines)
					}
					reference := newReference()
					take(engine.Record)
					take(reference)
					var ours, theirs, ratios []float64
					for b.Loop() {
						ours, theirs = append(ours, take(engine.Record)), append(theirs, take(reference))
						ratios = append(ratios, ours[len(ours)-1]/theirs[len(theirs)-1])
					}
					b.ReportMetric(0, "ns/op")
					for unit, of := range map[string][]float64{"record-cpu-ns": ours, "reference-cpu-ns": theirs, "ratio": ratios} {
						slices.Sort(of)
						b.ReportMetric(of[len(of)/2], unit)
					}
				})
			}
		}
	}
}
