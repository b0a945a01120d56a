package eval

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestDerivedOnce lets goroutines need the same derived data while it is derived.
func TestDerivedOnce(t *testing.T) {
	t.Parallel()
	f := Compile(flagsWith(1, parts{})).Compiled()[0]
	var asking, calls atomic.Int64
	const goroutines = 10
	derive := func(CompiledFlag) any {
		for asking.Load() < goroutines {
			runtime.Gosched()
		}
		return calls.Add(1)
	}
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			asking.Add(1)
			if got := f.Derived("a", derive); got != int64(1) {
				t.Errorf("got %v, want the first result", got)
			}
		})
	}
	group.Wait()
	if got := f.Derived("b", derive); got != int64(2) {
		t.Errorf("another owner got %v, want its own", got)
	}
}
