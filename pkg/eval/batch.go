package eval

import (
	"encoding/json"
	"io"
	"time"
)

const (
	// DefaultAnswerBytes is the maximum response to a batch if Options.AnswerBytes is 0.
	DefaultAnswerBytes = 64 << 20
	// batchTimeout limits the evaluation of a batch: the server closes connections after 30 s.
	batchTimeout = 25 * time.Second
	// largeBatch is the maximum number of evaluations of a batch that takes no turns.
	largeBatch = 1000
	// partBytes is how much of the response to a batch is kept in memory before it is sent.
	partBytes = 256 << 10
	// MaxBatchBuffer is the maximum that a BatchEncoder with an output keeps, unless one result
	// without its attachment is larger.
	MaxBatchBuffer = partBytes + 64<<10
	// fixedResultBytes is the approximate size of an evalResult without its strings: names of
	// members, the time, numbers.
	fixedResultBytes = 240
)

// ErrTooSlow is the error of a batch that was not evaluated within 25 s.
var ErrTooSlow error = tooSlow{}

type tooSlow struct{}

func (tooSlow) Error() string {
	return "the batch was not evaluated within 25 s: ask for fewer entities or flags"
}

// IsLarge reports whether a batch has so many evaluations that it takes turns with other large
// requests, also if its body is small: more than largeBatch. A batch with tags is large, because
// any number of flags can have them, and so is one with debug logs, which list any number of
// segments.
func (b *BatchRequest) IsLarge() bool {
	return b.EnableDebug || len(b.FlagTags) > 0 || len(b.Entities)*(len(b.FlagIDs)+len(b.FlagKeys)) > largeBatch
}

// BatchEncoder writes the response to a batch, in the format of the API's evaluationBatchResponse.
// It sends a long response in parts, so that it uses no more memory than a part. It is for one
// goroutine.
type BatchEncoder struct {
	encoder Encoder
	answer  []byte
	out     io.Writer
	any     bool // result so far
	sent    bool // a part
}

// NewBatchEncoder begins a response after the bytes of b, and uses the memory of b. It writes parts
// to out; if out is nil, the whole response stays in memory. It ignores errors of out: the context
// of a client that disconnects ends its batch.
func NewBatchEncoder(b []byte, out io.Writer) *BatchEncoder {
	return &BatchEncoder{answer: append(b, `{"evaluationResults":[`...), out: out}
}

// Add appends a result. It does not keep a reference to it.
func (e *BatchEncoder) Add(r *Result) {
	if e.any {
		e.answer = append(e.answer, ',')
	}
	e.any = true
	if e.out == nil {
		e.answer = e.encoder.Append(e.answer, r)
		return
	}
	start, end := e.encoder.appendStart(e.answer, r)
	e.answer = start
	for len(end) > longEndBytes { // an attachment may be much longer than a part
		e.answer = append(e.answer, end[:longEndBytes]...)
		end = end[longEndBytes:]
		e.send(r)
	}
	e.answer = append(e.answer, end...)
	e.send(r)
}

// send sends a part that ends with r, if it is long enough.
func (e *BatchEncoder) send(r *Result) {
	if len(e.answer) >= partBytes {
		if r.records != nil {
			r.records.Flush()
		}
		e.sent = true
		_, _ = e.out.Write(e.answer)
		e.answer = e.answer[:0]
	}
}

// Sent reports whether a part was sent.
func (e *BatchEncoder) Sent() bool { return e.sent }

// Finish ends the response and returns the part that is not sent yet.
func (e *BatchEncoder) Finish() []byte { return append(e.answer, `]}`...) }

// answerBytes estimates the length of the response to a batch. It is an upper bound except for
// characters that JSON escapes.
func answerBytes(batch *BatchRequest, targets []target) int {
	perEntity := 0
	for i := range targets {
		perEntity += targets[i].bytes()
	}
	total := len(batch.Entities) * perEntity
	for i := range batch.Entities {
		e := &batch.Entities[i]
		total += len(targets) * (len(e.EntityID) + len(e.EntityType) + jsonBytes(e.EntityContext))
	}
	return total
}

// bytes estimates the length of the part of a response that depends only on the flag.
func (t *target) bytes() int {
	n := fixedResultBytes + len(t.answer.Request.FlagKey) + textsBytes(t.answer.Request.FlagTags) + len(t.answer.Message)
	if t.flag != nil {
		return n + t.flag.answerBytes
	}
	return n + len(t.answer.FlagKey)
}

func textsBytes(texts []string) int {
	n := 0
	for _, text := range texts {
		n += len(text) + len(`"",`)
	}
	return n
}

// jsonBytes estimates the length of a value as JSON.
func jsonBytes(value any) int {
	switch v := value.(type) {
	case *Object:
		return len(v.JSON)
	case string:
		return len(v) + len(`""`)
	case json.Number:
		return len(v)
	case []any:
		n := len(`[]`)
		for _, item := range v {
			n += jsonBytes(item) + len(`,`)
		}
		return n
	case map[string]any:
		n := len(`{}`)
		for name, item := range v {
			n += len(name) + jsonBytes(item) + len(`"":,`)
		}
		return n
	default:
		return len(`false`)
	}
}
