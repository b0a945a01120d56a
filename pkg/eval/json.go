package eval

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the result in the form of the API's evalResult, byte for byte as encoding/json writes the generated
// model without escaping HTML. What depends on the flag alone was written when the flag was compiled. An EntityContext
// that is no JSON at all is written as null.
func (r *Result) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if r.DataRecordsEnabled {
		b = append(b, `"dataRecordsEnabled":true,`...)
	}
	b = append(b, `"evalContext":{`...)
	b = r.Request.appendMembers(b)
	b = append(b, `},"evalDebugLog":{`...)
	b = appendText(b, "msg", r.Message)
	b = append(b, `"segmentDebugLogs":`...)
	b = r.appendSegmentLogs(b)
	b = append(b, `},`...)
	if r.flag != nil {
		b = append(b, r.flag.json...)
	} else {
		b = appendFlag(b, r.FlagID, r.FlagKey, r.FlagSnapshotID, r.FlagTags)
	}
	b = append(b, `"recordSource":"`...)
	b = append(b, r.RecordSource.String()...)
	b = append(b, `",`...)
	b = appendNumber(b, "segmentID", r.SegmentID)
	b = append(b, `"timestamp":"`...)
	b = r.Timestamp.UTC().AppendFormat(b, time.RFC3339)
	b = append(b, '"')
	if r.given != nil {
		b = append(b, r.given.json...)
	}
	return append(b, '}')
}

// appendMembers appends the members of an evalContext.
func (r *Request) appendMembers(b []byte) []byte {
	start := len(b)
	if r.EnableDebug {
		b = append(b, `"enableDebug":true,`...)
	}
	switch context := r.EntityContext.(type) {
	case nil:
	case *Object:
		b = append(b, `"entityContext":`...)
		b = append(b, context.JSON...)
		b = append(b, ',')
	default:
		encoded, err := encode(context)
		if err != nil {
			encoded = []byte("null")
		}
		b = append(b, `"entityContext":`...)
		b = append(b, encoded...)
		b = append(b, ',')
	}
	b = appendText(b, "entityID", r.EntityID)
	b = appendText(b, "entityType", r.EntityType)
	b = appendNumber(b, "flagID", r.FlagID)
	b = appendText(b, "flagKey", r.FlagKey)
	b = appendTexts(b, "flagTags", r.FlagTags)
	b = appendText(b, "flagTagsOperator", r.FlagTagsOperator)
	if len(b) > start {
		b = b[:len(b)-1] // the last comma
	}
	return b
}

func (r *Result) appendSegmentLogs(b []byte) []byte {
	if len(r.SegmentLogs) == 0 {
		return append(b, `null`...)
	}
	for i, log := range r.SegmentLogs {
		b = append(b, "[,"[min(i, 1)], '{')
		start := len(b)
		b = appendText(b, "msg", log.Message)
		b = appendNumber(b, "segmentID", log.SegmentID)
		if len(b) > start {
			b = b[:len(b)-1]
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendFlag(b []byte, id int64, key string, snapshotID int64, tags []string) []byte {
	b = appendNumber(b, "flagID", id)
	b = appendText(b, "flagKey", key)
	b = appendNumber(b, "flagSnapshotID", snapshotID)
	return appendTexts(b, "flagTags", tags)
}

// The next three append a member and a comma, or nothing if the value is empty.

func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	b = appendName(b, name)
	b = strconv.AppendInt(b, n, 10)
	return append(b, ',')
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = appendName(b, name)
	b = appendString(b, s)
	return append(b, ',')
}

func appendTexts(b []byte, name string, texts []string) []byte {
	if len(texts) == 0 {
		return b
	}
	b = appendName(b, name)
	for i, s := range texts {
		b = append(b, "[,"[min(i, 1)])
		b = appendString(b, s)
	}
	return append(b, `],`...)
}

func appendName(b []byte, name string) []byte {
	b = append(b, '"')
	b = append(b, name...)
	return append(b, `":`...)
}

func appendString(b []byte, s string) []byte {
	if !IsPlain(s) {
		encoded, _ := encode(s) // a string has no error
		return append(b, encoded...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// IsPlain reports whether a string stands in JSON as it is. It must be valid UTF-8 without control characters, quotes and
// backslashes, and without the separators of lines and paragraphs, which encoding/json escapes for JavaScript.
func IsPlain(s string) bool {
	ascii := true
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return ascii || utf8.ValidString(s) && !strings.ContainsAny(s, "\u2028\u2029")
}

// encode is json.Marshal without escaping HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}
