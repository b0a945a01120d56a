package web

import (
	"fmt"
	"net/http"
)

// MaxBodyBytes is the largest request body. A batch of 10,000 entities with a 1 KB context each fits.
const MaxBodyBytes = 16 << 20

// LimitBody refuses a body that is larger than limit bytes: with 413 when the client says so before, else by failing
// the read with a *http.MaxBytesError.
func LimitBody(limit int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			writeError(rw, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is larger than %d bytes", limit))
			return
		}
		r.Body = http.MaxBytesReader(rw, r.Body, limit)
		next.ServeHTTP(rw, r)
	})
}
