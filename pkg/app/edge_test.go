package app_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// request sends a request to a handler.
func request(t *testing.T, h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, r)
	return rw
}

func TestPrefixIsInFrontOfTheAPIOnly(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/shop/flagr", "/shop/flagr/"} {
		a, _, _ := setup(t, map[string]string{"FLAGR_WEB_PREFIX": prefix, "FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_PATH": "/internal/metrics"})
		h := started(t, a)
		for target, want := range map[string]int{
			"/shop/flagr/api/v1/health":        200,
			"/shop/flagr/api/v1/flags?limit=1": 200,
			"/shop/flagr/api/v1/flags/1":       404,
			"/shop/flagr/api/v1/docs":          200,
			"/shop/flagr/swagger.json":         200,
			"/internal/metrics":                200,
			"/debug/pprof/cmdline":             200,
			"/api/v1/health":                   404,
			"/shop/flagr/internal/metrics":     404,
			"/shop/flag/api/v1/health":         404,
			"/shop/flagrr/api/v1/health":       404,
			"/shop":                            404,
			"/shop/flagr":                      200,
			"/shop/flagr/ui/":                  200,
			"/ui/":                             404,
			"/":                                404,
		} {
			rw := request(t, h, http.MethodGet, target)
			if rw.Code != want {
				t.Errorf("prefix %s: GET %s: %d, want %d", prefix, target, rw.Code, want)
			}
			if want == 404 && !json.Valid(rw.Body.Bytes()) {
				t.Errorf("GET %s: not JSON: %s", target, rw.Body)
			}
		}
		// The page finds its description wherever it is mounted.
		if page := request(t, h, http.MethodGet, "/shop/flagr/api/v1/docs").Body.String(); !strings.Contains(page, `../../swagger.json`) {
			t.Errorf("the documentation looks for its description outside of the prefix:\n%s", page)
		}
		var description struct{ BasePath string }
		if err := json.Unmarshal(request(t, h, http.MethodGet, "/shop/flagr/swagger.json").Body.Bytes(), &description); err != nil || description.BasePath != "/shop/flagr/api/v1" {
			t.Errorf("the description names the paths below %q: %v", description.BasePath, err)
		}
		metrics := request(t, h, http.MethodGet, "/internal/metrics").Body.String()
		if !strings.Contains(metrics, `flagr_requests_total{method="GET",path="/api/v1/flags/{flagID}",status="404"} 1`) {
			t.Errorf("metrics know no route, or one with its prefix:\n%s", regexp.MustCompile(`(?m)^flagr_requests_total.*$`).FindAllString(metrics, -1))
		}
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, map[string]string{"FLAGR_PROMETHEUS_ENABLED": "true", "FLAGR_PROMETHEUS_INCLUDE_LATENCY_HISTOGRAM": "true",
		"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401"})
	h := started(t, a)
	request(t, h, http.MethodPost, "/api/v1/evaluation")
	request(t, h, http.MethodGet, "/api/v1/flags")
	request(t, h, http.MethodGet, "/nowhere/at/all?q=1")
	request(t, h, http.MethodPost, "/ofrep/v1/evaluate/flags/checkout")
	request(t, h, http.MethodGet, "/ofrep/v1/events")
	metrics := request(t, h, http.MethodGet, "/metrics").Body.String()
	for _, want := range []string{
		`flagr_evaluations_total{flag_key="",reason="flag_not_found",variant_key=""} 1`,
		`flagr_requests_total{method="POST",path="/api/v1/evaluation",status="200"} 1`,
		`flagr_requests_total{method="GET",path="(other)",status="401"} 2`,
		`flagr_requests_total{method="POST",path="/ofrep/v1/evaluate/flags/{key}",status="401"} 1`,
		`flagr_requests_total{method="GET",path="/ofrep/v1/events",status="401"} 1`,
		`flagr_requests_buckets_count{method="POST",path="/api/v1/evaluation",status="200"} 1`,
		`flagr_http_request_duration_seconds_count{method="POST",route="/api/v1/evaluation",status="200"} 1`,
		"flagr_evalcache_flags 0", "flagr_evalcache_age_seconds ", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestWhatIsOffIsNotThere(t *testing.T) {
	t.Parallel()
	a, _, log := setup(t, map[string]string{"FLAGR_PPROF_ENABLED": "false", "FLAGR_CORS_ENABLED": "false",
		"FLAGR_MIDDLEWARE_GZIP_ENABLED": "false", "FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false"})
	h := started(t, a)
	for _, target := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		if rw := request(t, h, http.MethodGet, target); rw.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d, want 404", target, rw.Code)
		}
	}
	rw := request(t, h, http.MethodGet, "/swagger.json", "Origin: https://a.example", "Accept-Encoding: gzip")
	for _, name := range []string{"Access-Control-Allow-Origin", "Content-Encoding", "Vary"} {
		if value := rw.Header().Get(name); value != "" {
			t.Errorf("%s is %q", name, value)
		}
	}
	if strings.Contains(log.String(), "msg=request") {
		t.Errorf("requests are logged:\n%s", log)
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	a, _, _ := setup(t, nil)
	h := started(t, a)
	for _, target := range []string{"/swagger.json", "/api/v1/docs"} {
		plain := request(t, h, http.MethodGet, target)
		long := request(t, h, http.MethodGet, target, "Accept-Encoding: gzip, zstd, br")
		// Only what is kept compressed has a length.
		if header := long.Header(); header.Get("Content-Encoding") != "gzip" || header.Get("Content-Length") != strconv.Itoa(long.Body.Len()) {
			t.Fatalf("%s: headers of %d bytes: %v", target, long.Body.Len(), header)
		}
		for _, name := range []string{"Content-Type", "Vary", "Content-Security-Policy"} {
			if a, b := plain.Header().Values(name), long.Header().Values(name); !slices.Equal(a, b) {
				t.Errorf("%s: %s is %q, and %q if compressed", target, name, a, b)
			}
		}
		reader, err := gzip.NewReader(long.Body)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(reader); err != nil || !bytes.Equal(content, plain.Body.Bytes()) {
			t.Errorf("%s: %d bytes unpacked, want %d: %v", target, len(content), plain.Body.Len(), err)
		}
	}
	for _, tc := range []struct{ name, target, accept string }{
		{"short", "/api/v1/health", "gzip"},
		{"not accepted", "/swagger.json", "identity"},
		{"refused", "/swagger.json", "gzip;q=0"},
		{"another encoding", "/swagger.json", "zstd"},
	} {
		rw := request(t, h, http.MethodGet, tc.target, "Accept-Encoding: "+tc.accept)
		if rw.Header().Get("Content-Encoding") != "" || !json.Valid(rw.Body.Bytes()) {
			t.Errorf("%s: encoded with %q", tc.name, rw.Header().Get("Content-Encoding"))
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	preflight := []string{"Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization,content-type,idempotency-key,traceparent"}
	for _, tc := range []struct {
		name, origins, origin string
		want                  string
	}{
		{"all origins", "*", "https://a.example", "*"},
		{"one of the list", "https://a.example,https://b.example", "https://b.example", "https://b.example"},
		{"not of the list", "https://a.example", "https://b.example", ""},
		{"pattern", "https://*.example", "https://b.example", "https://b.example"},
		{"pattern as a part", "https://*.example", "https://b.example.evil", ""},
		{"none", "", "https://a.example", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, _, _ := setup(t, map[string]string{"FLAGR_CORS_ALLOWED_ORIGINS": tc.origins,
				"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p"})
			h := started(t, a)
			// A preflight request has no credentials, so it must pass access control.
			rw := request(t, h, http.MethodOptions, "/api/v1/tags", append(preflight, "Origin: "+tc.origin)...)
			if got := rw.Header().Get("Access-Control-Allow-Origin"); got != tc.want || rw.Code != http.StatusNoContent {
				t.Errorf("preflight: %d, %q, want %q", rw.Code, got, tc.want)
			}
			if got := rw.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("preflight: X-Content-Type-Options is %q", got)
			}
			if got := rw.Header().Get("Access-Control-Max-Age"); tc.want != "" && got != "600" {
				t.Errorf("preflight may be kept for %q", got)
			}
			rw = request(t, h, http.MethodGet, "/api/v1/tags", "Origin: "+tc.origin)
			if got := rw.Header().Get("Access-Control-Allow-Origin"); got != tc.want || rw.Code != http.StatusUnauthorized {
				t.Errorf("refusal: %d, %q, want %q", rw.Code, got, tc.want)
			}
		})
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	a, _, log := setup(t, map[string]string{"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_EXCLUDE_URLS": "/api/v1/health,/x/api/v1/ready", "FLAGR_WEB_PREFIX": "/x"})
	h := started(t, a)
	log.Reset()
	request(t, h, http.MethodGet, "/x/api/v1/flags/7?secret=1", "X-Request-Id: abc", "Authorization: Bearer s3cret")
	request(t, h, http.MethodGet, "/x/api/v1/ready")
	request(t, h, http.MethodGet, "/x/api/v1/health")
	request(t, h, http.MethodGet, "/x/a%0Ab")
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	wants := []string{
		`level=INFO msg=request method=GET path=/x/api/v1/flags/7 status=404 bytes=\d+ took=\S+ remote=\S+ request_id=abc$`,
		`level=INFO msg=request method=GET path=/x/api/v1/health status=200 `,
		`level=INFO msg=request method=GET path="/x/a\\nb" status=404 `,
	}
	if len(lines) != len(wants) {
		t.Fatalf("log is\n%s", log)
	}
	for i, want := range wants {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line is %s\nwant %s", lines[i], want)
		}
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "s3cret") {
		t.Errorf("a secret in the log:\n%s", log)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	type body struct {
		Status     string
		Evaluation struct {
			Flags      *int
			CheckedAt  string
			AgeSeconds *float64
		}
		Database  struct{ Status string }
		Recorders []struct{ Name, Status string }
	}
	ready := func(h http.Handler) (int, body) {
		t.Helper()
		rw := request(t, h, http.MethodGet, "/api/v1/ready")
		var b body
		if err := json.Unmarshal(rw.Body.Bytes(), &b); err != nil {
			t.Fatalf("%d %s: %v", rw.Code, rw.Body, err)
		}
		return rw.Code, b
	}
	a, _, _ := setup(t, map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "datar"})
	h := started(t, a)
	var code int
	var b body
	testwait.Until(t, "the server to be well", func() bool { // SQLite on a busy machine may not answer in the two seconds it has
		code, b = ready(h)
		return b.Status == "OK"
	})
	if code != 200 || b.Evaluation.Flags == nil || b.Evaluation.AgeSeconds == nil || b.Database.Status != "OK" ||
		fmt.Sprint(b.Recorders) != "[{datar OK}]" {
		t.Errorf("ready: %d %+v", code, b)
	}
	a.BeginStop()
	if code, b := ready(h); code != 503 || b.Status != "stopping" {
		t.Errorf("stopping: %d %+v", code, b)
	}
	if rw := request(t, h, http.MethodGet, "/api/v1/health"); rw.Code != http.StatusOK {
		t.Errorf("health while requests drain: %d", rw.Code)
	}
	stop(t, a) // closes the database
	if code, b := ready(h); code != 503 || b.Database.Status != "unreachable" {
		t.Errorf("without a database: %d %+v", code, b)
	}
}

