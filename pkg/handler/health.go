package handler

import (
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	healthapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/health"
)

// GetHealth says that the process serves requests. It does not look at the database: evaluations do not need it.
func (h *Handler) GetHealth(healthapi.GetHealthParams) middleware.Responder {
	return healthapi.NewGetHealthOK().WithPayload(&models.Health{Status: "OK"})
}
