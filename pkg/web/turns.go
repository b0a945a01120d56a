package web

import (
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// ReadInTurn is a middleware for requests that read. next calls budget.Resume after it has read the
// body, which can arrive slowly, and before it reads the database. The turn ends when next writes,
// because a client may read slowly, and at the end of the request.
func ReadInTurn(turns budget.Turns, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, turn := turns.Context(r.Context())
		defer turn.End()
		reading := r.WithContext(ctx)
		defer func() { r.Pattern = reading.Pattern }() // for Observe, also if next panics
		next.ServeHTTP(&turnWriter{rw, turn}, reading)
	})
}

type turnWriter struct {
	http.ResponseWriter
	turn *budget.Turn
}

func (w *turnWriter) Write(p []byte) (int, error) {
	w.turn.End()
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *turnWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
