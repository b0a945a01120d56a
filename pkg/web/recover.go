// Package web holds what stands between the listener and the generated API: everything that is done to a request
// whatever its operation.
package web

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// Recover answers a request whose handler panicked with 500, and logs the panic with its stack. The cause stays in the
// log. A handler that aborts on purpose, with http.ErrAbortHandler, goes on doing so.
func Recover(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
				panic(cause)
			}
			logger.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			writeError(rw, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(rw, r)
	})
}

func writeError(rw http.ResponseWriter, status int, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]string{"message": message}) // fails only when the client is gone
}
