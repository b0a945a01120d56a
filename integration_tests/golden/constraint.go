package golden

import (
	"encoding/json"
	"os"
	"testing"
)

// Constraint is a recorded constraint with the result of the recorded server.
type Constraint struct {
	Constraint struct{ Property, Operator, Value string }
	// Status is the status of the response to its creation.
	Status int
	// Matched has a digit for each context: 1 if the constraint matches, 0 if not. It is empty if
	// the constraint was rejected.
	Matched string
}

// Constraints reads the recorded constraints and contexts.
func Constraints(t *testing.T) ([]Constraint, []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(Path("constraint-cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Constraints [][3]string
		Contexts    []map[string]any
	}
	if err := decode(text, &cases); err != nil {
		t.Fatal(err)
	}
	constraints := Lines[Constraint](t, "constraint-answers.jsonl")
	if len(constraints) != len(cases.Constraints) || len(constraints) == 0 {
		t.Fatalf("%d results for %d constraints", len(constraints), len(cases.Constraints))
	}
	return constraints, cases.Contexts
}

// UnmarshalJSON reads the constraint from a list of property, operator and value.
func (c *Constraint) UnmarshalJSON(text []byte) error {
	var line struct {
		Constraint [3]string
		Status     int
		Matched    string
	}
	if err := json.Unmarshal(text, &line); err != nil {
		return err
	}
	c.Constraint.Property, c.Constraint.Operator, c.Constraint.Value = line.Constraint[0], line.Constraint[1], line.Constraint[2]
	c.Status, c.Matched = line.Status, line.Matched
	return nil
}
