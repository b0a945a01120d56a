package config

import "slices"

// Setting is a variable and its value, for display to operators.
type Setting struct {
	Name, Default string
	// Value is empty for a secret.
	Value  string
	Secret bool
	// Set reports whether the variable is set.
	Set bool
}

// Settings returns every variable in the order of Variables, without the values of secrets.
func (c *Config) Settings() []Setting { return slices.Clone(c.settings) }

func settingsOf(environ map[string]string) []Setting {
	variables := Variables()
	settings := make([]Setting, len(variables))
	for i, v := range variables {
		value, set := environ[v.Name]
		if !set {
			value = v.Default
		}
		if v.Secret {
			value = ""
		}
		settings[i] = Setting{Name: v.Name, Default: v.Default, Value: value, Secret: v.Secret, Set: set}
	}
	return settings
}
