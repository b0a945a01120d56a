package web

import (
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// minGzipBytes is the shortest body that is compressed. Most single evaluations are shorter: they fit into one packet
// either way, so that compressing them would only cost time.
const minGzipBytes = 1400

// NewGzip makes a middleware that compresses answers of at least 1,400 bytes for clients that accept it. Shorter ones
// pay for a look at the request's header and a copy of the body; for clients that say nothing of compression nothing is done
// but to name the header that answers vary with.
func NewGzip() (func(http.Handler) http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minGzipBytes), gzhttp.EnableZstd(false))
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
