package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// closeMargin is the most time that Close reserves for the sink to stop sending after the flush.
const closeMargin = 2 * time.Second

// QueueOptions are the options that all streams share.
type QueueOptions struct {
	// Records and Bytes bound what a stream holds in memory until it is delivered. 0 means the
	// defaults of package recorder.
	Records int
	Bytes   int64
	// Logger is mandatory.
	Logger *slog.Logger
}

// StreamRecorder sends records to a broker: Kafka, Kinesis or Pub/Sub.
type StreamRecorder struct {
	name          string
	sink          *recorder.Sink
	encryptionKey *[recorder.KeySize]byte // nil sends plain frames
}

func newStreamRecorder(queue QueueOptions, o recorder.Options) *StreamRecorder {
	o.MaxRecords, o.MaxBytes = queue.Records, queue.Bytes
	return &StreamRecorder{name: o.Name, sink: recorder.NewSink(o)}
}

// Name returns the name of the broker's recorder.
func (s *StreamRecorder) Name() string { return s.name }

// Start starts sending.
func (s *StreamRecorder) Start() { s.sink.Start() }

// Flush sends what was recorded so far.
func (s *StreamRecorder) Flush(ctx context.Context) error { return s.sink.Flush(ctx) }

// Close sends the remaining records until shortly before ctx ends, and counts the rest as dropped.
// The time that it reserves is for the other components that must be closed.
func (s *StreamRecorder) Close(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-min(closeMargin, time.Until(deadline)/4)))
		defer cancel()
	}
	return s.sink.Close(ctx)
}

// Failing reports whether the last attempt to deliver failed.
func (s *StreamRecorder) Failing() bool { return s.sink.Stats().State == recorder.Failing }

// Stats returns the statistics of the stream's records.
func (s *StreamRecorder) Stats() recorder.Stats { return s.sink.Stats() }

// newRecord copies a result into a record. It does not encode anything, so that the request's
// goroutine does not wait for the encoding.
func newRecord(r *eval.Result, framing *recorder.Framing) *recorder.Record {
	size := recordSize(r)
	p := &payload{result: r.Copy()}
	p.copyRequest()
	return recorder.NewRecord(p.result.Request.EntityID, size, framing, p)
}

// copyRequest copies what the request reuses: its strings, and the memory of an eval.Object.
func (p *payload) copyRequest() {
	r := &p.result.Request
	context, isObject := r.EntityContext.(*eval.Object)
	if isObject {
		p.context.JSON = context.JSON
		r.EntityContext = &p.context
	}
	texts := [...]*string{&r.EntityID, &r.EntityType, &r.FlagKey, &r.FlagTagsOperator, &p.context.JSON}
	var all strings.Builder // one allocation
	length := 0
	for _, text := range texts {
		length += len(*text)
	}
	all.Grow(length)
	for _, text := range texts {
		start := all.Len()
		all.WriteString(*text)
		*text = all.String()[start:]
	}
	if len(r.FlagTags) > 0 {
		r.FlagTags = slices.Clone(r.FlagTags)
		for i, tag := range r.FlagTags {
			r.FlagTags[i] = strings.Clone(tag)
		}
	}
}

// payload is a copy of a result.
type payload struct {
	result  eval.Result
	context eval.Object // of the result's request, if it has an Object; without its members
}

// MarshalPayload returns the JSON of an evaluation as encoding/json writes it by default: unlike in
// HTTP responses, <, > and & are escaped. Flagr's frames use the same form.
func (p *payload) MarshalPayload() ([]byte, error) {
	return escapeHTML(p.result.AppendJSON(make([]byte, 0, payloadBytes))), nil
}

// escapeHTML escapes <, > and &. JSON contains them only in strings.
func escapeHTML(text []byte) []byte {
	if !bytes.ContainsAny(text, "<>&") {
		return text
	}
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, text)
	return escaped.Bytes()
}

// payloadBytes is a buffer size that fits the JSON of most results.
const payloadBytes = 1024

// recordBytes is the fixed size of a record: its structures before encoding, or the names in its
// JSON afterward.
const recordBytes = 900

// recordSize estimates the memory that a record takes before or after encoding, whichever is
// larger.
func recordSize(r *eval.Result) int {
	size := recordBytes + 2*(len(r.Request.EntityID)+len(r.Request.EntityType)) + 3*len(r.FlagKey) + len(r.VariantKey) +
		valueSize(r.Request.EntityContext) + tagsSize(r.FlagTags) + tagsSize(r.Request.FlagTags)
	if r.VariantAttachment != "" {
		size += jsonSize(string(r.VariantAttachment))
	}
	for i := range r.SegmentLogs {
		size += 80 + len(r.SegmentLogs[i].Message)
	}
	return size
}

func tagsSize(tags []string) int {
	size := 0
	for _, tag := range tags {
		size += 8 + len(tag)
	}
	return size
}

// escapes returns how many bytes a string gains from escapeHTML and from nesting a payload in a
// string. It returns 0 for short strings.
func escapes(s string) int {
	const short, longer = 512, len(`\\u003c`) - 1
	if len(s) <= short {
		return 0
	}
	return longer * (strings.Count(s, "<") + strings.Count(s, ">") + strings.Count(s, "&"))
}

// jsonSize estimates the memory of a JSON object.
func jsonSize(text string) int { return 64 + 2*len(text) + escapes(text) }

// valueSize estimates the memory of decoded JSON: two words per value, plus an overhead for
// strings, maps and lists.
func valueSize(value any) int {
	switch v := value.(type) {
	case *eval.Object:
		return jsonSize(v.JSON)
	case string:
		return 32 + len(v) + escapes(v)
	case json.Number:
		return 32 + len(v)
	case []any:
		size := 40
		for _, item := range v {
			size += valueSize(item)
		}
		return size
	case map[string]any:
		size := 64
		for key, item := range v {
			size += 24 + len(key) + valueSize(item)
		}
		return size
	default:
		return 16
	}
}
