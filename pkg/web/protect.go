package web

import (
	"log"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// noSniff is shared by all responses; see http.Header.
var noSniff = []string{"nosniff"}

// Protect prevents browsers from misusing the server. Browsers do not guess another type for a
// response. A POST from a page of another origin must have a type that requires a preflight
// request, such as JSON, because browsers send forms and plain text without one, and with the
// user's cookies. The paths in except accept other types.
func Protect(except []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header()["X-Content-Type-Options"] = noSniff
		if r.Method == http.MethodPost && len(r.Header["Origin"]) > 0 && fromElsewhere(r) && !isJSON(r.Header.Get("Content-Type")) && !has(except, r.URL.Path) {
			writeError(rw, http.StatusUnsupportedMediaType, "a request from a page of another origin needs the Content-Type application/json")
			return
		}
		next.ServeHTTP(rw, r)
	})
}

func has(suffixes []string, p string) bool {
	p = path.Clean(p)
	for _, suffix := range suffixes {
		if strings.HasSuffix(p, suffix) {
			return true
		}
	}
	return false
}

// fromElsewhere reports whether the page that sends a request is of another origin. Pages cannot
// set Sec-Fetch-Site, which is right also behind a proxy that does not pass on the host of the
// page.
func fromElsewhere(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return false
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err != nil || origin.Host != r.Host
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || kind == "application/x-ndjson")
}

// ProtectPage adds the policies of a page: it cannot be shown in a frame, and it loads only what
// sources allow.
func ProtectPage(sources string, next http.Handler) http.Handler {
	policy := []string{sources + "; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"}
	deny := []string{"DENY"}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header()["Content-Security-Policy"] = policy
		rw.Header()["X-Frame-Options"] = deny
		next.ServeHTTP(rw, r)
	})
}

// AnswerHead handles HEAD on the paths as GET, because monitors use it. net/http omits the body.
func AnswerHead(paths []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead || !has(paths, r.URL.Path) {
			next.ServeHTTP(rw, r)
			return
		}
		get := *r
		get.Method = http.MethodGet
		defer func() { r.Pattern = get.Pattern }() // for Observe
		next.ServeHTTP(rw, &get)
	})
}

// Server is a handler that also sets where the net/http server logs its own errors.
type Server struct {
	http.Handler
	// ErrorLog receives errors of connections.
	ErrorLog *log.Logger
}
