package handler

import (
	"context"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	distributionapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/distribution"
)

// DistributionStore reads and replaces the distributions of segments.
type DistributionStore interface {
	Distributions(ctx context.Context, flagID, segmentID int64) ([]entity.Distribution, error)
	ReplaceDistributions(ctx context.Context, by string, flagID, segmentID int64, distributions []entity.Distribution) ([]entity.Distribution, error)
}

// FindDistributions lists the distributions of a segment.
func (h *Handler) FindDistributions(p distributionapi.FindDistributionsParams) middleware.Responder {
	distributions, err := h.store.Distributions(p.HTTPRequest.Context(), p.FlagID, p.SegmentID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return distributionapi.NewFindDistributionsOK().WithPayload(mapAll(distributions, distributionModel))
}

// PutDistributions replaces all distributions of a segment.
func (h *Handler) PutDistributions(p distributionapi.PutDistributionsParams) middleware.Responder {
	wanted, err := distributionsOf(p.Body.Distributions)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	stored, err := h.store.ReplaceDistributions(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID, wanted)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return distributionapi.NewPutDistributionsOK().WithPayload(mapAll(stored, distributionModel))
}

// distributionsOf rejects a null in the list, which the generated validation allows.
func distributionsOf(body []*models.Distribution) ([]entity.Distribution, error) {
	rows := make([]entity.Distribution, len(body))
	for i, d := range body {
		if d == nil {
			return nil, entity.Invalid("distributions.%d must not be null", i)
		}
		rows[i] = entity.Distribution{VariantID: uint(*d.VariantID), VariantKey: *d.VariantKey, Percent: uint(*d.Percent)}
	}
	return rows, nil
}
