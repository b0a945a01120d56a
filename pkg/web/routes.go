package web

import (
	"net/http"
	"net/http/pprof"
	"net/url"
	"path"
	"strings"
)

// pprofPath is where the profiler is, whatever the web prefix.
const pprofPath = "/debug/pprof"

// ofrepRoot is what the paths of OFREP begin with.
const ofrepRoot = "/ofrep/"

// Routes says which handler has which paths.
type Routes struct {
	// Prefix is in front of every path of API, and taken off before API sees a request. Empty: nothing is in front.
	Prefix string
	// API is everything that swagger.yaml describes. Mandatory.
	API http.Handler
	// OFREP is served at /ofrep and below, behind Prefix as the API; nil: those paths are the API's.
	OFREP http.Handler
	// Metrics is served at MetricsPath, which has no prefix; nil: not served.
	Metrics     http.Handler
	MetricsPath string
	// Pprof is served at /debug/pprof and below, which has no prefix; nil: not served.
	Pprof http.Handler
}

// Handler puts the routes together. Unmatched paths return 404. A request for the API is copied only if there
// is a prefix.
func (o Routes) Handler() http.Handler {
	api := o.API
	if o.OFREP != nil {
		api = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, ofrepRoot) {
				o.OFREP.ServeHTTP(rw, r)
				return
			}
			o.API.ServeHTTP(rw, r)
		})
	}
	if prefix := CleanPrefix(o.Prefix); prefix != "" {
		api = stripPrefix(prefix, api)
	}
	if o.Metrics == nil && o.Pprof == nil {
		return api
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case o.Metrics != nil && p == o.MetricsPath:
			r.Pattern = o.MetricsPath
			o.Metrics.ServeHTTP(rw, r)
		case o.Pprof != nil && strings.HasPrefix(p, pprofPath) && (len(p) == len(pprofPath) || p[len(pprofPath)] == '/'):
			r.Pattern = pprofPath
			o.Pprof.ServeHTTP(rw, r)
		default:
			api.ServeHTTP(rw, r)
		}
	})
}

// CleanPrefix gives a web prefix as requests have it: it is empty, or begins with a slash and does not end with one.
func CleanPrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	if prefix = path.Clean("/" + prefix); prefix == "/" {
		return ""
	}
	return prefix
}

// stripPrefix is http.StripPrefix for whole segments, with the API's own 404. The rest of a path is passed on exactly
// as it was written, so that who guards it and who routes it see the same.
func stripPrefix(prefix string, next http.Handler) http.Handler {
	escapedPrefix := (&url.URL{Path: prefix}).EscapedPath()
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, prefix)
		rawRest, rawOK := strings.CutPrefix(r.URL.RawPath, escapedPrefix)
		if !ok || rest != "" && rest[0] != '/' || r.URL.RawPath != "" && (!rawOK || !strings.HasPrefix(rawRest, "/")) {
			writeError(rw, http.StatusNotFound, "nothing is here: all paths of this server begin with "+prefix)
			return
		}
		if rest == "" {
			rest = "/"
		}
		stripped := *r
		u := *r.URL
		u.Path, u.RawPath = rest, rawRest
		stripped.URL = &u
		defer func() { r.Pattern = stripped.Pattern }() // for Observe, also when next panics
		next.ServeHTTP(rw, &stripped)
	})
}

// Pprof serves the Go profiler.
func Pprof() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, pprofPath+"/") {
		case "cmdline":
			pprof.Cmdline(rw, r)
		case "profile":
			pprof.Profile(rw, r)
		case "symbol":
			pprof.Symbol(rw, r)
		case "trace":
			pprof.Trace(rw, r)
		case pprofPath: // its links are relative to the path with a slash
			http.Redirect(rw, r, pprofPath+"/", http.StatusMovedPermanently)
		default:
			pprof.Index(rw, r)
		}
	})
}
