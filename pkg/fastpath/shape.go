package fastpath

import (
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
	// properties is the number of parts that end with the name of a property.
	properties int
	// at is where the last value of parts ends in the text.
	at int
}

// part is the JSON before a value, from the value before it.
type part struct {
	json  string
	value valueKind
	// name is the name of the property, which is at the end of json.
	name string
}

// valueKind is what a value of an entity is.
type valueKind uint8

const (
	entityIDValue valueKind = iota
	entityTypeValue
	propertyValue
)

// beginShape begins the shape of an entity that starts at the current position.
func (d *decoder) beginShape() { d.shape = shape{parts: d.shape.parts[:0], at: d.at} }

// addText adds the string that the decoder has just read. start is where it begins.
func (d *decoder) addText(kind valueKind, start int) {
	d.shape.parts = append(d.shape.parts, part{json: d.text[d.shape.at:start], value: kind})
	d.shape.at = d.at
}

// addContext adds the context that the decoder has just read. start is where it begins. It returns
// false if the context has no properties or too many, or if encoding/json would write other bytes.
func (d *decoder) addContext(context any, start int) bool {
	o, ok := context.(*eval.Object)
	if !ok || len(o.Members) == 0 || len(o.Members) > maxShapeProperties || o.JSON != d.text[start:d.at] {
		return false
	}
	for i := range o.Members {
		m := &o.Members[i]
		start += len(`{"":`) + len(m.Name)
		d.shape.parts = append(d.shape.parts, part{json: d.text[d.shape.at:start], value: propertyValue, name: m.Name})
		start += len(m.Value)
		d.shape.at = start
	}
	d.shape.properties = len(o.Members)
	return true
}

// endShape ends the shape of the entity that the decoder has just read.
func (d *decoder) endShape() { d.shape.end = d.text[d.shape.at:d.at] }

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
			members[read] = eval.Member{Name: p.name, Value: value}
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
		e.EntityContext = d.newObject(eval.Object{JSON: d.text[contextStart:contextEnd], Members: members})
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
