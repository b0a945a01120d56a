package app

import (
	"context"
	"io"
	"sync"
	"time"
)

const (
	// lineDelay is how long a line of the access log waits at most for others.
	lineDelay = 100 * time.Millisecond
	// lineBytes is how much waits at most.
	lineBytes = 64 << 10
)

// lineBuffer writes lines together, because a write costs as much as all else about a line of the access log. What is
// lost when the process dies is what came in the last lineDelay; so it is not for lines that tell of trouble.
type lineBuffer struct {
	out io.Writer

	mu      sync.Mutex // guards what follows, and out
	waiting []byte
	timer   *time.Timer // runs while something waits; nil at first
}

func newLineBuffer(out io.Writer) *lineBuffer { return &lineBuffer{out: out} }

// Write takes whole lines. It never fails: nobody could do anything about an access log that cannot be written.
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

// stop writes what still waits. Lines that come later are written, too, after lineDelay.
func (b *lineBuffer) stop(context.Context) error {
	b.flush()
	return nil
}
