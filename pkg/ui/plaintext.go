package ui

import "github.com/flagr-datar/flagr-datar/pkg/entity"

// Operators of the form that compare with plain text. The API has only patterns for it, so they are
// stored as EREG and NEREG with an escaped pattern, and recognized by that when they are read.
const (
	hasText   = "HASTEXT"
	lacksText = "LACKSTEXT"
)

// patternOf maps the operators for plain text to those that are stored.
var patternOf = map[string]string{hasText: "EREG", lacksText: "NEREG"}

// constraintForm returns the constraint as the form shows it.
func constraintForm(c *entity.Constraint) formConstraint {
	for shown, stored := range patternOf {
		if c.Operator != stored {
			continue
		}
		if plain, ok := entity.PlainText(c.Value); ok {
			return formConstraint{c.ID, c.Property, shown, plain}
		}
	}
	return formConstraint{c.ID, c.Property, c.Operator, c.Value}
}

// stored returns the operator and the value to save.
func (c *formConstraint) stored() (operator, value string) {
	if operator, ok := patternOf[c.Operator]; ok {
		return operator, entity.TextPattern(c.Value)
	}
	return c.Operator, c.Value
}

// constraint describes a constraint in words: operators for plain text by their names, all others
// as they are stored.
func (c *texts) constraint(of *entity.Constraint) string {
	shown := constraintForm(of)
	switch shown.Operator {
	case hasText:
		return c.plain("constraint.hastext", "property", shown.Property, "value", shown.Value)
	case lacksText:
		return c.plain("constraint.lackstext", "property", shown.Property, "value", shown.Value)
	}
	return shown.Property + " " + shown.Operator + " " + shown.Value
}
