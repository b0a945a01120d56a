package handler

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-openapi/runtime/middleware"
)

// switchWords are the strings that the generated code takes for true, and their opposites. The
// generated code takes every other string for false.
var switchWords = []string{
	"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled",
	"false", "0", "no", "n", "off", "unselected", "unchecked", "f", "disabled",
}

// CheckSwitches wraps the operations behind the API's router. It rejects booleans in the query that
// are neither true nor false. Otherwise a list with ?enabled=maybe would return the disabled flags.
func CheckSwitches(operations http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if route := middleware.MatchedRouteFrom(r); route != nil && r.URL.RawQuery != "" {
			query := r.URL.Query()
			for _, parameter := range route.Parameters {
				values := query[parameter.Name]
				if parameter.In != "query" || parameter.Type != "boolean" || len(values) == 0 {
					continue
				}
				value := values[len(values)-1] // as in the generated code
				if value != "" && !slices.Contains(switchWords, strings.ToLower(value)) {
					reply(http.StatusBadRequest, fmt.Sprintf("%s in query must be true or false: %q", parameter.Name, shortened(value))).WriteResponse(rw, nil)
					return
				}
			}
		}
		operations.ServeHTTP(rw, r)
	})
}

// shortened limits the length of a client's value in a message.
func shortened(value string) string {
	const longest = 100
	if len(value) > longest {
		return value[:longest] + "..."
	}
	return value
}
