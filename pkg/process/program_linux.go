package process

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// program is the read-only mappings of the executable.
type program []addresses

type addresses struct{ start, end uintptr }

func findProgram() (_ program, err error) {
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer func() { _ = maps.Close() }() // was only read
	var found program
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if part, ok := readOnlyPart(lines.Text(), executable); ok {
			found = append(found, part)
		}
	}
	return found, lines.Err()
}

// readOnlyPart parses a line of /proc/PID/maps. Its second result is false unless the line is a
// mapping of the file that is not writable.
func readOnlyPart(line, file string) (_ addresses, ok bool) {
	var from, to uintptr
	var mode string
	if n, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || err != nil {
		return addresses{}, false
	}
	return addresses{from, to}, strings.HasSuffix(line, " "+file) && (mode == "r--p" || mode == "r-xp")
}

// release unmaps all pages of the program: the start reads most of an executable of 54 MB, and what
// serves requests is a fourth of it. A page that is used again is mapped from the page cache, 16 at
// a time, without reading the disk. Nothing can be lost, because the mappings are read-only.
func (p program) release() {
	for _, part := range p {
		// It fails only if there is no such mapping, and then nothing is released.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, part.start, part.end-part.start, unix.MADV_DONTNEED)
	}
}
