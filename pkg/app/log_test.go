package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

func TestValuesOfLogLinesAreCut(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", config.FormatJSON} {
		var out bytes.Buffer
		long := strings.Repeat("ü", 50_000)
		newLogger(config.Log{Level: "info", Format: format}, &out).Info(long, "path", long, "error", errors.New(long))
		line := out.String()
		if len(line) > maxLogValue+2*maxLogText+500 || strings.Count(line, "...(100000 bytes)") != 3 {
			t.Errorf("%s: %d bytes, %.200s", format, len(line), line)
		}
		out.Reset()
		newLogger(config.Log{Level: "info", Format: format}, &out).Error("panic", "stack", long)
		if !strings.Contains(out.String(), long) {
			t.Errorf("%s: the stack is cut", format)
		}
	}
}

// TestWhatClientsSendIsCutInTheAccessLog has a path and a request ID that are as long as a client
// makes them.
func TestWhatClientsSendIsCutInTheAccessLog(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", config.FormatJSON} {
		var out bytes.Buffer
		access := web.AccessLog{Logger: newLogger(config.Log{Level: "info", Format: format}, &out), Lines: &out, JSON: format == config.FormatJSON}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+strings.Repeat("p", 4999), nil)
		r.Header.Set("X-Request-Id", strings.Repeat("i", 5000))
		observe := access.Observer()
		observe(&web.Exchange{Request: r, Status: http.StatusNotFound})
		if line := out.String(); len(line) > 3*maxLogValue+200 || strings.Count(line, "...(5000 bytes)") != 2 {
			t.Errorf("%s: %d bytes: %s", format, len(line), line)
		}
	}
}

// TestErrorsOfConnectionsAreLoggedInTheConfiguredFormat has what net/http reports, such as a failed
// handshake.
func TestErrorsOfConnectionsAreLoggedInTheConfiguredFormat(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", config.FormatJSON} {
		c, err := config.Load(map[string]string{"FLAGR_DB_DBCONNECTIONSTR": filepath.Join(t.TempDir(), "flagr.sqlite")})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		a, err := New(t.Context(), c, Options{Logger: newLogger(config.Log{Level: "info", Format: format}, &out)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Stop(context.Background()) }) // its errors are not what this is about
		server, ok := a.Handler(http.NotFoundHandler()).(*web.Server)
		if !ok {
			t.Fatal("the handler is no web.Server, so that the generated server finds no ErrorLog")
		}
		out.Reset()
		server.ErrorLog.Print("http: TLS handshake error from ", strings.Repeat("x", 10_000))
		line := out.String()
		if json.Valid([]byte(line)) != (format == config.FormatJSON) || !strings.Contains(line, "WARN") ||
			!strings.Contains(line, "TLS handshake error") || len(line) > maxLogText+200 {
			t.Errorf("%s: %d bytes: %.300s", format, len(line), line)
		}
	}
}
