package app

import (
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

func TestCollectorLeavesRoom(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 1000, 1 << 20: 1000, 7 << 20: 200, 14 << 20: 100, 64 << 20: 100, 1 << 40: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes in use: %d, want %d", live, got, want)
		}
	}
}

// TestCollectorAdaptsToLargeRequests holds what a few large requests hold. A setting for a small heap would let it grow to several
// times as much before the next collection.
func TestCollectorAdaptsToLargeRequests(t *testing.T) {
	t.Parallel()
	runtime.GC() // what was in use before does not count
	c := startCollector()
	t.Cleanup(c.stop)
	awaitPercent(t, "with little in use", func(percent uint64) bool { return percent > goPercent*11/10 })
	held := make([]byte, 128<<20)
	runtime.GC()
	awaitPercent(t, "with 128 MB in use", func(percent uint64) bool { return percent <= goPercent*11/10 })
	runtime.KeepAlive(held)
}

func awaitPercent(t *testing.T, when string, good func(percent uint64) bool) {
	t.Helper()
	setting := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	testwait.Until(t, "the setting of the collector "+when, func() bool {
		metrics.Read(setting)
		return good(setting[0].Value.Uint64())
	})
}
