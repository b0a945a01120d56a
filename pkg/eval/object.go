package eval

import (
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Object is an entityContext whose values are still JSON text. Compared with a map[string]any, it
// saves decoding the values that no constraint uses, and encoding them for the response. It must
// not change, like other contexts.
type Object struct {
	// JSON is the whole object as encoding/json writes a map without escaping HTML: sorted names,
	// no white space.
	JSON string
	// Members are the members of the object, sorted by name, without repetition.
	Members []Member
}

// Member is a name and the JSON of its value, which is part of Object.JSON.
type Member struct{ Name, Value string }

// MarshalJSON returns Object.JSON.
func (o *Object) MarshalJSON() ([]byte, error) { return []byte(o.JSON), nil }

// Get returns the JSON of a member's value, or an empty string if the member does not exist.
func (o *Object) Get(name string) string { return o.find(name) }

// decode returns the object as a map[string]any.
func (o *Object) decode() map[string]any {
	values, _ := entity.DecodeJSON(o.JSON).(map[string]any)
	return values
}

// resolve returns the value of a property.
func (o *Object) resolve(p *property, s *scratch) value {
	raw := o.find(p.root)
	if raw == "" {
		return value{}
	}
	if len(p.steps) == 0 && len(raw) <= longValue {
		switch raw[0] {
		case '"':
			if strings.IndexByte(raw, '\\') < 0 {
				return value{kind: text, text: raw[1 : len(raw)-1]}
			}
		case 't', 'f':
			return truth(raw[0] == 't')
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			f, ok := parseNumber(raw)
			if !ok {
				return value{}
			}
			return value{kind: number, number: f}
		}
	}
	decoded, ok := p.walk(s.keep().member(p.root, raw))
	if !ok {
		return value{}
	}
	return s.valueOf(p, decoded)
}

// parseNumber parses a JSON number, which is not empty. Its second result is false if the number is
// beyond float64.
func parseNumber(raw string) (float64, bool) {
	const exact = 15 // digits; float64 has all whole numbers with this many
	if len(raw) <= exact {
		n := 0
		for i := 0; ; i++ {
			if i == len(raw) {
				return float64(n), true
			}
			digit := raw[i] - '0'
			if digit > 9 {
				break
			}
			n = n*10 + int(digit)
		}
	}
	f, err := strconv.ParseFloat(raw, 64)
	return f, err == nil
}

// find returns the JSON of a member's value, or an empty string. Contexts are small, so a linear
// search is fast enough; larger ones use binary search.
func (o *Object) find(name string) string {
	members := o.Members
	for len(members) > 8 {
		half := len(members) / 2
		if members[half].Name <= name {
			members = members[half:]
		} else {
			members = members[:half]
		}
	}
	for i := range members {
		if members[i].Name == name {
			return members[i].Value
		}
	}
	return ""
}

// properties is an entityContext that constraints can read, in one of its forms.
type properties struct {
	object  *Object
	values  map[string]any
	scratch *scratch // of this evaluation; nil if nothing is counted and kept
}

// spend reports whether an evaluation may do this much more work, and counts it. It waits for the
// turn of much work.
func (p properties) spend(work int) bool {
	if p.scratch == nil {
		return work <= maxMatchWork
	}
	if work > maxMatchWork-p.scratch.work {
		return false
	}
	p.scratch.work += work
	return p.scratch.work <= slowWork || p.scratch.slow.begin()
}

// propertiesOf converts an entityContext. Its second result is false if no constraint can match it.
func propertiesOf(context any) (properties, bool) {
	switch c := context.(type) {
	case *Object:
		return properties{object: c}, true
	case map[string]any:
		return properties{values: c}, true
	default:
		return properties{}, false
	}
}

// decoded returns the form that explanations use.
func (p properties) decoded() properties {
	if p.object != nil {
		return properties{values: p.object.decode(), scratch: p.scratch}
	}
	return p
}
