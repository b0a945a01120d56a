package evalcache_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

func TestDocumentsDoNotComeFromWhereARedirectLeads(t *testing.T) {
	t.Parallel()
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked = true
		_, _ = rw.Write([]byte(`{"Flags":[]}`))
	}))
	defer other.Close()
	first := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(rw, r, other.URL, http.StatusFound)
		case "/within":
			http.Redirect(rw, r, "/document", http.StatusFound)
		default:
			_, _ = rw.Write([]byte("\xef\xbb\xbf" + `{"Flags":[]}`)) // with a byte order mark
		}
	}))
	defer first.Close()
	if _, err := evalcache.FromHTTP(first.URL+"/within", nil).Flags(t.Context()); err != nil {
		t.Errorf("a redirect within the host: %v", err)
	}
	_, err := evalcache.FromHTTP(first.URL+"/elsewhere?token=secret", nil).Flags(t.Context())
	if err == nil || asked || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "within the host") {
		t.Errorf("a redirect to another host: error %v, asked %v", err, asked)
	}
}
