package handler

import (
	"context"
	"encoding/json"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// mapAll maps a list. A nil list becomes [], so that clients never get null.
func mapAll[E, M any](rows []E, toModel func(*E) *M) []*M {
	mapped := make([]*M, len(rows))
	for i := range rows {
		mapped[i] = toModel(&rows[i])
	}
	return mapped
}

func tagModel(t *entity.Tag) *models.Tag {
	return &models.Tag{ID: int64(t.ID), Value: &t.Value}
}

// variantModel maps a variant. An attachment that the database does not have becomes null.
func variantModel(v *entity.Variant) *models.Variant {
	return &models.Variant{ID: int64(v.ID), Key: &v.Key, Attachment: v.Attachment}
}

func segmentModel(s *entity.Segment) *models.Segment {
	return &models.Segment{
		ID:             int64(s.ID),
		Description:    &s.Description,
		Rank:           new(int64(s.Rank)),
		RolloutPercent: new(int64(s.RolloutPercent)),
		Constraints:    mapAll(s.Constraints, constraintModel),
		Distributions:  mapAll(s.Distributions, distributionModel),
	}
}

func constraintModel(c *entity.Constraint) *models.Constraint {
	return &models.Constraint{ID: int64(c.ID), Property: &c.Property, Operator: &c.Operator, Value: &c.Value}
}

func distributionModel(d *entity.Distribution) *models.Distribution {
	return &models.Distribution{
		ID:         int64(d.ID),
		Percent:    new(int64(d.Percent)),
		VariantID:  new(int64(d.VariantID)),
		VariantKey: &d.VariantKey,
	}
}

// attachment is attachmentOf in the turn of a large attachment, whose names are sorted.
func (h *Handler) attachment(ctx context.Context, value json.RawMessage) (entity.Attachment, error) {
	turn, err := h.turnFor(ctx, len(value), "the attachment was not converted")
	if err != nil {
		return "", err
	}
	defer turn.End()
	return attachmentOf(value)
}

// attachmentOf converts the free-form value of a request. An absent value and null both give an
// empty attachment.
func attachmentOf(value json.RawMessage) (entity.Attachment, error) {
	if len(value) == 0 {
		return "", nil
	}
	if value[0] != '{' && value[0] != 'n' {
		return "", entity.Invalid("attachment must be a JSON object, such as {\"color\": \"red\"}; it is %s", jsonKind(value[0]))
	}
	return entity.ParseAttachment(string(value))
}

// jsonKind names the type of a JSON value by its first character.
func jsonKind(first byte) string {
	switch first {
	case '"':
		return "a string"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	default:
		return "a number"
	}
}
