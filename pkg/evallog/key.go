package evallog

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Text is an optional string. The zero value is invalid: it means that the caller did not set it,
// and an evaluation with it is not counted. None and Some("") are different values.
type Text struct {
	text  string
	state textState
}

type textState uint8

const (
	unstated textState = iota
	absent
	present
)

// None returns an absent string.
func None() Text { return Text{state: absent} }

// Some returns a present string. It may be empty.
func Some(text string) Text { return Text{text: text, state: present} }

// SomeOrNone returns Some(text), or None if the string is empty, for sources that do not
// distinguish the two.
func SomeOrNone(text string) Text {
	if text == "" {
		return None()
	}
	return Some(text)
}

// Get returns the string, and whether it is present.
func (t Text) Get() (string, bool) { return t.text, t.state == present }

// String returns the string, or an empty string if it is absent.
func (t Text) String() string { return t.text }

// MarshalJSON returns a string, or null for None. The zero value is an error.
func (t Text) MarshalJSON() ([]byte, error) {
	switch t.state {
	case present:
		return json.Marshal(t.text)
	case absent:
		return []byte("null"), nil
	default:
		return nil, errors.New("a part of the key is neither None nor Some")
	}
}

// UnmarshalJSON parses the output of MarshalJSON.
func (t *Text) UnmarshalJSON(data []byte) error {
	var text *string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*t = None()
	if text != nil {
		*t = Some(*text)
	}
	return nil
}

// Key determines which evaluations are counted together. Set every field, with None if it does not
// apply. A missing field makes the evaluation invalid, so that it is not added to another key's
// count. Only the last three fields are optional.
type Key struct {
	// Flag is the key of the flag, never empty.
	Flag string
	// Variant is the key of the assigned variant.
	Variant Text
	// Allocation is what assigned the variant: for Flagr the ID of the segment, in decimal.
	Allocation Text
	// TargetingKey is the entity that the flag was evaluated for. It is personal data, and omitted
	// unless Options.TargetingKeys is set. An empty one is equal to None.
	TargetingKey Text
	// ErrorCode is why the evaluation failed, one of a few codes such as FLAG_NOT_FOUND, never free
	// text.
	ErrorCode Text
	// Outcome, Version and Asked are counted by Datar in addition to the assignment. They are
	// optional: 0 means unknown, or none.
	Outcome Outcome `json:",omitzero"`
	// Version is the ID of the flag's snapshot that the evaluation used, or this ID modulo 65,536.
	Version int64 `json:",omitzero"`
	Asked   Asked `json:",omitzero"`
}

// Outcome is the result of an evaluation. Its string is the name on the wire.
type Outcome uint8

// The outcomes. A receiver that supports them refuses a row whose outcome does not match its
// variant: only Matched has one.
const (
	// OutcomeUnknown lets the receiver decide: with a variant it is Matched, with an error Failed,
	// else unknown.
	OutcomeUnknown Outcome = iota
	// Matched: a variant was assigned.
	Matched
	// HeldOut: a segment matched, which is the Allocation, and its rollout assigned no variant.
	HeldOut
	// NoMatch: no segment matched.
	NoMatch
	// NoSegments: the flag has no segments.
	NoSegments
	// Disabled: the flag is off.
	Disabled
	// Failed: the evaluation failed and assigned no variant.
	Failed
	outcomes
)

var outcomeNames = [outcomes]string{"", "matched", "held_out", "no_match", "no_segments", "disabled", "error"}

// String returns the outcome's name on the wire, empty for OutcomeUnknown.
func (o Outcome) String() string {
	if o >= outcomes {
		return fmt.Sprintf("outcome %d", uint8(o))
	}
	return outcomeNames[o]
}

// Asked is a set of bits about how a flag was asked for.
type Asked uint8

// The bits of Asked.
const (
	// AskedByTag: the flag was selected by a tag, not by its name.
	AskedByTag Asked = 1 << iota
	// AskedWithoutEntityID: there was no targeting key.
	AskedWithoutEntityID
	// AskedUnevaluable: a constraint could not be evaluated, because a property was missing or of
	// another type.
	AskedUnevaluable
	askedBits = iota
)

var askedNames = [askedBits]string{"byTag", "withoutEntityID", "unevaluable"}

// Names returns the names of the bits on the wire.
func (a Asked) Names() (names []string) {
	for i, name := range askedNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// RuntimeDefaultUsed reports whether the caller got its own default, because no variant was
// assigned, or because its value could not be returned, for example because of its type.
func (k Key) RuntimeDefaultUsed() bool {
	return k.Variant.state != present || k.ErrorCode.state == present
}

func (k Key) stated() bool {
	return k.Flag != "" && k.Variant.state != unstated && k.Allocation.state != unstated &&
		k.TargetingKey.state != unstated && k.ErrorCode.state != unstated &&
		k.Outcome < outcomes && k.Version >= 0 && k.Asked < 1<<askedBits
}

// Evaluation is one evaluation of a flag.
type Evaluation struct {
	Key
	// Time is the time of the evaluation; zero means now.
	Time time.Time
	// ErrorMessage is the error message, in free text. The last message of a key is kept, cut to
	// 512 bytes.
	ErrorMessage string
}
