// Package fastpath handles plain evaluation requests without the generated code, at a fraction of
// its cost.
//
// It is in front of the generated API and handles a request only if it is plain: POST, JSON, every
// name known, every value of the right type, nothing repeated. All other requests go to the
// generated code unchanged, including all invalid ones, except those whose client disconnected in
// the middle of the JSON, or for which no memory is left. Responses are the same bytes as the
// generated code's: tests send the same requests to both. Evaluation and recording use
// eval.Service, as all other endpoints do.
package fastpath

import (
	"context"
	"encoding/json"
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
	// maxRequestBytes is the largest body that is handled here, and that servers accept.
	maxRequestBytes = 16 << 20
	// firstReadBytes is the maximum length for which the memory of a body is allocated before its
	// bytes arrive.
	firstReadBytes = 16 << 10
	// maxPooledBytes is the largest buffer for a response that is reused. It is enough for the
	// buffered part of a batch's response. maxPooledBody is the largest one for a body, enough for
	// a batch of 1,000 entities.
	maxPooledBytes = eval.MaxBatchBuffer
	maxPooledBody  = 128 << 10
	// maxPooledParts is the number of entities, contexts and properties whose memory is reused.
	maxPooledParts = 1 << 14
	// maxSlowParts and maxSlowBody are what is kept of a single request while a response of more
	// than 8 KiB is sent, because thousands of clients may read slowly.
	maxSlowParts, maxSlowBody = 64, 4 << 10
	// knownLengthBytes is the length up to which net/http computes the length of a response itself.
	knownLengthBytes = 2048
)

// contentTypeJSON is shared by all responses. It is never changed: setting a header replaces the
// slice, and appending copies it.
var contentTypeJSON = []string{"application/json"}

// Evaluator evaluates and records.
type Evaluator interface {
	EvaluateInto(ctx context.Context, r eval.Request, result *eval.Result) error
	LogBytes(r eval.Request) int
	EvaluateEach(ctx context.Context, r eval.BatchRequest, use func(*eval.Result)) error
}

// Handler handles POST /evaluation and POST /evaluation/batch if it can, and passes all other
// requests to the API.
type Handler struct {
	evaluator   Evaluator
	turns       budget.Turns
	disconnects *budget.Disconnects
	refuse      Refusal
	compression Compression
	// batches serves batches. It and compressedAPI compress if there is a Compression.
	batches, compressedAPI, api http.Handler

	evaluationPath, batchPath string
	pool                      sync.Pool // of *memory
}

// memory is the memory that a request needs.
type memory struct {
	body    []byte // what the decoder and the result refer to
	decoder decoder
	result  eval.Result
	encoder eval.Encoder // of single evaluations
	answer  []byte
	// held is the memory of a response to a batch. reserve is held.Take, which would be allocated
	// for each batch.
	held    budget.Hold
	reserve func(bytes int) error
}

// Refusal responds as the API does to a batch that the Evaluator rejects, to a client that
// disconnected, if err is the error of its context, or to a body for which no memory is left, if
// err is budget.ErrExhausted. If err is io.ErrUnexpectedEOF, it responds to a body that ends in the
// middle of its JSON.
type Refusal func(rw http.ResponseWriter, r *http.Request, err error)

// Compression compresses long responses.
type Compression interface {
	// Wrap is a middleware that compresses.
	Wrap(next http.Handler) http.Handler
	// SkipShort reports whether a response of this length is never compressed, and if so, sets the
	// headers that Wrap sets for it.
	SkipShort(header http.Header, length int) bool
}

// Options contains the dependencies of a Handler.
type Options struct {
	Evaluator Evaluator
	Refuse    Refusal
	// BasePath is the beginning of the API's paths, such as /api/v1.
	BasePath string
	// Turns limits how many large bodies are decoded and evaluated in parallel. Nil means no limit.
	Turns budget.Turns
	// BatchMemory is the memory of responses to batches of more than 16 KiB; nil means no limit.
	BatchMemory *budget.Memory
	// Disconnects delays the refusal of a body that ends in the middle of its JSON.
	Disconnects *budget.Disconnects
	// Compression compresses the responses of the Handler and of the API. Nil compresses nothing.
	Compression Compression
}

// New returns a Handler in front of the generated API.
func New(o Options, api http.Handler) *Handler {
	h := &Handler{
		evaluator: o.Evaluator, turns: o.Turns, disconnects: o.Disconnects, refuse: o.Refuse, compression: o.Compression, api: api, compressedAPI: api,
		evaluationPath: o.BasePath + "/evaluation",
	}
	h.batches = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { h.serve(rw, r, true) })
	if o.Compression != nil {
		h.batches, h.compressedAPI = o.Compression.Wrap(h.batches), o.Compression.Wrap(api)
	}
	h.batchPath = h.evaluationPath + "/batch"
	h.pool.New = func() any {
		m := &memory{held: budget.Hold{Memory: o.BatchMemory}}
		m.reserve = m.held.Take
		return m
	}
	return h
}

