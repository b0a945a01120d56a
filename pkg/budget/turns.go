package budget

import "context"

// LargeBytes is the length up to which a request body is small: it takes nothing from a Memory, and needs no turn.
const LargeBytes = 16 << 10

// Turns are for work that only needs a processor, such as decoding a large body. More of it at once than there are processors
// gets nothing done sooner, but each small request then waits until all of it has run for a while. Turns are given in the order
// in which they are asked for. A nil Turns gives them to all at once.
//
// Nothing that waits for a client or a database belongs into a turn.
type Turns chan struct{}

// NewTurns returns Turns for n at once.
func NewTurns(n int) Turns { return make(Turns, n) }

// Take waits for a turn, or until ctx ends and returns its error. Each successful Take needs a Release.
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
