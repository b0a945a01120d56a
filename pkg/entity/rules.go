package entity

import (
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// Errors of rows and operations. Callers match them with errors.Is; their strings are written for
// the sender of the request.
var (
	// ErrInvalid marks input that breaks a rule of this package.
	ErrInvalid = errors.New("invalid input")
	// ErrBeyondLimit marks a constraint beyond a limit of this server. Flagr may have stored it.
	// Its errors also match ErrInvalid.
	ErrBeyondLimit = errors.New("constraint beyond a limit")
	// ErrNotFound means that a row does not exist, or is not part of the given flag.
	ErrNotFound = errors.New("record not found")
	// ErrDuplicateKey means that another flag, deleted or not, has the key.
	ErrDuplicateKey = errors.New("flag key already exists")
	// ErrConflict means that a change was based on a version of the flag that is no longer the
	// newest.
	ErrConflict = errors.New("flag was changed by another request")
)

const (
	// MaxKeyLength is the maximum length of a key in bytes; the column holds one more.
	MaxKeyLength = 63
	// DefaultSegmentRank puts a new segment after reordered ones.
	DefaultSegmentRank = 999

	generatedKeyLength   = 16
	generatedKeyAlphabet = "123456789abcdefghijkmnopqrstuvwxyz"
)

var (
	keyPattern      = regexp.MustCompile(`^[\w\d-/\.\:]+$`)
	tagValuePattern = regexp.MustCompile(`^[ \w\d-/\.\:]+$`)
)

// kindError is a message for the sender of a request that matches sentinels above.
type kindError struct {
	kind    error
	message catalog.Message
}

func (e *kindError) Error() string            { return Shorten(e.message.String()) }
func (e *kindError) Unwrap() error            { return e.kind }
func (e *kindError) Message() catalog.Message { return e.message }

// maxMessageEnd is how much is kept of each end of a long message.
const maxMessageEnd = 500

// Shorten removes the middle of a message of more than 1,000 bytes. Most messages repeat their
// input, which may be a megabyte.
func Shorten(message string) string {
	if len(message) <= 2*maxMessageEnd {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessageEnd], "") + " ... " + strings.ToValidUTF8(message[len(message)-maxMessageEnd:], "")
}

// field returns the name of a field, which pages show in their language.
func field(name string) catalog.Message {
	switch name {
	case "key", "value", "property", "description", "notes":
		return catalog.Say("api.field." + name)
	default:
		return catalog.Literal(name)
	}
}

// repeated returns input for a message: in quotes, and shortened.
func repeated(input string) string { return Shorten(strconv.Quote(input)) }

// Invalid returns an error with the given message, shortened if it is longer than 1,000 bytes, that
// matches ErrInvalid.
func Invalid(format string, args ...any) error {
	return &kindError{ErrInvalid, catalog.Literal(Shorten(fmt.Sprintf(format, args...)))}
}

// Wrong returns an error with a message of the catalog, which pages show in their language, that
// matches ErrInvalid. Arguments that repeat input are to be at most a few kilobytes long.
func Wrong(name string, args ...any) error { return &kindError{ErrInvalid, catalog.Say(name, args...)} }

// beyondLimit is Wrong for a constraint beyond a limit. Its error also matches ErrBeyondLimit.
func beyondLimit(name string, args ...any) error {
	return &kindError{errors.Join(ErrInvalid, ErrBeyondLimit), catalog.Say(name, args...)}
}

// NotFound returns an error with the given message, shortened if it is longer than 1,000 bytes,
// that matches ErrNotFound.
func NotFound(format string, args ...any) error {
	return &kindError{ErrNotFound, catalog.Literal(Shorten(fmt.Sprintf(format, args...)))}
}

// CheckKey reports, as ErrInvalid, a key of a flag, variant or entity type with characters other
// than word characters, '-', '/', '.' and ':', or longer than MaxKeyLength.
func CheckKey(key string) error { return check("key", key, keyPattern, "api.key.wrong") }

// CheckTagValue is CheckKey for the values of tags, which may contain spaces.
func CheckTagValue(value string) error {
	return check("value", value, tagValuePattern, "api.tag.wrong")
}

func check(name, s string, pattern *regexp.Regexp, wrong string) error {
	if len(s) > MaxKeyLength {
		return Wrong("api.key.long", "name", field(name), "value", repeated(s), "n", catalog.Digits(len(s)), "most", MaxKeyLength)
	}
	if !pattern.MatchString(s) {
		return Wrong(wrong, "name", field(name), "value", repeated(s))
	}
	return nil
}

// CheckText reports, as ErrInvalid, a string that not every database can store: PostgreSQL accepts
// neither NUL characters nor invalid UTF-8. The name is the name of the field.
func CheckText(name, text string) error {
	if !utf8.ValidString(text) {
		return Wrong("api.text.utf8", "name", field(name))
	}
	if strings.Contains(text, "\x00") {
		return Wrong("api.text.nul", "name", field(name))
	}
	return nil
}

// GenerateKey returns a random key for a flag that was created without one: a 'k' and 16 characters
// that are hard to confuse.
func GenerateKey() string {
	key := make([]byte, 0, 1+generatedKeyLength)
	key = append(key, 'k')
	random := make([]byte, 4*generatedKeyLength)
	for len(key) < cap(key) {
		_, _ = rand.Read(random) // documented never to fail
		for _, b := range random {
			// Bytes past the last whole multiple of the alphabet would favor its first characters.
			if int(b) < 256-256%len(generatedKeyAlphabet) && len(key) < cap(key) {
				key = append(key, generatedKeyAlphabet[int(b)%len(generatedKeyAlphabet)])
			}
		}
	}
	return string(key)
}
