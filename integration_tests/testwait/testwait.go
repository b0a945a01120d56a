// Package testwait waits in tests for other goroutines and processes.
package testwait

import (
	"testing"
	"time"
)

// Until polls until done returns true, and fails the test after a minute.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	Within(t, time.Minute, what, done)
}

// Within polls until done returns true, and fails the test after the limit.
func Within(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		case <-tick.C:
		}
	}
}
