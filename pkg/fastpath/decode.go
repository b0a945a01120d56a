package fastpath

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// decoder reads the two kinds of request. Either every field is plain, or the methods return false:
// when they find something that the generated code would reject, or would treat differently. A
// request is valid until the decoder reads the next one.
type decoder struct {
	scanner
	entities []eval.Entity
	// objects and members store contexts, in blocks that are never moved.
	objects []eval.Object
	members []eval.Member
	// block stores the JSON of contexts that differs from the request, in blocks as well.
	block []byte
	// contexts and properties count those in earlier blocks.
	contexts, properties int
	// shape is that of the previous entity, and unlike is the number of entities in a row that were
	// parsed in full.
	shape  shape
	unlike int
}

// begin starts a new text and reuses the memory of the previous request.
func (d *decoder) begin(text string) {
	*d = decoder{scanner: scanner{text: text}, entities: d.entities[:0], objects: d.objects[:0], members: d.members[:0], block: d.block[:0], shape: shape{parts: d.shape.parts[:0]}}
	d.skipSpace()
}

// forget removes all references to the request and keeps empty memory for at most the given number
// of parts of each kind.
func (d *decoder) forget(most int) {
	if max(cap(d.entities), cap(d.objects), cap(d.members)) > most || cap(d.block) > textBlock {
		*d = decoder{}
		return
	}
	// Memory beyond the length is already empty.
	clear(d.entities)
	clear(d.objects)
	clear(d.members)
	clear(d.block)
	clear(d.shape.parts[:cap(d.shape.parts)]) // former shapes may be longer
	d.shape = shape{parts: d.shape.parts[:0]}
	d.text = ""
}

// expected estimates the number at the end of the text, if there are n so far. It is at most a few
// times n: after an empty entity, the rest of the text may be one string of 16 MB.
func (d *decoder) expected(n int) int {
	return min(n+n*(len(d.text)-d.at)/d.at*9/8+2, 4*n+1024)
}

// request reads an evalContext.
func (d *decoder) request(text string) (r eval.Request, ok bool) {
	d.begin(text)
	r.PlainTexts = true // other strings are not accepted
	var seen names
	ok = d.object(func(name string) bool {
		switch name {
		case "flagKey":
			return seen.first(0) && d.plainText(&r.FlagKey)
		case "entityID":
			return seen.first(1) && d.plainText(&r.EntityID)
		case "entityType":
			return seen.first(2) && d.plainText(&r.EntityType)
		case "entityContext":
			return seen.first(3) && d.context(&r.EntityContext)
		case "flagID":
			return seen.first(4) && d.id(&r.FlagID)
		case "flagTags":
			return seen.first(5) && d.texts(&r.FlagTags)
		case "flagTagsOperator":
			return seen.first(6) && d.operator(&r.FlagTagsOperator)
		case "enableDebug":
			return seen.first(7) && d.truth(&r.EnableDebug)
		default:
			return false
		}
	})
	return r, ok && d.end()
}

// batch reads an evaluationBatchRequest.
func (d *decoder) batch(text string) (r eval.BatchRequest, ok bool) {
	d.begin(text)
	r.PlainTexts = true // other strings are not accepted
	var seen names
	ok = d.object(func(name string) bool {
		switch name {
		case "entities":
			return seen.first(0) && d.list(func() bool {
				var e eval.Entity
				ok := d.entity(&e)
				if n := len(d.entities); n == cap(d.entities) {
					d.entities = append(make([]eval.Entity, 0, d.expected(n+1)), d.entities...)
				}
				d.entities = append(d.entities, e)
				return ok
			})
		case "flagKeys":
			return seen.first(1) && d.texts(&r.FlagKeys)
		case "flagIDs":
			return seen.first(2) && d.ids(&r.FlagIDs)
		case "flagTags":
			return seen.first(3) && d.texts(&r.FlagTags)
		case "flagTagsOperator":
			return seen.first(4) && d.operator(&r.FlagTagsOperator)
		case "enableDebug":
			return seen.first(5) && d.truth(&r.EnableDebug)
		default:
			return false
		}
	})
	r.Entities = d.entities
	return r, ok && d.end() && len(r.Entities) > 0
}

// entity reads an evaluationEntity.
func (d *decoder) entity(e *eval.Entity) bool {
	if d.alike(e) {
		d.unlike = 0
		return true
	}
	d.unlike++
	var seen names
	d.beginShape(d.unlike < shapeTries || d.unlike%shapeTries == 0)
	ok := d.object(func(name string) (ok bool) {
		start := d.at
		switch name {
		case "entityID":
			ok = seen.first(0) && d.plainText(&e.EntityID)
			d.addText(entityIDValue, start)
		case "entityType":
			ok = seen.first(1) && d.plainText(&e.EntityType)
			d.addText(entityTypeValue, start)
		case "entityContext":
			ok = seen.first(2) && d.context(&e.EntityContext)
			d.addContext(e.EntityContext, start)
		}
		return ok
	})
	d.endShape()
	return ok
}

// names are the names that an object already had, one bit for each.
type names uint8

// first reports whether the name is new.
func (n *names) first(bit uint) bool {
	before := *n
	*n |= 1 << bit
	return *n != before
}

