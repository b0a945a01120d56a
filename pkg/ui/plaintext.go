package ui

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Operators of the form that compare with plain text. The API has only patterns for it, so they are stored as EREG
// and NEREG with an escaped pattern, and recognized by that when they are read.
const (
	hasText   = "HASTEXT"
	lacksText = "LACKSTEXT"
)

// patternOf maps the operators for plain text to those that are stored.
var patternOf = map[string]string{hasText: "EREG", lacksText: "NEREG"}

// maxPlainText is the longest pattern, in bytes, that is examined for being plain text.
const maxPlainText = 10_000

// constraintForm returns the constraint as the form shows it.
func constraintForm(c *entity.Constraint) formConstraint {
	for shown, stored := range patternOf {
		if c.Operator != stored {
			continue
		}
		if plain, ok := plainText(c.Value); ok {
			return formConstraint{c.ID, c.Property, shown, plain}
		}
	}
	return formConstraint{c.ID, c.Property, c.Operator, c.Value}
}

// stored returns the operator and the value to save.
func (c *formConstraint) stored() (operator, value string) {
	if operator, ok := patternOf[c.Operator]; ok {
		return operator, textPattern(c.Value)
	}
	return c.Operator, c.Value
}

// constraint describes a constraint in words: operators for plain text by their names, all others as they are stored.
func (c *catalog) constraint(of *entity.Constraint) string {
	shown := constraintForm(of)
	switch shown.Operator {
	case hasText:
		return c.plain("constraint.hastext", "property", shown.Property, "value", shown.Value)
	case lacksText:
		return c.plain("constraint.lackstext", "property", shown.Property, "value", shown.Value)
	}
	return shown.Property + " " + shown.Operator + " " + shown.Value
}

// textPattern returns the quoted pattern that matches a text anywhere. It escapes what the language of constraints
// changes in a pattern: white space, which it skips, and quotes and slashes, which end it.
func textPattern(text string) string {
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

// plainText returns the text of a pattern that textPattern made, or that equals one of them.
func plainText(value string) (string, bool) {
	if len(value) < 2 || len(value) > maxPlainText || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	parsed, err := syntax.Parse(value[1:len(value)-1], syntax.Perl)
	if err != nil || parsed.Op != syntax.OpLiteral || parsed.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	text := string(parsed.Rune)
	return text, textPattern(text) == value
}
