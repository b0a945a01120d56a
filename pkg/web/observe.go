package web

import (
	"net/http"
	"strings"
	"time"
)

// Exchange is a request and what became of it, for those who count or log requests.
type Exchange struct {
	// Request is the request as it arrived. Its URL's path still has the web prefix. Its Pattern is the template of the
	// route that answered, such as /api/v1/flags/{flagID}, without the prefix; empty when there is none.
	Request *http.Request
	// Start is when the request reached the server's handlers, with the clock's reading for Duration.
	Start time.Time
	// Status is that of the answer, 200 when the handler sent none.
	Status int
	// Bytes is the length of the body that was sent, as it went out.
	Bytes int64
	// Duration is how long the handler took.
	Duration time.Duration
	// APIKey is the name of the key that let the request in; empty if there was none.
	APIKey string
	// Aborted is whether the connection was cut instead of finishing the answer.
	Aborted bool
}

// Observe tells each observer about each exchange, after the answer was written. It costs one small allocation and two
// looks at the clock; without observers it is next itself.
//
// What lies between Observe and the router must pass on the very request it got, or copy the Pattern of its own
// request back, or routes have no names here.
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

// NoteAPIKey puts the name of the key that let a request in into its Exchange. The writer is that of the request, however it
// is wrapped.
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

// NameRoutes goes around the generated API. The API's router names a route by its template in the request's Pattern, but
// with the base path twice; this takes one away.
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

// observedWriter notes status and length.
type observedWriter struct {
	http.ResponseWriter
	exchange Exchange
}

func (w *observedWriter) WriteHeader(status int) {
	if w.exchange.Status == 0 && status >= http.StatusOK { // 1xx come before the answer
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

// Unwrap lets http.ResponseController find the writer's other abilities.
func (w *observedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for compression, which looks for the ability on the writer itself.
func (w *observedWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }
