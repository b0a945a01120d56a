package handler

import (
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
	// maxExports is the number of exports of a kind that run in parallel. A SQLite file takes as
	// much disk as the database.
	maxExports = 4
	// exportWait is how long an export waits for another one to end. Edge servers request the flags
	// at the same time.
	exportWait = 2 * time.Second
	// exportRetryAfter is the Retry-After value, in seconds, of a rejected export.
	exportRetryAfter = 10
	// exportPart is the number of bytes that a client must read within exportPatience. Otherwise
	// the connection is closed.
	exportPart     = 1 << 20
	exportPatience = 30 * time.Second
	// streamBuffer is the number of bytes of a streamed response after which it is sent.
	streamBuffer = 64 << 10
)

// exports bounds the exports that run in parallel.
type exports budget.Turns

// responder sends answer when an export may run. It responds with 503 if that takes longer than
// exportWait.
func (e exports) responder(ctx context.Context, answer middleware.Responder) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		patience, cancel := context.WithTimeout(ctx, exportWait)
		defer cancel()
		switch err := budget.Turns(e).Take(patience); {
		case err == nil:
			defer budget.Turns(e).Release()
		case ctx.Err() == nil:
			answer = retryLater(exportRetryAfter, fmt.Sprintf("%d exports are served already: try again later", cap(e)))
		default:
			answer = reply(statusClientClosedRequest, "request canceled")
		}
		answer.WriteResponse(rw, producer)
	})
}

// patientWriter writes a response that may take any time, because a large response takes long over
// a slow connection. The client must read each part of 1 MiB within exportPatience. Call release at
// the end.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	left    int           // bytes until the deadline is renewed
	timeout time.Duration // the server's write timeout; 0 or less means no timeout
}

func newPatientWriter(rw http.ResponseWriter, r *http.Request) *patientWriter {
	w := &patientWriter{ResponseWriter: rw, control: http.NewResponseController(rw)}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		w.timeout = server.WriteTimeout
	}
	return w
}

// Write implements io.Writer. It does not split p: callers write much less than a part at once.
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

// release removes the deadline, unless the server sets one for each request. Otherwise it would
// apply to the next request on the connection.
func (w *patientWriter) release() {
	if w.timeout <= 0 {
		_ = w.deadline(time.Time{}) // fails only if the connection is closed
	}
}

func (w *patientWriter) deadline(t time.Time) error {
	if err := w.control.SetWriteDeadline(t); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// jsonStream writes a JSON document element by element. It buffers one element and streamBuffer
// bytes.
type jsonStream struct {
	out    io.Writer
	buffer []byte
	any    bool // an element was written
}

func newJSONStream(out io.Writer) *jsonStream {
	const elementRoom = streamBuffer / 4 // for the element that fills the buffer
	return &jsonStream{out: out, buffer: make([]byte, 0, streamBuffer+elementRoom)}
}

// text adds a piece of the document unchanged.
func (s *jsonStream) text(piece string) { s.buffer = append(s.buffer, piece...) }

// element adds an element of the current list, with a comma before it unless it is the first. one
// appends it to a buffer.
func (s *jsonStream) element(one func(b []byte) []byte) error {
	if s.any {
		s.text(",")
	}
	s.any = true
	if s.buffer = one(s.buffer); len(s.buffer) < streamBuffer {
		return nil
	}
	return s.flush()
}

// finish adds the last piece and sends what is buffered.
func (s *jsonStream) finish(piece string) error {
	s.text(piece)
	return s.flush()
}

func (s *jsonStream) flush() error {
	_, err := s.out.Write(s.buffer)
	if s.buffer = s.buffer[:0]; cap(s.buffer) > 4*streamBuffer {
		s.buffer = nil // the memory of a large element is not kept after it is sent
	}
	return err
}

// abortable responds with a document that write sends piece by piece. If write fails, the
// connection is closed, so that no client takes half a document for a whole one.
func (h *Handler) abortable(write func(rw http.ResponseWriter) error) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		if err := write(rw); err != nil {
			h.logger.Debug("an answer was not sent to its end", "error", err)
			panic(http.ErrAbortHandler)
		}
	})
}
