package entity

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"
)

// maxPlainText is the longest pattern, in bytes, that PlainText examines.
const maxPlainText = 10_000

// TextPattern returns the value of an EREG or NEREG constraint that matches a text anywhere: a
// quoted pattern. It escapes the characters that have a meaning in patterns, and those that the
// language of constraints changes in a pattern: white space, which it skips, and quotes and
// slashes, which end it.
func TextPattern(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '_', r == '-', r > unicode.MaxASCII && unicode.IsPrint(r):
			b.WriteRune(r)
		case strings.ContainsRune(`.+*?()|[]{}^$`, r):
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\x{%x}`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// PlainText returns the text of a value that is exactly what TextPattern returns for that text. It
// returns false for all other values, and for values of more than 10,000 bytes.
func PlainText(value string) (string, bool) {
	if len(value) < 2 || len(value) > maxPlainText || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	if strings.Contains(value, "(?") { // TextPattern escapes both; ranges under (?i) take long to parse
		return "", false
	}
	parsed, err := syntax.Parse(value[1:len(value)-1], syntax.Perl)
	if err != nil || parsed.Op != syntax.OpLiteral || parsed.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	text := string(parsed.Rune)
	return text, TextPattern(text) == value
}
