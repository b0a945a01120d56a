package web

import (
	"fmt"
	"io"
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

const (
	// MaxBodyBytes is the largest request body. A batch of 10,000 entities with 1 KB of context
	// each is smaller.
	MaxBodyBytes = 16 << 20
	// MaxPprofBodyBytes is the largest body of a request to the profiler, which is a list of
	// addresses to resolve.
	MaxPprofBodyBytes = 64 << 10
)

// LimitBody rejects a body larger than limit bytes: with 413 if the client announces the length,
// otherwise by failing the read with a *http.MaxBytesError. Bodies of more than 16 KiB, or of
// unknown length, become budget.Bodies and use the memory, unless it is nil.
func LimitBody(limit int64, memory *budget.Memory, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			writeError(rw, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is larger than %d bytes", limit))
			return
		}
		// net/http returns no more of a body than its announced length.
		if r.ContentLength >= 0 && (r.ContentLength <= budget.LargeBytes || memory == nil) {
			next.ServeHTTP(rw, r)
			return
		}
		body, length := r.Body, r.ContentLength
		if length < 0 {
			body, length = http.MaxBytesReader(rw, body, limit), limit
		}
		if memory != nil {
			counted := budget.NewBody(body, length, memory)
			defer counted.Release()
			body = counted
		}
		serveBody(next, rw, r, body)
	})
}

// DelayDisconnected delays requests whose body ends early, as budget.Disconnects describes.
func DelayDisconnected(disconnects *budget.Disconnects, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(rw, r)
			return
		}
		serveBody(next, rw, r, disconnects.Body(r.Body))
	})
}

// serveBody calls next with a copy of the request that has another body. net/http must find its own
// body in its own request: if a handler closes the body before it has read all of it, net/http then
// closes the connection. Otherwise it would read the rest of the body as the next request.
func serveBody(next http.Handler, rw http.ResponseWriter, r *http.Request, body io.ReadCloser) {
	copied := *r
	copied.Body = body
	defer func() { r.Pattern = copied.Pattern }() // for Observe
	next.ServeHTTP(rw, &copied)
}

// MaxHeaderBytes limits the request line and the headers of a request together, unless
// --max-header-size is set. They are in memory before anything else about a request is known, so a
// flood can use connections times this limit.
const MaxHeaderBytes = 128 << 10
