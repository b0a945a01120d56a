package entity_test

import (
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func TestPatternOfAConstraint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		operator, value, want string
		found                 bool
	}{
		{"EREG", `"[a-z]{3}"`, `[a-z]{3}`, true},
		{"EREG", ` "\d{900}" `, `\d{900}`, true}, // no escape of Go
		{"NEREG", `"a\\.b\u00e9"`, `a\.bé`, true},
		{"EREG", `"a" OR {x} EREG "b"`, "", false},
		{"EREG", `{pattern}`, "", false},
		{"EQ", `"[a-z]"`, "", false},
	} {
		c := entity.Constraint{Property: "x", Operator: test.operator, Value: test.value}
		if got, found := c.Pattern(); got != test.want || found != test.found {
			t.Errorf("%s %s: pattern %q, %t; want %q, %t", test.operator, test.value, got, found, test.want, test.found)
		}
	}
}
