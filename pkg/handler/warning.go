package handler

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
)

// Limits of the warnings about unknown fields.
const (
	maxUnknownFields     = 10
	maxUnknownFieldBytes = 64
)

// unknownFields returns warnings about members of a body without a field in its model, which is a
// pointer to a struct. As in the JSON decoder, names are case-insensitive.
func unknownFields(model any, members map[string]any) []string {
	if len(members) == 0 {
		return nil
	}
	var known []string
	for field := range reflect.TypeOf(model).Elem().Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "-" {
			known = append(known, name)
		}
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			continue
		}
		if len(warnings) == maxUnknownFields {
			return append(warnings, "more unknown fields are ignored")
		}
		if len(name) > maxUnknownFieldBytes {
			name = strings.ToValidUTF8(name[:maxUnknownFieldBytes], "") + "..."
		}
		warnings = append(warnings, fmt.Sprintf("unknown field %q is ignored; the fields are %s", name, strings.Join(known, ", ")))
	}
	return warnings
}

// withWarnings adds a Warning header to a response for each text.
func withWarnings(answer middleware.Responder, warnings []string) middleware.Responder {
	if len(warnings) == 0 {
		return answer
	}
	return middleware.ResponderFunc(func(w http.ResponseWriter, p runtime.Producer) {
		for _, warning := range warnings {
			w.Header().Add("Warning", "299 - "+strconv.QuoteToASCII(warning))
		}
		answer.WriteResponse(w, p)
	})
}
