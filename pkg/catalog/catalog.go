// Package catalog has the texts for users: those of the pages, and the messages of the API that
// pages show as well. All of them are in one file, en.txt, so that a translation of the pages is
// one file. The API is in English only.
package catalog

import (
	"bufio"
	_ "embed"
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed en.txt
var english string

// English returns the source of the English catalog.
func English() string { return english }

// Catalog has all texts in one language, by name. A text may contain:
//
//	{name}              the argument of that name
//	{^name}             the same, with an upper-case first letter
//	{name?one|many}     one of two texts, by the argument, which is a number
//	**words**           in bold type
//	`words`             in code type
//	[words]{name}       a link to the argument, which is an address
//	<{name}>words</>    the same, underlined in the color of the text
//	<arrow/>            an arrow
//	<was>words</was>    what was before
//	<warn>words</warn>  words that warn
type Catalog struct{ texts map[string]string }

// Parse parses lines such as "list.new = New flag". It ignores empty lines and lines that begin
// with #.
func Parse(source string) (*Catalog, error) {
	c := &Catalog{texts: map[string]string{}}
	lines := bufio.NewScanner(strings.NewReader(source))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, text, ok := strings.Cut(line, " = ")
		if !ok {
			return nil, fmt.Errorf("line %d: %q has no \" = \"", n, line)
		}
		if _, ok := c.texts[name]; ok {
			return nil, fmt.Errorf("line %d: %s is there twice", n, name)
		}
		c.texts[name] = text
	}
	return c, lines.Err()
}

// Names returns the names of all texts.
func (c *Catalog) Names() []string {
	names := make([]string, 0, len(c.texts))
	for name := range c.texts {
		names = append(names, name)
	}
	return names
}

func (c *Catalog) text(name string) (string, bool) {
	text, ok := c.texts[name]
	return text, ok
}

// HTML returns a text with its markup and arguments, which are pairs of name and value. Values are
// escaped unless they are HTML. A text that does not exist is its name.
func (c *Catalog) HTML(name string, args ...any) string {
	w := writer{as: asHTML, text: c.text}
	w.message(Message{name, args})
	return w.b.String()
}

// Plain returns a text without markup, for titles and attributes.
func (c *Catalog) Plain(name string, args ...any) string {
	w := writer{as: asPlain, text: c.text}
	w.message(Message{name, args})
	return w.b.String()
}

// Types of arguments. Integers are written with thousands separators, other values as package fmt
// does.
type (
	// Code is a key or a value in code type; in messages of the API it is in double quotes.
	Code string
	// Name is a name that a user chose. Its direction does not affect the text around it.
	Name string
	// HTML is written unchanged.
	HTML string
	// Digits is a number without separators, such as an ID.
	Digits int64
	// Figure is a formatted number. In HTML, figures and integers are elements with the attribute
	// data-n.
	Figure string
	// Segment is the ID of a segment.
	Segment int64
	// Day is a date in UTC, such as 3 January 2026.
	Day time.Time
	// Minute is a date with a time in UTC.
	Minute time.Time
)

// format is how a text is written.
type format int

const (
	asHTML    format = iota
	asPlain          // without markup
	asMessage        // of the API: code between backquotes
)

// writer writes one text.
type writer struct {
	b    strings.Builder
	as   format
	text func(name string) (string, bool)
}

func (w *writer) message(m Message) {
	switch text, ok := w.text(m.Name); {
	case ok:
		w.write(text, m.Args)
	case m.Name == "" && len(m.Args) == 1: // a Literal
		w.value(m.Args[0])
	default:
		w.literal(m.Name)
	}
}

func (w *writer) tag(s string) {
	if w.as == asHTML {
		w.b.WriteString(s)
	}
}

func (w *writer) literal(s string) {
	if w.as == asHTML {
		s = html.EscapeString(s)
	}
	w.b.WriteString(s)
}

