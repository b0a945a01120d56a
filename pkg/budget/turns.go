package budget

import (
	"context"
	"runtime"
)

// LargeBytes is the maximum length of a small request body. It takes no Memory, and it needs no turn to be decoded.
const LargeBytes = 16 << 10

// Turns schedules CPU-bound work, such as decoding a large body. Running more of it than there are processors
// finishes nothing sooner, and running as much leaves no processor for small requests. Turns are granted in the order of the calls. A nil Turns
// grants all turns at once.
//
// Do not wait for a client or a database during a turn.
type Turns chan struct{}

// NewTurns returns a Turns that grants n turns at a time.
func NewTurns(n int) Turns { return make(Turns, n) }

// Take waits for a turn, or until ctx ends and returns its error. Each successful Take requires a Release.
func (t Turns) Take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		runtime.Gosched() // a goroutine that is woken runs first, so a chain of turns would run before small requests
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release ends a turn.
func (t Turns) Release() {
	if t != nil {
		<-t
	}
}

// Turn is the turn of a request with a large body, or nil if the request needs none. It is for one goroutine.
type Turn struct {
	of   Turns
	held bool
}

// TakeFor waits for the turn of a body of length bytes. Call End at the latest when the request is done.
func (t Turns) TakeFor(ctx context.Context, length int) (*Turn, error) {
	if length <= LargeBytes {
		return nil, nil
	}
	if err := t.Take(ctx); err != nil {
		return nil, err
	}
	return &Turn{t, true}, nil
}

// End ends the turn. Without a turn, it does nothing.
func (t *Turn) End() {
	if t != nil && t.held {
		t.of.Release()
		t.held = false
	}
}

// Again waits for a turn after End. The error is the error of ctx.
func (t *Turn) Again(ctx context.Context) error {
	if t == nil || t.held {
		return nil
	}
	err := t.of.Take(ctx)
	t.held = err == nil
	return err
}
