package entity_test

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestPatternSize compares the size and the error with those of the pattern itself, which is not
// parsed.
func TestPatternSize(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]int{
		`abc`: 3, `(?i)abc`: 3, `(?i)[a-z]`: 1001 + 25/16, `(?s-i:[a-z])`: 1001 + 25/16, `[a-z]`: 1, `(?i)\pL`: 101,
		`(?i)[b-\x{1e942}]`: 1001 + (0x1e942-'b')/16, `(?i)[가-힣_-]`: 1001 + ('힣'-'가')/16, `(?i)a-b`: 3, `[(?i-k]`: 1001,
		`(?i)[\x{41}-힣]`: 1001 + '힣'/16, `(?i)[\x41-\x5a]`: 1001 + ('x'-'1')/16, `(?i)[a-\x{10ffff}]`: 1001 + (0x1e943-'a')/16,
		`(?i)(`: 0, `(?i)[z-a]`: 0, `(?i)x(?P<n>a`: 0, `(?m-i)*`: 0, `a{1001}`: 0,
	} {
		size, err := entity.PatternSize(pattern, entity.MaxPatternSize)
		_, wrong := syntax.Parse(pattern, syntax.Perl)
		if size != want || fmt.Sprint(err) != fmt.Sprint(wrong) {
			t.Errorf("%s: size %d, error %v, want %d, %v", pattern, size, err, want, wrong)
		}
	}
	for _, pattern := range []string{`(?i)[` + strings.Repeat(`b-\x{1e942}`, 3_000) + `]`, strings.Repeat(`(?i:[b-\x{1e942}])`, 5)} {
		if size, err := entity.PatternSize(pattern, entity.MaxPatternSize); size <= entity.MaxPatternSize || err != nil {
			t.Errorf("%.40s: size %d, error %v", pattern, size, err)
		}
	}
}

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
