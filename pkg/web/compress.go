package web

import (
	"compress/gzip"
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// minGzipBytes is the shortest body to compress. Most single evaluations are shorter. They fit into
// one packet anyway, so compressing them would only cost time.
const minGzipBytes = 1400

// NewGzip returns a middleware that compresses responses of at least 1,400 bytes for clients that
// accept gzip. Shorter responses cost a check of the request's header and a copy of the body. For
// other clients, it only sets the Vary header. It compresses at the fastest level: a list of flags
// takes half the CPU of the default level and up to half more bytes.
func NewGzip() (func(http.Handler) http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minGzipBytes), gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.EnableZstd(false))
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		compressed := wrap(next)
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
