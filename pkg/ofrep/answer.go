package ofrep

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// Error codes of OpenFeature.
const (
	codeParseError          = "PARSE_ERROR"
	codeInvalidContext      = "INVALID_CONTEXT"
	codeTargetingKeyMissing = "TARGETING_KEY_MISSING"
	codeFlagNotFound        = "FLAG_NOT_FOUND"
	codeGeneral             = "GENERAL"
)

// answers are all possible responses about one flag, each from after the flag's key to the closing
// brace.
type answers struct {
	name       string // the opening brace and the key
	disabled   answer
	nothing    answer // no variant was assigned
	keyMissing answer
	grants     []answer // by eval.Result.Grant
}

// answer is the text of one response, in parts; it is an error if failed. Segments that assign a
// variant share its texts: with a copy for each of them, an attachment of 200 KB in 2,000 segments
// took 800 MB.
type answer struct {
	text   string
	given  *texts // of the variant; nil if the text is the whole response
	failed bool
	// digest represents the key and the text in the entity tag of a response about many flags. It
	// is the same on all servers.
	digest uint64
}

// texts are the parts of the responses with a variant that do not depend on the segment.
type texts struct {
	before, value, between string // in front of the text of an answer; the flag has the same copy of the value
	after                  string // the text of an answer
	err                    error  // the variant has no value of the flag's type
	digest                 [sha256.Size]byte
}

func (a *answer) sign(name string) {
	text := []byte(name + a.text)
	if a.given != nil {
		text = append(text, a.given.digest[:]...)
	}
	sum := sha256.Sum256(text)
	a.digest = binary.BigEndian.Uint64(sum[:])
}

// parts returns the parts of the whole text, and their length.
func (a *answer) parts() (parts [5]string, length int) {
	parts = [5]string{a.text}
	if given := a.given; given != nil {
		parts = [5]string{given.before, given.value, given.between, a.text, given.after}
	}
	for _, part := range parts {
		length += len(part)
	}
	return parts, length
}

