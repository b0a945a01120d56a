package config

import "reflect"

// Variable describes one environment variable that the server accepts.
type Variable struct {
	// Name is the variable's exact name.
	Name string
	// Type is the Go type of its value: string, bool, int, int8, uint, time.Duration, or []string,
	// which is comma-separated.
	Type string
	// Default is the value if the variable is not set.
	Default string
	// Accepts describes the accepted values.
	Accepts string
	// Secret values are not printed in any message.
	Secret bool

	keepEmpty bool
}

// Variables returns every variable that Load reads, in the order of Config's fields.
func Variables() []Variable {
	return variablesOf(reflect.TypeFor[Config]())
}

func variablesOf(t reflect.Type) []Variable {
	var vars []Variable
	for field := range t.Fields() {
		name, ok := field.Tag.Lookup("env")
		switch {
		case ok:
			accepts := field.Tag.Get("accepts")
			if accepts == "" {
				accepts = anyOf(field.Type)
			}
			vars = append(vars, Variable{
				Name:      name,
				Type:      field.Type.String(),
				Default:   field.Tag.Get("envDefault"),
				Accepts:   accepts,
				Secret:    field.Tag.Get("secret") == "true",
				keepEmpty: field.Tag.Get("empty") == "keep",
			})
		case field.Type.Kind() == reflect.Struct:
			vars = append(vars, variablesOf(field.Type)...)
		}
	}
	return vars
}

// anyOf describes all values of a type, for a field without a narrower rule.
func anyOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a comma-separated list"
	default:
		return "any string"
	}
}
