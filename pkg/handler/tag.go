package handler

import (
	"context"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	tagapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/tag"
)

// TagStore reads and changes the tags of flags.
type TagStore interface {
	Tags(ctx context.Context, q store.TagQuery) ([]entity.Tag, error)
	FlagTags(ctx context.Context, flagID int64) ([]entity.Tag, error)
	CreateTag(ctx context.Context, by string, flagID int64, value string) (*entity.Tag, error)
	DeleteTag(ctx context.Context, by string, flagID, tagID int64) error
}

// FindAllTags lists the tags of all flags.
func (h *Handler) FindAllTags(p tagapi.FindAllTagsParams) middleware.Responder {
	tags, err := h.store.Tags(p.HTTPRequest.Context(),
		store.TagQuery{Limit: p.Limit, Offset: p.Offset, ValueLike: p.ValueLike})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return tagapi.NewFindAllTagsOK().WithPayload(mapAll(tags, tagModel))
}

// FindTags lists the tags of one flag.
func (h *Handler) FindTags(p tagapi.FindTagsParams) middleware.Responder {
	tags, err := h.store.FlagTags(p.HTTPRequest.Context(), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return tagapi.NewFindTagsOK().WithPayload(mapAll(tags, tagModel))
}

// CreateTag adds a tag to a flag.
func (h *Handler) CreateTag(p tagapi.CreateTagParams) middleware.Responder {
	t, err := h.store.CreateTag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, *p.Body.Value)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return tagapi.NewCreateTagOK().WithPayload(tagModel(t))
}

// DeleteTag removes a tag from a flag.
func (h *Handler) DeleteTag(p tagapi.DeleteTagParams) middleware.Responder {
	if err := h.store.DeleteTag(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.TagID); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return tagapi.NewDeleteTagOK()
}
