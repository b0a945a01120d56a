package app

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// keeperInterval is the time between two looks at the memory.
	keeperInterval = 5 * time.Second
	// quietBytes is what a server may allocate between two looks and count as idle. Health checks and refreshes of the
	// flags stay below it.
	quietBytes = 2 << 20
	// programBytes is what a container needs beside the memory of Go's runtime: the pages of the executable that are in use, and
	// buffers of sockets.
	programBytes = 16 << 20
)

// memoryKeeper keeps the process small. It adapts the garbage collector to what is in use, returns memory to the system when
// the server becomes idle, and unmaps the pages of the executable that only the start needed. It does so for the
// whole process.
type memoryKeeper struct {
	collector *collector // nil when GOGC or GOMEMLIMIT is set
	cancel    context.CancelFunc
	done      chan struct{}

	// These belong to run.
	program   program
	allocated uint64 // bytes since the start, at the look before
	busy      bool   // at the look before
	returned  uint64 // bytes since the start, when memory was returned
	sample    []metrics.Sample
}

// startMemoryKeeper begins to keep the process small. If the operator has tuned the collector, which GOGC or
// GOMEMLIMIT does, it is left alone.
func startMemoryKeeper(tuned bool, logger *slog.Logger) *memoryKeeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &memoryKeeper{cancel: cancel, done: make(chan struct{}), sample: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}}
	if !tuned {
		respectContainer(logger)
		k.collector = startCollector()
	}
	var err error
	if k.program, err = findProgram(); err != nil {
		logger.Debug("the pages of the executable stay mapped", "error", err)
	}
	go func() {
		defer close(k.done)
		k.run(ctx)
	}()
	return k
}

// respectContainer sets Go's memory limit below that of the cgroup, if there is one.
func respectContainer(logger *slog.Logger) {
	container, err := memlimit.FromCgroup()
	if err != nil || container == 0 || container >= math.MaxInt64 {
		return // no cgroup, or no limit
	}
	limit := limitFor(int64(container))
	debug.SetMemoryLimit(limit)
	logger.Info("memory limit of the container is respected", "container_bytes", container, "go_bytes", limit)
}

// limitFor is Go's memory limit in a container of so many bytes: a tenth is left for what Go does not count.
func limitFor(container int64) int64 {
	return max(container/2, container-container/10-programBytes)
}

func (k *memoryKeeper) run(ctx context.Context) {
	timer := time.NewTimer(time.Second) // the server is up by then
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			k.look()
			timer.Reset(keeperInterval)
		}
	}
}

func (k *memoryKeeper) look() {
	metrics.Read(k.sample)
	allocated := k.sample[0].Value.Uint64()
	busy := allocated-k.allocated >= quietBytes
	if busy || k.busy { // otherwise hardly anything was mapped again
		k.program.release()
	}
	// A collection is worth it once there may be as much to return as heapRoom.
	started := k.returned == 0
	if k.collector != nil && (started || !busy && allocated-k.returned > heapRoom) {
		debug.FreeOSMemory()
		k.returned = allocated
	}
	k.allocated, k.busy = allocated, busy
}

// stop goes back to Go's settings.
func (k *memoryKeeper) stop(context.Context) error {
	k.cancel()
	<-k.done
	if k.collector != nil {
		k.collector.stop()
		debug.SetMemoryLimit(math.MaxInt64)
	}
	return nil
}
