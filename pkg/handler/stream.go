package handler

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

const (
	// maxExports is how many exports of a kind are served at once. A SQLite file takes the disk of a database.
	maxExports = 4
	// exportWait is how long an export waits for one of the others to end. Edge servers ask for the flags at the same time.
	exportWait = 2 * time.Second
	// exportRetryAfter is how many seconds a client waits before it retries an export that was refused.
	exportRetryAfter = 10
	// exportPart is what a client must have read within exportPatience, or it is cut off.
	exportPart     = 1 << 20
	exportPatience = 30 * time.Second
	// streamBuffer is how many bytes of a streamed answer are sent at once.
	streamBuffer = 64 << 10
)

// exports bounds how many exports are served at once: it has an element for each.
type exports chan struct{}

// responder gives the answer when it is its turn, and 503 if that takes longer than exportWait.
func (e exports) responder(ctx context.Context, answer middleware.Responder) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		patience := time.NewTimer(exportWait)
		defer patience.Stop()
		select {
		case e <- struct{}{}:
			defer func() { <-e }()
		case <-patience.C:
			answer = retryLater(exportRetryAfter, fmt.Sprintf("%d exports are served already: try again later", cap(e)))
		case <-ctx.Done():
			answer = reply(statusClientClosedRequest, "request cancelled")
		}
		answer.WriteResponse(rw, producer)
	})
}

// patientWriter writes an answer that may take any time, since much data takes long over a slow line. But each part of 1 MiB
// must be read within exportPatience. Release must be called at the end.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	left    int           // bytes until the deadline is renewed
	timeout time.Duration // of the server; 0 or less: none
}

func newPatientWriter(rw http.ResponseWriter, r *http.Request) *patientWriter {
	w := &patientWriter{ResponseWriter: rw, control: http.NewResponseController(rw)}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		w.timeout = server.WriteTimeout
	}
	return w
}

// Write implements io.Writer. It splits nothing: callers write much less than a part at once.
func (w *patientWriter) Write(p []byte) (int, error) {
	if w.left <= 0 {
		if err := w.deadline(time.Now().Add(exportPatience)); err != nil {
			return 0, err
		}
		w.left = exportPart
	}
	n, err := w.ResponseWriter.Write(p)
	w.left -= n
	return n, err
}

// release takes the deadline away, unless the server sets one for each request: it would hold for the next one on the connection.
func (w *patientWriter) release() {
	if w.timeout <= 0 {
		_ = w.deadline(time.Time{}) // fails only when the connection is gone
	}
}

func (w *patientWriter) deadline(t time.Time) error {
	if err := w.control.SetWriteDeadline(t); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// AnswerMemory is the most bytes that lists of flags and histories take, all answers together: two of the largest histories at
// once, or four of the largest pages of a list.
const AnswerMemory = 96 << 20

const (
	// answerBytesPerByte is what a byte of stored JSON costs: as text of the database, decoded, and as text of the answer, in
	// buffers that grow.
	answerBytesPerByte = 6
	// freeAnswerBytes is the length up to which an answer takes nothing of it.
	freeAnswerBytes = 16 << 10
)

// reservation is what an answer takes of the memory that all answers share. It belongs to one goroutine.
type reservation struct {
	of    *budget.Memory
	taken int64
}

func (h *Handler) reservation() *reservation { return &reservation{of: h.memory} }

// atLeast takes what so many bytes of stored JSON cost, but for what was taken before. The error is budget.ErrExhausted. An answer
// that costs more than all memory has takes all of it.
func (r *reservation) atLeast(bytes int64) error {
	if bytes <= freeAnswerBytes {
		return nil
	}
	more := min(bytes*answerBytesPerByte, AnswerMemory) - r.taken
	if more <= 0 {
		return nil
	}
	if err := r.of.Take(more); err != nil {
		return err
	}
	r.taken += more
	return nil
}

// release gives everything back.
func (r *reservation) release() { r.of.Release(r.taken) }

// jsonStream writes a JSON document element by element. It holds one element and streamBuffer.
type jsonStream struct {
	out *bufio.Writer
	any bool // an element was written
}

func newJSONStream(out io.Writer) *jsonStream {
	return &jsonStream{out: bufio.NewWriterSize(out, streamBuffer)}
}

// text writes a piece of the document as it is. Errors stay, and finish returns them.
func (s *jsonStream) text(piece string) { _, _ = s.out.WriteString(piece) }

// element writes an element of the list that was begun, with the comma before it. one appends it to a buffer.
func (s *jsonStream) element(one func(b []byte) []byte) error {
	if s.any {
		s.text(",")
	}
	s.any = true
	_, err := s.out.Write(one(s.out.AvailableBuffer()))
	return err
}

// finish writes the last piece and what is still buffered.
func (s *jsonStream) finish(piece string) error {
	s.text(piece)
	return s.out.Flush()
}

// abortable answers with a document that write sends piece by piece. If that fails, the connection is cut, so that no client takes
// half of it for the whole.
func (h *Handler) abortable(write func(rw http.ResponseWriter) error) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		if err := write(rw); err != nil {
			h.logger.Debug("an answer was not sent to its end", "error", err)
			panic(http.ErrAbortHandler)
		}
	})
}
