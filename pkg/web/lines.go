package web

import (
	"context"
	"io"
	"sync"
	"time"
)

const (
	// lineDelay is the maximum time that a line of the access log waits for others.
	lineDelay = 100 * time.Millisecond
	// lineBytes is the maximum number of waiting bytes.
	lineBytes = 64 << 10
)

// LineBuffer writes lines in batches, because a write costs as much as the rest of an access log
// line. If the process is killed, the lines of the last 100 ms are lost, so it is not for warnings
// and errors.
type LineBuffer struct {
	mu struct {
		sync.Mutex
		out     io.Writer
		waiting []byte
		timer   *time.Timer // runs while lines wait; nil at first
	}
}

// NewLineBuffer returns a LineBuffer for out. Call Stop when the server stops.
func NewLineBuffer(out io.Writer) *LineBuffer {
	b := &LineBuffer{}
	b.mu.out = out
	return b
}

// Write accepts whole lines. It never returns an error, because callers cannot handle a failing
// access log.
func (b *LineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.waiting) == 0 {
		if b.mu.timer == nil {
			b.mu.timer = time.AfterFunc(lineDelay, b.flush)
		} else {
			b.mu.timer.Reset(lineDelay)
		}
	}
	b.mu.waiting = append(b.mu.waiting, p...)
	if len(b.mu.waiting) >= lineBytes {
		b.writeLocked()
	}
	return len(p), nil
}

func (b *LineBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writeLocked()
}

func (b *LineBuffer) writeLocked() {
	if len(b.mu.waiting) > 0 {
		_, _ = b.mu.out.Write(b.mu.waiting)
		b.mu.waiting = b.mu.waiting[:0]
	}
}

// Stop writes the waiting lines. Later lines are also written, after lineDelay.
func (b *LineBuffer) Stop(context.Context) error {
	b.flush()
	return nil
}
