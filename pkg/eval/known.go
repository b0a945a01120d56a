package eval

import (
	"encoding/json"
	"slices"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// longValue is the length of the JSON of a value, and shortList that of a list, from which an
	// evaluation converts it once, and not again for each constraint: the time would be their
	// product.
	longValue = 256
	shortList = 16
)

// scratch is what an evaluation counts and keeps while it reads the context of an entity.
type scratch struct {
	// work is the used part of maxMatchWork, and reasons the part that explanations used.
	work, reasons int
	slow          *slow
	known         *known // nil until there is something to keep
}

// known has the parts of a context that are expensive to convert. Evaluations of other flags for
// the same entity may use it, too.
type known struct {
	members map[string]any   // decoded members of an Object
	values  map[string]value // by the key of the property
}

// share uses what another evaluation has kept of the same context.
func (s *scratch) share(k *known) {
	if k != nil {
		s.known = k
	}
}

// keep returns where to keep parts of the context. Without a scratch, they are forgotten.
func (s *scratch) keep() *known {
	if s == nil {
		s = &scratch{}
	}
	if s.known == nil {
		s.known = &known{members: map[string]any{}, values: map[string]value{}}
	}
	return s.known
}

// member returns the decoded member of an Object, whose JSON is raw.
func (k *known) member(name, raw string) any {
	decoded, ok := k.members[name]
	if !ok {
		decoded = entity.DecodeJSON(raw)
		k.members[name] = decoded
	}
	return decoded
}

// valueOf converts what a property leads to.
func (s *scratch) valueOf(p *property, raw any) value {
	if !isLong(raw) {
		return valueOf(raw)
	}
	k := s.keep()
	v, ok := k.values[p.key]
	if !ok {
		v = valueOf(raw)
		if v.list != nil {
			v.list = indexed(v.list)
		}
		k.values[p.key] = v
	}
	return v
}

func isLong(raw any) bool {
	switch v := raw.(type) {
	case json.Number:
		return len(v) > longValue
	case []any:
		return len(v) > shortList
	default:
		return false
	}
}

// indexed returns a list from a context in the form of a long list from a constraint, in which
// items are found without comparing each.
func indexed(l *list) *list {
	if _, isText := l.items[0].(string); isText {
		texts := make(map[string]struct{}, len(l.items))
		for _, item := range l.items {
			text, _ := item.(string)
			texts[text] = struct{}{}
		}
		return &list{texts: texts}
	}
	numbers := make([]float64, len(l.items))
	for i, item := range l.items {
		numbers[i] = asFloat(item)
	}
	slices.Sort(numbers)
	return &list{numbers: numbers}
}
