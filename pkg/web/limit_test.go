package web_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// TestLimitBodyTakesNoBodyForARequest sends bodies that contain requests to a handler that reads
// only the beginning.
func TestLimitBodyTakesNoBodyForARequest(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(web.LimitBody(1<<20, nil, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.CopyN(io.Discard, r.Body, 10); err != nil {
			t.Error(err)
		}
		if err := r.Body.Close(); err != nil {
			t.Error(err)
		}
		rw.WriteHeader(http.StatusBadRequest)
	})))
	t.Cleanup(server.Close)
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}

	// More than net/http reads to the end just to keep the connection.
	body := strings.Repeat("GET /inner HTTP/1.1\r\nHost: h\r\n\r\n", 20_000)
	go func() {
		// This fails once the server has closed the connection.
		_, _ = fmt.Fprintf(connection, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}()
	answers, _ := io.ReadAll(connection) // ends with EOF or with a reset
	if n := strings.Count(string(answers), "HTTP/1.1 "); n != 1 {
		t.Errorf("one request got %d answers:\n%s", n, answers)
	}
}

// Handlers learn of clients that disconnected one after the other, and of all others at once.
func TestDelayDisconnected(t *testing.T) {
	t.Parallel()
	const requests = 210
	for body, want := range map[string]time.Duration{`{"flagKey"`: 100 * time.Millisecond, "": 0} {
		synctest.Test(t, func(t *testing.T) {
			h := web.DelayDisconnected(budget.NewDisconnects(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if got, err := io.ReadAll(r.Body); string(got) != body || (err != nil) != (body != "") {
					t.Errorf("read %q, %v, want %q", got, err, body)
				}
				r.Pattern = "route"
			}))
			began := time.Now()
			var group sync.WaitGroup
			for range requests {
				group.Go(func() {
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/", nil)
					if body != "" {
						r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(body), iotest.ErrReader(io.ErrUnexpectedEOF))), 1000
					}
					if h.ServeHTTP(httptest.NewRecorder(), r); r.Pattern != "route" {
						t.Errorf("pattern %q, want that of the handler", r.Pattern)
					}
				})
			}
			group.Wait()
			if took := time.Since(began).Round(time.Millisecond); took != want {
				t.Errorf("%q: took %v, want %v", body, took, want)
			}
		})
	}
}
