package budget_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// arriving returns its text in parts, and counts the memory that it is read into.
type arriving struct {
	text string
	part int
	// read is how many bytes have been returned, memory the size of all buffers so far, end that of
	// the last one.
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

// TestLargeBodiesGrow checks that the memory of a body grows as its bytes arrive, and that a
// complete one leaves little garbage.
func TestLargeBodiesGrow(t *testing.T) {
	t.Parallel()
	const announced = 1 << 20
	for _, length := range []int{0, 1, 16 << 10, 16<<10 + 1, 65_537, 262_145, 524_289, 1_000_000, announced, announced + 5000} {
		body := &arriving{text: strings.Repeat("x", length), part: 4096}
		got, err := budget.ReadGrowing(body, announced, nil)
		if err != nil || string(got) != body.text {
			t.Errorf("%d bytes: read %d bytes, %v", length, len(got), err)
		}
		if most := max(4<<10, 4*length) * 4 / 3; body.memory > most+1024 && length < announced {
			t.Errorf("%d bytes take %d bytes of memory, want at most %d", length, body.memory, most)
		}
		complete := &arriving{text: body.text, part: 4096}
		if _, err := budget.ReadGrowing(complete, length, nil); err != nil || complete.memory > length*24/10+17<<10 {
			t.Errorf("complete, %d bytes take %d bytes of memory: %v", length, complete.memory, err)
		}
	}
	unannounced := &arriving{text: strings.Repeat("x", announced), part: 4096}
	if got, err := budget.ReadGrowing(unannounced, 100, nil); err != nil || len(got) != announced || unannounced.memory > 5*announced {
		t.Errorf("1 MiB, of which 100 bytes are announced, take %d bytes of memory: %d bytes, %v", unannounced.memory, len(got), err)
	}
	reset := errors.New("connection reset")
	if got, err := budget.ReadGrowing(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(reset)), announced, nil); !errors.Is(err, reset) || string(got) != "abc" {
		t.Errorf("a broken body: %q, %v", got, err)
	}
}
