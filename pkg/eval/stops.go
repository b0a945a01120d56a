package eval

import "strings"

// maxSampledContext is the maximum length, in bytes of JSON, of a context that Unmatched copies.
const maxSampledContext = 64 << 10

// Cause is why a constraint did not match an entity.
type Cause uint8

// The causes.
const (
	// CauseFalse: the constraint was evaluated and does not hold, or it cannot hold for any
	// context.
	CauseFalse Cause = iota
	// CauseMissing: a property of the constraint is missing or null, or there is no context.
	CauseMissing
	// CauseOtherType: a property has a type that the constraint cannot be evaluated with.
	CauseOtherType
)

// Stop is the first constraint of a segment that did not hold.
type Stop struct {
	SegmentID, ConstraintID int64
	Cause                   Cause
}

// Unmatched is an evaluation that no segment matched, for a later explanation in another goroutine.
type Unmatched struct {
	flag    *flag
	context any
}

// NewUnmatched copies what Stops needs from a result, which may be reused afterward. Its second
// result is false if a segment matched, if no segment was tried, or if the context is too large to
// copy.
func NewUnmatched(r *Result) (Unmatched, bool) {
	if r.flag == nil || r.flag.blank != 0 || r.Reason != NoMatch {
		return Unmatched{}, false
	}
	u := Unmatched{flag: r.flag, context: r.Request.EntityContext}
	if object, ok := u.context.(*Object); ok {
		if len(object.JSON) > maxSampledContext {
			return Unmatched{}, false
		}
		u.context = &Object{JSON: strings.Clone(object.JSON)} // without members, because decoded returns the values
	}
	return u, true
}

// Stops returns the first constraint of each segment that did not hold, in evaluation order.
func (u Unmatched) Stops() []Stop {
	context, isObject := propertiesOf(u.context)
	context = context.decoded()
	context.scratch = &scratch{}
	stops := make([]Stop, 0, len(u.flag.segments))
	for i := range u.flag.segments {
		s := &u.flag.segments[i]
		at, cause := s.stop(context, isObject)
		if at == len(s.conditions) {
			return nil
		}
		stops = append(stops, Stop{SegmentID: s.id, ConstraintID: u.flag.constraintID(s.id, at), Cause: cause})
	}
	return stops
}

// RolloutPercent returns the rollout of the segment that matched, 0 to 100, or false if none did.
func (r *Result) RolloutPercent() (percent int, ok bool) {
	if r.flag == nil {
		return 0, false
	}
	for i := range r.flag.segments {
		if s := &r.flag.segments[i]; s.id != 0 && (s.id == r.SegmentID || s.id == r.HeldOutSegmentID) {
			return s.rolloutPercent, true
		}
	}
	return 0, false
}

// constraintID returns the ID of the constraint of a segment's condition.
func (f *flag) constraintID(segmentID int64, index int) int64 {
	for i := range f.source.Segments {
		if s := &f.source.Segments[i]; int64(s.ID) == segmentID {
			return int64(s.Constraints[index].ID)
		}
	}
	return 0
}

// stop returns the index of the first condition that does not hold, or the number of conditions if
// all hold. The context must be decoded.
func (s *segment) stop(context properties, isObject bool) (int, Cause) {
	for i := range s.conditions {
		if !isObject {
			return i, CauseMissing
		}
		c := &s.conditions[i]
		switch holds, ok := c.holds(context); {
		case ok && holds:
		case ok || c.never:
			return i, CauseFalse
		case misses(c.root, context):
			return i, CauseMissing
		default:
			return i, CauseOtherType
		}
	}
	return len(s.conditions), CauseFalse
}

// misses reports whether a property of the node is missing or null.
func misses(n node, context properties) bool {
	switch n := n.(type) {
	case *property:
		raw, ok := n.lookup(context.values)
		return !ok || raw == nil
	case *binary:
		return misses(n.left, context) || misses(n.right, context)
	default:
		return false
	}
}
