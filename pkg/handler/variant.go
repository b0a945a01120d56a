package handler

import (
	"context"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	variantapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/variant"
)

// VariantStore reads and changes the variants of flags.
type VariantStore interface {
	Variants(ctx context.Context, flagID int64) ([]entity.Variant, error)
	// CreateVariant stores {} if attachment is empty.
	CreateVariant(ctx context.Context, by string, flagID int64, key string, attachment entity.Attachment) (*entity.Variant, error)
	// UpdateVariant keeps the attachment if attachment is empty.
	UpdateVariant(ctx context.Context, by string, flagID, variantID int64, key string, attachment entity.Attachment) (*entity.Variant, error)
	DeleteVariant(ctx context.Context, by string, flagID, variantID int64) error
}

// FindVariants lists the variants of a flag.
func (h *Handler) FindVariants(p variantapi.FindVariantsParams) middleware.Responder {
	variants, err := h.store.Variants(p.HTTPRequest.Context(), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewFindVariantsOK().WithPayload(mapAll(variants, variantModel))
}

// CreateVariant adds a variant. Without an attachment, the variant gets an empty one.
func (h *Handler) CreateVariant(p variantapi.CreateVariantParams) middleware.Responder {
	attachment, err := h.attachment(p.HTTPRequest.Context(), p.Body.Attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	v, err := h.store.CreateVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, *p.Body.Key, attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewCreateVariantOK().WithPayload(variantModel(v))
}

// PutVariant changes a variant. Without an attachment, the variant keeps its own.
func (h *Handler) PutVariant(p variantapi.PutVariantParams) middleware.Responder {
	attachment, err := h.attachment(p.HTTPRequest.Context(), p.Body.Attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	v, err := h.store.UpdateVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.VariantID, *p.Body.Key, attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewPutVariantOK().WithPayload(variantModel(v))
}

// DeleteVariant removes a variant. It fails while a distribution gives the variant more than 0
// percent.
func (h *Handler) DeleteVariant(p variantapi.DeleteVariantParams) middleware.Responder {
	if err := h.store.DeleteVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.VariantID); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewDeleteVariantOK()
}
