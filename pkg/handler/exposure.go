package handler

import (
	"context"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	exposureapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/exposure"
)

// Exposer records exposures. It is the same service as the Evaluator, so that both record in the
// same way.
type Exposer interface {
	Expose(ctx context.Context, exposures []eval.Exposure) (recorded int, refused []eval.ExposureError, err error)
}

// PostExposures records which variants entities were shown.
func (h *Handler) PostExposures(p exposureapi.PostExposuresParams) middleware.Responder {
	exposures := make([]eval.Exposure, len(p.Body.Exposures))
	for i, row := range p.Body.Exposures {
		exposures[i] = exposureOf(row)
	}
	recorded, refused, err := h.eval.Expose(p.HTTPRequest.Context(), exposures)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	response := &models.ExposuresResponse{
		LoggedCount: int64(recorded),
		Message:     "Exposures logged successfully",
		Errors:      []*models.ExposureRowError{},
	}
	for _, r := range refused {
		response.Errors = append(response.Errors, &models.ExposureRowError{Index: int64(r.Index), Message: r.Err.Error()})
	}
	return exposureapi.NewPostExposuresOK().WithPayload(response)
}

// exposureOf converts a row. It treats a null row, which the generated validation allows, as a row
// without fields.
func exposureOf(row *models.Exposure) eval.Exposure {
	if row == nil {
		return eval.Exposure{}
	}
	e := eval.Exposure{
		FlagID:         row.FlagID,
		FlagKey:        row.FlagKey,
		VariantID:      row.VariantID,
		VariantKey:     row.VariantKey,
		EntityType:     row.EntityType,
		EntityContext:  row.EntityContext,
		FlagSnapshotID: row.FlagSnapshotID,
	}
	if row.EntityID != nil {
		e.EntityID = *row.EntityID
	}
	// An empty string is parsed as the beginning of Unix time, which no client sends on purpose.
	if t := time.Time(row.Timestamp); t.Unix() != 0 {
		e.Timestamp = t
	}
	return e
}
