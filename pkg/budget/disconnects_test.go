package budget_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// readAtOnce reads n bodies that end with err, all at the same time, and returns how long the last
// one took.
func readAtOnce(t *testing.T, d *budget.Disconnects, n int, err error) time.Duration {
	t.Helper()
	began := time.Now()
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			body := d.Body(io.NopCloser(io.MultiReader(bytes.NewReader([]byte("{")), iotest.ErrReader(err))))
			got, readErr := io.ReadAll(body)
			if string(got) != "{" || !errors.Is(err, io.EOF) && !errors.Is(readErr, err) {
				t.Errorf("read %q, %v, want {, %v", got, readErr, err)
			}
			if _, again := body.Read(make([]byte, 1)); !errors.Is(again, err) { // waits no second time
				t.Errorf("second read: %v, want %v", again, err)
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

func TestDisconnects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		bodies   int
		err      error
		min, max time.Duration
	}{
		{"complete bodies", 3000, io.EOF, 0, 0},
		{"bodies that are refused", 3000, budget.ErrExhausted, 0, 0},
		{"one client that disconnects", 1, io.ErrUnexpectedEOF, 0, 0},
		{"some clients that disconnect", 1000, io.ErrUnexpectedEOF, 490 * time.Millisecond, 500 * time.Millisecond},
		{"connections that are reset", 1000, fmt.Errorf("read: %w", syscall.ECONNRESET), 490 * time.Millisecond, 500 * time.Millisecond},
		{"more than may wait", 10_000, io.ErrUnexpectedEOF, 1990 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if took := readAtOnce(t, budget.NewDisconnects(), test.bodies, test.err); took < test.min || took > test.max {
					t.Errorf("took %v, want %v to %v", took, test.min, test.max)
				}
			})
		})
	}
	t.Run("no delay", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			if took := readAtOnce(t, nil, 3000, io.ErrUnexpectedEOF); took > 0 {
				t.Errorf("took %v, want no time", took)
			}
		})
	})
}
