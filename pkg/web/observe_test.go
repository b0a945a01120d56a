package web_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		bytes   int64
		aborted bool
	}{
		{"nothing written", func(http.ResponseWriter, *http.Request) {}, 200, 0, false},
		{"body alone", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "12345") }, 200, 5, false},
		{"status alone", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }, 418, 0, false},
		{"hints before the status", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusEarlyHints)
			rw.WriteHeader(http.StatusNotFound)
		}, 404, 0, false},
		{"two statuses", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusNotFound)
			rw.WriteHeader(http.StatusOK)
		}, 404, 0, false},
		{"panic", func(http.ResponseWriter, *http.Request) { panic("cause") }, 500, 29, false},
		{"panic after the answer has begun", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "half")
			panic("cause")
		}, 200, 4, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var seen []web.Exchange
			observe := func(e *web.Exchange) { seen = append(seen, *e) }
			api := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				r.Pattern = "/api/v1/api/v1/flags/{flagID}"
				tc.handler(rw, r)
			})
			h := web.Routes{Prefix: "/x", API: web.LimitBody(10, nil, web.NameRoutes("/api/v1", api))}.Handler()
			h = web.Observe([]func(*web.Exchange){observe, observe}, web.Recover(slog.New(slog.DiscardHandler), h))
			func() {
				defer func() {
					if err, _ := recover().(error); errors.Is(err, http.ErrAbortHandler) != tc.aborted {
						t.Errorf("the connection is cut: %v", err)
					}
				}()
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x/api/v1/flags/1", nil))
			}()
			if len(seen) != 2 {
				t.Fatalf("%d observers were told, want 2", len(seen))
			}
			e := seen[0]
			if e.Status != tc.status || e.Bytes != tc.bytes || e.Aborted != tc.aborted || e.Duration <= 0 || e.Request.URL.Path != "/x/api/v1/flags/1" {
				t.Errorf("told of %+v", e)
			}
			if e.Request.Pattern != "/api/v1/flags/{flagID}" {
				t.Errorf("the route is %q", e.Request.Pattern)
			}
		})
	}
}

// TestRecoverInsideObserve: both use one writer, and know whether the response has begun.
func TestRecoverInsideObserve(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		begin   func(http.ResponseWriter)
		status  int
		aborted bool
	}{
		{"not begun", func(http.ResponseWriter) {}, http.StatusInternalServerError, false},
		{"only an early hint", func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusEarlyHints) }, http.StatusInternalServerError, false},
		{"a status", func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusAccepted) }, http.StatusAccepted, true},
		{"flushed", func(rw http.ResponseWriter) { _ = http.NewResponseController(rw).Flush() }, http.StatusOK, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var seen web.Exchange
			handler := web.Observe([]func(*web.Exchange){func(e *web.Exchange) { seen = *e }},
				web.Recover(slog.New(slog.DiscardHandler), http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					tc.begin(rw)
					panic("cause")
				})))
			defer func() {
				if aborted := recover() != nil; aborted != tc.aborted || seen.Aborted != tc.aborted || seen.Status != tc.status {
					t.Errorf("panicked: %v, %+v; want %d", aborted, seen, tc.status)
				}
			}()
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
		})
	}
}
