package web_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

func TestRecoverAnswersAndLogsAPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	handler := web.Recover(slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("the secret cause")
	}))
	rw := httptest.NewRecorder()
	handler.ServeHTTP(rw, httptest.NewRequest(http.MethodGet, "/x", nil))

	if rw.Code != http.StatusInternalServerError || strings.TrimSpace(rw.Body.String()) != `{"message":"internal error"}` {
		t.Errorf("answer is %d %s", rw.Code, rw.Body)
	}
	if !strings.Contains(log.String(), "the secret cause") || !strings.Contains(log.String(), "web_test.go") {
		t.Errorf("log has no cause or no stack: %s", &log)
	}
}

func TestRecoverLetsAnAbortPass(t *testing.T) {
	t.Parallel()
	handler := web.Recover(slog.New(slog.DiscardHandler), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler {
			t.Errorf("panicked with %v", cause)
		}
	}()
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
	t.Error("did not panic")
}

func TestLimitBody(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"fits", strings.NewReader("12345"), http.StatusOK},
		{"too large and says so", strings.NewReader("123456"), http.StatusRequestEntityTooLarge},
		{"too large without saying so", struct{ io.Reader }{strings.NewReader("123456")}, http.StatusTeapot},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			handler := web.LimitBody(5, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				var tooLarge *http.MaxBytesError
				if _, err := io.ReadAll(r.Body); errors.As(err, &tooLarge) {
					rw.WriteHeader(http.StatusTeapot)
				}
			}))
			rw := httptest.NewRecorder()
			handler.ServeHTTP(rw, httptest.NewRequest(http.MethodPost, "/", tc.body))
			if rw.Code != tc.status {
				t.Errorf("answer is %d, want %d", rw.Code, tc.status)
			}
		})
	}
}
