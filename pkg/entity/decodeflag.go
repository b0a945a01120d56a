package entity

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// DecodeFlag decodes the JSON of a flag, for example of a snapshot. Values below 1,000 levels are
// null.
func DecodeFlag(text []byte) (*Flag, error) {
	return decodeFlag(text, flagReader{text: string(text)})
}

// DecodeBareFlag is DecodeFlag without the attachments of variants, which may have megabytes. They
// must be valid all the same. The flag has no parts of the text.
func DecodeBareFlag(text []byte) (*Flag, error) {
	flag, err := decodeFlag(text, flagReader{text: view(text), bare: true})
	if err != nil {
		return nil, err
	}
	for i := range flag.Variants {
		flag.Variants[i].Attachment = ""
	}
	return flag, nil
}

// decodeFlag decodes the text with the reader, or with encoding/json if the reader fails.
func decodeFlag(text []byte, r flagReader) (*Flag, error) {
	flag := &Flag{}
	if r.readAll(flag) {
		return flag, nil
	}
	flag = &Flag{}
	if err := json.Unmarshal(Shallow(text), flag); err != nil {
		return nil, err
	}
	return flag, nil
}

// flagReader reads a flag in the form that AppendFlag writes, which is also Flagr's: all members in
// this order, and no white space. It takes a quarter of the time of encoding/json. At anything
// else, valid or not, it fails. The strings of the flag are parts of the text, unless bare is true:
// then they are copies, and attachments are left out.
type flagReader struct {
	text   string
	bare   bool
	at     int
	failed bool
}

// readAll reads the whole text, and reports whether that was possible.
func (r *flagReader) readAll(f *Flag) bool {
	r.model(&f.Model)
	f.Key = r.string(`,"Key":`)
	f.Description = r.string(`,"Description":`)
	f.CreatedBy = r.string(`,"CreatedBy":`)
	f.UpdatedBy = r.string(`,"UpdatedBy":`)
	f.Enabled = r.truth(`,"Enabled":`)
	f.Segments = readList(r, `,"Segments":`, (*flagReader).segment)
	f.Variants = readList(r, `,"Variants":`, (*flagReader).variant)
	f.Tags = readList(r, `,"Tags":`, (*flagReader).tag)
	f.SnapshotID = r.number(`,"SnapshotID":`)
	f.Notes = r.string(`,"Notes":`)
	f.DataRecordsEnabled = r.truth(`,"DataRecordsEnabled":`)
	f.EntityType = r.string(`,"EntityType":`)
	r.skip(`}`)
	return !r.failed && r.at == len(r.text)
}

func (r *flagReader) segment(s *Segment) {
	r.model(&s.Model)
	s.FlagID = r.number(`,"FlagID":`)
	s.Description = r.string(`,"Description":`)
	s.Rank = r.number(`,"Rank":`)
	s.RolloutPercent = r.number(`,"RolloutPercent":`)
	s.Constraints = readList(r, `,"Constraints":`, (*flagReader).constraint)
	s.Distributions = readList(r, `,"Distributions":`, (*flagReader).distribution)
	r.skip(`}`)
}

func (r *flagReader) constraint(c *Constraint) {
	r.model(&c.Model)
	c.SegmentID = r.number(`,"SegmentID":`)
	c.Property = r.string(`,"Property":`)
	c.Operator = r.string(`,"Operator":`)
	c.Value = r.string(`,"Value":`)
	r.skip(`}`)
}

func (r *flagReader) distribution(d *Distribution) {
	r.model(&d.Model)
	d.SegmentID = r.number(`,"SegmentID":`)
	d.VariantID = r.number(`,"VariantID":`)
	d.VariantKey = r.string(`,"VariantKey":`)
	d.Percent = r.number(`,"Percent":`)
	r.skip(`}`)
}

func (r *flagReader) variant(v *Variant) {
	r.model(&v.Model)
	v.FlagID = r.number(`,"FlagID":`)
	v.Key = r.string(`,"Key":`)
	v.Attachment = r.attachment(`,"Attachment":`)
	r.skip(`}`)
}

func (r *flagReader) tag(t *Tag) {
	r.model(&t.Model)
	t.Value = r.string(`,"Value":`)
	r.skip(`,"Flags":null}`)
}

