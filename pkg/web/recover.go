// Package web holds what stands between the listener and the generated API: everything that is done to a request
// whatever its operation.
package web

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
)

// Recover answers a request whose handler panicked with 500, and logs the panic with its stack; the cause stays in the
// log. Where the answer had begun, the connection is cut instead, so that no client takes half an answer for a whole
// one. The same happens, without a log line, when a handler aborts on purpose with http.ErrAbortHandler, and when it
// could not write because the client is gone. Errors of Go's runtime are logged in any case.
func Recover(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tracked := &trackedWriter{ResponseWriter: rw}
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			gone := r.Context().Err() != nil
			_, mistake := cause.(runtime.Error)
			if cause == http.ErrAbortHandler || gone && !mistake { //nolint:errorlint // net/http compares it the same way
				panic(http.ErrAbortHandler)
			}
			logger.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			if tracked.begun || gone {
				panic(http.ErrAbortHandler)
			}
			writeError(rw, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(tracked, r)
	})
}

// trackedWriter knows whether the answer has begun.
type trackedWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *trackedWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *trackedWriter) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the writer's other abilities.
func (w *trackedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for compression, which looks for the ability on the writer itself.
func (w *trackedWriter) Flush() {
	w.begun = true
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func writeError(rw http.ResponseWriter, status int, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]string{"message": message}) // fails only when the client is gone
}
