package datarhttp_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
)

func discard() datarhttp.Option { return datarhttp.WithLogger(slog.New(slog.DiscardHandler)) }

// host answers what is not Datar's, and says which path it saw.
func host() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(rw, r.Method+" "+r.URL.Path)
	})
}

func get(t *testing.T, h http.Handler, path string) (status int, body string) {
	t.Helper()
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return rw.Code, rw.Body.String()
}

func TestMountTakesItsPathsOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prefix, path string
		mine         bool
	}{
		"below the prefix":        {"/api/v1", "/api/v1/datar/status", true},
		"slash after the prefix":  {"/api/v1/", "/api/v1/datar/status", true},
		"no slash before it":      {"api/v1", "/api/v1/datar/status", true},
		"at the root":             {"", "/datar/status", true},
		"at the root, by a slash": {"/", "/datar/status", true},
		"beside the prefix":       {"/api/v1", "/datar/status", false},
		"longer prefix":           {"/api/v1", "/api/v10/datar/status", false},
		"deeper":                  {"/api/v1", "/x/api/v1/datar/status", false},
		"the host's own":          {"/api/v1", "/api/v1/datar/other", false},
		"the host's own flags":    {"/api/v1", "/api/v1/datar/flags/1", false},
		"more parts":              {"/api/v1", "/api/v1/datar/flags/1/2/summary", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := get(t, datarhttp.Mount(host(), tc.prefix, stub{}, discard()), tc.path)
			if tc.mine && status != http.StatusOK || !tc.mine && (status != http.StatusTeapot || body != "GET "+tc.path) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestWithoutAnEngineDatarIsOff(t *testing.T) {
	t.Parallel()
	var none *datar.Engine
	for name, h := range map[string]http.Handler{
		"nil":                    datarhttp.Handler(nil),
		"nil pointer":            datarhttp.Handler(none),
		"nil pointer, mounted":   datarhttp.Mount(host(), "", none),
		"nothing to mount it on": datarhttp.Mount(nil, "", none),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/datar/summary", "/datar/flags/1/summary", "/datar/status"} {
				if status, body := get(t, h, path); status != http.StatusServiceUnavailable || !strings.Contains(body, "off") {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
		})
	}
	if status, _ := get(t, datarhttp.Mount(nil, "", none), "/"); status != http.StatusNotFound {
		t.Errorf("a request for a host that is nil is answered with %d", status)
	}
}

func TestFailuresAreLogged(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	h := datarhttp.Handler(stub{err: errors.New("disk on fire")}, datarhttp.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	status, body := get(t, h, "/datar/flags/1/summary")
	if status != http.StatusInternalServerError || strings.Contains(body, "fire") {
		t.Errorf("answer is %d %s", status, body)
	}
	if !strings.Contains(log.String(), "disk on fire") || !strings.Contains(log.String(), "/datar/flags/1/summary") {
		t.Errorf("the log does not say what failed: %s", log.String())
	}
}

func TestOldCountsThatAreBeingAddedUp(t *testing.T) {
	t.Parallel()
	h := datarhttp.Handler(stub{err: fmt.Errorf("totals: %w", &datar.PreparingError{Made: 3, Due: 40})})
	status, body := get(t, h, "/datar/flags/1/summary")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "3 of 40 sums are done") || strings.Contains(body, "totals") {
		t.Errorf("answer is %d %s", status, body)
	}
}
