package entity

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
)

// Attachment is the JSON of the free-form object of a variant, which clients receive. It is the
// JSON that EncodeJSON writes for the decoded object: names are sorted, and numbers keep their
// notation, so that large integers are exact. So equal objects have equal attachments, and an
// attachment takes the memory of its JSON. An empty Attachment is stored and served as null. Use
// ParseAttachment for JSON that can have another form.
type Attachment string

// ParseAttachment returns the attachment of a JSON object or null that a client sends. The error
// matches ErrInvalid if it nests deeper than MaxJSONDepth. Otherwise it is that of json.Unmarshal.
func ParseAttachment(text string) (a Attachment, err error) {
	// An object in the wrong order is copied once for each level around it, so the depth is checked
	// first.
	if err := Attachment(text).CheckDepth(); err != nil {
		return "", err
	}
	if !isValid(text) {
		return "", json.Unmarshal([]byte(text), &a) // names the error
	}
	return attachmentOf(text)
}

// attachmentOf returns the attachment of a JSON object or null, which must be valid JSON.
func attachmentOf(text string) (Attachment, error) {
	text = strings.Trim(text, space)
	if text[0] != '{' {
		var object map[string]any // null, or an error that names the type
		return "", json.Unmarshal([]byte(text), &object)
	}
	return Attachment(canonical(text)), nil
}

// Scan parses the JSON of a database column; NULL and an empty string give an empty Attachment. See
// Shallow. What follows the object is omitted.
func (a *Attachment) Scan(value any) (err error) {
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
	text = shallow(text)
	if !isValid(text) {
		var object json.RawMessage
		if err := json.NewDecoder(strings.NewReader(text)).Decode(&object); err != nil {
			return fmt.Errorf("scan attachment: %w", err)
		}
		text = string(object)
	}
	if *a, err = attachmentOf(text); err != nil {
		return fmt.Errorf("scan attachment: %w", err)
	}
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

// Same reports whether two attachments have the same members, in the same notation. An empty one
// has none.
func (a Attachment) Same(b Attachment) bool { return a == b || !a.HasMembers() && !b.HasMembers() }

// Value returns the JSON to store.
func (a Attachment) Value() (driver.Value, error) { return a.JSON(), nil }

// MarshalJSON returns the JSON of the object, or null.
func (a Attachment) MarshalJSON() ([]byte, error) { return []byte(a.JSON()), nil }

// UnmarshalJSON parses a JSON object or null.
func (a *Attachment) UnmarshalJSON(text []byte) (err error) {
	*a, err = attachmentOf(string(text))
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
