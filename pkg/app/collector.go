package app

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapRoom is what the heap may grow by, at least, before the garbage collector runs. A server with a few flags has
	// some 10 MB in use; Go would collect after every further 10 MB, many times a second under load, to find the same flags
	// each time.
	heapRoom = 64 << 20
	// goPercent is Go's own setting, for servers that have more than heapRoom in use; maxPercent keeps within reason what
	// a server without flags would get.
	goPercent, maxPercent = 100, 1000
	// collectorInterval is the time between two looks at the heap.
	collectorInterval = 5 * time.Second
)

// collector adapts the garbage collector to what is in use. It does so for the whole process.
type collector struct {
	percent int
	cancel  context.CancelFunc
	done    chan struct{}
}

// startCollector begins to adapt the garbage collector, unless GOGC says that somebody else does.
func startCollector() *collector {
	ctx, cancel := context.WithCancel(context.Background())
	c := &collector{percent: goPercent, cancel: cancel, done: make(chan struct{})}
	if own := debug.SetGCPercent(goPercent); own != goPercent {
		debug.SetGCPercent(own)
		close(c.done)
		return c
	}
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	return c
}

func (c *collector) run(ctx context.Context) {
	ticker := time.NewTicker(collectorInterval)
	defer ticker.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		metrics.Read(live)
		// Setting it stops the world for a moment: not for small differences.
		if percent := percentFor(live[0].Value.Uint64()); percent < c.percent*9/10 || percent > c.percent*11/10 {
			c.percent = percent
			debug.SetGCPercent(percent)
		}
		select {
		case <-ctx.Done():
			debug.SetGCPercent(goPercent)
			return
		case <-ticker.C:
		}
	}
}

// stop goes back to Go's setting.
func (c *collector) stop(context.Context) error {
	c.cancel()
	<-c.done
	return nil
}

// percentFor gives the setting that lets a heap of this size, as the last collection left it, grow by heapRoom.
func percentFor(live uint64) int {
	return int(min(max(goPercent*heapRoom/max(live, 1), goPercent), maxPercent))
}
