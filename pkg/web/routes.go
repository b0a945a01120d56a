package web

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"path"
	"strings"
)

// pprofPath is the path of the profiler, regardless of the web prefix.
const pprofPath = "/debug/pprof"

// Routes assigns paths to handlers.
type Routes struct {
	// Prefix is the prefix of every path of API. It is removed before API sees a request. It may be
	// empty.
	Prefix string
	// API serves everything that swagger.yaml describes. Required.
	API http.Handler
	// OFREP serves the paths that begin with OFREPRoot, behind Prefix like the API. If nil, API
	// serves these paths.
	OFREP     http.Handler
	OFREPRoot string
	// Metrics serves MetricsPath, which has no prefix. If nil, metrics are not served.
	Metrics     http.Handler
	MetricsPath string
	// Pprof serves /debug/pprof and below, which has no prefix. If nil, the profiler is not served.
	Pprof http.Handler
}

// Handler returns the router. Unmatched paths return 404. A request for the API is copied only if
// there is a prefix.
func (o Routes) Handler() http.Handler {
	api := o.API
	if o.OFREP != nil {
		api = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, o.OFREPRoot) {
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

// CleanPrefix normalizes a web prefix: it is empty, or begins with a slash and does not end with
// one.
func CleanPrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	if prefix = path.Clean("/" + prefix); prefix == "/" {
		return ""
	}
	return prefix
}

// stripPrefix is http.StripPrefix for whole segments, with the API's own 404. The rest of the path
// is passed on unchanged, so that access control and routing see the same path.
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
		defer func() { r.Pattern = stripped.Pattern }() // for Observe, also if next panics
		next.ServeHTTP(rw, &stripped)
	})
}

// maxProfiles is the number of profiles that are written at once. A profile of the heap as text
// takes processors from evaluations for tens of milliseconds. Profiles of the processor and traces
// run one at a time anyway.
const maxProfiles = 2

// Pprof serves the Go profiler.
func Pprof() http.Handler {
	running := make(chan struct{}, maxProfiles)
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
			select {
			case running <- struct{}{}:
				defer func() { <-running }()
				pprof.Index(rw, r)
			default:
				rw.Header().Set("Retry-After", "1")
				writeError(rw, http.StatusServiceUnavailable, fmt.Sprintf("%d profiles are being written, which is the most at once: retry later", maxProfiles))
			}
		}
	})
}
