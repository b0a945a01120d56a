package integration_tests

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// TestSmallMemory evaluates at full load with Go's memory limit set to the memory of a 64 MB
// container. Every request must succeed, and the server must stay below the limit.
func TestSmallMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc, which only Linux has")
	}
	const connections, evaluations, limit = 32, 20_000, 64 << 20
	s := startIn(t, t.TempDir(), quick.with(environ{"GOMEMLIMIT": strconv.Itoa(limit)}))
	f := newFlag(t, s, "small")
	body := object{"entityType": "user", "flagKey": "small", "entityContext": object{"country": "DE", "age": 30}}
	var clients sync.WaitGroup
	for c := range connections {
		clients.Go(func() {
			for i := range evaluations / connections {
				own := object{"entityID": fmt.Sprintf("user-%d-%d", c, i)}
				maps.Copy(own, body)
				if a, err := s.try(http.MethodPost, "/evaluation", own); err != nil || a.status != http.StatusOK {
					t.Errorf("evaluation of flag %s: %s, %v", f.path(), a, err)
					return
				}
			}
		})
	}
	clients.Wait()
	if resident := residentBytes(t, s.cmd.Process.Pid); resident > limit {
		t.Errorf("%d bytes are resident, want at most %d", resident, limit)
	}
}

// residentBytes returns the resident memory of a process.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmRSS in %s", status)
	}
	kib, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