// model reads the first fields of a row that is not deleted.
func (r *flagReader) model(m *Model) {
	m.ID = r.number(`{"ID":`)
	m.CreatedAt = r.time(`,"CreatedAt":`)
	m.UpdatedAt = r.time(`,"UpdatedAt":`)
	r.skip(`,"DeletedAt":null`)
}

// skip skips what must come next.
func (r *flagReader) skip(next string) {
	if !r.has(next) {
		r.failed = true
	}
}

// has skips what may come next, and reports whether it did. After a failure, it reports false.
func (r *flagReader) has(next string) bool {
	if r.failed || !strings.HasPrefix(r.text[r.at:], next) {
		return false
	}
	r.at += len(next)
	return true
}

// The methods below skip the name of a member, and read its value.

func (r *flagReader) number(name string) uint {
	r.skip(name)
	start := r.at
	for r.at < len(r.text) && r.text[r.at]-'0' <= 9 {
		r.at++
	}
	digits := r.text[start:r.at]
	n, err := strconv.ParseUint(digits, 10, strconv.IntSize)
	if err != nil || digits[0] == '0' && len(digits) > 1 {
		r.failed = true
	}
	return uint(n)
}

func (r *flagReader) truth(name string) bool {
	r.skip(name)
	if r.has("true") {
		return true
	}
	r.skip("false")
	return false
}

func (r *flagReader) time(name string) (t time.Time) {
	r.skip(name)
	r.skip(`"`)
	text, _, ok := strings.Cut(r.text[r.at:], `"`)
	if !ok || t.UnmarshalText([]byte(text)) != nil {
		r.failed = true
		return t
	}
	r.at += len(text) + len(`"`)
	return t
}

func (r *flagReader) string(name string) string {
	r.skip(name)
	if !r.has(`"`) {
		r.failed = true
		return ""
	}
	rest := r.text[r.at:]
	if plain := PlainASCII(rest); plain < len(rest) && rest[plain] == '"' { // most strings
		r.at += plain + 1
		if r.bare {
			return strings.Clone(rest[:plain])
		}
		return rest[:plain]
	}
	for end := 0; end < len(rest); end++ {
		switch rest[end] {
		case '"':
			s, ok := unquoted(rest[:end])
			r.failed = !ok
			r.at += end + 1
			return s
		case '\\':
			end++
		}
	}
	r.failed = true
	return ""
}

// unquoted decodes what is between the quotes of a string. It returns false if that is not valid.
func unquoted(text string) (string, bool) {
	b := make([]byte, 0, len(text))
	for rest := text; ; {
		plain := plainLength(rest)
		b = append(b, rest[:plain]...)
		switch {
		case plain == len(rest):
			return string(b), true
		case plain+1 < len(rest) && rest[plain] == '\\' && (rest[plain+1] == '"' || rest[plain+1] == '\\'):
			b = append(b, rest[plain+1])
			rest = rest[plain+2:]
		case strings.HasPrefix(rest[plain:], `\n`):
			b = append(b, '\n')
			rest = rest[plain+2:]
		default:
			var s string
			err := json.Unmarshal([]byte(`"`+text+`"`), &s)
			return s, err == nil
		}
	}
}

// attachment reads an object of at most MaxJSONDepth levels, or null.
func (r *flagReader) attachment(name string) Attachment {
	r.skip(name)
	if r.failed || r.has("null") {
		return ""
	}
	if !strings.HasPrefix(r.text[r.at:], "{") {
		r.failed = true
		return ""
	}
	start, level := r.at, 0
	for {
		at, step := nextBracket(r.text, r.at)
		if level += step; step == 0 || level > MaxJSONDepth {
			r.failed = true
			return ""
		}
		if r.at = at + 1; level == 0 {
			break
		}
	}
	text := r.text[start:r.at]
	if !isValid(text) {
		r.failed = true
		return ""
	}
	if r.bare {
		return ""
	}
	return Attachment(canonical(text))
}

// readList reads a list, or null as nil.
func readList[T any](r *flagReader, name string, one func(*flagReader, *T)) []T {
	r.skip(name)
	if r.has("null") {
		return nil
	}
	r.skip("[")
	list := []T{}
	if r.has("]") {
		return list
	}
	for !r.failed {
		var item T
		one(r, &item)
		list = append(list, item)
		if r.has("]") {
			return list
		}
		r.skip(",")
	}
	return nil
}
