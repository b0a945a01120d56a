package web

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"runtime"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzhttp"
)

// minGzipBytes is the shortest body to compress. Most single evaluations are shorter. They fit into
// one packet anyway, so compressing them would only cost time.
const minGzipBytes = 1400

// maxCompressed is how many responses are compressed at the same time. Each takes about 700 KB
// until its client has read it.
const maxCompressed = 32

// Gzip compresses responses of at least 1,400 bytes for clients that accept gzip, up to
// maxCompressed at the same time. It compresses at the fastest level: a list of flags takes half
// the CPU of the default level and up to half more bytes. Other goroutines run after every 64 KiB
// of a response.
type Gzip struct {
	wrap  func(http.Handler) http.HandlerFunc
	slots chan struct{} // of responses that may be compressed
}

// NewGzip returns a Gzip.
func NewGzip() (*Gzip, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minGzipBytes), gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.EnableZstd(false))
	if err != nil {
		return nil, err
	}
	return &Gzip{wrap, make(chan struct{}, maxCompressed)}, nil
}

// Wrap is a middleware that compresses. Shorter responses cost a check of the request's header and
// a copy of the body. For clients that do not accept gzip, it only sets the Vary header.
func (g *Gzip) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if len(r.Header["Accept-Encoding"]) > 0 {
			s := slot{of: g.slots}
			defer s.release()
			g.wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(&yieldingWriter{ResponseWriter: rw, slot: &s}, r)
			})).ServeHTTP(rw, r)
			return
		}
		vary(rw.Header())
		next.ServeHTTP(rw, r)
	})
}

// SkipShort reports whether no client gets a response of this length compressed. If so, it sets the
// headers that Wrap sets for such a response, so that a handler that knows the length spares its
// costs.
func (g *Gzip) SkipShort(header http.Header, length int) bool {
	if length >= minGzipBytes {
		return false
	}
	vary(header)
	return true
}

// These slices are shared by all responses: http.Header.Set and Add do not change them.
var (
	varyEncoding          = []string{"Accept-Encoding"}
	varyOriginAndEncoding = []string{"Origin", "Accept-Encoding"}
)

// vary adds to the Vary header, which has only the Origin of CORS at most, so it allocates nothing.
func vary(header http.Header) {
	switch before := header["Vary"]; {
	case len(before) == 0:
		header["Vary"] = varyEncoding
	case len(before) == 1 && before[0] == "Origin":
		header["Vary"] = varyOriginAndEncoding
	default:
		header["Vary"] = append(before, "Accept-Encoding")
	}
}

// yieldBytes is how much of a response is compressed before other goroutines run, about a
// millisecond.
const yieldBytes = 64 << 10

// yieldingWriter lets other goroutines run while a long response is written. Otherwise, compressing
// a few of them at the same time would delay small requests until the scheduler interrupts it,
// after 10 to 20 ms. Without a slot, the response is not compressed.
type yieldingWriter struct {
	http.ResponseWriter
	slot    *slot
	begun   bool
	written int // since other goroutines ran
}

// slot is the right to compress a response.
type slot struct {
	of   chan struct{}
	held bool
}

// take reports whether there is a slot.
func (s *slot) take() bool {
	select {
	case s.of <- struct{}{}:
		s.held = true
	default:
	}
	return s.held
}

func (s *slot) release() {
	if s.held {
		<-s.of
	}
}

// Unwrap is for http.ResponseController.
func (w *yieldingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *yieldingWriter) Write(p []byte) (written int, err error) {
	if !w.begun {
		w.begun = true
		if compresses(w.ResponseWriter) && w.Header().Get("Content-Encoding") == "" && !w.slot.take() {
			w.Header().Set(gzhttp.HeaderNoCompression, "1") // gzhttp removes it
		}
	}
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

// Constant is a response body that stays the same while the process runs. It is compressed once,
// when the first client that accepts gzip receives it, and then kept in both forms. It is safe for
// concurrent use.
type Constant struct {
	body   []byte
	packed func() []byte
}

// NewConstant returns a Constant. The caller must not change body afterward.
func NewConstant(body []byte) *Constant {
	return &Constant{body: body, packed: sync.OnceValue(func() []byte {
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed) // at the default level, because it is done once
		_, _ = zip.Write(body)         // a bytes.Buffer returns no errors
		_ = zip.Close()
		return bytes.Clone(packed.Bytes()) // without the spare capacity
	})}
}

// Write sends the body with the headers that are set in rw. It is compressed if Gzip.Wrap would
// compress it.
func (c *Constant) Write(rw http.ResponseWriter) {
	body := c.body
	if len(body) >= minGzipBytes && compresses(rw) {
		body = c.packed()
		rw.Header().Set("Content-Encoding", "gzip") // Wrap passes on what is encoded
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	_, _ = rw.Write(body) // fails if the client disconnected
}

// compresses reports whether Gzip.Wrap compresses what is written to rw: the client accepts gzip,
// and the request is not HEAD.
func compresses(rw http.ResponseWriter) bool {
	for {
		switch w := rw.(type) {
		case *gzhttp.GzipResponseWriter, gzhttp.GzipResponseWriterWithCloseNotify:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			rw = w.Unwrap()
		default:
			return false
		}
	}
}
