package eval

import (
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestLargePatternsAreShared compiles patterns as two snapshots do.
func TestLargePatternsAreShared(t *testing.T) {
	t.Parallel()
	cache := newSharedPatterns()
	compile := func(source string) *regexp.Regexp {
		pattern, err := cache.compile(source, len(source))
		if err != nil {
			t.Fatal(err)
		}
		return pattern
	}
	large := strings.Repeat("a|b", minSharedPattern)
	first, other := compile(large), compile(large+"c")
	if compile(large) != first || other == first {
		t.Error("equal patterns are not shared, or different ones are")
	}
	if small := compile("a|b"); small == compile("a|b") || len(cache.mu.compiled) != 2 {
		t.Errorf("the cache has %d patterns, want the 2 large ones", len(cache.mu.compiled))
	}
	if _, err := cache.compile("("+large, len(large)); err == nil {
		t.Error("a malformed pattern has no error")
	}
	runtime.KeepAlive(first)
	runtime.KeepAlive(other)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		runtime.GC()
		cache.mu.Lock()
		left := len(cache.mu.compiled)
		cache.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d patterns are kept that nothing uses", left)
		}
	}
	if again := compile(large); !again.MatchString("a") {
		t.Error("a pattern that was forgotten is not compiled again")
	}
}
