package services

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPUTime returns the CPU time of the server's processes, user and system, since it was started.
func (s *Server) CPUTime() (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", s.Kind.Name, err)
	}
	parents, times := map[int]int{}, map[int]time.Duration{}
	root := s.process.cmd.Process.Pid
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(text), ") ") // after the name, which may contain spaces
		fields := strings.Fields(after)
		counted := fields[11:13]
		if pid == root {
			counted = fields[11:15] // including ended children
		}
		parents[pid], _ = strconv.Atoi(fields[1]) // the kernel writes numbers
		for _, field := range counted {
			const ticksPerSecond = 100
			ticks, _ := strconv.ParseInt(field, 10, 64)
			times[pid] += time.Duration(ticks) * time.Second / ticksPerSecond
		}
	}
	var sum time.Duration
	for pid, used := range times {
		for p := pid; p > 1; p = parents[p] {
			if p == root {
				sum += used
				break
			}
		}
	}
	return sum, nil
}
