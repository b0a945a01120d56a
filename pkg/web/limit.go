package web

import (
	"fmt"
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

const (
	// MaxBodyBytes is the largest request body. A batch of 10,000 entities with a 1 KB context each fits.
	MaxBodyBytes = 16 << 20
	// MaxPprofBodyBytes is the largest body of a request for the profiler: a list of addresses to name.
	MaxPprofBodyBytes = 64 << 10
	// BodyMemory is the most bytes that the bodies of all requests in flight take, decoded, as package budget counts them. It
	// is enough for two of the largest at once, or for a thousand of 20 KB.
	BodyMemory = 160 << 20
)

// LimitBody refuses a body that is larger than limit bytes: with 413 when the client says so before, else by failing
// the read with a *http.MaxBytesError. Bodies of more than 16 KiB, or of unknown length, are budget.Bodies, and take from
// the memory; nil: they do not.
func LimitBody(limit int64, memory *budget.Memory, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			writeError(rw, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is larger than %d bytes", limit))
			return
		}
		// net/http gives no more of a body than it was announced with.
		if r.ContentLength >= 0 && (r.ContentLength <= budget.LargeBytes || memory == nil) {
			next.ServeHTTP(rw, r)
			return
		}
		// A copy, since net/http must find its own body in its own request: when a handler closes the body before it has
		// read all of it, that is how the connection gets closed, too. Else the rest of the body would be taken for the
		// next request.
		limited := *r
		if r.ContentLength < 0 {
			limited.Body = http.MaxBytesReader(rw, r.Body, limit)
		}
		if memory != nil {
			body := budget.NewBody(limited.Body, memory)
			defer body.Release()
			limited.Body = body
		}
		defer func() { r.Pattern = limited.Pattern }() // for Observe
		next.ServeHTTP(rw, &limited)
	})
}

// MaxHeaderBytes is how long the request line and the headers of a request may be together, unless --max-header-size says
// otherwise. They are in memory before anything else is known of a request, so connections times this is what a flood can take.
const MaxHeaderBytes = 128 << 10
