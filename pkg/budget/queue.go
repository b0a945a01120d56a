package budget

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxWait is how long a body waits for memory, which is as long as a client that is refused
	// waits before it tries again.
	maxWait = time.Second
	// partTime is how long a body that waited has its part, whatever it uses. Otherwise seven
	// clients that send nothing would have all memory until they time out.
	partTime = maxWait / 10
)

// queue has the requests that wait for memory, in the order of their arrival.
type queue struct {
	length atomic.Int32
	mu     struct {
		sync.Mutex
		list.List // of *waiting
	}
}

// waiting is a request in a queue. granted is closed when it has the bytes that it needs.
type waiting struct {
	need    int64
	granted chan struct{}
}

// part is the memory that must be free before a body is read, and what a body gets at most if it
// had to wait.
func (m *Memory) part() int64 { return m.total / parts }

// begin waits until a body may be read: at once if a part of the memory is free and no other body
// waits. Otherwise it waits at most maxWait, until the bodies that came earlier have theirs, and
// takes a part, or what the body uses at most if that is less. It returns what it took. The error
// is ErrExhausted.
func (m *Memory) begin(most int64) (taken int64, err error) {
	if m.queue.length.Load() == 0 && m.free.Load() >= m.part() {
		return 0, nil
	}
	w := &waiting{need: min(m.part(), most), granted: make(chan struct{})}
	place := m.join(w)
	m.grant() // what was released before this body had its place
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return w.need, nil
	case <-timer.C:
	}
	if !m.leave(place, w) {
		return w.need, nil
	}
	return 0, ErrExhausted
}

func (m *Memory) join(w *waiting) *list.Element {
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.length.Add(1)
	return q.mu.PushBack(w)
}

// leave removes a place from the queue. It returns false if its request has its memory already.
func (m *Memory) leave(place *list.Element, w *waiting) bool {
	q := &m.queue
	q.mu.Lock()
	select {
	case <-w.granted:
		q.mu.Unlock()
		return false
	default:
	}
	q.mu.Remove(place)
	q.length.Add(-1)
	q.mu.Unlock()
	m.grant() // the next one may need less
	return true
}

// grant gives memory to the first in the queue, as long as another part is left for bodies that
// need more than theirs.
func (m *Memory) grant() {
	q := &m.queue
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for first := q.mu.Front(); first != nil; first = q.mu.Front() {
		w := first.Value.(*waiting)
		if m.free.Load() < w.need+m.part() || m.Take(w.need) != nil {
			return
		}
		close(w.granted)
		q.mu.Remove(first)
		q.length.Add(-1)
	}
}
