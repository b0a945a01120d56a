// Package budget limits the memory that all requests use together: for their bodies while they are
// read and decoded, and for what is read from the database for them.
package budget

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The sizes of the Memory that all requests of a server share.
const (
	// BodyBytes is for decoded request bodies. It fits two of the largest bodies, or a thousand of
	// 20 KB.
	BodyBytes = 160 << 20
	// AnswerBytes is for flags and snapshots that are read for responses and pages. It fits two of
	// the largest histories, or four of the largest pages of a list.
	AnswerBytes = 96 << 20
	// CountsBytes is for batches of counts that are being read or applied. It fits 60 of the
	// largest batches, or a thousand typical ones.
	CountsBytes = 64 << 20
	// HeaderBytes is for the lines before the bodies of requests, beyond what each request has for
	// free. It fits 500 of the largest.
	HeaderBytes = 64 << 20
)

const (
	// MaxValues is the maximum number of JSON values of a body. A batch of 10,000 entities with 50
	// properties each has half as many.
	MaxValues = 1_000_000
	// bytesPerByte is the cost of a byte of a body: once where it is read, once in the decoder's
	// growing buffer, once in the buffer that it is copied from, and once in the decoded strings.
	bytesPerByte = 4
	// bytesPerValue is the cost of a decoded JSON value in addition to its text: an interface, the
	// header of a number or string, and its share of a map or slice with spare capacity.
	bytesPerValue = 48
	// parts is how many parts a Memory has, one of which must be free before a body is read.
	parts = 8
	// yieldBytes is how much of a body is read before other goroutines run. Otherwise many large
	// bodies that arrive at once would run for 100 ms before a small request. Yielding after each
	// read costs a tenth of a batch of 60 KB.
	yieldBytes = 64 << 10
)

// Errors of Body.Read. They are permanent: each further Read returns the same error.
var (
	// ErrExhausted means that other requests use the memory. The same request may succeed later.
	ErrExhausted = errors.New("too many large requests at the same time: retry later")
	// ErrTooManyValues means that the body has more than MaxValues JSON values.
	ErrTooManyValues = errors.New("the request body has more than 1000000 JSON values")
)

// Memory is a number of bytes that requests share. It is safe for concurrent use.
type Memory struct {
	free  atomic.Int64
	total int64
	queue queue
}

// NewMemory returns a Memory of the given size.
func NewMemory(bytes int64) *Memory {
	m := &Memory{total: bytes}
	m.free.Store(bytes)
	return m
}

// Take takes n bytes, or returns ErrExhausted and takes none. Each successful Take requires a
// Release.
func (m *Memory) Take(n int64) error {
	if m.free.Add(-n) < 0 {
		m.free.Add(n)
		return ErrExhausted
	}
	return nil
}

// Release returns n bytes.
func (m *Memory) Release(n int64) {
	m.free.Add(n)
	m.grant()
}

// Hold is memory that one request holds until its response is sent. It is for one goroutine. With a
// nil Memory, it takes nothing.
type Hold struct {
	Memory *Memory
	bytes  int64
}

// Take takes n bytes in addition, unless they are at most LargeBytes. The error is ErrExhausted.
func (h *Hold) Take(n int) error {
	if h.Memory == nil || n <= LargeBytes {
		return nil
	}
	if err := h.Memory.Take(int64(n)); err != nil {
		return err
	}
	h.bytes += int64(n)
	return nil
}

// Keep returns all but n bytes.
func (h *Hold) Keep(n int) {
	if kept := int64(n); kept < h.bytes {
		h.Memory.Release(h.bytes - kept)
		h.bytes = kept
	}
}

// Release returns all of it.
func (h *Hold) Release() { h.Keep(0) }

// shareKey is the key of a *share in a context.
type shareKey struct{}

// share is the part of a Memory that one request uses.
type share struct {
	memory *Memory
	mu     struct {
		sync.Mutex
		// held is the sum of Add, and largest the largest AtLeast. taken is their sum, at most the
		// whole Memory.
		held, largest, taken int64
	}
}

// resizeLocked takes or returns memory, so that the share has what it needs.
func (s *share) resizeLocked(held, largest int64) error {
	more := min(held+largest, s.memory.total) - s.mu.taken
	if more > 0 {
		if err := s.memory.Take(more); err != nil {
			return err
		}
	} else {
		s.memory.Release(-more)
	}
	s.mu.held, s.mu.largest = held, largest
	s.mu.taken += more
	return nil
}

// Share returns the context of a request that takes memory with AtLeast and Add, and a function
// that returns all of it.
func (m *Memory) Share(ctx context.Context) (_ context.Context, release func()) {
	s := &share{memory: m}
	return context.WithValue(ctx, shareKey{}, s), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		m.Release(s.mu.taken)
		s.mu.held, s.mu.largest, s.mu.taken = 0, 0, 0
	}
}

// AtLeast is for what a request has one after the other, such as the pages of a list: it raises the
// memory of the context's request to n bytes, in addition to what Add took. A request that needs
// more than the whole Memory takes all of it. The error is ErrExhausted. If the context is not from
// Share, as in background work, AtLeast takes nothing.
func AtLeast(ctx context.Context, n int64) error {
	s, ok := ctx.Value(shareKey{}).(*share)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= s.mu.largest {
		return nil
	}
	return s.resizeLocked(s.mu.held, n)
}

