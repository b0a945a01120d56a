package app_test

import (
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// discard is a http.ResponseWriter without a reader.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// newApp returns an App without a log. It is not started.
func newApp(b *testing.B, environ map[string]string) *app.App {
	b.Helper()
	c, err := config.Load(environ)
	if err != nil {
		b.Fatal(err)
	}
	a, err := app.New(b.Context(), c, app.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Stop(b.Context()) })
	return a
}

// BenchmarkEdge measures what a request pays before it reaches the API and after: the table in
// docs/operations.md.
func BenchmarkEdge(b *testing.B) {
	off := map[string]string{"FLAGR_CORS_ENABLED": "false", "FLAGR_PPROF_ENABLED": "false", "FLAGR_MIDDLEWARE_GZIP_ENABLED": "false",
		"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false"}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name, path string
		environ    map[string]string
	}{
		{"everything off", "/api/v1/evaluation", nil},
		{"CORS", "/api/v1/evaluation", map[string]string{"FLAGR_CORS_ENABLED": "true"}},
		{"gzip", "/api/v1/evaluation", map[string]string{"FLAGR_MIDDLEWARE_GZIP_ENABLED": "true"}},
		{"access log", "/api/v1/evaluation", map[string]string{"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "true"}},
		{"Prometheus", "/api/v1/evaluation", map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true"}},
		{"prefix", "/shop/api/v1/evaluation", map[string]string{"FLAGR_WEB_PREFIX": "/shop"}},
		{"token, open path", "/api/v1/evaluation", map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret}},
		{"token", "/api/v1/tags", map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			environ := map[string]string{"FLAGR_DB_DBCONNECTIONSTR": filepath.Join(b.TempDir(), "flagr.sqlite")}
			for _, more := range []map[string]string{off, bc.environ} {
				maps.Copy(environ, more)
			}
			a := newApp(b, environ)
			body := make([]byte, 600)
			h := a.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				r.Pattern = "/api/v1/evaluation"
				rw.Header()["Content-Type"] = []string{"application/json"}
				rw.WriteHeader(http.StatusOK)
				_, _ = rw.Write(body)
			}))
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, bc.path, strings.NewReader("{}"))
			if err != nil {
				b.Fatal(err)
			}
			request.Header.Set("Accept-Encoding", "gzip")
			request.Header.Set("Authorization", "Bearer "+token)
			rw := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(rw.header)
				h.ServeHTTP(rw, request)
			}
		})
	}
}

// benchmarkFlags is a document with a flag of two segments, of which the second one matches.
const benchmarkFlags = `{"Flags":[{"ID":1,"Key":"bench","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":9,"EntityType":"user","Segments":[
{"ID":1,"RolloutPercent":100,"Constraints":[{"ID":1,"Property":"country","Operator":"EQ","Value":"\"DE\""}],"Distributions":[{"ID":1,"VariantID":1,"VariantKey":"a","Percent":100}]},
{"ID":2,"Rank":1,"RolloutPercent":100,"Constraints":[{"ID":2,"Property":"age","Operator":"GTE","Value":"18"}],"Distributions":[{"ID":2,"VariantID":2,"VariantKey":"b","Percent":100}]}],
"Variants":[{"ID":1,"Key":"a","Attachment":{"color":"#1f6feb"}},{"ID":2,"Key":"b","Attachment":{"color":"#1f6feb"}}]}]}`

// BenchmarkWholeEvaluation measures a plain evaluation from the listener to the response, with and
// without a client that accepts gzip.
func BenchmarkWholeEvaluation(b *testing.B) {
	const body = `{"entityID":"user-1001","entityType":"user","entityContext":{"age":30,"country":"FR"},"flagKey":"bench"}`
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			flags := filepath.Join(b.TempDir(), "flags.json")
			if err := os.WriteFile(flags, []byte(benchmarkFlags), 0o600); err != nil {
				b.Fatal(err)
			}
			a := newApp(b, map[string]string{"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": flags})
			if err := a.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			h := a.Handler(http.NotFoundHandler())
			var reader strings.Reader
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/evaluation", nil)
			if err != nil {
				b.Fatal(err)
			}
			request.Body, request.ContentLength = io.NopCloser(&reader), int64(len(body))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Accept-Encoding", encoding)
			rw := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				clear(rw.header)
				h.ServeHTTP(rw, request)
			}
		})
	}
}