// ServeHTTP handles the request, or passes it to the API.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch batch := r.URL.Path == h.batchPath; {
	case !batch && r.URL.Path != h.evaluationPath || !isPlain(r):
		h.compressedAPI.ServeHTTP(rw, r)
	case batch:
		h.batches.ServeHTTP(rw, r)
	default:
		h.serve(rw, r, false)
	}
}

// serve handles the request, or passes it to the API. A batch has compression around it already.
// For most single evaluations it would cost more than the evaluation.
func (h *Handler) serve(rw http.ResponseWriter, r *http.Request, batch bool) {
	m := h.pool.Get().(*memory)
	var text string
	var err error
	if text, m.body, err = readBody(r, m.body); err != nil {
		h.release(m) // a client that disconnected may wait
		switch {
		case errors.Is(err, budget.ErrExhausted): // decoding what was read would take more
			rw.Header().Set("Connection", "close") // so that the rest of the body is not read
			h.reject(rw, r, err, batch)
		case !h.refuseCutOff(rw, r, text, err, batch):
			h.fallBack(rw, r, text, batch)
		}
		return
	}
	defer func() {
		if m != nil {
			h.release(m)
		}
	}()
	size := len(text)
	switch {
	case size > budget.LargeBytes:
	case batch:
		if strings.Count(text, "{") > manyEntities {
			size += budget.LargeBytes
		}
	default:
		size = budget.Weight(m.body)
	}
	turn, err := h.turns.TakeFor(r.Context(), size)
	if err != nil { // the client disconnected, which logs and metrics show
		h.reject(rw, r, err, batch)
		return
	}
	defer turn.End()
	header := rw.Header()
	var ok, sent bool
	var end string // of the response, if it is long
	if batch {
		header["Content-Type"] = contentTypeJSON // the response may be sent while the batch is evaluated
		ok, sent, err = h.evaluateBatch(r.Context(), rw, m, text, turn)
	} else {
		end, ok, err = h.evaluate(r.Context(), m, text, turn)
	}
	turn.End()
	if !ok {
		delete(header, "Content-Type")
		m.body = nil // the API reads it, and then nothing refers to it
		h.release(m)
		m = nil
		h.fallBack(rw, r, text, batch)
		return
	}
	if err != nil {
		h.reject(rw, r, err, batch)
		return
	}
	r.Pattern = r.URL.Path
	header["Content-Type"] = contentTypeJSON
	length := len(m.answer)
	if end != "" {
		length += len(end) + 1
	}
	if length > knownLengthBytes && !sent {
		header.Set("Content-Length", strconv.Itoa(length))
	}
	if !batch && length > budget.LargeBytes/2 { // the memory of batches is bounded by that of their responses, and reusing it saves half their time
		m.forget(maxSlowParts, maxSlowBody)
	}
	if batch || h.compression == nil || h.compression.SkipShort(header, length) {
		m.send(rw, end)
		return
	}
	h.compression.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { m.send(rw, end) })).ServeHTTP(rw, r)
}

// send writes the response, which continues with end if it is long.
func (m *memory) send(out io.Writer, end string) {
	_, err := out.Write(m.answer) // fails only if the client disconnected
	if end == "" || err != nil {
		return
	}
	if cap(m.answer) > maxSlowBody {
		m.answer = nil
	}
	if eval.WriteParts(out, end) == nil {
		_, _ = out.Write([]byte{'\n'})
	}
}

// manyEntities is the number of braces in the body of a batch from which it is decoded in turn: an
// entity may have two bytes, and takes a hundred.
const manyEntities = 1000

// release returns memory for reuse. It drops all references to the request, and clears its body, so
// that unused memory has no text of a client. This does not protect a string that is kept against
// the rules of eval.Recorder: the next request overwrites it.
func (h *Handler) release(m *memory) {
	m.forget(maxPooledParts, maxPooledBody)
	m.held.Release()
	if cap(m.answer) > maxPooledBytes {
		m.answer = nil
	}
	h.pool.Put(m)
}

// forget drops all references to the request. It keeps the memory of at most the given number of
// parts, and of a body of at most that many bytes.
func (m *memory) forget(parts, body int) {
	clear(m.body)
	if m.body = m.body[:0]; cap(m.body) > body {
		m.body = nil
	}
	m.result = eval.Result{}
	m.decoder.forget(parts)
}

// isPlain reports whether the request line and headers are those of common clients.
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

