package evallog_test

import (
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
