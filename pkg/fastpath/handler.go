// Package fastpath answers plain evaluations without the generated code, at a fraction of its cost.
//
// It stands in front of the generated API and takes a request only if it is plain: POST, JSON, every name known, every
// value of the right kind, nothing repeated. Everything else, and so everything that is wrong, goes on to the generated
// code as if nothing had happened. What is taken is answered byte for byte as the generated code would: tests send the
// same requests both ways. Evaluation and recording are those of eval.Service, as for every other endpoint.
package fastpath

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// maxRequestBytes is the largest body that is read here. Larger ones are rare, and would make large buffers stay.
	maxRequestBytes = 1 << 20
	// firstReadBytes is up to which length the memory for a body is made before its bytes arrive.
	firstReadBytes = 16 << 10
	// maxPooledBytes is the largest buffer that is kept for further requests: what is held of a batch's answer fits.
	maxPooledBytes = eval.MaxBatchBuffer
	// maxPooledParts is of how many entities, contexts and properties the memory is kept.
	maxPooledParts = 1 << 14
	// knownLengthBytes is up to which length net/http finds out the length of an answer by itself.
	knownLengthBytes = 2048
)

// contentTypeJSON is shared by all answers. Nobody changes it: whoever sets a header sets another slice, and appending to
// this one copies it.
var contentTypeJSON = []string{"application/json"}

// Evaluator decides and records.
type Evaluator interface {
	EvaluateInto(ctx context.Context, r eval.Request, result *eval.Result)
	EvaluateEach(ctx context.Context, r eval.BatchRequest, use func(*eval.Result)) error
}

// Handler answers POST /evaluation and POST /evaluation/batch where it can, and leaves all else to the API.
type Handler struct {
	evaluator Evaluator
	turns     budget.Turns
	api       http.Handler

	evaluationPath, batchPath string
	pool                      sync.Pool // of *memory
}

// memory is what a request needs while it is answered.
type memory struct {
	decoder decoder
	result  eval.Result
	answer  []byte
}

// New returns a Handler in front of the generated API, whose paths begin with basePath, such as /api/v1. Large bodies are
// worked at in turn.
func New(evaluator Evaluator, basePath string, turns budget.Turns, api http.Handler) *Handler {
	h := &Handler{evaluator: evaluator, turns: turns, api: api, evaluationPath: basePath + "/evaluation"}
	h.batchPath = h.evaluationPath + "/batch"
	h.pool.New = func() any { return new(memory) }
	return h
}

// ServeHTTP answers, or lets the API answer.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	batch := r.URL.Path == h.batchPath
	if !batch && r.URL.Path != h.evaluationPath || !isPlain(r) {
		h.api.ServeHTTP(rw, r)
		return
	}

	m := h.pool.Get().(*memory)
	defer h.release(m)
	var text string
	var err error
	if text, m.answer, err = readBody(r, m.answer); err != nil {
		h.fallBack(rw, r, text)
		return
	}
	turn, err := h.turn(r.Context(), text)
	if err != nil {
		return // the client is gone
	}
	defer turn.end()
	header := rw.Header()
	var ok, sent bool
	if batch {
		header["Content-Type"] = contentTypeJSON // it may be sent while the batch is evaluated
		out := io.Writer(rw)
		if turn != nil {
			out = &inTurn{rw, turn}
		}
		ok, sent = h.evaluateBatch(r.Context(), out, m, text)
	} else {
		ok = h.evaluate(r.Context(), m, text)
	}
	turn.end()
	if !ok {
		delete(header, "Content-Type")
		h.fallBack(rw, r, text)
		return
	}
	r.Pattern = r.URL.Path
	header["Content-Type"] = contentTypeJSON
	if len(m.answer) > knownLengthBytes && !sent {
		header.Set("Content-Length", strconv.Itoa(len(m.answer)))
	}
	_, _ = rw.Write(m.answer) // fails only when the client is gone
}

// turn is the turn of a request with a large body; nil: it needs none. It belongs to one goroutine.
type turn struct{ of budget.Turns }

// turn waits for the turn that a text needs. The error is that of ctx.
func (h *Handler) turn(ctx context.Context, text string) (*turn, error) {
	if len(text) <= budget.LargeBytes {
		return nil, nil
	}
	if err := h.turns.Take(ctx); err != nil {
		return nil, err
	}
	return &turn{h.turns}, nil
}

// end ends the turn, the first time that it is called.
func (t *turn) end() {
	if t != nil {
		t.of.Release()
		t.of = nil
	}
}

