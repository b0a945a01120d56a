package web

import (
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// minGzipBytes is the shortest body that is compressed. Most single evaluations are shorter: they fit into one packet
// either way, so that compressing them would only cost time.
const minGzipBytes = 1400

// NewGzip makes a middleware that compresses answers of at least 1,400 bytes for clients that accept it. Shorter ones
// pay for a look at the request's header and a copy of the body.
func NewGzip() (func(http.Handler) http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minGzipBytes), gzhttp.EnableZstd(false))
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler { return wrap(next) }, nil
}
