package handler

import (
	"context"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	constraintapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/constraint"
)

// ConstraintStore reads and changes the constraints of segments.
type ConstraintStore interface {
	Constraints(ctx context.Context, flagID, segmentID int64) ([]entity.Constraint, error)
	CreateConstraint(ctx context.Context, by string, flagID, segmentID int64, c entity.Constraint) (*entity.Constraint, error)
	UpdateConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64, c entity.Constraint) (*entity.Constraint, error)
	DeleteConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64) error
}

// FindConstraints lists the constraints of a segment.
func (h *Handler) FindConstraints(p constraintapi.FindConstraintsParams) middleware.Responder {
	constraints, err := h.store.Constraints(p.HTTPRequest.Context(), p.FlagID, p.SegmentID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return constraintapi.NewFindConstraintsOK().WithPayload(mapAll(constraints, constraintModel))
}

// CreateConstraint adds a constraint. It rejects one that does not parse, and names anything
// doubtful in Warning headers.
func (h *Handler) CreateConstraint(p constraintapi.CreateConstraintParams) middleware.Responder {
	c, err := h.store.CreateConstraint(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID, constraintOf(p.Body))
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return withWarnings(constraintapi.NewCreateConstraintOK().WithPayload(constraintModel(c)), eval.Warnings(c))
}

// PutConstraint replaces a constraint. It rejects one that does not parse.
func (h *Handler) PutConstraint(p constraintapi.PutConstraintParams) middleware.Responder {
	c, err := h.store.UpdateConstraint(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID, p.ConstraintID,
		constraintOf(p.Body))
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return withWarnings(constraintapi.NewPutConstraintOK().WithPayload(constraintModel(c)), eval.Warnings(c))
}

// DeleteConstraint removes a constraint.
func (h *Handler) DeleteConstraint(p constraintapi.DeleteConstraintParams) middleware.Responder {
	err := h.store.DeleteConstraint(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, p.SegmentID, p.ConstraintID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return constraintapi.NewDeleteConstraintOK()
}

func constraintOf(body *models.CreateConstraintRequest) entity.Constraint {
	return entity.Constraint{Property: *body.Property, Operator: *body.Operator, Value: *body.Value}
}
