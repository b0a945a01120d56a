package eval

import (
	"io"
	"strconv"
	"time"
	"unsafe"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// AppendJSON appends the result as Encoder does.
func (r *Result) AppendJSON(b []byte) []byte {
	var e Encoder
	return e.Append(b, r)
}

// Encoder writes results as JSON. If it is reused, it formats the time of each second once. The
// zero value is ready to use, by one goroutine.
type Encoder struct {
	second    int64 // since 1970, of timestamp
	timestamp [64]byte
	length    int // of timestamp
}

// Append appends a result in the format of the API's evalResult, with the same bytes as
// encoding/json writes for the generated model without escaping HTML. The parts that depend only on
// the flag were written when the flag was compiled. An EntityContext that is not valid JSON is
// written as null. An exposure has the same format.
func (e *Encoder) Append(b []byte, r *Result) []byte {
	b, end := e.appendStart(b, r)
	return append(b, end...)
}

// Split is Append, but returns a long end, which has the attachment, as a string of the flag. A
// response that copies it would hold it for as long as a client reads it.
func (e *Encoder) Split(b []byte, r *Result) (_ []byte, end string) {
	if b, end = e.appendStart(b, r); len(end) <= longEndBytes {
		return append(b, end...), ""
	}
	return b, end
}

// longEndBytes is the length from which the end of a result is not copied as a whole.
const longEndBytes = 16 << 10

// WriteParts writes a string in parts, without a copy, which a client that reads slowly would hold.
func WriteParts(out io.Writer, s string) error {
	for len(s) > 0 {
		n := min(len(s), longEndBytes)
		if _, err := out.Write(unsafe.Slice(unsafe.StringData(s), n)); err != nil { // an io.Writer does not change it
			return err
		}
		s = s[n:]
	}
	return nil
}

// appendStart appends a result up to its end, which it returns.
func (e *Encoder) appendStart(b []byte, r *Result) (_ []byte, end string) {
	if r.DataRecordsEnabled {
		b = append(b, `{"dataRecordsEnabled":true,"evalContext":{`...)
	} else {
		b = append(b, `{"evalContext":{`...)
	}
	b = r.Request.appendMembers(b)
	if r.given != nil && len(r.SegmentLogs) == 0 { // nearly always
		b = append(append(append(b, undebugged...), r.flag.json...), r.given.middle...)
		return e.appendTime(b, r.Timestamp), r.given.end
	}
	b = append(b, `},"evalDebugLog":{`...)
	b = appendText(b, `"msg":`, r.Message)
	if len(r.SegmentLogs) == 0 {
		b = append(b, `"segmentDebugLogs":null},`...)
	} else {
		b = append(b, `"segmentDebugLogs":[`...)
		b = appendSegmentLogs(b, r.SegmentLogs)
		b = append(b, `]},`...)
	}
	if r.flag != nil {
		b = append(b, r.flag.json...)
	} else {
		b = appendFlag(b, r.FlagID, r.FlagKey, r.FlagSnapshotID, r.FlagTags)
	}
	b = appendSource(b, r.RecordSource, r.SegmentID)
	b = append(b, timestampName...)
	b = e.appendTime(b, r.Timestamp)
	if r.given != nil {
		return b, r.given.end
	}
	b = append(b, `",`...)
	b = appendNumber(b, `"variantID":`, r.VariantID) // of an exposure
	b = appendText(b, `"variantKey":`, r.VariantKey)
	b[len(b)-1] = '}'
	return b, ""
}

const (
	timestampName = `"timestamp":"`
	// undebugged is the part between the request and the flag without debugging.
	undebugged = `},"evalDebugLog":{"segmentDebugLogs":null},`
)

// appendTime appends a time in RFC 3339, to the second.
func (e *Encoder) appendTime(b []byte, t time.Time) []byte {
	if second := t.Unix(); e.length == 0 || second != e.second {
		// 20 characters, and a few more after the year 9999.
		e.second, e.length = second, len(t.UTC().AppendFormat(e.timestamp[:0], time.RFC3339))
	}
	return append(b, e.timestamp[:e.length]...)
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
		encoded, err := entity.EncodeJSON(context)
		if err != nil {
			encoded = []byte("null")
		}
		b = append(b, `"entityContext":`...)
		b = append(b, encoded...)
		b = append(b, ',')
	}
	appendText := appendText
	if r.PlainTexts {
		appendText = appendPlainText
	}
	b = appendText(b, `"entityID":`, r.EntityID)
	b = appendText(b, `"entityType":`, r.EntityType)
	b = appendNumber(b, `"flagID":`, r.FlagID)
	b = appendText(b, `"flagKey":`, r.FlagKey)
	b = appendTexts(b, `"flagTags":`, r.FlagTags)
	b = appendText(b, `"flagTagsOperator":`, r.FlagTagsOperator)
	if len(b) > start {
		b = b[:len(b)-1] // the last comma
	}
	return b
}

func appendSegmentLogs(b []byte, logs []SegmentLog) []byte {
	for i, log := range logs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		start := len(b)
		b = appendText(b, `"msg":`, log.Message)
		b = appendNumber(b, `"segmentID":`, log.SegmentID)
		if len(b) > start {
			b = b[:len(b)-1] // the last comma
		}
		b = append(b, '}')
	}
	return b
}

func appendFlag(b []byte, id int64, key string, snapshotID int64, tags []string) []byte {
	b = appendNumber(b, `"flagID":`, id)
	b = appendText(b, `"flagKey":`, key)
	b = appendNumber(b, `"flagSnapshotID":`, snapshotID)
	return appendTexts(b, `"flagTags":`, tags)
}

func appendSource(b []byte, source RecordSource, segmentID int64) []byte {
	b = appendPlainText(b, `"recordSource":`, source.String())
	return appendNumber(b, `"segmentID":`, segmentID)
}

// The next four functions append a member and a comma, or nothing if the value is empty. The name
// includes quotes and colon.

func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	b = append(b, name...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, ',')
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, name...)
	b = entity.AppendString(b, s)
	return append(b, ',')
}

// appendPlainText requires a string for which IsPlain is true.
func appendPlainText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(append(b, name...), '"')
	return append(append(b, s...), `",`...)
}

func appendTexts(b []byte, name string, texts []string) []byte {
	if len(texts) == 0 {
		return b
	}
	b = append(b, name...)
	for i, s := range texts {
		b = append(b, "[,"[min(i, 1)])
		b = entity.AppendString(b, s)
	}
	return append(b, `],`...)
}
