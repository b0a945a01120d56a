// Package budget bounds the memory that requests take, all of them together: their bodies while they are read and decoded, and
// what is read from the database for them.
package budget

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// MaxValues is the most JSON values of one body: a batch of 10,000 entities with 50 properties each has half as many.
	MaxValues = 1_000_000
	// bytesPerByte is what a byte of a body costs: once where it was read, once in the buffer of the decoder that grows, once in
	// the buffer that this one is copied from, and once in the strings that are decoded from it.
	bytesPerByte = 4
	// bytesPerValue is what a decoded JSON value takes beyond its text: an interface, a number's or string's header, and
	// its part of a map or slice that has room to grow.
	bytesPerValue = 48
)

// Errors of Body.Read. They stay: each further Read returns the same one.
var (
	// ErrExhausted means that other requests use the memory. The same request may succeed later.
	ErrExhausted = errors.New("too many large requests are being served at once: send this one again")
	// ErrTooManyValues means that the body has more than MaxValues JSON values.
	ErrTooManyValues = errors.New("the request body has more than 1000000 JSON values")
)

// Memory is a number of bytes that requests share. Its methods may be called by several goroutines at once.
type Memory struct {
	free  atomic.Int64
	total int64
}

// NewMemory returns a Memory of so many bytes.
func NewMemory(bytes int64) *Memory {
	m := &Memory{total: bytes}
	m.free.Store(bytes)
	return m
}

// Take takes n bytes, or returns ErrExhausted and takes nothing. Each successful Take needs a Release.
func (m *Memory) Take(n int64) error {
	if m.free.Add(-n) < 0 {
		m.free.Add(n)
		return ErrExhausted
	}
	return nil
}

// Release gives n bytes back.
func (m *Memory) Release(n int64) { m.free.Add(n) }

// shareKey is the key of a *share in a context.
type shareKey struct{}

// share is what one request takes of a Memory.
type share struct {
	memory *Memory
	mu     sync.Mutex
	taken  int64
}

// Share returns the context of a request that takes from the memory with AtLeast, and what gives all of it back.
func (m *Memory) Share(ctx context.Context) (_ context.Context, release func()) {
	s := &share{memory: m}
	return context.WithValue(ctx, shareKey{}, s), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		m.Release(s.taken)
		s.taken = 0
	}
}

// AtLeast takes n bytes for the request of a context, but for what it has taken before. A request that needs more than the whole
// memory takes all of it. The error is ErrExhausted. Without Share, which work in the background does not use, it takes nothing.
func AtLeast(ctx context.Context, n int64) error {
	s, ok := ctx.Value(shareKey{}).(*share)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := min(n, s.memory.total) - s.taken
	if more <= 0 {
		return nil
	}
	if err := s.memory.Take(more); err != nil {
		return err
	}
	s.taken += more
	return nil
}

// Body is a request body that takes memory as its bytes arrive, whatever length was announced: for the bytes, and for the
// JSON values in them. It belongs to one goroutine.
type Body struct {
	io.ReadCloser
	memory *Memory

	taken    int64
	values   int
	inString bool
	escaped  bool
	err      error
}

// NewBody returns a Body that reads from body. Release must be called when the request has been served.
func NewBody(body io.ReadCloser, memory *Memory) *Body {
	return &Body{ReadCloser: body, memory: memory}
}

// Read implements io.Reader. Its errors are those of the body, ErrExhausted and ErrTooManyValues.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	values := b.count(p[:n])
	if b.values += values; b.values > MaxValues {
		b.err = ErrTooManyValues
		return 0, b.err
	}
	cost := int64(n)*bytesPerByte + int64(values)*bytesPerValue
	if b.err = b.memory.Take(cost); b.err != nil {
		return 0, b.err
	}
	b.taken += cost
	return n, err
}

// Release gives back what the body took. Nothing of it may be in use any more.
func (b *Body) Release() {
	b.memory.Release(b.taken)
	b.taken = 0
}

// count returns how many values begin in the text: one after each comma, colon and bracket outside of strings. Empty lists
// and objects count twice, which is about what they take.
func (b *Body) count(text []byte) int {
	values := 0
	for _, c := range text {
		switch {
		case b.escaped:
			b.escaped = false
		case c == '"':
			b.inString = !b.inString
		case b.inString:
			b.escaped = c == '\\'
		case c == ',', c == ':', c == '[', c == '{':
			values++
		}
	}
	return values
}
