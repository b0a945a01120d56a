package web_test

import (
	"bytes"
	"context"
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

func TestRecoverCutsTheConnection(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name    string
		ctx     context.Context
		handler http.HandlerFunc
		logged  bool
	}{
		{"handler aborts", t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		{"client is gone", gone, func(http.ResponseWriter, *http.Request) { panic("write: broken pipe") }, false},
		{"client is gone, but that is not why", gone, func(http.ResponseWriter, *http.Request) {
			var e *http.Cookie
			e.Name = "x"
		}, true},
		{"answer has begun", t.Context(), func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"half":`))
			panic("no other half")
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			defer func() {
				cause := recover()
				if err, _ := cause.(error); !errors.Is(err, http.ErrAbortHandler) {
					t.Errorf("panicked with %v, want http.ErrAbortHandler", cause)
				}
				if got := log.Len() > 0; got != tc.logged {
					t.Errorf("logged is %v, want %v: %s", got, tc.logged, &log)
				}
			}()
			request := httptest.NewRequestWithContext(tc.ctx, http.MethodGet, "/x", nil)
			web.Recover(slog.New(slog.NewTextHandler(&log, nil)), tc.handler).ServeHTTP(httptest.NewRecorder(), request)
		})
	}
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
			handler := web.LimitBody(5, nil, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
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
