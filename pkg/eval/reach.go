package eval

import (
	"math"
	"slices"

	"github.com/zhouzhuojie/conditions"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// maxComparedPairs limits the pairs of constraints, and maxComparedValues the values of their
// lists, that neverMatches compares. Beyond them a segment counts as reachable.
const (
	maxComparedPairs  = 2_000
	maxComparedValues = 100_000
)

// neverMatches explains why no entity can match all conditions. It is empty if an entity can, or if
// comparing pairs of conditions does not show it.
func neverMatches(all []condition) catalog.Message {
	demands := make([]demand, 0, len(all))
	for i := range all {
		c := &all[i]
		if c.never {
			return catalog.Say("api.reach.never", "a", catalog.Name(abridged(c.text)))
		}
		d, ok := demandOf(c)
		if !ok {
			continue
		}
		if d.kinds == 0 {
			return catalog.Say("api.reach.empty", "a", catalog.Name(abridged(c.text)))
		}
		demands = append(demands, d)
	}
	pairs, values := 0, 0
	for i := range demands {
		for j := range i {
			a, b := &demands[j], &demands[i]
			if !a.property.equal(b.property) {
				continue
			}
			pairs++
			values += a.size() + b.size()
			if pairs > maxComparedPairs || values > maxComparedValues {
				return catalog.Message{}
			}
			if a.excludes(b) || b.excludes(a) {
				return catalog.Say("api.reach.exclude", "a", catalog.Name(abridged(a.text)), "b", catalog.Name(abridged(b.text)))
			}
		}
	}
	return catalog.Message{}
}

func abridged(text string) string {
	const longest = 100
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "..."
	}
	return text
}

// kinds is a set of kinds of values.
type kinds uint8

func kindsOf(of ...kind) (set kinds) {
	for _, k := range of {
		set |= 1 << k
	}
	return set
}

// demand is what a condition that compares one property with a constant requires of the property.
type demand struct {
	*binary
	kinds kinds // of values for which the condition can hold
	text  string
}

func demandOf(c *condition) (demand, bool) {
	b, ok := c.root.(*binary)
	if !ok || b.property == nil || b.constant == nil {
		return demand{}, false
	}
	d := demand{binary: b, text: c.text}
	constant := b.constant.value.kind
	switch b.op {
	case conditions.EQ, conditions.NEQ:
		d.kinds = kindsOf(constant) &^ kindsOf(textList, numberList)
	case conditions.IN, conditions.NOTIN:
		d.kinds = map[kind]kinds{textList: kindsOf(text), numberList: kindsOf(number)}[constant]
	case conditions.CONTAINS, conditions.NOTCONTAINS:
		d.kinds = map[kind]kinds{text: kindsOf(textList), number: kindsOf(numberList)}[constant]
	case conditions.EREG, conditions.NEREG:
		d.kinds = kindsOf(text) & kindsOf(constant)
	case conditions.LT, conditions.LTE, conditions.GT, conditions.GTE:
		d.kinds = kindsOf(number) & kindsOf(constant)
	default:
		return demand{}, false
	}
	return d, true
}

// size is the number of values that excludes compares.
func (d *demand) size() int {
	if l := d.constant.value.list; l != nil {
		return 1 + len(l.texts) + len(l.numbers)
	}
	return 1
}

// excludes reports whether no value meets both demands. It may return false although no value does,
// but true is always correct.
func (d *demand) excludes(other *demand) bool {
	both := d.kinds & other.kinds
	switch both {
	case 0:
		return true
	case kindsOf(number):
		return disjoint(d.intervals(), other.intervals())
	case kindsOf(text), kindsOf(boolean):
		candidates, finite := d.candidates()
		return finite && !slices.ContainsFunc(candidates, func(v value) bool {
			met := other.apply(&v, &other.constant.value, properties{})
			return met.kind == boolean && met.truth
		})
	default:
		return false
	}
}

// candidates returns the only strings or booleans that meet the demand, if they can be listed.
func (d *demand) candidates() (list []value, finite bool) {
	constant := d.constant.value
	switch {
	case d.op == conditions.EQ:
		return []value{constant}, true
	case d.op == conditions.NEQ && constant.kind == boolean:
		return []value{truth(!constant.truth)}, true
	case d.op == conditions.IN && constant.kind == textList:
		for s := range constant.list.texts {
			list = append(list, value{kind: text, text: s})
		}
		return list, true
	}
	return nil, false
}

// interval is a range of numbers. It includes its ends unless it is open.
type interval struct {
	low, high float64
	open      bool
}

// intervals returns the numbers that can meet the demand, in ascending order. Numbers that are
// nearly equal to the constant count as equal, so the intervals are slightly wider.
func (d *demand) intervals() []interval {
	const tolerance = 2 * epsilon
	constant := d.constant.value
	c := constant.number
	switch d.op {
	case conditions.EQ:
		return []interval{{c - tolerance, c + tolerance, false}}
	case conditions.IN:
		list := make([]interval, len(constant.list.numbers))
		for i, n := range constant.list.numbers {
			list[i] = interval{n - tolerance, n + tolerance, false}
		}
		return list
	case conditions.LT:
		return []interval{{math.Inf(-1), c, true}}
	case conditions.LTE:
		return []interval{{math.Inf(-1), c + tolerance, false}}
	case conditions.GT:
		return []interval{{c, math.Inf(1), true}}
	case conditions.GTE:
		return []interval{{c - tolerance, math.Inf(1), false}}
	default:
		return []interval{{math.Inf(-1), math.Inf(1), false}}
	}
}

// disjoint reports whether no number is in an interval of each of two ascending lists.
func disjoint(a, b []interval) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case before(a[0], b[0]):
			a = a[1:]
		case before(b[0], a[0]):
			b = b[1:]
		default:
			return false
		}
	}
	return true
}

func before(a, b interval) bool {
	return a.high < b.low || a.high == b.low && (a.open || b.open)
}
