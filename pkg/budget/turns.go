package budget

import (
	"context"
	"errors"
	"io"
	"runtime"
)

// LargeBytes is the maximum length of a small request body. It takes no Memory, and it needs no
// turn to be decoded.
const LargeBytes = 16 << 10

// Turns schedules CPU-bound work, such as decoding a large body. Running more of it than there are
// processors finishes nothing sooner, and running as much leaves no processor for small requests.
// Turns are granted in the order of the calls. A nil Turns grants all turns at once.
//
// Do not wait for a client or a database during a turn.
type Turns chan struct{}

// NewTurns returns a Turns that grants n turns at a time.
func NewTurns(n int) Turns { return make(Turns, n) }

// Take waits for a turn, or until ctx ends and returns its error. Each successful Take requires a
// Release.
//
// If it has to wait, it ends the turn of the context's request, see Context, so that a flood of
// long work does not stop all reads. Call Resume before reading further.
func (t Turns) Take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	Pause(ctx)
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

// Turn is the turn of a request that does long work or reads, or nil if the request needs none. It
// is for one goroutine.
type Turn struct {
	of   Turns
	held bool
}

// TakeFor waits for the turn of a body of length bytes. Call End at the latest when the request is
// done.
func (t Turns) TakeFor(ctx context.Context, length int) (*Turn, error) {
	if length <= LargeBytes {
		return nil, nil
	}
	return t.Begin(ctx)
}

// Begin waits for the turn of work that takes long regardless of the length of a body. Call End as
// after TakeFor.
func (t Turns) Begin(ctx context.Context) (*Turn, error) {
	if err := t.Take(ctx); err != nil {
		return nil, err
	}
	return &Turn{t, true}, nil
}

// turnKey is the key of a *Turn in a context.
type turnKey struct{}

// Context returns the context of a request that takes a turn with Resume, and that turn, which it
// does not have yet. They are for one goroutine, see WithoutTurn. Call End at the latest when the
// request is done.
func (t Turns) Context(ctx context.Context) (context.Context, *Turn) {
	turn := &Turn{of: t}
	return context.WithValue(ctx, turnKey{}, turn), turn
}

// WithoutTurn returns the context without its turn, for another goroutine.
func WithoutTurn(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, (*Turn)(nil))
}

// turnOf returns the turn of a context, or nil.
func turnOf(ctx context.Context) *Turn {
	turn, _ := ctx.Value(turnKey{}).(*Turn)
	return turn
}

// Pause ends the turn of the context's request before it waits for another request or turn. Without
// a turn, it does nothing.
func Pause(ctx context.Context) {
	turnOf(ctx).End()
}

// Yield lets other goroutines run during the turn of the context's request. Without a turn, it does
// nothing. Call it after each 0.5 ms or so of long work: the scheduler interrupts a goroutine only
// after 10 ms, and small requests would wait as long.
func Yield(ctx context.Context) {
	if turn := turnOf(ctx); turn != nil && turn.held {
		runtime.Gosched()
	}
}

// Resume waits for a turn if the context's request has none, before its first one and after Pause.
// If the context is not from Turns.Context, it does nothing. The error is that of ctx.
func Resume(ctx context.Context) error {
	turn := turnOf(ctx)
	if turn == nil || turn.held {
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
