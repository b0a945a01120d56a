package evallog

import (
	"encoding/json"
	"errors"
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
// nothing: a field that was forgotten makes the evaluation invalid, so that it cannot end in another one's bucket.
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
}

// RuntimeDefaultUsed reports whether the caller got its own default: because no variant was assigned, or because the
// one that was could not be delivered, such as one of another type.
func (k Key) RuntimeDefaultUsed() bool {
	return k.Variant.state != present || k.ErrorCode.state == present
}

func (k Key) stated() bool {
	return k.Flag != "" && k.Variant.state != unstated && k.Allocation.state != unstated &&
		k.TargetingKey.state != unstated && k.ErrorCode.state != unstated
}

// Evaluation is one evaluation of a flag.
type Evaluation struct {
	Key
	// Time is when it happened. Zero: now.
	Time time.Time
	// ErrorMessage is what the error said, in free text. Of all messages of a key the last is kept, cut to 512 bytes.
	ErrorMessage string
}