func (w *writer) write(text string, args []any) {
	bold := false
	for len(text) > 0 {
		i := strings.IndexAny(text, "*`{[<")
		if i < 0 {
			w.literal(text)
			return
		}
		w.literal(text[:i])
		text = text[i:]
		switch {
		case strings.HasPrefix(text, "**"):
			w.tag(map[bool]string{false: "<b>", true: "</b>"}[bold])
			bold, text = !bold, text[2:]
		case text[0] == '`':
			inside, rest, _ := strings.Cut(text[1:], "`")
			w.code(func() { w.write(inside, args) })
			text = rest
		case text[0] == '{':
			inside, rest := braced(text)
			w.argument(inside, args)
			text = rest
		case text[0] == '<':
			text = w.markup(text, args)
		case text[0] == '[' && strings.Contains(text, "]{"):
			words, rest, _ := strings.Cut(text[1:], "]{")
			target, rest, _ := strings.Cut(rest, "}")
			href, _ := argument(target, args).(string)
			w.tag(`<a href="` + html.EscapeString(href) + `">`)
			w.write(words, args)
			w.tag("</a>")
			text = rest
		default:
			w.literal(text[:1])
			text = text[1:]
		}
	}
}

// braced returns what is between the brace at the beginning of the text and the one that closes it,
// and the rest.
func braced(text string) (inside, rest string) {
	level := 0
	for i, r := range text {
		switch r {
		case '{':
			level++
		case '}':
			if level--; level == 0 {
				return text[1:i], text[i+1:]
			}
		}
	}
	return text[1:], ""
}

func (w *writer) figure(text string) {
	w.tag("<span data-n>")
	w.literal(text)
	w.tag("</span>")
}

func (w *writer) code(content func()) {
	mark := ""
	if w.as == asMessage {
		mark = "`"
	}
	w.tag("<code>")
	w.b.WriteString(mark)
	content()
	w.b.WriteString(mark)
	w.tag("</code>")
}

// markup writes the element at the beginning of the text, and returns the rest.
func (w *writer) markup(text string, args []any) string {
	inside, rest, _ := strings.Cut(text[1:], ">")
	switch {
	case inside == "arrow/":
		w.tag(`<span class="arr">→</span>`)
	case inside == "was":
		w.tag(`<span class="was">`)
	case inside == "warn":
		w.tag(`<span class="warn">`)
	case inside == "/was", inside == "/warn":
		w.tag("</span>")
	case inside == "/":
		w.tag("</a>")
	case strings.HasPrefix(inside, "{"):
		href, _ := argument(strings.Trim(inside, "{}"), args).(string)
		w.tag(`<a class="quiet" href="` + html.EscapeString(href) + `">`)
	}
	return rest
}

func argument(name string, args []any) any {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == name {
			return args[i+1]
		}
	}
	return nil
}

// argument writes what is between braces.
func (w *writer) argument(inside string, args []any) {
	if name, upper := strings.CutPrefix(inside, "^"); upper {
		part := writer{as: w.as, text: w.text}
		part.value(argument(name, args))
		w.b.WriteString(upperFirst(part.b.String()))
		return
	}
	name, words, plural := strings.Cut(inside, "?")
	value := argument(name, args)
	if plural {
		one, many, _ := strings.Cut(words, "|")
		if n, ok := Int(value); ok && n == 1 {
			many = one
		}
		w.write(many, args)
		return
	}
	w.value(value)
}

func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

func (w *writer) value(value any) {
	switch v := value.(type) {
	case HTML:
		w.b.WriteString(string(v))
	case Code:
		if w.as == asMessage {
			w.literal(strconv.Quote(string(v)))
			return
		}
		w.code(func() { w.literal(string(v)) })
	case Name:
		w.tag("<bdi>")
		w.literal(string(v))
		w.tag("</bdi>")
	case Figure:
		w.figure(string(v))
	case Message:
		w.message(v)
	case Segment:
		w.message(Message{"segment.lower", []any{"n", Digits(v)}})
	case Day:
		w.literal(time.Time(v).UTC().Format("2 January 2006"))
	case Minute:
		w.literal(time.Time(v).UTC().Format("2 January 2006 15:04 MST"))
	default:
		if n, ok := Int(value); ok {
			w.figure(Number(n))
			return
		}
		w.literal(fmt.Sprint(value))
	}
}

// Int returns an argument that is a number to be written with separators.
func Int(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint:
		return int64(min(v, math.MaxInt64)), true
	default:
		return 0, false
	}
}

// Number formats a number with thousands separators.
func Number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "\u2212", digits[1:]
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}
