package evallog

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Text is a text that may be absent. The zero value is neither: it says that somebody forgot to decide, and an
// evaluation with it is not counted. None and Some("") are different values.
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

// None is the absent text.
func None() Text { return Text{state: absent} }

// Some is a text that is there. It may be empty.
func Some(text string) Text { return Text{text: text, state: present} }

// SomeOrNone is Some(text), or None if the text is empty: for sources that cannot tell the two apart.
func SomeOrNone(text string) Text {
	if text == "" {
		return None()
	}
	return Some(text)
}

// Get returns the text, and whether it is there.
func (t Text) Get() (string, bool) { return t.text, t.state == present }

// String returns the text, empty if it is absent.
func (t Text) String() string { return t.text }

// MarshalJSON writes a string, or null for None. A text that was never stated is an error.
func (t Text) MarshalJSON() ([]byte, error) {
	switch t.state {
	case present:
		return json.Marshal(t.text)
	case absent:
		return []byte("null"), nil
	default:
		return nil, errors.New("the text is neither None nor Some")
	}
}

// UnmarshalJSON reads what MarshalJSON wrote.
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

// Key says which evaluations are counted together. Every field is stated by the caller, with None where there is
// nothing: a field that was forgotten makes the evaluation invalid, so that it cannot end in another one's bucket. Only the
// last three may be left out.
type Key struct {
	// Flag is the key of the flag, never empty.
	Flag string
	// Variant is the key of the variant that was assigned.
	Variant Text
	// Allocation is what assigned it: for Flagr the id of the segment, in decimal.
	Allocation Text
	// TargetingKey is whom the flag was evaluated for. It is personal data, and left out unless Options.TargetingKeys
	// says otherwise. An empty one is the same as none.
	TargetingKey Text
	// ErrorCode is why the evaluation failed, one of a few codes such as FLAG_NOT_FOUND, never free text.
	ErrorCode Text
	// Outcome, Version and Asked are what Datar counts beside the assignment. They may be left out: 0 is not known, or nothing.
	Outcome Outcome `json:",omitzero"`
	// Version is the id of the flag's snapshot that the evaluation used, or that modulo 65,536.
	Version int64 `json:",omitzero"`
	Asked   Asked `json:",omitzero"`
}

// Outcome says what an evaluation came to. Its text is that of the wire.
type Outcome uint8

// The outcomes. A receiver that knows them refuses a row whose outcome does not fit its variant: only Matched has one.
const (
	// OutcomeUnknown leaves it to the receiver: with a variant it is Matched, with an error Failed, else not known.
	OutcomeUnknown Outcome = iota
	// Matched: a variant was assigned.
	Matched
	// HeldOut: a segment matched, which is the Allocation, and its rollout gave no variant.
	HeldOut
	// NoMatch: no segment matched.
	NoMatch
	// NoSegments: the flag has no segments.
	NoSegments
	// Disabled: the flag is off.
	Disabled
	// Failed: the evaluation failed, and assigned nothing.
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

// Asked is a set of bits that says how a flag was asked for.
type Asked uint8

// The bits of Asked.
const (
	// AskedByTag: the flag was selected by a tag, not by its name.
	AskedByTag Asked = 1 << iota
	// AskedWithoutEntityID: there was no targeting key.
	AskedWithoutEntityID
	// AskedUnevaluable: a constraint could not be evaluated, because a property was missing or of another type.
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

// RuntimeDefaultUsed reports whether the caller got its own default: because no variant was assigned, or because the
// one that was could not be delivered, such as one of another type.
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
	// Time is when it happened. Zero: now.
	Time time.Time
	// ErrorMessage is what the error said, in free text. Of all messages of a key the last is kept, cut to 512 bytes.
	ErrorMessage string
}
