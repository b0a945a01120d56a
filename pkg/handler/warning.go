package handler

import (
	"net/http"
	"strconv"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
)

// withWarnings adds a Warning header for each text to an answer.
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
