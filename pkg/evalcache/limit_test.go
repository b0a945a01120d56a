package evalcache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHTTPDocumentLimit(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "12345678") }))
	defer server.Close()
	for limit, ok := range map[int64]bool{7: false, 8: true} {
		fetcher := &httpFetcher{url: server.URL, client: server.Client(), limit: limit}
		if _, err := fetcher.fetch(t.Context()); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "longer than 7 bytes") {
			t.Errorf("limit %d: error %v", limit, err)
		}
	}
}

// TestStayOnHost allows a redirect from http to https, which many hosts send.
func TestStayOnHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		from, to string
		followed bool
	}{
		{"http://flags.example/a", "http://flags.example/b", true},
		{"http://flags.example/a", "https://flags.example/a", true},
		{"https://flags.example/a", "http://flags.example/a", false},
		{"http://flags.example/a", "ftp://flags.example/a", false},
		{"http://flags.example/a", "http://flags.example:81/a", false},
		{"https://flags.example/a", "https://www.flags.example/a", false},
	} {
		before := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.from, nil)
		next := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.to, nil)
		if err := stayOnHost(next, []*http.Request{before}); (err == nil) != test.followed {
			t.Errorf("from %s to %s: error %v", test.from, test.to, err)
		}
	}
}