// reports is a stand-in for Sentry that keeps what it is sent.
type reports struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *reports) ServeHTTP(rw http.ResponseWriter, request *http.Request) {
	content, _ := io.ReadAll(request.Body)
	if unzipped, err := gzip.NewReader(bytes.NewReader(content)); err == nil {
		content, _ = io.ReadAll(unzipped)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(content)
	rw.WriteHeader(http.StatusOK)
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func TestSentryGetsErrors(t *testing.T) {
	t.Parallel()
	received := &reports{}
	server := httptest.NewServer(received)
	t.Cleanup(server.Close)
	a, _, log := setup(t, map[string]string{"FLAGR_SENTRY_ENABLED": "true", "FLAGR_SENTRY_ENVIRONMENT": "staging",
		"FLAGR_SENTRY_DSN": strings.Replace(server.URL, "http://", "http://key@", 1) + "/1"})
	h := a.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the cause") }))
	if rw := request(t, h, http.MethodGet, "/api/v1/flags"); rw.Code != http.StatusInternalServerError {
		t.Errorf("a panic answers %d", rw.Code)
	}
	stop(t, a)
	testwait.Until(t, "the report", func() bool { return received.String() != "" }) // stopping, the server does not wait for long
	for _, want := range []string{"request panicked", "the cause", "edge_test.go", `"environment":"staging"`, "/api/v1/flags"} {
		if !strings.Contains(received.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, received.String())
		}
	}
	if !strings.Contains(log.String(), "request panicked") {
		t.Errorf("the log lacks the panic: %s", log)
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]map[string]string{
		"FLAGR_SENTRY_DSN": {"FLAGR_SENTRY_ENABLED": "true", "FLAGR_SENTRY_DSN": "https://sentry.example.com/s3cret"},
	} {
		environ = maps.Clone(environ)
		environ["FLAGR_DB_DBCONNECTIONSTR"] = filepath.Join(t.TempDir(), "flagr.sqlite")
		c, err := config.Load(environ)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		_, err = app.New(t.Context(), c, app.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
