package eval

import "context"

const (
	// slowWork is the part of maxMatchWork that an evaluation may use without a turn, which takes a
	// millisecond or so.
	slowWork = 1 << 16
	// slowReading is the product of the parts of a flag and the bytes of a context from which an
	// evaluation takes a turn. To hash as many bytes takes 0.25 ms.
	slowReading = 8 << 20
	// manyParts is slowReading for the largest contexts whose bodies take no turn. It spares most
	// flags the sum of the context.
	manyParts = slowReading / (16 << 10)
	// basicBytes are the bytes of a context that take as long as a part of a flag for any context.
	basicBytes = 256
)

// Turns schedules evaluations that take long, because their patterns are large or their contexts
// long. Each successful Take requires a Release.
type Turns interface {
	// Take waits for a turn, or until ctx ends and returns its error.
	Take(ctx context.Context) error
	Release()
}

// slow has the turn of evaluations that take long. It is for one goroutine. A nil *slow needs no
// turn.
type slow struct {
	ctx   context.Context //nolint:containedctx // of one call
	turns Turns
	held  bool
	err   error // of ctx
}

// turnFor returns what takes the turn of an evaluation when it needs one, or nil if it needs none.
func (s *Service) turnFor(ctx context.Context, f *flag, inTurn bool) *slow {
	if s.options.Turns == nil || inTurn || !f.isSlow() {
		return nil
	}
	return &slow{ctx: ctx, turns: s.options.Turns}
}

// isSlow reports whether an evaluation of the flag takes long for some contexts.
func (f *flag) isSlow() bool {
	return f != nil && f.blank == 0 && (f.matches || f.parts > manyParts)
}

// isLong reports whether an evaluation for a context takes long, regardless of patterns.
func (f *flag) isLong(context any) bool {
	return f.parts > manyParts && f.parts*(jsonBytes(context)+basicBytes) > slowReading
}

// begin takes the turn, unless the evaluation has it. It returns false if the context has ended.
func (s *slow) begin() bool {
	if s != nil && !s.held && s.err == nil {
		s.err = s.turns.Take(s.ctx)
		s.held = s.err == nil
	}
	return s == nil || s.err == nil
}

// failure returns the error of the context if it ended before the evaluation got its turn. Then the
// result of the evaluation is wrong.
func (s *slow) failure() error {
	if s == nil {
		return nil
	}
	return s.err
}

// end ends the turn. Without a turn, it does nothing.
func (s *slow) end() {
	if s != nil && s.held {
		s.turns.Release()
		s.held = false
	}
}
