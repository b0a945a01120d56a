package notification

import (
	"testing"
	"time"
)

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		base, longest time.Duration
		attempt       int
		want          time.Duration // at most; at least the half of it
	}{
		{time.Second, 10 * time.Second, 0, time.Second},
		{time.Second, 10 * time.Second, 1, 2 * time.Second},
		{time.Second, 10 * time.Second, 3, 8 * time.Second},
		{time.Second, 10 * time.Second, 4, 10 * time.Second},
		{time.Second, 10 * time.Second, 1000, 10 * time.Second},
		{time.Minute, time.Second, 0, time.Second},
		{0, time.Second, 5, 0},
		{time.Second, 0, 5, 0},
	} {
		w := New(Options{RetryBase: tc.base, RetryMax: tc.longest})
		for range 50 {
			if got := w.backoff(tc.attempt); got > tc.want || got < tc.want/2 {
				t.Errorf("pause %d with %s and %s is %s, want %s to %s", tc.attempt, tc.base, tc.longest, got, tc.want/2, tc.want)
			}
		}
	}
}
