package evallog_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

func BenchmarkRecordKnownKey(b *testing.B) {
	for _, at := range []struct {
		name string
		time time.Time
	}{{"time=given", time.Now()}, {"time=now", time.Time{}}} {
		b.Run(at.name, func(b *testing.B) {
			engine := newEngine(b, evallog.Options{Writer: &evallogtest.Writer{}})
			evaluation := on("checkout-flow")
			evaluation.Time = at.time
			b.ReportAllocs()
			for b.Loop() {
				engine.Record(evaluation)
			}
		})
	}
}

// BenchmarkRecordManyKeys has more keys than fit into the caches of a processor.
func BenchmarkRecordManyKeys(b *testing.B) {
	engine := newEngine(b, evallog.Options{Writer: &evallogtest.Writer{}})
	evaluations := make([]evallog.Evaluation, 2_500)
	for i := range evaluations {
		evaluations[i] = on(fmt.Sprint("flag-", i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		engine.Record(evaluations[i%len(evaluations)])
	}
}

func BenchmarkRecordParallel(b *testing.B) {
	engine := newEngine(b, evallog.Options{Writer: &evallogtest.Writer{}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		evaluation := on("checkout-flow")
		for pb.Next() {
			engine.Record(evaluation)
		}
	})
}

// BenchmarkMemory reports the bytes that the heap grows by for each key, without its strings.
func BenchmarkMemory(b *testing.B) {
	evaluations := make([]evallog.Evaluation, evallog.MaxKeys)
	for i := range evaluations {
		evaluations[i] = on(fmt.Sprint("flag-", i))
	}
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		engine, err := evallog.New(evallog.Options{Writer: &evallogtest.Writer{}})
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range evaluations {
			engine.Record(e)
		}
		b.ReportMetric(float64(heap()-before)/evallog.MaxKeys, "B/key")
		runtime.KeepAlive(engine)
	}
}

func TestAKnownKeyAllocatesNothing(t *testing.T) {
	engine := newEngine(t, evallog.Options{Writer: &evallogtest.Writer{}, TargetingKeys: evallog.TargetingKeysHashed})
	for _, evaluation := range []evallog.Evaluation{on("flag"), of("flag", "alice")} {
		evaluation.ErrorMessage = "no such flag"
		if n := testing.AllocsPerRun(1000, func() { engine.Record(evaluation) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestMemoryOfAKey(t *testing.T) {
	t.Parallel()
	const most = 150
	for _, flags := range []int{100, evallog.MaxKeys} {
		engine := newEngine(t, evallog.Options{Writer: &evallogtest.Writer{}, TargetingKeys: evallog.TargetingKeysClear})
		for i := 1; i <= evallog.MaxKeys; i++ {
			engine.Record(of(fmt.Sprint("flag-", i%flags), fmt.Sprint(i)))
			if i >= 2048 { // of fewer keys, memory comes in pieces that are too large to be divided
				if perKey := engine.TableBytes() / i; perKey > most {
					t.Fatalf("%d flags, %d keys: %d bytes a key, want at most %d", flags, i, perKey, most)
				}
			}
		}
	}
}

// TestHashesDoNotCollide tries texts that are alike in every way that a weak hash would fall for.
func TestHashesDoNotCollide(t *testing.T) {
	t.Parallel()
	var texts []string
	for length := range 40 {
		texts = append(texts, strings.Repeat("\x00", length))
		for at := range length {
			text := []byte(strings.Repeat("a", length))
			text[at] = 'b'
			texts = append(texts, string(text))
		}
	}
	for range 3 {
		seed := rand.Uint64()
		for i, a := range texts {
			for _, b := range texts[:i] {
				if evallog.SameHash(seed, a, b) {
					t.Errorf("%q and %q have the same hash", a, b)
				}
			}
		}
	}
}
