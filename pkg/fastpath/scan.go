package fastpath

import (
	"runtime"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// maxDepth limits the nesting of lists and objects of a context here.
const maxDepth = 16

// scanner reads a JSON text. Its methods return false, and leave the scanner unusable, if the
// expected token is missing or not plain. Their results are part of the text.
type scanner struct {
	text    string
	at      int
	spaces  int // white space characters so far
	yielded int // value of at when other goroutines were let run
}

// yieldBytes is the length of members and items after which other goroutines run. It takes about a
// millisecond.
const yieldBytes = 64 << 10

// yield lets other goroutines run if this one has read much since they did.
func (s *scanner) yield() {
	if s.at-s.yielded > yieldBytes {
		s.yielded = s.at
		runtime.Gosched()
	}
}

// skipSpace advances to the next character that is not white space. Usually that is the current
// one.
func (s *scanner) skipSpace() {
	if s.at < len(s.text) && s.text[s.at] <= ' ' {
		s.skipSpaces()
	}
}

func (s *scanner) skipSpaces() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
			s.spaces++
		default:
			return
		}
	}
}

// end reports whether the text is at its end.
func (s *scanner) end() bool {
	s.skipSpace()
	return s.at == len(s.text)
}

// peek returns the next character without consuming it, or 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// take consumes the next character if it is c.
func (s *scanner) take(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// word consumes the next characters if they are equal to the word.
func (s *scanner) word(w string) bool {
	if !strings.HasPrefix(s.text[s.at:], w) {
		return false
	}
	s.at += len(w)
	return true
}

// object reads an object. It calls member for each name, and member reads the value. Names are not
// decoded, and may be repeated.
func (s *scanner) object(member func(name string) bool) bool {
	if !s.take('{') {
		return false
	}
	s.skipSpace()
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.name()
		if !ok || !member(name) {
			return false
		}
		s.skipSpace()
		if s.take(',') {
			s.yield()
			continue
		}
		return s.take('}')
	}
}

// name reads the name of a member and the colon, including white space.
func (s *scanner) name() (string, bool) {
	if rest := s.text[s.at:]; rest != "" && rest[0] == '"' { // nearly always, also in the next step
		end := 1 + entity.PlainASCII(rest[1:])
		if end+2 < len(rest) && rest[end] == '"' && rest[end+1] == ':' && rest[end+2] > ' ' {
			s.at += end + 2
			return rest[1:end], true
		}
	}
	s.skipSpace()
	name, ok := s.plainString()
	s.skipSpace()
	ok = ok && s.take(':')
	s.skipSpace()
	return name, ok
}

// list reads a list. It calls item for each item, and item reads it.
func (s *scanner) list(item func() bool) bool {
	if !s.take('[') {
		return false
	}
	s.skipSpace()
	if s.take(']') {
		return true
	}
	for {
		s.skipSpace()
		if !item() {
			return false
		}
		s.skipSpace()
		if s.take(',') {
			s.yield()
			continue
		}
		return s.take(']')
	}
}

// plainString reads a string whose JSON is the string itself in quotes.
func (s *scanner) plainString() (string, bool) {
	raw, plain, ok := s.string()
	if !plain || !ok {
		return "", false
	}
	return raw[1 : len(raw)-1], true
}

// string reads a string. It returns the JSON, and whether the part in quotes is plain.
func (s *scanner) string() (raw string, plain, ok bool) {
	rest := s.text[s.at:]
	if n := plainStringLength(rest); n > 0 { // nearly always
		s.at += n
		return rest[:n], true, true
	}
	return s.oddString(rest)
}

// plainStringLength returns the length of the JSON string at the beginning of the text, if it has
// only plain ASCII characters. Otherwise it returns 0.
func plainStringLength(text string) int {
	if text == "" || text[0] != '"' {
		return 0
	}
	end := 1 + entity.PlainASCII(text[1:])
	if end == len(text) || text[end] != '"' {
		return 0
	}
	return end + 1
}

// oddString reads a string at the beginning of rest.
func (s *scanner) oddString(rest string) (raw string, plain, ok bool) {
	if rest == "" || rest[0] != '"' {
		return "", false, false
	}
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			s.at += i + 1
			return rest[:i+1], entity.IsPlain(rest[1:i]), true
		case c == '\\':
			i++ // the escaped character may be a quote
		case c < ' ':
			return "", false, false
		}
	}
	return "", false, false
}

// number reads a JSON number.
func (s *scanner) number() (string, bool) {
	start := s.at
	s.take('-')
	if !s.take('0') && !s.digits() {
		return "", false
	}
	if s.take('.') && !s.digits() {
		return "", false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return "", false
		}
	}
	return s.text[start:s.at], true
}

// digits reads one or more digits.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.text) && s.text[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > start
}

// value reads any value. It returns the JSON, and whether encoding/json would write the same bytes.
// If not, only encoding/json can check whether it is valid JSON.
func (s *scanner) value(depth int) (raw string, canonical, ok bool) {
	start := s.at
	switch s.peek() {
	case '"':
		return s.string()
	case '[', '{':
		return s.nested(depth + 1)
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		raw, ok = s.number()
		return raw, true, ok
	}
	return s.text[start:s.at], true, ok
}

// nested is value for lists and objects.
func (s *scanner) nested(depth int) (raw string, canonical, ok bool) {
	if depth > maxDepth {
		return "", false, false
	}
	start, spaces := s.at, s.spaces
	canonical = true
	part := func() bool {
		_, c, ok := s.value(depth)
		canonical = canonical && c
		return ok
	}
	if s.peek() == '[' {
		ok = s.list(part)
	} else {
		last, first := "", true
		ok = s.object(func(name string) bool {
			canonical = canonical && (first || name > last)
			last, first = name, false
			return part()
		})
	}
	return s.text[start:s.at], canonical && s.spaces == spaces, ok
}
