package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

func TestProtectRefusesWhatPagesOfOtherOriginsSendUnasked(t *testing.T) {
	t.Parallel()
	h := web.Protect([]string{"/api/v2/flagevaluation"}, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusAccepted) }))
	for _, test := range []struct {
		name, method, path, origin, contentType string
		refused                                 bool
		site                                    string // Sec-Fetch-Site
	}{
		{"a form", "POST", "/api/v1/flags", "https://evil.example", "application/x-www-form-urlencoded", true, ""},
		{"nothing", "POST", "/api/v1/flags/1/duplicate", "https://evil.example", "", true, ""},
		{"text", "POST", "/api/v1/flags", "null", "text/plain", true, ""},
		{"text that names JSON", "POST", "/api/v1/flags", "https://evil.example", "text/plain; application/json", true, ""},
		{"JSON", "POST", "/api/v1/flags", "https://evil.example", "application/json; charset=utf-8", false, ""},
		{"the same origin", "POST", "/api/v1/flags", "http://flags.example", "text/plain", false, ""},
		{"no page", "POST", "/api/v1/flags", "", "text/plain", false, ""},
		{"counts of a browser's SDK", "POST", "/api/v2/flagevaluation", "https://shop.example", "text/plain;charset=UTF-8", false, ""},
		{"reading", "GET", "/api/v1/flags", "https://evil.example", "", false, ""},
		{"the same origin behind a proxy", "POST", "/ui/new", "https://flags.public.example", "application/x-www-form-urlencoded", false, "same-origin"},
		{"another origin of the same site", "POST", "/ui/new", "https://www.example", "application/x-www-form-urlencoded", true, "same-site"},
		{"another site", "POST", "/ui/new", "https://evil.example", "application/x-www-form-urlencoded", true, "cross-site"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), test.method, "http://flags.example"+test.path, nil)
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		if test.site != "" {
			r.Header.Set("Sec-Fetch-Site", test.site)
		}
		r.Header.Set("Content-Type", test.contentType)
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		if refused := rw.Code == http.StatusUnsupportedMediaType; refused != test.refused || rw.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", test.name, rw.Code, rw.Header())
		}
	}
}

func TestAnswerHead(t *testing.T) {
	t.Parallel()
	h := web.AnswerHead([]string{"/health"}, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			rw.WriteHeader(http.StatusMethodNotAllowed)
		}
	}))
	for path, want := range map[string]int{"/api/v1/health": 200, "/api/v1/flags": 405} {
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodHead, path, nil))
		if rw.Code != want {
			t.Errorf("HEAD %s: %d, want %d", path, rw.Code, want)
		}
	}
}
