package fastpath

import (
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// maxShapeProperties limits the memory of a shape. Longer contexts have none.
const maxShapeProperties = 64

// shape is the JSON of an entity without its values. Most entities of a batch have the shape of the
// entity before them, and comparing it costs less than parsing names and punctuation.
type shape struct {
	parts []part
	// end is the JSON after the last value. It is empty if there is no shape.
	end string
	// begun is set while an entity is read that may have a shape.
	begun bool
	// properties is the number of parts that end with the name of a property.
	properties int
	// canonical reports whether the context of an entity is the same as its JSON: sorted names, and
	// no white space.
	canonical bool
	// at is where the last value of parts ends in the text.
	at int
}

// part is the JSON before a value, from the value before it.
type part struct {
	json  string
	value valueKind
	// name is the name of the property, which is at the end of json. index is its place among the
	// sorted names.
	name  string
	index int
}

// valueKind is what a value of an entity is.
type valueKind uint8

const (
	entityIDValue valueKind = iota
	entityTypeValue
	propertyValue
)

// shapeTries limits what shapes cost in a batch of mixed entities, where they save nothing: after
// shapeTries entities in a row that were parsed in full, only every shapeTries-th gets a shape.
const shapeTries = 8

// beginShape begins the shape of an entity that starts at the current position, unless it gets
// none.
func (d *decoder) beginShape(wanted bool) {
	d.shape = shape{parts: d.shape.parts[:0], at: d.at, begun: wanted}
}

// addText adds the string that the decoder has just read. start is where it begins.
func (d *decoder) addText(kind valueKind, start int) {
	if !d.shape.begun {
		return
	}
	d.shape.parts = append(d.shape.parts, part{json: d.text[d.shape.at:start], value: kind})
	d.shape.at = d.at
}

// addProperty adds a property of a context, whose value begins at start and has just been read.
// plain is whether encoding/json would write the same value.
func (d *decoder) addProperty(name string, start int, plain bool) {
	s := &d.shape
	if !s.begun {
		return
	}
	if !plain || s.properties == maxShapeProperties {
		s.begun = false
		return
	}
	s.parts = append(s.parts, part{json: d.text[s.at:start], value: propertyValue, name: name, index: s.properties})
	s.at = d.at
	s.properties++
}

// addContext ends the properties of the context that the decoder has just read. start is where it
// begins.
func (d *decoder) addContext(context any, start int) {
	s := &d.shape
	o, ok := context.(*eval.Object)
	if s.begun = s.begun && ok && s.properties > 0; !s.begun {
		return
	}
	s.canonical = o.JSON == d.text[start:d.at]
	if s.canonical {
		return
	}
	for i := range s.parts {
		p := &s.parts[i]
		if p.value != propertyValue {
			continue
		}
		p.index, _ = slices.BinarySearchFunc(o.Members, p.name, func(m eval.Member, name string) int { return strings.Compare(m.Name, name) })
	}
}

// endShape ends the shape of the entity that the decoder has just read.
func (d *decoder) endShape() {
	if d.shape.begun {
		d.shape.end = d.text[d.shape.at:d.at]
		d.shape.begun = false
	}
}

// alike reads an entity that has the current shape and plain values. Otherwise it returns false and
// reads nothing.
func (d *decoder) alike(e *eval.Entity) bool {
	if d.shape.end == "" {
		return false
	}
	members := d.newMembers(d.shape.properties)
	if d.readAlike(e, members) {
		return true
	}
	clear(members)
	d.members = d.members[:len(d.members)-len(members)]
	*e = eval.Entity{}
	return false
}

func (d *decoder) readAlike(e *eval.Entity, members []eval.Member) bool {
	at := d.at
	read, contextStart, contextEnd := 0, 0, 0 // read is the number of members so far
	for i := range d.shape.parts {
		p := &d.shape.parts[i]
		if !strings.HasPrefix(d.text[at:], p.json) {
			return false
		}
		at += len(p.json)
		value := plainValue(d.text[at:])
		if value == "" {
			return false
		}
		if p.value == propertyValue {
			if read == 0 {
				contextStart = at - len(`{"":`) - len(p.name)
			}
			members[p.index] = eval.Member{Name: p.name, Value: value}
			read++
			at += len(value)
			contextEnd = at + len(`}`)
			continue
		}
		at += len(value)
		if value[0] != '"' {
			return false
		}
		if value = value[1 : len(value)-1]; p.value == entityIDValue {
			e.EntityID = value
		} else {
			e.EntityType = value
		}
	}
	if !strings.HasPrefix(d.text[at:], d.shape.end) {
		return false
	}
	d.at = at + len(d.shape.end)
	if read > 0 {
		text := d.text[contextStart:contextEnd]
		if !d.shape.canonical {
			text, _ = d.joined(members) // no name is repeated
		}
		e.EntityContext = d.newObject(eval.Object{JSON: text, Members: members})
	}
	return true
}

// plainValue returns the JSON value at the beginning of the text, or an empty string if
// encoding/json would write other bytes.
func plainValue(text string) string {
	if n := plainStringLength(text); n > 0 { // most values
		return text[:n]
	}
	s := scanner{text: text}
	value, canonical, ok := s.value(1)
	if !canonical || !ok {
		return ""
	}
	return value
}
