package app

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

// lineBuffer writes lines in batches, because a write costs as much as the rest of an access log line. If the
// process is killed, the lines of the last lineDelay are lost, so it is not for warnings and errors.
type lineBuffer struct {
	out io.Writer

	mu      sync.Mutex // protects the fields below, and out
	waiting []byte
	timer   *time.Timer // runs while lines wait; nil at first
}

func newLineBuffer(out io.Writer) *lineBuffer { return &lineBuffer{out: out} }

// Write accepts whole lines. It never returns an error, because callers cannot handle a failing access log.
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		if b.timer == nil {
			b.timer = time.AfterFunc(lineDelay, b.flush)
		} else {
			b.timer.Reset(lineDelay)
		}
	}
	b.waiting = append(b.waiting, p...)
	if len(b.waiting) >= lineBytes {
		b.write()
	}
	return len(p), nil
}

func (b *lineBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

func (b *lineBuffer) write() {
	if len(b.waiting) > 0 {
		_, _ = b.out.Write(b.waiting)
		b.waiting = b.waiting[:0]
	}
}

// stop writes the waiting lines. Later lines are also written, after lineDelay.
func (b *lineBuffer) stop(context.Context) error {
	b.flush()
	return nil
}
