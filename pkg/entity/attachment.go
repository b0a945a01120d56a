package entity

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
)

// Attachment is the JSON of the free-form object of a variant, which clients receive. It is the JSON that EncodeJSON
// writes for the decoded object: names are sorted, and numbers keep their notation, so that large integers are exact. So equal
// objects have equal attachments, and an attachment takes the memory of its JSON. An empty Attachment is stored and
// served as null. Use ParseAttachment for JSON that can have another form.
type Attachment string

// ParseAttachment returns the attachment of a JSON object or null.
func ParseAttachment(text string) (Attachment, error) {
	if !isValid(text) {
		var value json.RawMessage
		decoder := json.NewDecoder(strings.NewReader(text)) // names the error, or accepts what follows the value
		if err := decoder.Decode(&value); err != nil {
			return "", err
		}
		text = string(value)
	}
	text = strings.Trim(text, space)
	if text[0] != '{' {
		var object map[string]any // null, or an error that names the type
		return "", json.Unmarshal([]byte(text), &object)
	}
	return Attachment(canonical(text)), nil
}

// Scan parses the JSON of a database column; NULL and an empty string give an empty Attachment. See Shallow.
func (a *Attachment) Scan(value any) error {
	var text string
	switch v := value.(type) {
	case nil:
	case []byte:
		text = string(v)
	case string:
		text = v
	default:
		return fmt.Errorf("scan attachment: unexpected column type %T", value)
	}
	*a = ""
	if len(text) == 0 {
		return nil
	}
	parsed, err := ParseAttachment(Shallow(text))
	if err != nil {
		return fmt.Errorf("scan attachment: %w", err)
	}
	*a = parsed
	return nil
}

// JSON returns the JSON of an object, or null.
func (a Attachment) JSON() string {
	if a == "" {
		return "null"
	}
	return string(a)
}

// HasMembers reports whether the attachment is an object that is not empty.
func (a Attachment) HasMembers() bool { return len(a) > len("{}") }

// Member returns the JSON of a member of the object, or an empty string if it does not exist.
func (a Attachment) Member(name string) string {
	if !a.HasMembers() {
		return ""
	}
	r := validReader{text: string(a), at: len("{")}
	for r.text[r.at] != '}' {
		found := r.string()
		r.at += len(":")
		start := r.at
		r.skipValue()
		if found >= name { // names are sorted
			if found == name {
				return r.text[start:r.at]
			}
			break
		}
		r.skip(',')
	}
	return ""
}

// Same reports whether two attachments have the same members, in the same notation. An empty one has none.
func (a Attachment) Same(b Attachment) bool { return a == b || !a.HasMembers() && !b.HasMembers() }

// Value returns the JSON to store.
func (a Attachment) Value() (driver.Value, error) { return a.JSON(), nil }

// MarshalJSON returns the JSON of the object, or null.
func (a Attachment) MarshalJSON() ([]byte, error) { return []byte(a.JSON()), nil }

// UnmarshalJSON parses a JSON object or null.
func (a *Attachment) UnmarshalJSON(text []byte) (err error) {
	*a, err = ParseAttachment(string(text))
	return err
}

// EncodeJSON is json.Marshal without escaping HTML, which makes some characters six times as long.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}
