package datar_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// countingCases are what BenchmarkRecord and BenchmarkReference measure.
var countingCases = []struct {
	name string
	keys int
}{{"hot", 1}, {"10k", 10_000}}

// countingEvents makes events of that many keys beforehand, so that only counting is measured.
func countingEvents(keys int) []datar.Event {
	events := make([]datar.Event, keys)
	for i := range events {
		k := int64(i * 7919 % keys) // neighbors in time are not neighbors in memory
		events[i] = datar.Event{FlagID: k%1000 + 1, VariantID: k/1000 + 1, SegmentID: 1, Time: time.Now()}
	}
	return events
}

func benchmarkCounting(b *testing.B, record func(datar.Event)) {
	for _, c := range countingCases {
		events := countingEvents(c.keys)
		for _, event := range events {
			record(event)
		}
		b.Run(c.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				record(events[i])
				if i++; i == len(events) {
					i = 0
				}
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				i := 0
				for pb.Next() {
					record(events[i])
					if i++; i == len(events) {
						i = 0
					}
				}
			})
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, journal := range []bool{false, true} {
		b.Run(map[bool]string{false: "journal=off", true: "journal=on"}[journal], func(b *testing.B) {
			options := datar.Options{Store: &memstore.Store{}}
			if journal {
				options.Journal = datar.JournalOptions{Dir: b.TempDir(), Required: true}
			}
			engine, err := datar.New(options)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = engine.Close(context.Background()) }()
			benchmarkCounting(b, engine.Record)
		})
	}
}

// newReference is the plain way to count: a concurrent map of atomic counters.
func newReference() func(datar.Event) {
	var counters sync.Map
	return func(event datar.Event) {
		key := datar.Key{FlagID: event.FlagID, VariantID: event.VariantID, SegmentID: event.SegmentID, Hour: datar.HourOf(event.Time)}
		counter, _ := counters.LoadOrStore(key, new(int64))
		atomic.AddInt64(counter.(*int64), 1)
	}
}

// BenchmarkReference is what Record is compared with.
func BenchmarkReference(b *testing.B) { benchmarkCounting(b, newReference()) }

// BenchmarkMemory reports what 100,000 keys take in the heap, each.
func BenchmarkMemory(b *testing.B) {
	const keys = 100_000
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	var perKey float64
	for b.Loop() {
		before := heap()
		engine, err := datar.New(datar.Options{Store: &memstore.Store{}})
		if err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		for i := range int64(keys) {
			engine.Record(datar.Event{FlagID: i + 1, Time: now})
		}
		perKey = (heap() - before) / keys
		if err := engine.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(perKey, "B/key")
}
