package entity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/scanner"

	"github.com/zhouzhuojie/conditions"
)

// Limits of a constraint. The parser calls itself for each open parenthesis, and a stack that is full ends the process. It
// also puts regex literals, properties and lists together part by part, copying what it has each time.
const (
	// maxPropertyBytes is the longest property.
	maxPropertyBytes = 1 << 10
	// maxValueBytes is the longest value: a list of 32,768 UUIDs fits.
	maxValueBytes = 2 << 20
	// maxParts bounds the words, numbers, strings and other characters of a value.
	maxParts = 1 << 16
	// maxCopies bounds the bytes of a value times its parts. The parser takes about a second for as much.
	maxCopies = 2 << 30
	// maxListLength is the longest list that the parser takes: 65,536 parts, of which every other one is a comma.
	maxListLength = 1 << 15
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

// parserStop follows every text to be parsed, because the parser looks for the end of a regex literal beyond the end
// of its input, for ever. Behind a complete expression the parser sees the parenthesis and stops, as it would at the
// end; where it expects anything else, the semicolon is an error. The slashes end open regex literals: two of them,
// because the parser reads the first one again when the literal is out of place. The line break, backquote and */ end
// what may hide all that: a string or line comment, a raw string, a comment.
const parserStop = "\n( ; / ; / ;\n` ( ; / ; / ;\n*/ ( ; / ; / ;"

// Expr parses the constraint. A property with dots, such as user.tier, becomes a variable of just that name, which
// stands for the member tier of the object user. The error matches ErrInvalid and tells the author of the constraint
// what to change.
func (c *Constraint) Expr() (expr conditions.Expr, err error) {
	token, ok := operatorTokens[c.Operator]
	if !ok {
		return nil, Invalid("not supported operator: %s", c.Operator)
	}
	value := strings.TrimSpace(c.Value)
	if len(c.Property) > maxPropertyBytes {
		return nil, Invalid("property has %d bytes, more than the %d allowed", len(c.Property), maxPropertyBytes)
	}
	if len(value) > maxValueBytes {
		return nil, Invalid("value has %d bytes, more than the %d allowed", len(value), maxValueBytes)
	}
	if (c.Operator == "EREG" || c.Operator == "NEREG") && isQuotedWithoutSlash(value) {
		// Inside a string literal the language rejects escapes such as \d; a regex literal passes them on.
		value = "/" + value[1:len(value)-1] + "/"
	}
	list, length := listLiteral(value)
	switch {
	case length > maxListLength:
		return nil, Invalid("value is a list of %d members, more than the %d allowed", length, maxListLength)
	case list == nil, strings.ContainsAny(c.Property, "(){}[]/'\"`"):
		if err := checkParts(value); err != nil {
			return nil, err
		}
		return parse(c.Property, token, value)
	}
	// A property like this cannot reach beyond its braces, so the list is where the parser finds one in its place.
	if expr, err = parse(c.Property, token, "[0]"); err != nil {
		return nil, err
	}
	expr.(*conditions.ParenExpr).Expr.(*conditions.BinaryExpr).RHS = list
	return expr, nil
}

// listLiteral reads a value that is a list of texts or of numbers and nothing else, which the parser would take a time for
// that grows with the square of its length. It gives nil for any other value, and for one that the parser may refuse.
func listLiteral(value string) (list conditions.Expr, length int) {
	if !strings.HasPrefix(value, "[") {
		return nil, 0
	}
	if texts := []*string{}; json.Unmarshal([]byte(value), &texts) == nil && !slices.Contains(texts, nil) && len(texts) > 0 {
		plain := make([]string, len(texts))
		for i, text := range texts {
			plain[i] = *text
		}
		return conditions.NewSliceStringLiteral(plain), len(plain)
	}
	if numbers := []*float64{}; json.Unmarshal([]byte(value), &numbers) == nil && !slices.Contains(numbers, nil) && len(numbers) > 0 {
		plain := make([]float64, len(numbers))
		for i, number := range numbers {
			plain[i] = *number
		}
		return &conditions.SliceNumberLiteral{Val: plain}, len(plain)
	}
	return nil, 0
}

// checkParts reports, as ErrInvalid, a value that the parser would take too long for.
func checkParts(value string) error {
	if len(value) < maxParts && len(value)*len(value) < maxCopies { // it cannot have more parts than bytes
		return nil
	}
	s := scanner.Scanner{Mode: scanner.ScanIdents | scanner.ScanFloats | scanner.ScanStrings} // as the parser
	s.Init(strings.NewReader(value))
	s.Error = func(*scanner.Scanner, string) {} // for the parser to judge
	for parts := 1; s.Scan() != scanner.EOF; parts++ {
		if parts > maxParts || parts*len(value) > maxCopies {
			return Invalid("value has too many parts for its length of %d bytes", len(value))
		}
	}
	return nil
}

func parse(property, token, value string) (expr conditions.Expr, err error) {
	defer func() {
		if r := recover(); r != nil { // the parser panics on some malformed input
			expr, err = nil, Invalid("constraint cannot be parsed: %v", r)
		}
	}()
	// A dot in the property leads into a nested object, which the language writes {a}{b}.
	property = strings.ReplaceAll(property, ".", "}{")
	source := fmt.Sprintf("({%s} %s %s)", property, token, value)
	expr, err = conditions.NewParser(strings.NewReader(source + parserStop)).Parse()
	if err != nil {
		return nil, Invalid(`property and value make no condition: %s. Note: a string, and each string of a list, must be in double quotes, such as "FR" or `+
			`["FR", "DE"]; a pattern is a quoted Go regular expression, such as "\d+"`, err)
	}
	return expr, nil
}

func isQuotedWithoutSlash(s string) bool {
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s, "/")
}
