package entity

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// decodeObject decodes a JSON object, with numbers as json.Number, as a json.Decoder does. That one needs up to three times
// the memory of the text in addition, for a buffer that doubles and the values. The values of this one are parts of the text.
func decodeObject(text string, into *map[string]any) error {
	if !json.Valid(unsafe.Slice(unsafe.StringData(text), len(text))) || strings.TrimLeft(text, space)[0] != '{' {
		decoder := json.NewDecoder(bytes.NewReader([]byte(text))) // names the error, or accepts what follows the object
		decoder.UseNumber()
		return decoder.Decode(into)
	}
	r := validReader{text: text}
	*into = r.value().(map[string]any)
	return nil
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
		r.at += len("true")
		return true
	case 'f':
		r.at += len("false")
		return false
	case 'n':
		r.at += len("null")
		return nil
	default:
		start := r.at
		for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
			r.at++
		}
		return json.Number(r.text[start:r.at])
	}
}

// next skips white space and returns the character after it.
func (r *validReader) next() byte {
	for strings.IndexByte(space, r.text[r.at]) >= 0 {
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
	start, plain := r.at, true
	for r.at++; r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			plain = false
			r.at++
		}
	}
	r.at++
	if inner := r.text[start+1 : r.at-1]; plain && utf8.ValidString(inner) {
		return inner
	}
	var decoded string
	_ = json.Unmarshal([]byte(r.text[start:r.at]), &decoded) // never fails: it is valid
	return decoded
}
