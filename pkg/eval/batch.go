package eval

import (
	"encoding/json"
	"io"
	"time"
)

const (
	// DefaultAnswerBytes is the largest answer to a batch where Options.AnswerBytes is 0.
	DefaultAnswerBytes = 64 << 20
	// batchTimeout is how long a batch may be evaluated: the server cuts connections after 30 s.
	batchTimeout = 25 * time.Second
	// partBytes is how much of the answer to a batch is held in memory before it is sent.
	partBytes = 256 << 10
	// MaxBatchBuffer is the most that a BatchEncoder with an output holds, unless one result is larger.
	MaxBatchBuffer = partBytes + 64<<10
	// fixedResultBytes is about what every evalResult takes, beside its texts: names of members, the time, numbers.
	fixedResultBytes = 240
)

// ErrTooSlow is the error of a batch that was not evaluated within 25 s.
var ErrTooSlow error = tooSlow{}

type tooSlow struct{}

func (tooSlow) Error() string {
	return "the batch was not evaluated within 25 s: ask for fewer entities or flags"
}

// BatchEncoder writes the answer to a batch, in the form of the API's evaluationBatchResponse. A long answer is sent in
// parts, so that it takes no more memory than a part. It is for one goroutine.
type BatchEncoder struct {
	encoder Encoder
	answer  []byte
	out     io.Writer
	any     bool // result so far
	sent    bool // a part
}

// NewBatchEncoder begins an answer behind the bytes of b, whose memory it uses. Parts go to out; nil: all of it stays in
// memory. Errors of out are passed over: the context of a client that is gone ends its batch.
func NewBatchEncoder(b []byte, out io.Writer) *BatchEncoder {
	return &BatchEncoder{answer: append(b, `{"evaluationResults":[`...), out: out}
}

// Add appends a result, and does not keep it.
func (e *BatchEncoder) Add(r *Result) {
	if e.any {
		e.answer = append(e.answer, ',')
	}
	e.any = true
	e.answer = e.encoder.Append(e.answer, r)
	if e.out != nil && len(e.answer) >= partBytes {
		e.sent = true
		_, _ = e.out.Write(e.answer)
		e.answer = e.answer[:0]
	}
}

// Sent reports whether a part was sent.
func (e *BatchEncoder) Sent() bool { return e.sent }

// Finish ends the answer and returns what was not sent of it.
func (e *BatchEncoder) Finish() []byte { return append(e.answer, `]}`...) }

// answerBytes is about how long the answer to a batch will be, from above but for characters that JSON escapes.
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

// bytes is about how much an answer says of the flag, whatever the entity.
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

// jsonBytes is about how long a value is as JSON.
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
