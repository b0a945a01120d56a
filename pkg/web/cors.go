package web

import (
	"net/http"

	"github.com/rs/cors"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// CORS answers preflight requests and adds the headers that let web pages of other origins read answers. Requests that
// name no origin pay for a header.
func CORS(o config.CORS, next http.Handler) http.Handler {
	options := cors.Options{
		AllowedOrigins:   o.AllowedOrigins,
		AllowedMethods:   o.AllowedMethods,
		AllowedHeaders:   o.AllowedHeaders,
		ExposedHeaders:   o.ExposedHeaders,
		AllowCredentials: o.AllowCredentials,
		MaxAge:           o.MaxAge,
	}
	if len(o.AllowedOrigins) == 0 { // the library would take it for all origins
		options.AllowOriginFunc = func(string) bool { return false }
	}
	return cors.New(options).Handler(next)
}