// appendTo appends the whole text.
func (a *answer) appendTo(b []byte) []byte {
	parts, length := a.parts()
	b = slices.Grow(b, length) // a value may have megabytes
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

// writeTo writes the whole text without a copy.
func (a *answer) writeTo(out io.Writer) error {
	parts, _ := a.parts()
	for _, part := range parts {
		if err := eval.WriteParts(out, part); err != nil {
			return err
		}
	}
	return nil
}

// of returns the answer for a result of the flag.
func (a *answers) of(r *eval.Result) *answer {
	switch r.Reason {
	case eval.Matched:
		return &a.grants[r.Grant()]
	case eval.FlagDisabled:
		return &a.disabled
	case eval.EntityIDMissing:
		return &a.keyMissing
	default:
		return &a.nothing
	}
}

// answersFor prepares the answers of a flag.
func answersFor(f eval.CompiledFlag, flagSetID string) *answers {
	w := answerWriter{flag: f.Source(), values: f.Values(), flagSetID: flagSetID, texts: map[uint]*texts{}}
	a := &answers{
		name:     `{"key":` + jsonOf(w.flag.Key) + `,`,
		disabled: answer{text: w.reason(eval.OpenFeatureDisabled, "", 0, 0) + "}}"},
		keyMissing: answer{
			failed: true,
			text:   errorText(codeTargetingKeyMissing, "flag "+w.flag.Key+" needs a targetingKey", w.metadata(0, 0)+"}"),
		},
	}
	if fallback := w.values.Default; fallback != nil {
		a.nothing = w.variant(fallback, eval.OpenFeatureDefault, 0, 0)
	} else {
		a.nothing = answer{text: w.reason(eval.OpenFeatureDefault, "", 0, 0) + "}}"}
	}
	for _, g := range f.Grants() {
		if g.Variant == nil {
			a.grants = append(a.grants, answer{})
			continue
		}
		a.grants = append(a.grants, w.variant(g.Variant, g.OpenFeatureReason(), g.SegmentID, int64(g.Variant.ID)))
	}
	for _, one := range []*answer{&a.disabled, &a.nothing, &a.keyMissing} {
		one.sign(a.name)
	}
	for i := range a.grants {
		a.grants[i].sign(a.name)
	}
	return a
}

// answerWriter writes the answers of one flag.
type answerWriter struct {
	flag      *entity.Flag
	values    *eval.Values
	flagSetID string
	texts     map[uint]*texts // by variant
}

// variant writes the answer with a variant. Without IDs, the evaluation did not assign the variant.
func (w *answerWriter) variant(v *entity.Variant, reason string, segmentID, variantID int64) answer {
	given := w.texts[v.ID]
	if given == nil {
		given = w.textsOf(v)
		w.texts[v.ID] = given
	}
	if given.err != nil {
		return answer{text: errorStart(codeParseError, given.err.Error()) + w.metadata(segmentID, variantID), given: given, failed: true}
	}
	return answer{text: w.reason(reason, v.Key, segmentID, variantID), given: given}
}

// textsOf writes the parts that do not depend on the segment. Without a value, the provider returns
// the application's default.
func (w *answerWriter) textsOf(v *entity.Variant) *texts {
	value := w.values.Of(v)
	t := &texts{after: "}}", err: value.Err}
	if value.JSON != "" && value.Err == nil {
		t.before, t.value, t.between = `"value":`, value.JSON, ","
	}
	if value.Attachment != "" {
		t.after = `,"attachment":` + jsonOf(value.Attachment.JSON()) + t.after
	}
	digest := sha256.New()
	for _, text := range []string{t.before, t.value, t.between, t.after} {
		_, _ = io.WriteString(digest, text) // never fails
	}
	digest.Sum(t.digest[:0])
	return t
}

// reason writes the part of an answer after the value, without the end of the metadata.
func (w *answerWriter) reason(reason, variant string, segmentID, variantID int64) string {
	return `"reason":"` + reason + `","variant":` + jsonOf(variant) + `,"metadata":` + w.metadata(segmentID, variantID)
}

// metadata writes the metadata of the flag and the assigned variant, without attachment and closing
// brace. It has only strings, booleans and 32-bit integers, because some providers do not support
// other types.
func (w *answerWriter) metadata(segmentID, variantID int64) string {
	b := appendInt([]byte(`{"flagID":`), int64(w.flag.ID))
	if w.flag.SnapshotID != 0 {
		b = append(b, `,"version":"`...)
		b = strconv.AppendUint(b, uint64(w.flag.SnapshotID), 10)
		b = append(b, '"')
	}
	if segmentID != 0 {
		b = appendInt(append(b, `,"segmentID":`...), segmentID)
	}
	if variantID != 0 {
		b = appendInt(append(b, `,"variantID":`...), variantID)
	}
	b = strconv.AppendBool(append(b, `,"dataRecordsEnabled":`...), w.flag.DataRecordsEnabled)
	if w.flagSetID != "" {
		b = append(append(b, `,"flagSetId":`...), jsonOf(w.flagSetID)...)
	}
	return string(b)
}

// appendInt appends a number, or a string if the number needs more than 32 bits.
func appendInt(b []byte, n int64) []byte {
	if n > math.MaxInt32 || n < -math.MaxInt32 {
		return append(strconv.AppendInt(append(b, '"'), n, 10), '"')
	}
	return strconv.AppendInt(b, n, 10)
}

// errorText writes an error without the key.
func errorText(code, details, metadata string) string {
	return errorStart(code, details) + metadata + `}`
}

func errorStart(code, details string) string {
	return `"errorCode":"` + code + `","errorDetails":` + jsonOf(details) + `,"metadata":`
}

// jsonOf encodes a value without escaping HTML. Values that come from JSON or are strings cannot
// fail.
func jsonOf(value any) string {
	if text, ok := value.(string); ok && entity.IsPlain(text) {
		return `"` + text + `"`
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return "null"
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte{'\n'}))
}

// appendName appends the opening brace and the key of an answer.
func appendName(b []byte, key string) []byte {
	b = append(b, `{"key":`...)
	if entity.IsPlain(key) {
		b = append(append(append(b, '"'), key...), '"')
	} else {
		b = append(b, jsonOf(key)...)
	}
	return append(b, ',')
}
