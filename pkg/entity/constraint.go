package entity

import (
	"fmt"
	"strconv"
	"strings"
	"text/scanner"

	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// Limits of a constraint. The parser, and all functions that walk an expression, recurse for each
// level, and a stack overflow ends the process. The parser also writes a line to standard error for
// each malformed token.
const (
	// maxPropertyBytes is the maximum length of a property.
	maxPropertyBytes = 1 << 10
	// maxValueBytes is the maximum length of a value: a list of 32,768 UUIDs is shorter.
	maxValueBytes = 2 << 20
	// maxListLength is the maximum length of a list for the parser: 65,536 tokens, half of which
	// are commas.
	maxListLength = 1 << 15
	// maxTokens limits the tokens of a constraint, and allows the longest list.
	maxTokens = 4 * maxListLength
	// maxNesting limits the levels of parentheses and of the expression.
	maxNesting = 1000
	// maxMalformed limits the malformed tokens that are passed to the parser.
	maxMalformed = 4
)

// operatorTokens maps the operators of the API to those of the constraint language.
var operatorTokens = map[string]string{
	"EQ":          "==",
	"NEQ":         "!=",
	"LT":          "<",
	"LTE":         "<=",
	"GT":          ">",
	"GTE":         ">=",
	"EREG":        "=~",
	"NEREG":       "!~",
	"IN":          "IN",
	"NOTIN":       "NOT IN",
	"CONTAINS":    "CONTAINS",
	"NOTCONTAINS": "NOT CONTAINS",
}

// Expr parses the constraint. A property with dots or brackets, such as user.tier or users[0],
// refers to a nested value. The error matches ErrInvalid and describes what to change. It includes
// the limits of patterns, but not an invalid regular expression.
func (c *Constraint) Expr() (conditions.Expr, error) {
	source, err := c.source()
	if err != nil {
		return nil, err
	}
	if content, ok := c.literal(); ok && !strings.ContainsAny(c.Property, "{}/'\"`") {
		// The parser would write lines to standard error about some of these. Such a property
		// cannot extend beyond its braces, so the string is in the place where the parser finds the
		// number.
		expr, err := parse("({" + c.Property + "} " + operatorTokens[c.Operator] + " 0)")
		if err != nil {
			return nil, err
		}
		expr.(*conditions.ParenExpr).Expr.(*conditions.BinaryExpr).RHS = &conditions.StringLiteral{Val: content}
		return expr, checkExpr(expr, 0)
	}
	return parseChecked(source)
}

// JoinedExpr parses all constraints of a segment as one string, joined by AND, if one of them is
// not independent. Otherwise it returns nil, and each constraint can be evaluated separately.
//
// A value such as `"a") OR ({x} == "b"` closes the parenthesis around its constraint. The operators
// after it bind to the next constraint by their precedence, and everything after a complete
// expression is ignored.
func JoinedExpr(constraints []Constraint) (conditions.Expr, error) {
	joined := false
	sources := make([]string, len(constraints))
	for i := range constraints {
		c := &constraints[i]
		source, err := c.source()
		if err != nil {
			return nil, err
		}
		sources[i] = source
		joined = joined || len(constraints) > 1 && !c.standsAlone(source)
	}
	if !joined {
		return nil, nil
	}
	return parseChecked(strings.Join(sources, " AND "))
}

// source returns the constraint in the constraint language.
func (c *Constraint) source() (string, error) {
	token, ok := operatorTokens[c.Operator]
	if !ok {
		return "", Wrong("api.constraint.operator", "operator", repeated(c.Operator), "all", strings.Join(Operators(), ", "))
	}
	value := strings.TrimSpace(c.Value)
	if len(c.Property) > maxPropertyBytes {
		return "", beyondLimit("api.constraint.property", "n", catalog.Digits(len(c.Property)), "most", catalog.Digits(maxPropertyBytes))
	}
	if len(value) > maxValueBytes {
		return "", beyondLimit("api.constraint.value", "n", catalog.Digits(len(value)), "most", catalog.Digits(maxValueBytes))
	}
	if c.isPattern() {
		// In a string literal, escapes are decoded; a regex literal keeps them.
		value = "/" + value[1:len(value)-1] + "/"
	}
	return "({" + c.Property + "} " + token + " " + value + ")", nil
}

// literal returns the content of a value that is exactly one string or regex literal, for most such
// values.
func (c *Constraint) literal() (string, bool) {
	value := strings.TrimSpace(c.Value)
	if c.isPattern() || len(value) >= 2 && value[0] == '/' && value[len(value)-1] == '/' {
		content := value[1 : len(value)-1]
		if content == "" || content[0] == '*' || strings.ContainsAny(content, "/'\"`") { // a comment, or tokens with spaces
			return "", false
		}
		return spaces.Replace(content), true
	}
	return quoted(value)
}

// DropsSpaces reports whether the value is a pattern with white space that the parser skips, so
// that it does not match.
func (c *Constraint) DropsSpaces() bool {
	value := strings.TrimSpace(c.Value)
	_, isString := quoted(value)
	content, ok := c.literal()
	return ok && (c.isPattern() || !isString) && len(content) < len(value)-2
}

// spaces removes the white space that the parser skips between the parts of a regex literal.
var spaces = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", "")

// isPattern reports whether the value is a quoted pattern that becomes a regex literal.
func (c *Constraint) isPattern() bool {
	s := strings.TrimSpace(c.Value)
	return (c.Operator == "EREG" || c.Operator == "NEREG") && len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s, "/")
}

