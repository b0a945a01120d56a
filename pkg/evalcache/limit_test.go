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
