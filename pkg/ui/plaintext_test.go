package ui

import (
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// TestOperatorsOfTheForm checks that only patterns are shown as plain text, and that all
// constraints are stored as they were.
func TestOperatorsOfTheForm(t *testing.T) {
	t.Parallel()
	for _, operator := range entity.Operators() {
		c := entity.Constraint{Property: "x", Operator: operator, Value: `"FR"`}
		shown := constraintForm(&c)
		if (shown.Operator != operator) != strings.HasSuffix(operator, "EREG") {
			t.Errorf("%s is shown as %s", operator, shown.Operator)
		}
		if o, v := shown.stored(); o != operator || v != c.Value {
			t.Errorf("%s %s is stored as %s %s", operator, c.Value, o, v)
		}
	}
}

// TestReasonsOfLongConstraints: the text of a reason is shortened, and is still the text of its
// constraint.
func TestReasonsOfLongConstraints(t *testing.T) {
	t.Parallel()
	words, err := catalog.Parse(catalog.English())
	if err != nil {
		t.Fatal(err)
	}
	u := &UI{text: &texts{words}}
	long := entity.Constraint{Property: "path", Operator: "EREG", Value: entity.TextPattern(strings.Repeat("a b", 100))}
	long.ID = 7
	f := &entity.Flag{Segments: []entity.Segment{{Constraints: []entity.Constraint{long}}}}
	reason := func(text string) *insight.ConstraintReasons {
		return &insight.ConstraintReasons{ConstraintID: 7, Text: text}
	}
	short := insight.ConstraintText(&long)[:197] + "..."
	if got := u.stoppedBy(f, 0, reason(short)); !strings.HasPrefix(got, "path contains text \"a ba b") || len(got) > 100 {
		t.Errorf("got %q", got)
	}
	if got := u.stoppedBy(f, 0, reason("path EREG \"b\"")); got != "path EREG \"b\"" {
		t.Errorf("a reason of another version is shown as %q", got)
	}
}
