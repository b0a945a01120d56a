package ofrep_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// sink is a http.ResponseWriter that keeps nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

const benchContext = `{"context":{"targetingKey":"user-1","country":"DE","age":42,"plan":"free"}}`

// serve repeats one request.
func serve(b *testing.B, h http.Handler, path string, header http.Header) *sink {
	b.Helper()
	b.ReportAllocs()
	rw := &sink{header: http.Header{}}
	for b.Loop() {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, io.NopCloser(strings.NewReader(benchContext)))
		r.ContentLength = int64(len(benchContext))
		r.Header = header
		clear(rw.header)
		rw.status = http.StatusOK
		h.ServeHTTP(rw, r)
	}
	return rw
}

func BenchmarkOneFlag(b *testing.B) {
	h := setup(b, manyFlags(10), 0, ofrep.Options{})
	serve(b, h, flagPath+"flag-00005", http.Header{})
}

// BenchmarkAllFlags reports the time for each flag.
func BenchmarkAllFlags(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h := setup(b, manyFlags(n), 0, ofrep.Options{})
			serve(b, h, flagsPath, http.Header{})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/flag")
		})
	}
}

// BenchmarkNotModified must not depend on the number of flags.
func BenchmarkNotModified(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h := setup(b, manyFlags(n), 0, ofrep.Options{})
			tag := call(h, http.MethodPost, flagsPath, benchContext).Header().Get("ETag")
			if rw := serve(b, h, flagsPath, http.Header{"If-None-Match": {tag}}); rw.status != http.StatusNotModified {
				b.Errorf("status %d", rw.status)
			}
		})
	}
}
