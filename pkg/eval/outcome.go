package eval

// Outcome is what is counted of an evaluation. Its values are those of datar.Outcome and
// evallog.Outcome, which this package does not import; a test in pkg/app compares them.
type Outcome uint8

// The outcomes.
const (
	// OutcomeNone: nothing is counted, because the request was rejected or its flag does not exist.
	OutcomeNone Outcome = iota
	// OutcomeMatched: a variant was assigned.
	OutcomeMatched
	// OutcomeHeldOut: a segment matched, and its rollout assigned no variant.
	OutcomeHeldOut
	// OutcomeNoMatch: no segment matched.
	OutcomeNoMatch
	// OutcomeNoSegments: the flag has no segments.
	OutcomeNoSegments
	// OutcomeDisabled: the flag is off.
	OutcomeDisabled
)

// Outcome returns the outcome of an evaluation and the segment that matched, or 0 if none did.
func (r *Result) Outcome() (_ Outcome, segmentID int64) {
	switch r.Reason {
	case Matched:
		return OutcomeMatched, r.SegmentID
	case HeldOut:
		return OutcomeHeldOut, r.HeldOutSegmentID
	case NoMatch:
		return OutcomeNoMatch, 0
	case NoSegments:
		return OutcomeNoSegments, 0
	case FlagDisabled:
		return OutcomeDisabled, 0
	default: // also an exposure, which has no Reason
		return OutcomeNone, 0
	}
}
