package web

import (
	"compress/gzip"
	"net/http"
	"runtime"

	"github.com/klauspost/compress/gzhttp"
)

// minGzipBytes is the shortest body to compress. Most single evaluations are shorter. They fit into
// one packet anyway, so compressing them would only cost time.
const minGzipBytes = 1400

// NewGzip returns a middleware that compresses responses of at least 1,400 bytes for clients that
// accept gzip. Shorter responses cost a check of the request's header and a copy of the body. For
// other clients, it only sets the Vary header. It compresses at the fastest level: a list of flags
// takes half the CPU of the default level and up to half more bytes. Other goroutines run after every 64 KiB of a response.
func NewGzip() (func(http.Handler) http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minGzipBytes), gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.EnableZstd(false))
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		compressed := wrap(yielding(next))
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if len(r.Header["Accept-Encoding"]) > 0 {
				compressed.ServeHTTP(rw, r)
				return
			}
			header := rw.Header()
			header["Vary"] = append(header["Vary"], "Accept-Encoding")
			next.ServeHTTP(rw, r)
		})
	}, nil
}

// yieldBytes is how much of a response is compressed before other goroutines run, about a millisecond.
const yieldBytes = 64 << 10

// yielding lets other goroutines run while next writes a long response. Otherwise, compressing a few of them at the same time
// would delay small requests until the scheduler interrupts it, after 10 to 20 ms.
func yielding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&yieldingWriter{ResponseWriter: rw}, r)
	})
}

type yieldingWriter struct {
	http.ResponseWriter
	written int // since other goroutines ran
}

// Unwrap is for http.ResponseController.
func (w *yieldingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *yieldingWriter) Write(p []byte) (written int, err error) {
	for {
		part := p[written:]
		if most := yieldBytes - w.written; len(part) > most {
			part = part[:most]
		}
		n, err := w.ResponseWriter.Write(part)
		written += n
		w.written += n
		if err != nil || written == len(p) {
			return written, err
		}
		w.written = 0
		runtime.Gosched()
	}
}
