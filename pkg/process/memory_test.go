package process

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// TestMemoryOfTheStartIsReleased checks that an operator's GOGC does not prevent it.
func TestMemoryOfTheStartIsReleased(t *testing.T) {
	t.Parallel()
	released := make(chan struct{}, 1)
	keeper := StartMemoryKeeper(true, func(context.Context) {
		select {
		case released <- struct{}{}:
		default:
		}
	}, slog.New(slog.DiscardHandler))
	select {
	case <-released:
	case <-time.After(time.Minute):
		t.Error("nothing is released a minute after the start")
	}
	if err := keeper.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLimitLeavesRoomInTheContainer(t *testing.T) {
	t.Parallel()
	for _, container := range []int64{16 << 20, 32 << 20, 64 << 20, 1 << 30, 64 << 30} {
		limit := limitFor(container)
		if limit < container/2 || limit > container*9/10 {
			t.Errorf("a container of %d bytes: %d, want a half to nine tenths", container, limit)
		}
	}
	if limit := limitFor(64 << 20); limit > 48<<20 {
		t.Errorf("a container of 64 MiB: %d, want 16 MiB left", limit)
	}
}
