// Package process keeps the memory of the server's process small. It affects the whole process, so
// a program that embeds the server does not use it.
package process

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
	// keeperInterval is the time between two checks of the memory.
	keeperInterval = 5 * time.Second
	// quietBytes is the maximum number of bytes that an idle server allocates between two checks.
	// Health checks and refreshes of the flags allocate less.
	quietBytes = 2 << 20
	// programBytes is the memory that a container needs in addition to the Go runtime: the used
	// pages of the executable, and the buffers of sockets.
	programBytes = 16 << 20
)

// MemoryKeeper keeps the process small. It adapts the garbage collector to the memory in use,
// returns memory to the system when the server becomes idle, and unmaps pages of the executable
// that only the start needed.
type MemoryKeeper struct {
	collector *collector // nil if GOGC or GOMEMLIMIT is set
	release   func(context.Context)
	cancel    context.CancelFunc
	done      chan struct{}

	// These fields are only used by run.
	program   program
	allocated uint64 // bytes since the start, at the previous check
	busy      bool   // at the previous check
	returned  uint64 // bytes since the start, when memory was last returned
	sample    []metrics.Sample
}

// StartMemoryKeeper starts to keep the process small. If the operator set GOGC or GOMEMLIMIT, the
// collector is not changed. release returns memory that is not Go's to the system. It is called
// when the server becomes idle, and must end when its context does.
func StartMemoryKeeper(tuned bool, release func(context.Context), logger *slog.Logger) *MemoryKeeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &MemoryKeeper{release: release, cancel: cancel, done: make(chan struct{}), sample: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}}
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

// respectContainer sets Go's memory limit below the limit of the cgroup, if there is one.
func respectContainer(logger *slog.Logger) {
	container, err := memlimit.FromCgroup()
	if err != nil || container == 0 || container >= math.MaxInt64 {
		return // no cgroup, or no limit
	}
	limit := limitFor(int64(container))
	debug.SetMemoryLimit(limit)
	logger.Info("memory limit of the container is respected", "container_bytes", container, "go_bytes", limit)
}

// limitFor returns Go's memory limit in a container with the given limit in bytes. It reserves a
// tenth for memory that Go does not count.
func limitFor(container int64) int64 {
	return max(container/2, container-container/10-programBytes)
}

func (k *MemoryKeeper) run(ctx context.Context) {
	timer := time.NewTimer(time.Second) // the server is running by then
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			k.look(ctx)
			timer.Reset(keeperInterval)
		}
	}
}

func (k *MemoryKeeper) look(ctx context.Context) {
	metrics.Read(k.sample)
	allocated := k.sample[0].Value.Uint64()
	busy := allocated-k.allocated >= quietBytes
	if busy || k.busy { // otherwise hardly anything was mapped again
		k.program.release()
	}
	// A collection is worthwhile if it may return as much as heapRoom.
	if started := k.returned == 0; started || !busy && allocated-k.returned > heapRoom {
		if k.collector != nil {
			debug.FreeOSMemory()
		}
		k.release(ctx)
		k.returned = allocated
	}
	k.allocated, k.busy = allocated, busy
}

// Stop ends the keeper and restores Go's defaults.
func (k *MemoryKeeper) Stop(context.Context) error {
	k.cancel()
	<-k.done
	if k.collector != nil {
		k.collector.stop()
		debug.SetMemoryLimit(math.MaxInt64)
	}
	return nil
}
