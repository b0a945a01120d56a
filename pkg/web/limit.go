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
		if r.ContentLength >= 0 { // net/http gives no more of a body than it was announced with
			next.ServeHTTP(rw, r)
			return
		}
		// A copy, since net/http must find its own body in its own request: when a handler closes the body before it has
		// read all of it, that is how the connection gets closed, too. Else the rest of the body would be taken for the
		// next request.
		limited := *r
		limited.Body = http.MaxBytesReader(rw, r.Body, limit)
		defer func() { r.Pattern = limited.Pattern }() // for Observe
		next.ServeHTTP(rw, &limited)
	})
}
