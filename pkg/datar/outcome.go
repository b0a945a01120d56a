package datar

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is the result of an evaluation. Its names are those of the API.
type Outcome uint8

// The outcomes. Their values are part of the journal's format and of stored data.
const (
	// Unattributed is for evaluations of which only the assignment is known: evaluations counted by
	// Flagr or an older version, and events of a host that set no outcome and assigned no variant.
	Unattributed Outcome = iota
	// Matched: a variant was assigned.
	Matched
	// HeldOut: a segment matched, and its rollout assigned no variant.
	HeldOut
	// NoMatch: no segment matched.
	NoMatch
	// NoSegments: the flag has no segments.
	NoSegments
	// Disabled: the flag is off.
	Disabled
	// Error: an application reported that its evaluation failed.
	Error
	// NotFound: the flag does not exist. No counter of a flag has this outcome; UnknownRow counts
	// these requests.
	NotFound
	outcomes
)

var outcomeNames = [outcomes]string{
	"unattributed", "matched", "held_out", "no_match", "no_segments", "disabled", "error", "not_found",
}

// String returns the outcome's name in the API, such as "held_out".
func (o Outcome) String() string {
	if o >= outcomes {
		return fmt.Sprintf("outcome %d", uint8(o))
	}
	return outcomeNames[o]
}

// ParseOutcome returns the outcome with that name.
func ParseOutcome(name string) (Outcome, error) {
	i := slices.Index(outcomeNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("outcome %q is unknown, want one of %s", name, strings.Join(outcomeNames[:], ", "))
	}
	return Outcome(i), nil
}

// IsEvent reports whether Store.Totals includes evaluations with the outcome. Other outcomes are in
// details only.
func (o Outcome) IsEvent() bool {
	switch o {
	case Unattributed, Matched, HeldOut, NoMatch, Error:
		return true
	default:
		return false
	}
}

// Fits reports whether a counter with the outcome may have the variant, where 0 means none: only an
// assignment has one. Reported errors and unattributed counts may have any. NotFound has no
// counter.
func (o Outcome) Fits(variantID int64) bool {
	switch o {
	case Unattributed, Error:
		return true
	case Matched:
		return variantID != 0
	case HeldOut, NoMatch, NoSegments, Disabled:
		return variantID == 0
	default:
		return false
	}
}

// Asked is a set of bits about how a flag was asked for.
type Asked uint8

// The bits of Asked. Their values are part of the journal's format and of stored data.
const (
	// AskedByTag: the caller named a tag, not the flag.
	AskedByTag Asked = 1 << iota
	// AskedWithoutEntityID: the caller gave no entity ID, so a random one was used.
	AskedWithoutEntityID
	// AskedUnevaluable: a constraint could not be evaluated, because a property was missing or of
	// another type.
	AskedUnevaluable
	askedEnd
)
