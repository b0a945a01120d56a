package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/rs/cors"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// CORS answers preflight requests and adds the headers that let web pages of other origins read responses. Requests
// without an origin cost one header.
//
// OFREP requests may always have the headers that OFREP clients send, and their pages may read the headers that
// they need. Without this, a browser could get an entity tag but could not send it.
func CORS(o config.CORS, prefix string, next http.Handler) http.Handler {
	api := newCORS(o, next)
	o.AllowedHeaders = append(slices.Clone(o.AllowedHeaders), "Content-Type", "Authorization", "X-API-Key", "If-None-Match",
		"Last-Event-ID", "Cache-Control", "traceparent", "tracestate")
	o.ExposedHeaders = append(slices.Clone(o.ExposedHeaders), "ETag", "Retry-After")
	ofrep := newCORS(o, next)
	root := CleanPrefix(prefix) + ofrepRoot
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, root) {
			ofrep.ServeHTTP(rw, r)
			return
		}
		api.ServeHTTP(rw, r)
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
