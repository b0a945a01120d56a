package entity

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"reflect"
)

// Attachment is the free-form JSON object of a variant, which clients receive. Numbers keep their notation, so that
// large integers are exact. A nil Attachment is stored and served as null, an empty one as {}.
type Attachment map[string]any

// Scan decodes the JSON of a database column; NULL and an empty string give a nil Attachment. See Shallow.
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
	*a = nil
	if len(text) == 0 {
		return nil
	}
	if err := decodeObject(Shallow(text), (*map[string]any)(a)); err != nil {
		return fmt.Errorf("scan attachment: %w", err)
	}
	return nil
}

// Same reports whether two attachments have the same members, in the same notation. A nil one has none.
func (a Attachment) Same(b Attachment) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// Value returns the JSON to store.
func (a Attachment) Value() (driver.Value, error) {
	text, err := EncodeJSON(map[string]any(a))
	if err != nil {
		return nil, fmt.Errorf("store attachment: %w", err)
	}
	return string(text), nil
}

// EncodeJSON is json.Marshal without escaping HTML, which makes some characters six times as long.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// UnmarshalJSON keeps numbers as json.Number.
func (a *Attachment) UnmarshalJSON(text []byte) error {
	*a = nil
	return decodeObject(string(text), (*map[string]any)(a))
}
