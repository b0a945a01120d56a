package handler

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-openapi/runtime/middleware"
)

// switchWords are what the generated code takes for true, and the counterparts. It takes everything else for false.
var switchWords = []string{
	"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled",
	"false", "0", "no", "n", "off", "unselected", "unchecked", "f", "disabled",
}

// CheckSwitches goes between the API's router and its operations, and refuses words that are neither true nor false where
// the query has a boolean: a list with ?enabled=maybe would else be that of the disabled flags.
func CheckSwitches(operations http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if route := middleware.MatchedRouteFrom(r); route != nil && r.URL.RawQuery != "" {
			query := r.URL.Query()
			for _, parameter := range route.Parameters {
				values := query[parameter.Name]
				if parameter.In != "query" || parameter.Type != "boolean" || len(values) == 0 {
					continue
				}
				value := values[len(values)-1] // as the generated code does
				if value != "" && !slices.Contains(switchWords, strings.ToLower(value)) {
					reply(http.StatusBadRequest, fmt.Sprintf("%s in query must be true or false: %q", parameter.Name, shortened(value))).WriteResponse(rw, nil)
					return
				}
			}
		}
		operations.ServeHTTP(rw, r)
	})
}

// shortened keeps a message readable, whatever a client sent.
func shortened(value string) string {
	const longest = 100
	if len(value) > longest {
		return value[:longest] + "..."
	}
	return value
}
