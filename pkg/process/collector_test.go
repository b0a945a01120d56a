package process

import (
	"runtime"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

func TestCollectorLeavesRoom(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 1000, 1 << 20: 1000, 17 << 19: 200, 17 << 20: 100, 96 << 20: 100, 192 << 20: 50, 1 << 40: 25} {
		if got := percentFor(live); got != want {
			t.Errorf("%d bytes in use: %d, want %d", live, got, want)
		}
	}
}

// TestCollectorAdaptsToLargeRequests holds what a few large requests hold. A setting for a small
// heap would let it grow to several times as much before the next collection. Other tests of this
// process may hold as much, but not less.
func TestCollectorAdaptsToLargeRequests(t *testing.T) {
	t.Parallel()
	c := &collector{percent: maxPercent, collected: make(chan struct{}, 1)}
	c.watch(t.Context())
	held := make([]byte, 128<<20)
	testwait.Until(t, "a collection to be reported", func() bool {
		runtime.GC()
		return len(c.collected) > 0
	})
	c.adapt()
	runtime.KeepAlive(held)
	if c.percent > 100*maxRoom/len(held) || c.percent < minPercent {
		t.Errorf("the setting with 128 MB in use is %d, want at most %d", c.percent, 100*maxRoom/len(held))
	}
}
