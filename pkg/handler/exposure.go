package handler

import (
	"net/http"

	"github.com/go-openapi/runtime/middleware"

	exposureapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/exposure"
)

// PostExposures is not there yet.
func (h *Handler) PostExposures(exposureapi.PostExposuresParams) middleware.Responder {
	return reply(http.StatusNotImplemented, "exposures are not implemented in this version: nothing was logged")
}
