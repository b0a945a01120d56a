package web

import (
	"log"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// noSniff is shared by all answers; see http.Header.
var noSniff = []string{"nosniff"}

// Protect keeps browsers from misusing the server. No answer is taken for another type than its own. A POST that a page of
// another origin makes needs a type that browsers ask permission for, such as JSON: forms and plain texts they send without,
// and with the cookies of whoever looks at the page. The paths in except take other types.
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

// fromElsewhere reports whether the page that makes a request is of another origin.
func fromElsewhere(r *http.Request) bool {
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err != nil || origin.Host != r.Host
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || kind == "application/x-ndjson")
}

// ProtectPage adds the policies of a page: nothing shows it in a frame, and it loads what sources allow.
func ProtectPage(sources string, next http.Handler) http.Handler {
	policy := []string{sources + "; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"}
	deny := []string{"DENY"}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header()["Content-Security-Policy"] = policy
		rw.Header()["X-Frame-Options"] = deny
		next.ServeHTTP(rw, r)
	})
}

// AnswerHead answers HEAD on the paths as GET: monitors ask like this. net/http leaves out the body.
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

// Server is a handler that tells the net/http server that runs it where its own errors go.
type Server struct {
	http.Handler
	// ErrorLog gets what goes wrong with connections.
	ErrorLog *log.Logger
}
