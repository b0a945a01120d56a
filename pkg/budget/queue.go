package budget

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// maxWait is how long a body waits for memory, which is as long as a client that is refused waits
// before it tries again.
const maxWait = time.Second

// queue are the requests that wait for memory, in the order of their arrival.
type queue struct {
	length atomic.Int32
	mu     struct {
		sync.Mutex
		list.List // of chan struct{}, which is closed when the request has its part
	}
}

// part is the memory that a body must find before it is read, and that it gets if it had to wait.
func (m *Memory) part() int64 { return m.total / parts }

// begin waits until a body may be read: at once if a part of the memory is free and no other body
// waits. Otherwise it waits at most maxWait, until the bodies that came earlier have theirs, and
// takes a part, which it returns. The error is ErrExhausted.
func (m *Memory) begin() (taken int64, err error) {
	if m.queue.length.Load() == 0 && m.free.Load() >= m.part() {
		return 0, nil
	}
	granted := make(chan struct{})
	place := m.join(granted)
	m.grant() // what was released before this body had its place
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-granted:
		return m.part(), nil
	case <-timer.C:
	}
	if !m.leave(place, granted) {
		return m.part(), nil
	}
	return 0, ErrExhausted
}

func (m *Memory) join(granted chan struct{}) *list.Element {
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.length.Add(1)
	return q.mu.PushBack(granted)
}

// leave removes a place from the queue. It returns false if its request has its part already.
func (m *Memory) leave(place *list.Element, granted chan struct{}) bool {
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-granted:
		return false
	default:
		q.mu.Remove(place)
		q.length.Add(-1)
		return true
	}
}

// grant gives parts to the first in the queue, as long as another part is left for bodies that need
// more than theirs.
func (m *Memory) grant() {
	q := &m.queue
	if q.length.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for first := q.mu.Front(); first != nil && m.free.Load() >= 2*m.part() && m.Take(m.part()) == nil; first = q.mu.Front() {
		close(q.mu.Remove(first).(chan struct{}))
		q.length.Add(-1)
	}
}
