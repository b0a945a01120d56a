package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// parts records what is written at once.
type parts struct {
	http.ResponseWriter
	sizes []int
	fail  error
}

func (p *parts) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *parts) Write(b []byte) (int, error) {
	p.sizes = append(p.sizes, len(b))
	if p.fail != nil {
		return 1, p.fail
	}
	return p.ResponseWriter.Write(b)
}

func newYieldingWriter(rw http.ResponseWriter) *yieldingWriter {
	return &yieldingWriter{ResponseWriter: rw, slot: &slot{of: make(chan struct{}, 1)}}
}

// TestLongResponsesAreWrittenInParts checks that other goroutines can run between parts of a long
// response, however it is written, and that nothing is lost.
func TestLongResponsesAreWrittenInParts(t *testing.T) {
	t.Parallel()
	const whole = 3*yieldBytes + 1
	for name, each := range map[string]int{"at once": whole, "by one byte less than a part": yieldBytes - 1, "by a part": yieldBytes, "by 1,000 bytes": 1000} {
		recorder := httptest.NewRecorder()
		out := &parts{ResponseWriter: recorder}
		http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			for rest := strings.Repeat("x", whole); rest != ""; {
				part := rest[:min(each, len(rest))]
				if n, err := io.WriteString(rw, part); n != len(part) || err != nil {
					t.Errorf("%s: %d bytes of %d are written: %v", name, n, len(part), err)
				}
				rest = rest[len(part):]
			}
			if err := http.NewResponseController(rw).Flush(); err != nil {
				t.Errorf("%s: flush: %v", name, err)
			}
		}).ServeHTTP(newYieldingWriter(out), nil)
		if recorder.Body.Len() != whole || !recorder.Flushed {
			t.Errorf("%s: %d bytes, flushed: %t", name, recorder.Body.Len(), recorder.Flushed)
		}
		for _, size := range out.sizes {
			if size > yieldBytes {
				t.Errorf("%s: a part of %d bytes", name, size)
			}
		}
	}
	broken := &parts{fail: errors.New("broken")}
	if n, err := newYieldingWriter(broken).Write(make([]byte, whole)); n != 1 || !errors.Is(err, broken.fail) || len(broken.sizes) != 1 {
		t.Errorf("a write that fails: %d, %v, %d parts", n, err, len(broken.sizes))
	}
}

// TestLongResponsesAreCompressed checks a response that is longer than a part.
func TestLongResponsesAreCompressed(t *testing.T) {
	t.Parallel()
	compression, err := NewGzip()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), yieldBytes)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	rw := httptest.NewRecorder()
	compression.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(want) })).ServeHTTP(rw, r)
	reader, err := gzip.NewReader(rw.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, want) || rw.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
	}
}

// TestCompressedResponsesAtOnce checks that a response beyond maxCompressed is sent as it is, and
// that further ones are compressed once others are sent or aborted.
func TestCompressedResponsesAtOnce(t *testing.T) {
	t.Parallel()
	compression, err := NewGzip()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789", 1000)
	get := func(accepted string, writing func()) (encoding, body string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", accepted)
		rw := httptest.NewRecorder()
		compression.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, want[:5000])
			writing()
			_, _ = io.WriteString(rw, want[5000:])
		})).ServeHTTP(rw, r)
		if rw.Header().Get("Vary") != "Accept-Encoding" || rw.Header()["No-Gzip-Compression"] != nil {
			t.Errorf("headers %v", rw.Header())
		}
		return rw.Header().Get("Content-Encoding"), rw.Body.String()
	}
	var nest func(n int)
	nest = func(n int) {
		encoding, body := get("gzip", func() {
			if n == maxCompressed {
				return
			}
			if encoding, body := get("br", func() { nest(n + 1) }); encoding != "" || body != want { // needs none of the slots
				t.Errorf("a client that does not accept gzip: encoding %q, %d bytes", encoding, len(body))
			}
		})
		if compressed := encoding == "gzip"; compressed != (n < maxCompressed) || !compressed && body != want {
			t.Errorf("response %d: encoding %q, %d bytes", n, encoding, len(body))
		}
	}
	nest(0)
	for range maxCompressed {
		func() {
			defer func() { _ = recover() }()
			get("gzip", func() { panic(http.ErrAbortHandler) })
		}()
	}
	if encoding, _ := get("gzip", func() {}); encoding != "gzip" {
		t.Errorf("after them: encoding %q", encoding)
	}
}

// TestConstantsAreCompressedOnce checks who gets a Constant compressed, and that all of them get
// the bytes of one compression.
func TestConstantsAreCompressedOnce(t *testing.T) {
	t.Parallel()
	compression, err := NewGzip()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), yieldBytes)
	long, short := NewConstant(want), NewConstant([]byte("short"))
	serve := func(body *Constant) http.Handler {
		return ReadInTurn(budget.NewTurns(1), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { body.Write(rw) }))
	}
	get := func(h http.Handler, method, accepts string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
		r.Header.Set("Accept-Encoding", accepts)
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		return rw
	}
	for name, tc := range map[string]struct {
		h               http.Handler
		method, accepts string
		want            []byte
	}{
		"compression is off":            {serve(long), http.MethodGet, "gzip", want},
		"the client does not accept it": {compression.Wrap(serve(long)), http.MethodGet, "identity, br", want},
		"the client refuses it":         {compression.Wrap(serve(long)), http.MethodGet, "gzip;q=0", want},
		"the method is HEAD":            {compression.Wrap(serve(long)), http.MethodHead, "gzip", want},
		"the body is short":             {compression.Wrap(serve(short)), http.MethodGet, "gzip", []byte("short")},
		"the client has no such header": {compression.Wrap(serve(long)), http.MethodGet, "", want},
	} {
		rw := get(tc.h, tc.method, tc.accepts)
		if rw.Header().Get("Content-Encoding") != "" || rw.Header().Get("Content-Length") != "" || !bytes.Equal(rw.Body.Bytes(), tc.want) {
			t.Errorf("%s: headers %v, %d bytes of %d", name, rw.Header(), rw.Body.Len(), len(tc.want))
		}
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			rw := get(compression.Wrap(serve(long)), http.MethodGet, "br, gzip;q=0.5")
			length := strconv.Itoa(rw.Body.Len())
			if header := rw.Header(); header.Get("Content-Encoding") != "gzip" || header.Get("Vary") != "Accept-Encoding" || header.Get("Content-Length") != length {
				t.Errorf("headers of %s compressed bytes: %v", length, header)
			}
			if !bytes.Equal(rw.Body.Bytes(), long.packed()) {
				t.Error("the kept bytes are not sent")
			}
			reader, err := gzip.NewReader(rw.Body)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
			}
		})
	}
	clients.Wait()
	if one, other := long.packed(), long.packed(); &one[0] != &other[0] {
		t.Error("compressed more than once")
	}
}

// TestVary adds to what is in the header, and changes no other response.
func TestVary(t *testing.T) {
	t.Parallel()
	for _, before := range [][]string{nil, {"Origin"}, {"Cookie"}, {"Origin", "Cookie"}} {
		header := http.Header{"Vary": slices.Clone(before)}
		vary(header)
		if want := append(slices.Clone(before), "Accept-Encoding"); !slices.Equal(header["Vary"], want) {
			t.Errorf("%q, want %q", header["Vary"], want)
		}
		header.Add("Vary", "Other")
		other := http.Header{"Vary": slices.Clone(before)}
		if vary(other); slices.Contains(other["Vary"], "Other") {
			t.Errorf("after %q, another response has %q", before, other["Vary"])
		}
	}
}
