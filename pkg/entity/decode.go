package entity

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// DecodeJSON decodes JSON, with numbers as json.Number, as a json.Decoder does. It returns nil if
// the text is invalid, also if something follows the value. A json.Decoder needs up to three times
// the memory of the text in addition, for a buffer that doubles and the values. Strings and numbers
// are parts of the text: they keep it in memory, and it must not change.
func DecodeJSON(text string) any {
	if !isValid(text) {
		return nil
	}
	r := validReader{text: text}
	return r.value()
}

// isValid reports whether a text is one JSON value.
func isValid(text string) bool {
	return json.Valid(Abridged(unsafe.Slice(unsafe.StringData(text), len(text))))
}

// view returns the string of bytes that do not change while it is used.
func view(text []byte) string { return unsafe.String(unsafe.SliceData(text), len(text)) }

const (
	// longText is the length from which a text is abridged.
	longText = 16 << 10
	// longRun is the length of a run without escapes from which it is left out, but for keptRun
	// bytes, which may be the digits of an escape.
	longRun, keptRun = 64, 4
	// triedRuns is the number of runs after each of which a text stays as it is if less than half
	// of it was left out so far. Otherwise abridging would take longer than what it saves, and as
	// much memory as the text.
	triedRuns = 1000
)

// Abridged returns JSON without the inner parts of long strings, or the same JSON if it has few.
// The result is valid if and only if the text is. It is for decoders that check or skip such
// strings, because encoding/json takes ten times as long to do so.
func Abridged(text []byte) []byte {
	if len(text) < longText {
		return text
	}
	var abridged []byte // nil until a part is left out
	kept, at, whole := 0, 0, view(text)
	for tried := 0; ; {
		quote := strings.IndexByte(whole[at:], '"')
		if quote < 0 {
			break
		}
		for at += quote + 1; at < len(whole); {
			if tried++; tried%triedRuns == 0 && 2*(len(abridged)+at-kept) > at {
				return text
			}
			run := unescaped(whole[at:])
			if run > longRun {
				abridged = append(abridged, whole[kept:at+keptRun]...)
				kept = at + run
			}
			if at += run; at == len(whole) {
				break
			}
			if whole[at] == '"' {
				at++
				break
			}
			at = min(at+specialLength(whole[at]), len(whole))
		}
	}
	if abridged == nil {
		return text
	}
	return append(abridged, whole[kept:]...)
}

// space is the white space of JSON.
const space = " \t\r\n"

// validReader reads a text that is valid JSON.
type validReader struct {
	text string
	at   int
}

// value reads the next value.
func (r *validReader) value() any {
	switch r.next() {
	case '{':
		object := map[string]any{}
		for r.at++; r.next() != '}'; r.skip(',') {
			name := r.string()
			r.next()
			r.at++ // the colon
			object[name] = r.value()
		}
		r.at++
		return object
	case '[':
		list := []any{}
		for r.at++; r.next() != ']'; r.skip(',') {
			list = append(list, r.value())
		}
		r.at++
		return list
	case '"':
		return r.string()
	case 't':
		r.skipLiteral()
		return true
	case 'f':
		r.skipLiteral()
		return false
	case 'n':
		r.skipLiteral()
		return nil
	default:
		start := r.at
		r.skipLiteral()
		return json.Number(r.text[start:r.at])
	}
}

// skipLiteral skips a number, true, false or null.
func (r *validReader) skipLiteral() {
	for r.at < len(r.text) {
		if c := r.text[r.at]; c <= ' ' || c == ',' || c == ']' || c == '}' {
			return
		}
		r.at++
	}
}

// next skips white space and returns the character after it.
func (r *validReader) next() byte {
	for r.text[r.at] <= ' ' { // is white space, because the text is valid
		r.at++
	}
	return r.text[r.at]
}

// skip skips the next character if it is c.
func (r *validReader) skip(c byte) {
	if r.next() == c {
		r.at++
	}
}

// string reads the next value, which is a string.
func (r *validReader) string() string {
	r.next()
	start := r.at
	r.at, _, _ = stringEnd(r.text, start)
	return decodedString(r.text[start:r.at])
}

// skipValue reads the next value without decoding it.
func (r *validReader) skipValue() {
	switch r.next() {
	case '{', '[':
		level := 0
		for {
			at, step := nextBracket(r.text, r.at)
			r.at = at + 1
			if level += step; level == 0 {
				return
			}
		}
	case '"':
		r.at, _, _ = stringEnd(r.text, r.at)
	default:
		r.skipLiteral()
	}
}

// stringEnd returns where the string ends that begins at a place of a valid text, after the quote.
// It reports whether it has no escapes, and only ASCII.
func stringEnd(text string, start int) (end int, plain, ascii bool) {
	plain, ascii = true, true
	for i := start + 1; ; {
		i += PlainASCII(text[i:])
		switch text[i] {
		case '"':
			return i + 1, plain, ascii
		case '\\':
			plain = false
			i += len(`\"`)
		default:
			ascii = false
			for i++; text[i] >= utf8.RuneSelf; i++ {
			}
		}
	}
}

// decodedString decodes the JSON of a string.
func decodedString(text string) string {
	if inner := text[1 : len(text)-1]; strings.IndexByte(inner, '\\') < 0 && utf8.ValidString(inner) {
		return inner
	}
	var decoded string
	_ = json.Unmarshal([]byte(text), &decoded) // never fails: it is valid
	return decoded
}