// inTurn ends a turn before it writes, since a client may read slowly.
type inTurn struct {
	io.Writer
	turn *turn
}

func (w *inTurn) Write(p []byte) (int, error) {
	w.turn.end()
	return w.Writer.Write(p)
}

// release keeps memory for further requests. Nothing in it refers to this request any more.
func (h *Handler) release(m *memory) {
	m.result = eval.Result{}
	m.decoder.forget(maxPooledParts)
	if cap(m.answer) > maxPooledBytes {
		m.answer = nil
	}
	h.pool.Put(m)
}

// isPlain reports whether a request's line and headers are those of usual clients.
func isPlain(r *http.Request) bool {
	if r.Method != http.MethodPost || r.URL.RawPath != "" || r.ContentLength <= 0 || r.ContentLength > maxRequestBytes {
		return false
	}
	switch contentType := r.Header["Content-Type"]; {
	case len(contentType) != 1:
		return false
	case contentType[0] != "application/json" && contentType[0] != "application/json; charset=utf-8":
		return false
	}
	accept := r.Header["Accept"]
	if len(accept) == 0 {
		return true
	}
	return len(accept) == 1 &&
		(accept[0] == "*/*" || accept[0] == "application/json" || accept[0] == "application/json, text/plain, */*") // axios
}

// readBody reads the whole body. With an error it returns what it has read until then. Memory for a long one grows as its
// bytes arrive, since what was announced may never come: the first of them wait in scratch, which it returns.
func readBody(r *http.Request, scratch []byte) (text string, _ []byte, err error) {
	length := int(r.ContentLength) // at most maxRequestBytes
	if length <= firstReadBytes {
		body := make([]byte, length)
		n, err := io.ReadFull(r.Body, body)
		return textOf(body[:n]), scratch, err
	}
	scratch = slices.Grow(scratch[:0], firstReadBytes)
	body := scratch[:firstReadBytes]
	read, err := io.ReadFull(r.Body, body)
	for grow := 4 * firstReadBytes; err == nil && read < length; grow *= 4 {
		body = append(make([]byte, 0, min(length, grow)), body...)
		body = body[:cap(body)]
		var n int
		n, err = io.ReadFull(r.Body, body[read:])
		read += n
	}
	if err != nil && read <= firstReadBytes {
		return string(body[:read]), scratch, err
	}
	return textOf(body[:read]), scratch, err
}

// textOf returns the bytes as a string without copying them. Recorders keep parts of the text, so it is in memory of its
// own, which is not changed from here on.
func textOf(body []byte) string {
	return unsafe.String(unsafe.SliceData(body), len(body)) // saves a copy of what may be a megabyte
}

// fallBack lets the API answer a request of whose body some was read. What comes after that, an end or an error, comes
// again when the body is read again.
func (h *Handler) fallBack(rw http.ResponseWriter, r *http.Request, read string) {
	again := *r
	again.Body = &replay{Reader: io.MultiReader(strings.NewReader(read), r.Body), Closer: r.Body}
	defer func() { r.Pattern = again.Pattern }() // for those outside, who know only r
	h.api.ServeHTTP(rw, &again)
}

// replay is a body that is read again from its beginning.
type replay struct {
	io.Reader
	io.Closer
}

// evaluate writes the answer to a request of one evaluation. It returns false when that is not plain.
func (h *Handler) evaluate(ctx context.Context, m *memory, text string) bool {
	request, ok := m.decoder.request(text)
	if !ok {
		return false
	}
	h.evaluator.EvaluateInto(ctx, request, &m.result)
	m.answer = append(m.result.AppendJSON(m.answer[:0]), '\n')
	return true
}

// evaluateBatch writes the answer to a batch. It reports whether some was sent already; the rest is in m.answer.
func (h *Handler) evaluateBatch(ctx context.Context, out io.Writer, m *memory, text string) (ok, sent bool) {
	batch, ok := m.decoder.batch(text)
	if !ok {
		return false, false
	}
	encoder := eval.NewBatchEncoder(m.answer[:0], out)
	err := h.evaluator.EvaluateEach(ctx, batch, encoder.Add)
	m.answer, sent = append(encoder.Finish(), '\n'), encoder.Sent()
	if err != nil && (sent || errors.Is(err, eval.ErrTooSlow)) {
		panic(http.ErrAbortHandler) // cuts the connection, so that no client takes half an answer for a whole one
	}
	// With another error nothing was evaluated, or the client is gone; either way the generated code meets it at once.
	return err == nil, sent
}
