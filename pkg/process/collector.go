package process

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapRoom is the minimum growth of the heap before the garbage collector runs. A server with a
	// few flags uses 8 MB, and an evaluation allocates 3 KB, so a collection runs every 5,800
	// evaluations.
	heapRoom = 17 << 20
	// maxRoom is the maximum growth, until it is less than a quarter of the heap. By Go's default,
	// a server that uses 170 MB while large requests are in flight would grow to 340 MB.
	maxRoom = 96 << 20
	// goPercent is Go's default, for servers that use more than heapRoom and less than maxRoom.
	// maxPercent limits the setting of a server without flags, minPercent that of one with very
	// many.
	goPercent, minPercent, maxPercent = 100, 25, 1000
	// adaptInterval is the minimum time between two changes of the setting, because each one stops
	// all goroutines for a moment.
	adaptInterval = 10 * time.Millisecond
	// lookInterval is the maximum time between two checks of the heap. A collection is not reported
	// if it begins while the previous one is still being reported.
	lookInterval = 5 * time.Second
)

// collector adapts the garbage collector to the memory in use after each collection. A setting that
// fits 10 MB in use would let the heap grow to 600 MB once a few large requests use 60 MB. It
// affects the whole process.
type collector struct {
	percent   int
	collected chan struct{} // has an element after a collection
	cancel    context.CancelFunc
	done      chan struct{}
}

// startCollector starts to adapt the garbage collector.
func startCollector() *collector {
	ctx, cancel := context.WithCancel(context.Background())
	c := &collector{percent: goPercent, collected: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	return c
}

func (c *collector) run(ctx context.Context) {
	c.watch(ctx)
	for {
		c.adapt()
		select {
		case <-ctx.Done():
			debug.SetGCPercent(goPercent)
			return
		case <-time.After(adaptInterval):
		}
		select {
		case <-ctx.Done():
		case <-c.collected:
		case <-time.After(lookInterval):
		}
	}
}

// adapt changes the setting unless the difference is small.
func (c *collector) adapt() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if percent := percentFor(live[0].Value.Uint64()); percent < c.percent*9/10 || percent > c.percent*11/10 {
		c.percent = percent
		debug.SetGCPercent(percent)
	}
}

// cycle is garbage from the start, so that the next collection finds it.
type cycle struct{ collector *collector }

// watch reports each collection until ctx ends.
func (c *collector) watch(ctx context.Context) {
	runtime.SetFinalizer(&cycle{c}, func(*cycle) {
		select {
		case c.collected <- struct{}{}:
		default: // there is one already
		}
		if ctx.Err() == nil {
			c.watch(ctx)
		}
	})
}

// stop restores Go's default.
func (c *collector) stop() {
	c.cancel()
	<-c.done
}

// percentFor returns the setting that lets a heap of this size, as measured after a collection,
// grow by its own size, but by heapRoom to maxRoom.
func percentFor(live uint64) int {
	room := min(max(live, heapRoom), maxRoom)
	return int(min(max(100*room/max(live, 1), minPercent), maxPercent))
}
