package process

import "testing"

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