// Add is for what a request keeps beside everything else: it takes n bytes more, or returns -n
// bytes of an earlier Add. Otherwise it is like AtLeast. Returning bytes is no error.
func Add(ctx context.Context, n int64) error {
	s, ok := ctx.Value(shareKey{}).(*share)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resizeLocked(max(0, s.mu.held+n), s.mu.largest)
}

// Body is a request body that takes memory as its bytes arrive, regardless of its announced length:
// for the bytes, and for the JSON values in them. If little memory is left, its first Read waits up
// to a second for other requests to return theirs. It is for one goroutine.
type Body struct {
	io.ReadCloser
	memory *Memory
	count  func([]byte) int

	most   int64 // bytes of memory that it can use
	begun  bool
	values int
	read   int // since other goroutines ran
	err    error

	timer *time.Timer // calls keepUsed; nil unless the body waited
	mu    struct {
		sync.Mutex
		taken, used int64 // bytes of memory
	}
}

// NewBody returns a Body that reads from body, which has at most length bytes. Call Release when
// the request is done.
//
// A body of at most MaxValues bytes cannot have more values. Its values are estimated, because that
// is up to 20 times as fast.
func NewBody(body io.ReadCloser, length int64, memory *Memory) *Body {
	b := &Body{ReadCloser: body, memory: memory, count: estimate, most: length * (bytesPerByte + bytesPerValue)}
	if length > MaxValues {
		b.count = new(counter).count
	}
	return b
}

// Read implements io.Reader. Its errors are those of the underlying body, ErrExhausted and
// ErrTooManyValues.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if !b.begun { // otherwise it might be refused when some of it has been read
		b.begun = true
		if b.err = b.begin(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.ReadCloser.Read(p)
	values := b.count(p[:n])
	if b.values += values; b.values > MaxValues {
		b.err = ErrTooManyValues
		return 0, b.err
	}
	if b.err = b.use(int64(n)*bytesPerByte+int64(values)*bytesPerValue, err != nil); b.err != nil {
		return 0, b.err
	}
	if b.read += n; b.read >= yieldBytes {
		b.read = 0
		runtime.Gosched()
	}
	return n, err
}

// begin waits until the body may be read.
func (b *Body) begin() error {
	taken, err := b.memory.begin(b.most)
	if taken > 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.mu.taken = taken
		b.timer = time.AfterFunc(partTime, b.keepUsed)
	}
	return err
}

// use adds to what the body uses, and takes what it does not have yet. At the end of the body, it
// returns the rest.
func (b *Body) use(n int64, end bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used += n
	if more := b.mu.used - b.mu.taken; more > 0 {
		if err := b.memory.Take(more); err != nil {
			return err
		}
		b.mu.taken = b.mu.used
	} else if end {
		b.keepUsedLocked()
	}
	return nil
}

// keepUsed returns what the body has beyond what it uses.
func (b *Body) keepUsed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepUsedLocked()
}

func (b *Body) keepUsedLocked() {
	if rest := b.mu.taken - b.mu.used; rest > 0 {
		b.memory.Release(rest)
		b.mu.taken = b.mu.used
	}
}

// Release returns the body's memory. The body must no longer be in use.
func (b *Body) Release() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory.Release(b.mu.taken)
	b.mu.taken, b.mu.used = 0, 0
}

// unweighed is the length up to which a body is small, whatever it contains.
const unweighed = 2 << 10

// Weight is the approximate cost of decoding a body: its bytes, and what its values take. A body of
// 3 KB can be a list of a thousand objects, which takes as long as 100 KB of text. The values of a
// body of at most 2 KiB do not count, and those of one of more than LargeBytes need not be counted.
func Weight[T string | []byte](body T) int {
	if len(body) <= unweighed || len(body) > LargeBytes {
		return len(body)
	}
	return len(body) + estimate([]byte(body))*bytesPerValue
}

// estimate returns at least as many values as counter.count: it also counts commas, colons and
// brackets in strings.
func estimate(text []byte) int {
	return bytes.Count(text, []byte(",")) + bytes.Count(text, []byte(":")) + bytes.Count(text, []byte("[")) + bytes.Count(text, []byte("{"))
}

// counter counts the values of a text that arrives in parts.
type counter struct {
	inString, escaped bool
}

// count returns how many values begin in the text: one after each comma, colon and bracket outside
// of strings. Empty lists and objects count twice, which is about their cost.
func (c *counter) count(text []byte) int {
	values := 0
	for len(text) > 0 {
		read := 1
		switch {
		case c.escaped:
			c.escaped = false
		case c.inString:
			var special byte
			read, special = stringPart(text)
			c.escaped = special == '\\'
			c.inString = special != '"'
		default:
			for read = 0; read < len(text) && text[read] != '"'; read++ {
				values += startsValue[text[read]]
			}
			if read < len(text) {
				c.inString = true
				read++
			}
		}
		text = text[read:]
	}
	return values
}

// stringPart returns the length of the text up to its first quote or backslash, and that character,
// which is 0 if the part has none.
func stringPart(text []byte) (int, byte) {
	const window = 256 // a longer one would be searched once for each backslash
	part := text[:min(window, len(text))]
	quote := bytes.IndexByte(part, '"')
	if quote >= 0 {
		part = part[:quote]
	}
	if backslash := bytes.IndexByte(part, '\\'); backslash >= 0 {
		return backslash + 1, '\\'
	}
	if quote >= 0 {
		return quote + 1, '"'
	}
	return len(part), 0
}

// startsValue is 1 for each byte after which a value begins, unless it is in a string.
var startsValue = [256]int{',': 1, ':': 1, '[': 1, '{': 1}
