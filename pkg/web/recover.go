// Package web is the middleware between the listener and the generated API. It applies to requests
// of every operation.
package web

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
)

// Recover responds with 500 if a handler panics, and logs the panic with its stack. The response
// does not have the cause. If the response has begun, Recover closes the connection instead, so
// that no client takes half a response for a complete one. It does the same, without logging, when
// a handler aborts with http.ErrAbortHandler, and when a handler panics because it could not write
// to a client that disconnected. Runtime errors are always logged.
func Recover(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tracked, ok := rw.(*observedWriter)
		if !ok {
			tracked = &observedWriter{ResponseWriter: rw}
		}
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
			if tracked.exchange.Status != 0 || gone {
				panic(http.ErrAbortHandler)
			}
			writeError(rw, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(tracked, r)
	})
}

func writeError(rw http.ResponseWriter, status int, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]string{"message": message}) // fails only if the client disconnected
}