func (d *decoder) plainText(into *string) (ok bool) {
	*into, ok = d.plainString()
	return ok
}

// texts reads a list of strings. An empty list or an empty string is an error in a batch, so it
// returns false.
func (d *decoder) texts(into *[]string) bool {
	ok := d.list(func() bool {
		text, ok := d.plainString()
		*into = append(*into, text)
		return ok && text != ""
	})
	return ok && len(*into) > 0
}

func (d *decoder) operator(into *string) bool {
	return d.plainText(into) && (*into == eval.TagsAny || *into == eval.TagsAll)
}

func (d *decoder) truth(into *bool) bool {
	*into = d.peek() == 't'
	return d.word("true") || d.word("false")
}

// id reads a flag's ID, which is at least 1.
func (d *decoder) id(into *int64) bool {
	start, n := d.at, int64(0)
	for d.at < len(d.text) && d.text[d.at]-'0' <= 9 {
		if n > math.MaxInt64/10-1 {
			return false
		}
		n = n*10 + int64(d.text[d.at]-'0')
		d.at++
	}
	*into = n
	return n > 0 && d.text[start] != '0'
}

// ids reads a list of IDs, which must not be empty.
func (d *decoder) ids(into *[]int64) bool {
	ok := d.list(func() bool {
		*into = append(*into, 0)
		return d.id(&(*into)[len(*into)-1])
	})
	return ok && len(*into) > 0
}

// context reads an entityContext that is an object or null.
func (d *decoder) context(into *any) bool {
	if d.word("null") {
		return true
	}
	start, spaces := d.at, d.spaces
	canonical := true // so far, equal to the output of encoding/json
	from := len(d.members)
	ok := d.object(func(name string) bool {
		valueStart := d.at
		raw, plain, ok := d.value(1)
		d.addProperty(name, valueStart, plain && ok)
		if !plain && ok {
			canonical = false
			raw, ok = rewritten(raw)
		}
		from = d.addMember(from, eval.Member{Name: name, Value: raw})
		return ok
	})
	if !ok {
		return false
	}
	members := d.members[from:len(d.members):len(d.members)]
	for i := 1; i < len(members); i++ {
		if members[i].Name <= members[i-1].Name {
			canonical = false
			slices.SortStableFunc(members, func(a, b eval.Member) int { return strings.Compare(a.Name, b.Name) })
			break
		}
	}
	object := eval.Object{JSON: d.text[start:d.at], Members: members}
	if !canonical || d.spaces != spaces {
		if object.JSON, ok = d.joined(members); !ok {
			return false
		}
	}
	*into = d.newObject(object)
	return true
}

// newObject keeps an object.
func (d *decoder) newObject(object eval.Object) *eval.Object {
	if len(d.objects) == cap(d.objects) {
		d.contexts += len(d.objects)
		d.objects = make([]eval.Object, 0, d.expected(d.contexts+1)-d.contexts)
	}
	d.objects = append(d.objects, object)
	return &d.objects[len(d.objects)-1]
}

// newMembers returns n empty members.
func (d *decoder) newMembers(n int) []eval.Member {
	from := len(d.members)
	if from+n > cap(d.members) {
		d.properties += from
		d.members = make([]eval.Member, 0, max(n, d.expected(d.properties+n)-d.properties))
		from = 0
	}
	d.members = d.members[:from+n]
	return d.members[from : from+n : from+n]
}

// addMember adds to the members that begin at the given index, and returns their new start.
func (d *decoder) addMember(from int, m eval.Member) int {
	if len(d.members) == cap(d.members) {
		begun := d.members[from:]
		d.properties += from
		d.members = append(make([]eval.Member, 0, d.expected(d.properties+len(begun)+1)-d.properties), begun...)
		from = 0
	}
	d.members = append(d.members, m)
	return from
}

// textBlock is the size of a block of texts, unless a single one is longer.
const textBlock = 16 << 10

// joined returns an object with sorted members, or false if two have the same name.
func (d *decoder) joined(members []eval.Member) (string, bool) {
	size := len(`{}`)
	for i := range members {
		if i > 0 && members[i].Name == members[i-1].Name {
			return "", false
		}
		size += len(members[i].Name) + len(members[i].Value) + len(`"":,`)
	}
	if size > cap(d.block)-len(d.block) {
		d.block = make([]byte, 0, max(size, min(textBlock, len(d.text))))
	}
	start := len(d.block)
	b := append(d.block, '{')
	for i := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, '"'), members[i].Name...)
		b = append(append(b, `":`...), members[i].Value...)
	}
	d.block = append(b, '}')
	return textOf(d.block[start:]), true
}

// rewritten decodes and encodes a value with encoding/json, as the generated code does. The value
// may be invalid JSON.
func rewritten(raw string) (string, bool) {
	reader := json.NewDecoder(strings.NewReader(raw))
	reader.UseNumber()
	var decoded any
	if reader.Decode(&decoded) != nil {
		return "", false
	}
	var b bytes.Buffer
	writer := json.NewEncoder(&b)
	writer.SetEscapeHTML(false)
	if writer.Encode(decoded) != nil {
		return "", false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}
