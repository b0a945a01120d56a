package handler

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
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

// CheckQuery wraps the operations behind the API's router. It rejects what the generated code would
// misread in the query:
//   - booleans that are neither true nor false: a list with ?enabled=maybe would return the
//     disabled flags;
//   - parameters of Datar that are given twice and are no list: the generated code uses the last
//     one and drops the others. Operations of Flagr do as Flagr does.
func CheckQuery(operations http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if route := middleware.MatchedRouteFrom(r); route != nil && r.URL.RawQuery != "" {
			once := route.Operation != nil && slices.Contains(route.Operation.Tags, "datar")
			if message := queryMistake(route, r.URL.Query(), once); message != "" {
				reply(http.StatusBadRequest, message).WriteResponse(rw, nil)
				return
			}
		}
		operations.ServeHTTP(rw, r)
	})
}

// queryMistake describes the first parameter that CheckQuery rejects, in the order of their names.
// It returns "" if there is none. With once, parameters that are no list may be given only once.
func queryMistake(route *middleware.MatchedRoute, query url.Values, once bool) string {
	for _, name := range slices.Sorted(maps.Keys(route.Parameters)) {
		parameter := route.Parameters[name]
		values := query[parameter.Name]
		if parameter.In != "query" || len(values) == 0 {
			continue
		}
		if once && len(values) > 1 && parameter.Type != "array" {
			return fmt.Sprintf("%s in query: given %d times; want it once", parameter.Name, len(values))
		}
		value := values[len(values)-1] // as in the generated code
		if parameter.Type == "boolean" && value != "" && !slices.Contains(switchWords, strings.ToLower(value)) {
			return fmt.Sprintf("%s in query must be true or false: %q", parameter.Name, shortened(value))
		}
	}
	return ""
}

// shortened limits the length of a client's value in a message.
func shortened(value string) string {
	const longest = 100
	if len(value) > longest {
		return value[:longest] + "..."
	}
	return value
}
