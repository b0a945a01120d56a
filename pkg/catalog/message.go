package catalog

import (
	"errors"
	"strings"
	"time"
)

// Message is a text of the catalog with its arguments, pairs of name and value. Packages below the
// API return messages, so that the API and the pages have one wording: the API writes it in
// English, and the pages in their language, with their markup. The zero value is an empty message.
type Message struct {
	Name string
	Args []any
}

// Say returns the message of a name.
func Say(name string, args ...any) Message { return Message{name, args} }

// Literal returns a message that is not in the catalog, such as that of a parser.
func Literal(text string) Message { return Message{Args: []any{text}} }

// IsZero reports whether the message is empty.
func (m Message) IsZero() bool { return m.Name == "" && len(m.Args) == 0 }

// String returns the message in English, with code between backquotes.
func (m Message) String() string {
	w := writer{as: asMessage, text: inEnglish}
	w.message(m)
	return w.b.String()
}

// inEnglish finds a text in the embedded file. The messages of the API are the first texts of the
// file, so this takes less than a microsecond for them.
func inEnglish(name string) (string, bool) {
	if name == "" {
		return "", false
	}
	_, after, found := strings.Cut(english, "\n"+name+" = ")
	text, _, _ := strings.Cut(after, "\n")
	return text, found
}

// Span returns a duration in the unit that fits.
func Span(d time.Duration) Message {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return Say("api.span.days", "n", int64(d/day))
	case d >= 2*time.Hour:
		return Say("api.span.hours", "n", int64(d/time.Hour))
	case d >= 2*time.Minute:
		return Say("api.span.minutes", "n", int64(d/time.Minute))
	default:
		return Say("api.span.seconds", "n", int64(d/time.Second))
	}
}

// speaker is an error with a message.
type speaker interface {
	error
	Message() Message
}

// Of returns the message of an error, or a Literal if it has none.
func Of(err error) Message {
	if s, ok := errors.AsType[speaker](err); ok {
		return s.Message()
	}
	return Literal(err.Error())
}