// Pattern returns the pattern of a constraint whose value is one string literal, with its escapes
// decoded. The second result is false for other constraints.
func (c *Constraint) Pattern() (string, bool) {
	if c.Operator != "EREG" && c.Operator != "NEREG" {
		return "", false
	}
	return quoted(strings.TrimSpace(c.Value))
}

// standsAlone reports whether a valid constraint is one pair of parentheses with nothing after it.
// This is false only if a value closes the parenthesis.
func (c *Constraint) standsAlone(source string) bool {
	if strings.Count(source, ")") == 1 || c.isPattern() {
		return true
	}
	expr, err := parseChecked(source + " AND (true)")
	if err != nil {
		return false
	}
	and, ok := expr.(*conditions.BinaryExpr)
	if !ok || and.Op != conditions.AND {
		return false
	}
	_, one := and.LHS.(*conditions.ParenExpr)
	_, other := and.RHS.(*conditions.ParenExpr)
	return one && other
}

// quoted decodes the escapes of a string literal. A literal with escapes that are not Go's is
// unchanged. The second result is false if the value is not exactly one string literal.
func quoted(value string) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	content := value[1 : len(value)-1]
	for i := 0; i < len(content); i++ {
		switch content[i] {
		case '"', '\n':
			return "", false
		case '\\':
			if i+1 == len(content) { // the last quote is escaped
				return "", false
			}
			if content[i+1] == '"' || content[i+1] == '\\' {
				i++
			}
		}
	}
	if undone, err := strconv.Unquote(value); err == nil {
		return undone, true
	}
	return content, true
}

// parseChecked parses any string.
func parseChecked(source string) (conditions.Expr, error) {
	if err := checkTokens(source); err != nil {
		return nil, err
	}
	expr, err := parse(source)
	if err != nil {
		return nil, err
	}
	if err := checkExpr(expr, 0); err != nil {
		return nil, err
	}
	return expr, nil
}

// checkTokens reports, as ErrInvalid, a string that must not be passed to the parser.
func checkTokens(source string) error {
	malformed := 0
	var s scanner.Scanner
	s.Init(strings.NewReader(source)) // scans Go's tokens and skips comments, as the parser does
	s.Error = func(*scanner.Scanner, string) { malformed++ }
	tokens, nesting, list := 0, 0, 0
	for token := s.Scan(); token != scanner.EOF; token = s.Scan() {
		tokens++
		list++
		switch token {
		case '(':
			nesting++
		case ')':
			nesting--
		case '[':
			list = 0
		case ']':
			if list > 2*maxListLength {
				return beyondLimit("api.constraint.list", "n", catalog.Digits(list/2), "most", catalog.Digits(maxListLength))
			}
		}
		switch {
		case tokens > maxTokens:
			return beyondLimit("api.constraint.parts", "most", catalog.Digits(maxTokens))
		case nesting > maxNesting:
			return beyondLimit("api.constraint.levels", "most", catalog.Digits(maxNesting))
		case malformed > maxMalformed:
			return beyondLimit("api.constraint.malformed", "most", catalog.Digits(maxMalformed))
		}
	}
	return nil
}

// checkExpr reports, as ErrInvalid, an expression that is nested too deeply, and a pattern that is
// too large.
func checkExpr(expr conditions.Expr, level int) error {
	if level > 2*maxNesting { // each operator in parentheses is two
		return beyondLimit("api.constraint.deep", "most", catalog.Digits(maxNesting))
	}
	switch e := expr.(type) {
	case *conditions.ParenExpr:
		return checkExpr(e.Expr, level+1)
	case *conditions.BinaryExpr:
		if err := checkExpr(e.LHS, level+1); err != nil {
			return err
		}
		if pattern, ok := unwrap(e.RHS).(*conditions.StringLiteral); ok && (e.Op == conditions.EREG || e.Op == conditions.NEREG) {
			return checkPattern(pattern.Val)
		}
		return checkExpr(e.RHS, level+1)
	default:
		return nil
	}
}

func unwrap(expr conditions.Expr) conditions.Expr {
	for {
		inner, ok := expr.(*conditions.ParenExpr)
		if !ok {
			return expr
		}
		expr = inner.Expr
	}
}

func parse(source string) (expr conditions.Expr, err error) {
	defer func() {
		if r := recover(); r != nil { // the parser panics on some malformed input
			expr, err = nil, Wrong("api.constraint.unreadable", "why", Shorten(fmt.Sprint(r)))
		}
	}()
	expr, err = conditions.NewParser(strings.NewReader(source)).Parse()
	if err != nil {
		return nil, Wrong("api.constraint.nonsense", "why", Shorten(err.Error()))
	}
	return expr, nil
}
