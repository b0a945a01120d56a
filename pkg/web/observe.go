package web

import (
	"net/http"
	"strings"
	"time"
)

// Exchange is a request and its outcome, for metrics and logs.
type Exchange struct {
	// Request is the request as it arrived. The path of its URL still has the web prefix. Its
	// Pattern is the template of the route that handled it, such as /api/v1/flags/{flagID}, without
	// the prefix; empty if no route did.
	Request *http.Request
	// Start is the time at which the request reached the server's handlers, with the monotonic
	// clock for Duration.
	Start time.Time
	// Status is the status of the response, or 200 if the handler set none.
	Status int
	// Bytes is the length of the body that was sent, after compression.
	Bytes int64
	// Duration is the time that the handler took.
	Duration time.Duration
	// APIKey is the name of the API key of the request, or empty.
	APIKey string
	// Aborted reports whether the connection was closed before the response was complete.
	Aborted bool
}

// Observe calls each observer for each exchange, after the response is written. It costs one small
// allocation and two clock reads. Without observers it returns next.
//
// Middleware between Observe and the router must pass on the same request, or copy the Pattern of
// its own request back. Otherwise routes have no names here.
func Observe(observers []func(*Exchange), next http.Handler) http.Handler {
	if len(observers) == 0 {
		return next
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		o := &observedWriter{ResponseWriter: rw, exchange: Exchange{Request: r, Start: time.Now(), Aborted: true}}
		defer func() { // also when next panics to abort the connection
			e := &o.exchange
			e.Duration = time.Since(e.Start)
			if e.Status == 0 {
				e.Status = http.StatusOK
			}
			for _, observe := range observers {
				observe(e)
			}
		}()
		next.ServeHTTP(o, r)
		o.exchange.Aborted = false
	})
}

// NoteAPIKey stores the name of a request's API key in its Exchange. The writer is the request's
// writer, wrapped or not.
func NoteAPIKey(rw http.ResponseWriter, name string) {
	for {
		if o, ok := rw.(*observedWriter); ok {
			o.exchange.APIKey = name
			return
		}
		wrapped, ok := rw.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		rw = wrapped.Unwrap()
	}
}

// NameRoutes wraps the generated API. The API's router sets the request's Pattern to a route's
// template, but with the base path twice. NameRoutes removes one.
func NameRoutes(basePath string, api http.Handler) http.Handler {
	twice := basePath + basePath + "/"
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() { // also when the API panics
			if basePath != "" && strings.HasPrefix(r.Pattern, twice) {
				r.Pattern = r.Pattern[len(basePath):]
			}
		}()
		api.ServeHTTP(rw, r)
	})
}

// observedWriter records status and length. The status is 0 until the response has begun.
type observedWriter struct {
	http.ResponseWriter
	exchange Exchange
}

func (w *observedWriter) WriteHeader(status int) {
	if w.exchange.Status == 0 && status >= http.StatusOK { // 1xx precede the response
		w.exchange.Status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *observedWriter) Write(p []byte) (int, error) {
	if w.exchange.Status == 0 {
		w.exchange.Status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.exchange.Bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find the writer's optional methods.
func (w *observedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for compression, which looks for the method on the writer itself.
func (w *observedWriter) Flush() {
	if w.exchange.Status == 0 {
		w.exchange.Status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}
