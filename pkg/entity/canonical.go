package entity

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// canonical returns a valid JSON value as EncodeJSON writes the decoded value: without white space,
// with sorted names, each once, and with the shortest escapes. It decodes only strings that change.
// It returns the same string if it is canonical.
func canonical(text string) string {
	c := canonicalizer{validReader: validReader{text: text}}
	c.value()
	if c.out == nil {
		return text
	}
	c.replace(c.at, nil)
	return string(c.out)
}

// canonicalizer reads a text and writes what is different.
type canonicalizer struct {
	validReader
	// out is the canonical form of text[:kept]; what follows in the text up to at is canonical. It
	// is nil until something differs.
	out  []byte
	kept int
	// members are those of all objects that are being read.
	members []place
}

// place is the position of a member in the canonical form.
type place struct{ start, end int }

// value reads the next value.
func (c *canonicalizer) value() {
	switch c.next() {
	case '{':
		c.object()
	case '[':
		for c.at++; c.next() != ']'; {
			c.value()
			c.skipComma()
		}
		c.at++
	case '"':
		c.string()
	default: // a number, true, false or null
		c.skipLiteral()
	}
}

func (c *canonicalizer) object() {
	start, first := c.position(), len(c.members)
	sorted, last := true, ""
	for c.at++; c.next() != '}'; c.skipComma() {
		member := c.position()
		name := decodedString(c.string())
		sorted = sorted && (len(c.members) == first || last < name)
		last = name
		c.next()
		c.at++ // the colon
		c.value()
		c.members = append(c.members, place{member, c.position()})
	}
	c.at++
	if !sorted {
		c.sort(start, c.members[first:])
	}
	c.members = c.members[:first]
}

// position is the length of the canonical form so far.
func (c *canonicalizer) position() int { return len(c.out) + c.at - c.kept }

// sort sorts the members of the object that ends here and begins at start. Of members with the same
// name, it keeps the last one.
func (c *canonicalizer) sort(start int, members []place) {
	c.replace(c.at, nil)
	type member struct{ name, text string }
	sorted, object := make([]member, len(members)), string(c.out[start:])
	for i, m := range members {
		text := object[m.start-start : m.end-start]
		end, _, _ := stringEnd(text, 0)
		sorted[i] = member{decodedString(text[:end]), text}
	}
	slices.SortStableFunc(sorted, func(a, b member) int { return strings.Compare(a.name, b.name) })
	c.out = append(c.out[:start], '{')
	for i, m := range sorted {
		if i+1 < len(sorted) && sorted[i+1].name == m.name {
			continue
		}
		if len(c.out) > start+len("{") {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, m.text...)
	}
	c.out = append(c.out, '}')
}

// next omits white space and returns the character after it.
func (c *canonicalizer) next() byte {
	start := c.at
	for c.text[c.at] <= ' ' { // is white space, because the text is valid
		c.at++
	}
	if c.at > start {
		c.replace(start, nil)
	}
	return c.text[c.at]
}

func (c *canonicalizer) skipComma() {
	if c.next() == ',' {
		c.at++
	}
}

// replace replaces the text from start to here.
func (c *canonicalizer) replace(start int, by []byte) {
	if c.out == nil {
		c.out = make([]byte, 0, len(c.text))
	}
	c.out = append(append(c.out, c.text[c.kept:start]...), by...)
	c.kept = c.at
}

// string reads a string and returns its JSON.
func (c *canonicalizer) string() string {
	start := c.at
	end, plain, ascii := stringEnd(c.text, start)
	c.at = end
	text := c.text[start:end]
	if !ascii && (!utf8.ValidString(text) || strings.Contains(text, "\u2028") || strings.Contains(text, "\u2029")) || !plain && !areShortest(text) {
		encoded, _ := EncodeJSON(decodedString(text)) // encoding a string cannot fail
		c.replace(start, encoded)
	}
	return text
}

// areShortest reports whether the escapes of a string are those that encoding/json writes.
func areShortest(text string) bool {
	for {
		at := strings.IndexByte(text, '\\')
		if at < 0 {
			return true
		}
		switch c := text[at+1]; {
		case c == '/':
			return false
		case c != 'u':
			text = text[at+len(`\n`):]
		default:
			const length = len(`\u0000`)
			digits := text[at+len(`\u`) : at+length]
			control := digits[:2] == "00" && (digits[2] == '0' && strings.IndexByte("01234567bef", digits[3]) >= 0 || digits[2] == '1' && strings.IndexByte("0123456789abcdef", digits[3]) >= 0)
			if !control && digits != "2028" && digits != "2029" {
				return false
			}
			text = text[at+length:]
		}
	}
}
