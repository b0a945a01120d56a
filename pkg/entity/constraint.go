package entity

import (
	"fmt"
	"strings"

	"github.com/zhouzhuojie/conditions"
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
	if (c.Operator == "EREG" || c.Operator == "NEREG") && isQuotedWithoutSlash(value) {
		// Inside a string literal the language rejects escapes such as \d; a regex literal passes them on.
		value = "/" + value[1:len(value)-1] + "/"
	}
	defer func() {
		if r := recover(); r != nil { // the parser panics on some malformed input
			expr, err = nil, Invalid("constraint cannot be parsed: %v", r)
		}
	}()
	// A dot in the property leads into a nested object, which the language writes {a}{b}.
	property := strings.ReplaceAll(c.Property, ".", "}{")
	source := fmt.Sprintf("({%s} %s %s)", property, token, value)
	expr, err = conditions.NewParser(strings.NewReader(source + parserStop)).Parse()
	if err != nil {
		return nil, Invalid(`%s. Note: a string, and each string of a list, must be in double quotes, such as "FR" or `+
			`["FR", "DE"]; a pattern is a quoted Go regular expression, such as "\d+"`, err)
	}
	return expr, nil
}

func isQuotedWithoutSlash(s string) bool {
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s, "/")
}