// readBody reads the whole body into the memory of buffer, which it returns, and which the text
// refers to. The memory of a long body grows as its bytes arrive, because announced bytes may never
// arrive. On an error, the text has the bytes that were read, and does not refer to the buffer.
func readBody(r *http.Request, buffer []byte) (text string, _ []byte, err error) {
	length := int(r.ContentLength) // at most maxRequestBytes
	buffer = slices.Grow(buffer[:0], min(length, firstReadBytes))
	for err == nil && len(buffer) < length {
		end := min(length, cap(buffer))
		var n int
		n, err = readFull(r.Body, buffer[len(buffer):end])
		if buffer = buffer[:len(buffer)+n]; err == nil && end < length {
			buffer = slices.Grow(buffer, min(length, 4*end)-end)
		}
	}
	switch {
	case err == nil:
		return textOf(buffer), buffer, nil
	case cap(buffer) > maxPooledBody: // is not reused
		return textOf(buffer), nil, err
	default:
		return string(buffer), buffer, err
	}
}

// readFull fills p, or returns the error of r. Unlike io.ReadFull, it does not change the error.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}

// refuseCutOff responds to a request whose client disconnected in the middle of a JSON text. It
// returns false for all others.
func (h *Handler) refuseCutOff(rw http.ResponseWriter, r *http.Request, text string, err error, batch bool) bool {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	h.disconnects.Wait()
	turn, left := h.turns.TakeFor(r.Context(), len(text))
	if left != nil {
		err = left
	} else {
		var value json.RawMessage
		decoded := json.NewDecoder(strings.NewReader(text)).Decode(&value)
		if turn.End(); !errors.Is(decoded, io.ErrUnexpectedEOF) {
			return false
		}
	}
	h.reject(rw, r, err, batch)
	return true
}

// reject calls refuse, which responds with a few bytes.
func (h *Handler) reject(rw http.ResponseWriter, r *http.Request, err error, batch bool) {
	r.Pattern = r.URL.Path
	if !batch && h.compression != nil {
		h.compression.SkipShort(rw.Header(), 0)
	}
	h.refuse(rw, r, err)
}

// textOf returns the bytes as a string without copying them. The string is valid until the bytes
// change.
func textOf(body []byte) string {
	return unsafe.String(unsafe.SliceData(body), len(body)) // saves a copy of up to 16 MiB
}

// fallBack passes a request to the API after part of its body was read. The rest of the body, or
// its error, is read again from the body.
func (h *Handler) fallBack(rw http.ResponseWriter, r *http.Request, read string, batch bool) {
	again := *r
	again.Body = &replay{Reader: io.MultiReader(strings.NewReader(read), r.Body), Closer: r.Body}
	defer func() { r.Pattern = again.Pattern }() // for middleware that only has r
	api := h.compressedAPI
	if batch {
		api = h.api
	}
	api.ServeHTTP(rw, &again)
}

// replay is a body that is read again from its beginning.
type replay struct {
	io.Reader
	io.Closer
}

// evaluate writes the response to a single evaluation. It returns false if the request is not
// plain. A long end of the response is not in m.answer, and a newline follows it. The logs of a
// flag with thousands of segments take long, and memory, so a request for them takes a turn and
// reserves the memory. The error is that of ctx, or budget.ErrExhausted.
func (h *Handler) evaluate(ctx context.Context, m *memory, text string, turn *budget.Turn) (end string, ok bool, err error) {
	request, ok := m.decoder.request(text)
	if !ok {
		return "", false, nil
	}
	if turn == nil && request.EnableDebug {
		if turn, err = h.turns.Begin(ctx); err != nil {
			return "", true, err
		}
		defer turn.End()
	}
	if request.EnableDebug {
		if err := m.reserve(h.evaluator.LogBytes(request)); err != nil {
			return "", true, err
		}
	}
	request.InTurn = turn != nil
	if err := h.evaluator.EvaluateInto(ctx, request, &m.result); err != nil {
		return "", true, err
	}
	if m.answer, end = m.encoder.Split(m.answer[:0], &m.result); end == "" {
		m.answer = append(m.answer, '\n')
	}
	return end, true, nil
}

// evaluateBatch writes the response to a batch. ok is false if the request is not plain. sent
// reports whether some of the response is already sent; the rest is in m.answer. After an error,
// nothing is sent.
func (h *Handler) evaluateBatch(ctx context.Context, out io.Writer, m *memory, text string, turn *budget.Turn) (ok, sent bool, err error) {
	batch, ok := m.decoder.batch(text)
	if !ok {
		return false, false, nil
	}
	if turn == nil && batch.IsLarge() {
		if turn, err = h.turns.Begin(ctx); err != nil {
			return true, false, err
		}
		defer turn.End()
	}
	batch.Reserve, batch.InTurn = m.reserve, turn != nil
	encoder := eval.NewBatchEncoder(m.answer[:0], turn.Writer(ctx, out))
	err = h.evaluator.EvaluateEach(ctx, batch, encoder.Add)
	m.answer, sent = append(encoder.Finish(), '\n'), encoder.Sent()
	if err != nil && sent {
		panic(http.ErrAbortHandler) // closes the connection, so that no client takes half a response for a complete one
	}
	return true, sent, err
}
