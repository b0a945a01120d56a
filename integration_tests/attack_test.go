package integration_tests

import (
	"os"
	"runtime"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/attack"
)

// TestAttacks runs short versions of all attacks. The memory of the server must stay bounded, and
// the server must keep running.
func TestAttacks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("peak memory is read from /proc")
	}
	t.Parallel()
	heavy.Lock()
	defer heavy.Unlock()
	results, err := attack.Run(t.Context(), attack.Options{Server: *serverBinary, Dir: t.TempDir(), Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if err := r.Fault(false); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		_ = attack.Print(os.Stderr, results)
	}
}
