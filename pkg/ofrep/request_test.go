package ofrep

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// arriving returns its text in parts, and counts the memory that it is read into.
type arriving struct {
	text string
	part int
	// read is how many bytes have been returned, memory the size of all buffers so far, end that of the last one.
	read, memory, end int
}

func (a *arriving) Read(p []byte) (int, error) {
	if size := a.read + len(p); size != a.end {
		a.memory += size
		a.end = size
	}
	n := copy(p[:min(len(p), a.part)], a.text[a.read:])
	if a.read += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestLargeBodiesGrow checks that the memory of a body grows as its bytes arrive, and that a complete one leaves little garbage.
func TestLargeBodiesGrow(t *testing.T) {
	t.Parallel()
	const announced = 1_000_000
	for _, length := range []int{0, 1, 16 << 10, 100_000, announced} {
		body := &arriving{text: strings.Repeat("0123456789", announced/10)[:length], part: 4096}
		got, err := readGrowing(body, announced)
		if err != nil || string(got) != body.text {
			t.Errorf("%d bytes: read %d bytes, %v", length, len(got), err)
		}
		if most := max(16<<10, 4*length) * 4 / 3; body.memory > most+1024 {
			t.Errorf("%d bytes take %d bytes of memory, want at most %d", length, body.memory, most)
		}
		if length == announced && body.memory > length*3/2 {
			t.Errorf("%d bytes take %d bytes of memory", length, body.memory)
		}
	}
	reset := errors.New("connection reset")
	if got, err := readGrowing(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(reset)), announced); !errors.Is(err, reset) || string(got) != "abc" {
		t.Errorf("a broken body: %q, %v", got, err)
	}
}
