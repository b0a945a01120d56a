package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/rs/cors"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// CORSBelow are headers of the requests below a path, in addition to those that the configuration
// lists.
type CORSBelow struct {
	// Path is the prefix of the paths of these requests, as clients see them.
	Path string
	// AllowedHeaders may always be sent. ExposedHeaders may always be read.
	AllowedHeaders, ExposedHeaders []string
}

// CORS answers preflight requests and adds the headers that let web pages of other origins read
// responses. Requests without an origin cost one header.
func CORS(o config.CORS, below CORSBelow, next http.Handler) http.Handler {
	others := newCORS(o, next)
	o.AllowedHeaders = slices.Concat(o.AllowedHeaders, below.AllowedHeaders)
	o.ExposedHeaders = slices.Concat(o.ExposedHeaders, below.ExposedHeaders)
	these := newCORS(o, next)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header()["X-Content-Type-Options"] = noSniff // preflight requests do not get to Protect
		if strings.HasPrefix(r.URL.Path, below.Path) {
			these.ServeHTTP(rw, r)
			return
		}
		others.ServeHTTP(rw, r)
	})
}

func newCORS(o config.CORS, next http.Handler) http.Handler {
	options := cors.Options{
		AllowedOrigins:   o.AllowedOrigins,
		AllowedMethods:   o.AllowedMethods,
		AllowedHeaders:   o.AllowedHeaders,
		ExposedHeaders:   o.ExposedHeaders,
		AllowCredentials: o.AllowCredentials,
		MaxAge:           o.MaxAge,
	}
	if len(o.AllowedOrigins) == 0 { // the library would treat it as all origins
		options.AllowOriginFunc = func(string) bool { return false }
	}
	return cors.New(options).Handler(next)
}
