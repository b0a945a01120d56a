package entity

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Errors of rows and operations. Callers match them with errors.Is; their strings are written for the sender of the
// request.
var (
	// ErrInvalid marks input that breaks a rule of this package.
	ErrInvalid = errors.New("invalid input")
	// ErrNotFound means that a row does not exist, or is not part of the given flag.
	ErrNotFound = errors.New("record not found")
	// ErrDuplicateKey means that another flag, deleted or not, has the key.
	ErrDuplicateKey = errors.New("flag key already exists")
	// ErrConflict means that a change was based on a version of the flag that is no longer the newest.
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

// What the patterns accept, in words.
const (
	keyFormat      = "one or more ASCII letters, digits and _ - / . :"
	tagValueFormat = "one or more ASCII letters, digits, spaces and _ - / . :"
)

// kindError is a message for the sender of a request that matches one of the sentinels above.
type kindError struct {
	kind    error
	message string
}

func (e *kindError) Error() string { return e.message }
func (e *kindError) Unwrap() error { return e.kind }

// maxMessageEnd is how much is kept of each end of a long message.
const maxMessageEnd = 500

// shortened removes the middle of a long message. Most messages repeat their input, which may be a megabyte.
func shortened(message string) string {
	if len(message) <= 2*maxMessageEnd {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessageEnd], "") + " ... " + strings.ToValidUTF8(message[len(message)-maxMessageEnd:], "")
}

// Invalid returns an error with the given message, shortened if it is longer than 1,000 bytes, that matches ErrInvalid.
func Invalid(format string, args ...any) error {
	return &kindError{ErrInvalid, shortened(fmt.Sprintf(format, args...))}
}

// NotFound returns an error with the given message, shortened if it is longer than 1,000 bytes, that matches ErrNotFound.
func NotFound(format string, args ...any) error {
	return &kindError{ErrNotFound, shortened(fmt.Sprintf(format, args...))}
}

// CheckKey reports, as ErrInvalid, a key of a flag, variant or entity type with characters other than word
// characters, '-', '/', '.' and ':', or longer than MaxKeyLength.
func CheckKey(key string) error { return check("key", key, keyPattern, keyFormat) }

// CheckTagValue is CheckKey for the values of tags, which may contain spaces.
func CheckTagValue(value string) error { return check("value", value, tagValuePattern, tagValueFormat) }

func check(name, s string, pattern *regexp.Regexp, format string) error {
	if len(s) > MaxKeyLength {
		return Invalid("%s %q has %d bytes, more than the %d allowed", name, s, len(s), MaxKeyLength)
	}
	if !pattern.MatchString(s) {
		return Invalid("%s %q is not accepted; want %s", name, s, format)
	}
	return nil
}

// CheckText reports, as ErrInvalid, a string that not every database can store: PostgreSQL accepts neither NUL
// characters nor invalid UTF-8. The name is the name of the field.
func CheckText(name, text string) error {
	if !utf8.ValidString(text) {
		return Invalid("%s is not valid UTF-8", name)
	}
	if strings.Contains(text, "\x00") {
		return Invalid("%s must not contain the NUL character", name)
	}
	return nil
}

// GenerateKey returns a random key for a flag that was created without one: a 'k' and 16 characters that are hard
// to confuse.
func GenerateKey() string {
	key := make([]byte, 0, 1+generatedKeyLength)
	key = append(key, 'k')
	random := make([]byte, 4*generatedKeyLength)
	for len(key) < cap(key) {
		_, _ = rand.Read(random) // documented never to fail
		for _, b := range random {
			// Bytes past the last whole multiple of the alphabet would favour its first characters.
			if int(b) < 256-256%len(generatedKeyAlphabet) && len(key) < cap(key) {
				key = append(key, generatedKeyAlphabet[int(b)%len(generatedKeyAlphabet)])
			}
		}
	}
	return string(key)
}

func decodeJSON(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(into)
}
