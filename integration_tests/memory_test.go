package integration_tests

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// smallMemory is the memory of a small container.
const smallMemory = 64 << 20

// TestSmallMemory evaluates at full load with Go's memory limit set to the memory of a small
// container. Every request must succeed, and the server must stay below the limit.
func TestSmallMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc, which only Linux has")
	}
	s := startIn(t, t.TempDir(), quick.with(environ{"GOMEMLIMIT": strconv.Itoa(smallMemory)}))
	evaluateAtFullLoad(t, s)
	if resident := residentBytes(t, s.cmd.Process.Pid); resident > smallMemory {
		t.Errorf("%d bytes are resident, want at most %d", resident, smallMemory)
	}
}

// TestSmallContainer evaluates at full load in a cgroup with little memory. The kernel must not
// kill the server.
func TestSmallContainer(t *testing.T) {
	t.Parallel()
	group := newMemoryGroup(t, smallMemory)
	dir := t.TempDir()
	program := filepath.Join(dir, "limited")
	script := fmt.Sprintf("#!/bin/sh\necho $$ > %s/cgroup.procs && exec %s\n", group, *serverBinary)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &server{process: launchBinary(t, program, dir, quick), client: newClient()}
	s.await(t)
	evaluateAtFullLoad(t, s)
	if !strings.Contains(s.log.String(), fmt.Sprintf(`msg="memory limit of the container is respected" container_bytes=%d`, smallMemory)) {
		t.Errorf("the limit was not found:\n%s", s.log)
	}
	s.stop(t, syscall.SIGTERM)
}

// newMemoryGroup creates a cgroup of either version with a limit in bytes, and returns its folder.
func newMemoryGroup(t *testing.T, limit int) string {
	t.Helper()
	var refused error
	for parent, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		group := filepath.Join(parent, fmt.Sprintf("flagr-test-%d", os.Getpid()))
		if err := os.Mkdir(group, 0o700); err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		t.Cleanup(func() {
			poll(t, "the group to be empty", func() bool { return os.Remove(group) == nil })
		})
		control, err := os.OpenFile(filepath.Join(group, file), os.O_WRONLY, 0)
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		_, err = control.WriteString(strconv.Itoa(limit))
		if err = errors.Join(err, control.Close()); err == nil {
			return group
		}
		refused = errors.Join(refused, err)
	}
	t.Skip("cgroups cannot be created here:", refused)
	return ""
}

// evaluateAtFullLoad sends 20,000 evaluations in each round on 32 connections. Every request must
// succeed.
func evaluateAtFullLoad(t *testing.T, s *server) {
	t.Helper()
	const connections = 32
	evaluations := 20_000 * *rounds
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
