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
	// CreateVariant stores an empty attachment when the given one is nil.
	CreateVariant(ctx context.Context, by string, flagID int64, key string, attachment entity.Attachment) (*entity.Variant, error)
	// UpdateVariant keeps the attachment when the given one is nil.
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

// CreateVariant adds a variant; without an attachment it gets an empty one.
func (h *Handler) CreateVariant(p variantapi.CreateVariantParams) middleware.Responder {
	attachment, err := attachmentOf(p.Body.Attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	v, err := h.store.CreateVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, *p.Body.Key, attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewCreateVariantOK().WithPayload(variantModel(v))
}

// PutVariant changes a variant; without an attachment it keeps the one it has.
func (h *Handler) PutVariant(p variantapi.PutVariantParams) middleware.Responder {
	attachment, err := attachmentOf(p.Body.Attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	v, err := h.store.UpdateVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.VariantID, *p.Body.Key, attachment)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewPutVariantOK().WithPayload(variantModel(v))
}

// DeleteVariant removes a variant that no distribution gives to anybody.
func (h *Handler) DeleteVariant(p variantapi.DeleteVariantParams) middleware.Responder {
	if err := h.store.DeleteVariant(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.VariantID); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return variantapi.NewDeleteVariantOK()
}
