package handler

import (
	"context"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	segmentapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/segment"
)

// SegmentStore reads and changes the segments of flags.
type SegmentStore interface {
	Segments(ctx context.Context, flagID int64) ([]entity.Segment, error)
	CreateSegment(ctx context.Context, by string, flagID int64, description string, rolloutPercent uint) (*entity.Segment, error)
	UpdateSegment(ctx context.Context, by string, flagID, segmentID int64, description string, rolloutPercent uint) (*entity.Segment, error)
	DeleteSegment(ctx context.Context, by string, flagID, segmentID int64) error
	ReorderSegments(ctx context.Context, by string, flagID int64, ids []int64) error
}

// FindSegments lists the segments of a flag in evaluation order.
func (h *Handler) FindSegments(p segmentapi.FindSegmentsParams) middleware.Responder {
	segments, err := h.store.Segments(p.HTTPRequest.Context(), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return segmentapi.NewFindSegmentsOK().WithPayload(mapAll(segments, segmentModel))
}

// CreateSegment appends a segment to those of a flag.
func (h *Handler) CreateSegment(p segmentapi.CreateSegmentParams) middleware.Responder {
	s, err := h.store.CreateSegment(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID,
		*p.Body.Description, uint(*p.Body.RolloutPercent))
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return segmentapi.NewCreateSegmentOK().WithPayload(segmentModel(s))
}

// PutSegment changes a segment.
func (h *Handler) PutSegment(p segmentapi.PutSegmentParams) middleware.Responder {
	s, err := h.store.UpdateSegment(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID,
		*p.Body.Description, uint(*p.Body.RolloutPercent))
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return segmentapi.NewPutSegmentOK().WithPayload(segmentModel(s))
}

// PutSegmentsReorder sets the order of segments.
func (h *Handler) PutSegmentsReorder(p segmentapi.PutSegmentsReorderParams) middleware.Responder {
	err := h.store.ReorderSegments(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.Body.SegmentIDs)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return segmentapi.NewPutSegmentsReorderOK()
}

// DeleteSegment removes a segment with its constraints and distributions.
func (h *Handler) DeleteSegment(p segmentapi.DeleteSegmentParams) middleware.Responder {
	if err := h.store.DeleteSegment(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return segmentapi.NewDeleteSegmentOK()
}
