package budget

import (
	"context"
	"errors"
	"io"
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
		runtime.Gosched()                 // a goroutine that is woken runs first, so a chain of turns would run before small requests
		if err := ctx.Err(); err != nil { // since the turn was granted
			t.Release()
			return err
		}
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
	return t.Begin(ctx)
}

// Begin waits for the turn of work that takes long regardless of the length of a body. Call End as after TakeFor.
func (t Turns) Begin(ctx context.Context) (*Turn, error) {
	if err := t.Take(ctx); err != nil {
		return nil, err
	}
	return &Turn{t, true}, nil
}

// turnKey is the key of a *Turn in a context.
type turnKey struct{}

// Context returns the context of a request that takes a turn with Resume, and that turn, which it does not have yet. They are for one
// goroutine. Call End at the latest when the request is done.
func (t Turns) Context(ctx context.Context) (context.Context, *Turn) {
	turn := &Turn{of: t}
	return context.WithValue(ctx, turnKey{}, turn), turn
}

// Pause ends the turn of the context's request before it waits for another request. Without a turn, it does nothing.
func Pause(ctx context.Context) {
	turn, _ := ctx.Value(turnKey{}).(*Turn)
	turn.End()
}

// Yield lets other goroutines run during the turn of the context's request. Without a turn, it does nothing. Call it after each 0.1 ms or
// so of long work: the scheduler interrupts a goroutine only after 10 ms, and small requests would wait as long.
func Yield(ctx context.Context) {
	if turn, _ := ctx.Value(turnKey{}).(*Turn); turn != nil && turn.held {
		runtime.Gosched()
	}
}

// Resume waits for a turn if the context's request has none, before its first one and after Pause. If the context is not from
// Turns.Context, it does nothing. The error is that of ctx.
func Resume(ctx context.Context) error {
	turn, ok := ctx.Value(turnKey{}).(*Turn)
	if !ok || turn.held {
		return nil
	}
	err := turn.of.Take(ctx)
	turn.held = err == nil
	return err
}

// End ends the turn. Without a turn, it does nothing.
func (t *Turn) End() {
	if t != nil && t.held {
		t.of.Release()
		t.held = false
	}
}

// Writer returns a writer that ends the turn, writes to out, because a client may read slowly, and
// waits for another turn. Its error is that of out, or that of ctx. Without a turn, it returns out.
func (t *Turn) Writer(ctx context.Context, out io.Writer) io.Writer {
	if t == nil {
		return out
	}
	return &turnWriter{t, ctx, out}
}

type turnWriter struct {
	turn *Turn
	ctx  context.Context
	out  io.Writer
}

func (w *turnWriter) Write(p []byte) (int, error) {
	w.turn.End()
	n, err := w.out.Write(p)
	again := w.turn.of.Take(w.ctx)
	w.turn.held = again == nil
	return n, errors.Join(err, again)
}
