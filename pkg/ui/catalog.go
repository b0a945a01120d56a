package ui

import (
	"bufio"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// catalog has all texts of the pages in one language, by name. A text may contain:
//
//	{name}              the argument of that name
//	{name?one|many}     one of two words, by the argument, which is a number
//	**words**           in bold type
//	`words`             in code type
//	[words]{name}       a link to the argument, which is an address
//	<{name}>words</>    the same, underlined in the color of the text
//	<arrow/>            an arrow
//	<was>words</was>    what was before
//	<warn>words</warn>  words that warn
type catalog struct{ texts map[string]string }

// parseCatalog parses lines such as "list.new = New flag". It ignores empty lines and lines that begin with #.
func parseCatalog(source string) (*catalog, error) {
	c := &catalog{texts: map[string]string{}}
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

// code is a string in code type.
type code string

// percent is a share, 0 to 1, formatted as 25.0 %.
type percent float64

// say returns a text with its markup and arguments, which are pairs of name and value.
func (c *catalog) say(name string, args ...any) template.HTML {
	text, ok := c.texts[name]
	if !ok {
		return template.HTML(template.HTMLEscapeString(name)) //nolint:gosec // escaped
	}
	var b strings.Builder
	c.write(&b, text, args, false)
	return template.HTML(b.String()) //nolint:gosec // write escapes what is not of the catalog
}

// plain returns a text without markup, for titles and attributes.
func (c *catalog) plain(name string, args ...any) string {
	text, ok := c.texts[name]
	if !ok {
		return name
	}
	var b strings.Builder
	c.write(&b, text, args, true)
	return b.String()
}

func (c *catalog) write(b *strings.Builder, text string, args []any, plain bool) {
	tag := func(s string) {
		if !plain {
			b.WriteString(s)
		}
	}
	literal := func(s string) {
		if plain {
			b.WriteString(s)
			return
		}
		template.HTMLEscape(b, []byte(s))
	}
	bold := false
	for len(text) > 0 {
		i := strings.IndexAny(text, "*`{[<")
		if i < 0 {
			literal(text)
			return
		}
		literal(text[:i])
		text = text[i:]
		switch {
		case strings.HasPrefix(text, "**"):
			tag(map[bool]string{false: "<b>", true: "</b>"}[bold])
			bold, text = !bold, text[2:]
		case text[0] == '`':
			inside, rest, _ := strings.Cut(text[1:], "`")
			tag("<code>")
			c.write(b, inside, args, plain)
			tag("</code>")
			text = rest
		case text[0] == '{':
			inside, rest, _ := strings.Cut(text[1:], "}")
			writeArgument(b, inside, args, plain)
			text = rest
		case text[0] == '<':
			text = markup(tag, text, args)
		case text[0] == '[' && strings.Contains(text, "]{"):
			words, rest, _ := strings.Cut(text[1:], "]{")
			target, rest, _ := strings.Cut(rest, "}")
			href, _ := argument(target, args).(string)
			tag(`<a href="` + template.HTMLEscapeString(href) + `">`)
			c.write(b, words, args, plain)
			tag("</a>")
			text = rest
		default:
			literal(text[:1])
			text = text[1:]
		}
	}
}

// markup writes the element at the beginning of the text, and returns the rest.
func markup(tag func(string), text string, args []any) string {
	inside, rest, _ := strings.Cut(text[1:], ">")
	switch {
	case inside == "arrow/":
		tag(`<span class="arr">→</span>`)
	case inside == "was":
		tag(`<span class="was">`)
	case inside == "warn":
		tag(`<span class="warn">`)
	case inside == "/was", inside == "/warn":
		tag("</span>")
	case inside == "/":
		tag("</a>")
	case strings.HasPrefix(inside, "{"):
		href, _ := argument(strings.Trim(inside, "{}"), args).(string)
		tag(`<a class="quiet" href="` + template.HTMLEscapeString(href) + `">`)
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

func writeArgument(b *strings.Builder, inside string, args []any, plain bool) {
	name, words, plural := strings.Cut(inside, "?")
	value := argument(name, args)
	if plural {
		one, many, _ := strings.Cut(words, "|")
		if n, ok := asInt(value); ok && n == 1 {
			many = one
		}
		b.WriteString(many)
		return
	}
	var text string
	isCode := false
	switch v := value.(type) {
	case template.HTML:
		if !plain {
			b.WriteString(string(v))
			return
		}
		text = string(v)
	case code:
		text, isCode = string(v), true
	case percent:
		text = v.String()
	case string:
		text = v
	default:
		if n, ok := asInt(value); ok {
			text = number(n)
		} else {
			text = fmt.Sprint(value)
		}
	}
	switch {
	case plain:
		b.WriteString(text)
	case isCode:
		b.WriteString("<code>" + template.HTMLEscapeString(text) + "</code>")
	default:
		b.WriteString(template.HTMLEscapeString(text))
	}
}

func asInt(value any) (int64, bool) {
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

// number writes a number with thousands separators.
func number(n int64) string {
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

// String writes the share with one decimal and a no-break space.
func (p percent) String() string {
	return strconv.FormatFloat(float64(p)*100, 'f', 1, 64) + "\u00a0%"
}

// whole writes a share without decimals.
func (p percent) whole() string {
	return strconv.FormatFloat(math.Round(float64(p)*100), 'f', 0, 64) + "\u00a0%"
}
