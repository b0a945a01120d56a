package handler_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

// largeFlag creates a flag with an attachment of 8 MB, so that its export does not fit into the
// buffers of a connection.
func largeFlag(t *testing.T, s *server) {
	t.Helper()
	must(t, s, http.MethodPost, "/flags", object{"description": "d", "key": "large"})
	must(t, s, http.MethodPost, "/flags/1/variants", object{"key": "v", "attachment": object{"text": strings.Repeat("x", 8<<20)}})
	testwait.Until(t, "the variant in the flags for evaluation", func() bool {
		return strings.Contains(call(t, s, http.MethodGet, "/export/eval_cache/json", nil).raw, `"Key":"v"`)
	})
}

// TestFourExportsAtOnce opens clients that request an export and read only its first bytes.
func TestFourExportsAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	largeFlag(t, s)
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	for _, path := range []string{"/export/eval_cache/json", "/export/sqlite?exclude_snapshots=true"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			held := make([]download, 4)
			var group sync.WaitGroup
			for i := range held {
				group.Go(func() { held[i] = get(t, web.URL+"/api/v1"+path) })
			}
			group.Wait()
			for i, d := range held {
				if d.status != http.StatusOK {
					t.Fatalf("export %d of 4 is answered %d", i+1, d.status)
				}
			}
			fifth := get(t, web.URL+"/api/v1"+path)
			text, _ := io.ReadAll(fifth.body)
			if fifth.status != http.StatusServiceUnavailable || fifth.header.Get("Retry-After") != "10" || fifth.header.Get("ETag") != "" {
				t.Errorf("the fifth export is answered %d, Retry-After %q, ETag %q: %.200s", fifth.status,
					fifth.header.Get("Retry-After"), fifth.header.Get("ETag"), text)
			}
			if err := held[0].body.Close(); err != nil {
				t.Error(err)
			}
			testwait.Until(t, "a place after a client has left", func() bool {
				return get(t, web.URL+"/api/v1"+path).status == http.StatusOK
			})
		})
	}
}

// download is a response whose body has not been read.
type download struct {
	status int
	header http.Header
	body   io.ReadCloser
}

// get sends a request on a new connection. The body is closed at the end of the test.
func get(t *testing.T, url string) download {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return download{response.StatusCode, response.Header, response.Body}
}

// TestExportsOutliveTheWriteTimeout reads exports more slowly than the server's timeout allows, but
// without a pause, and reuses the connection.
func TestExportsOutliveTheWriteTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	s := setup(t, nil)
	largeFlag(t, s)
	web := httptest.NewUnstartedServer(s)
	web.Config.WriteTimeout = timeout
	web.Start()
	t.Cleanup(web.Close)
	for _, path := range []string{"/export/eval_cache/json", "/export/sqlite?exclude_snapshots=true"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			reader := bufio.NewReader(c)
			for i, pause := range []time.Duration{3 * timeout, 0} {
				if _, err := fmt.Fprintf(c, "GET /api/v1%s HTTP/1.1\r\nHost: flagr\r\n\r\n", path); err != nil {
					t.Fatal(err)
				}
				response, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatalf("export %d: %v", i+1, err)
				}
				<-time.After(pause) // the client's own pause, in which it reads nothing
				n, err := io.Copy(io.Discard, response.Body)
				_ = response.Body.Close() // it has been read
				if err != nil || n < 8<<20 {
					t.Errorf("export %d ends after %d bytes: %v", i+1, n, err)
				}
			}
		})
	}
}

// TestAbandonedExportGivesItsPlaceBack disconnects while the export waits for its turn.
func TestAbandonedExportGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/export/eval_cache/json", nil))
	}
	if a := call(t, s, http.MethodGet, "/export/eval_cache/json", nil); a.status != http.StatusOK {
		t.Errorf("an export after ten that were abandoned is answered %d: %s", a.status, a.raw)
	}
}

// TestListsOfSeveralPages lists flags that are too large to be read at once.
func TestListsOfSeveralPages(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	var want []string
	for i := range 3 {
		must(t, s, http.MethodPost, "/flags", object{"description": "<d>", "key": fmt.Sprint("k", i)})
		path := fmt.Sprintf("/flags/%d", i+1)
		must(t, s, http.MethodPost, path+"/variants", object{"key": "v", "attachment": object{"text": strings.Repeat("x", 3<<20)}})
		want = append(want, strings.TrimSuffix(call(t, s, http.MethodGet, path, nil).raw, "\n"))
	}
	list := call(t, s, http.MethodGet, "/flags?preload=true", nil)
	if list.status != http.StatusOK || list.raw != "["+strings.Join(want, ",")+"]\n" {
		t.Errorf("the list is not that of its flags: %d, %d bytes, %.200s", list.status, len(list.raw), list.raw)
	}
	if none := call(t, s, http.MethodGet, "/flags?key=none", nil); none.raw != "[]\n" {
		t.Errorf("an empty list is %q", none.raw)
	}
}
