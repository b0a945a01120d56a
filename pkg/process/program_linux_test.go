package process

import (
	"os"
	"testing"
)

func TestProgramIsReadOnlyMappings(t *testing.T) {
	t.Parallel()
	found, err := findProgram()
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Error("no mappings found")
	}
	for line, want := range map[string]bool{
		"00400000-01b4b000 r-xp 00000000 fe:00 1234   /usr/local/bin/flagr-server":    true,
		"01b4b000-036f6000 r--p 0174b000 fe:00 1234   /usr/local/bin/flagr-server":    true,
		"036f6000-037e2000 rw-p 032f6000 fe:00 1234   /usr/local/bin/flagr-server":    false,
		"7f0000000000-7f0000001000 rw-s 00000000 fe:00 9   /data/datar-1.journal":     false,
		"7f0000000000-7f0000001000 r--p 00000000 fe:00 9   /lib/ld-linux-x86-64.so.2": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":                                 false,
		"": false,
	} {
		part, ok := readOnlyPart(line, "/usr/local/bin/flagr-server")
		if ok != want || ok && part.end <= part.start {
			t.Errorf("%q: %+v %t, want %t", line, part, ok, want)
		}
	}
}

// TestReleasedProgramGoesOn runs code and reads constants after their pages were unmapped.
func TestReleasedProgramGoesOn(t *testing.T) {
	t.Parallel()
	found, err := findProgram()
	if err != nil {
		t.Fatal(err)
	}
	found.release()
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Error(err)
	}
}
