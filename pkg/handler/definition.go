package handler

import (
	"context"
	"encoding/json"
	stderrors "errors"
	"fmt"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	flagapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/flag"
)

// GetFlagDefinition returns a flag with all its parts as one value.
func (h *Handler) GetFlagDefinition(p flagapi.GetFlagDefinitionParams) middleware.Responder {
	f, err := h.store.Flag(p.HTTPRequest.Context(), p.FlagID)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return flagapi.NewGetFlagDefinitionOK().WithPayload(definitionModel(f))
}

// maxDefinitionWarnings limits the warnings in a response, which are headers of up to 1 KB each.
const maxDefinitionWarnings = 10

// PutFlagDefinition saves a flag with all its parts at once. It names doubtful constraints in
// Warning headers.
func (h *Handler) PutFlagDefinition(p flagapi.PutFlagDefinitionParams) middleware.Responder {
	d, err := h.definitionOf(p.HTTPRequest.Context(), p.Body)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	f, err := h.store.ReplaceDefinition(p.HTTPRequest.Context(), h.actor(p.HTTPRequest), p.FlagID, d)
	var conflict *entity.ConflictError
	switch {
	case stderrors.As(err, &conflict):
		return flagapi.NewPutFlagDefinitionConflict().WithPayload(conflictModel(conflict))
	case err != nil:
		return h.fail(p.HTTPRequest, err)
	}
	return withWarnings(flagapi.NewPutFlagDefinitionOK().WithPayload(definitionModel(f)), eval.DefinitionWarnings(&d, maxDefinitionWarnings))
}

func conflictModel(e *entity.ConflictError) *models.FlagDefinitionConflict {
	m := &models.FlagDefinitionConflict{Message: new(e.Error()), Current: definitionModel(e.Current)}
	if e.Base != nil {
		m.Base = definitionModel(e.Base)
	}
	return m
}

func definitionModel(f *entity.Flag) *models.FlagDefinition {
	d := entity.DefinitionOf(f)
	return &models.FlagDefinition{
		SnapshotID: new(int64(d.SnapshotID)), Key: d.Key, Description: d.Description, Notes: d.Notes, EntityType: d.EntityType,
		Enabled: d.Enabled, DataRecordsEnabled: d.DataRecordsEnabled, Tags: d.Tags,
		Variants: mapAll(d.Variants, func(v *entity.VariantDefinition) *models.FlagDefinitionVariant {
			return &models.FlagDefinitionVariant{ID: new(int64(v.ID)), Key: &v.Key, Attachment: json.RawMessage(v.Attachment.JSON())}
		}),
		Segments: mapAll(d.Segments, func(s *entity.SegmentDefinition) *models.FlagDefinitionSegment {
			return &models.FlagDefinitionSegment{
				ID: new(int64(s.ID)), Description: s.Description, RolloutPercent: new(int64(s.RolloutPercent)),
				Constraints: mapAll(s.Constraints, func(c *entity.ConstraintDefinition) *models.FlagDefinitionConstraint {
					return &models.FlagDefinitionConstraint{ID: new(int64(c.ID)), Property: &c.Property, Operator: &c.Operator, Value: &c.Value}
				}),
				Distributions: mapAll(s.Distributions, func(d *entity.DistributionDefinition) *models.FlagDefinitionDistribution {
					return &models.FlagDefinitionDistribution{VariantID: new(int64(d.VariantID)), VariantKey: d.VariantKey, Percent: new(int64(d.Percent))}
				}),
			}
		}),
	}
}

// definitionOf converts a definition. A list that is left out becomes nil; an empty list stays
// empty. Large attachments wait for their turn.
func (h *Handler) definitionOf(ctx context.Context, m *models.FlagDefinition) (d entity.Definition, err error) {
	size := 0
	for _, v := range m.Variants {
		if v != nil {
			size += len(v.Attachment)
		}
	}
	turn, err := h.turnFor(ctx, size, "the attachments were not converted")
	if err != nil {
		return d, err
	}
	defer turn.End()
	d = entity.Definition{
		SnapshotID: uint(*m.SnapshotID), Key: m.Key, Description: m.Description, Notes: m.Notes, EntityType: m.EntityType,
		Enabled: m.Enabled, DataRecordsEnabled: m.DataRecordsEnabled, Tags: m.Tags,
	}
	if d.Variants, err = eachPart("variants", m.Variants, variantDefinition); err != nil {
		return d, err
	}
	d.Segments, err = eachPart("segments", m.Segments, func(path string, s *models.FlagDefinitionSegment) (one entity.SegmentDefinition, err error) {
		one = entity.SegmentDefinition{ID: optionalID(s.ID), Description: s.Description, RolloutPercent: uint(*s.RolloutPercent)}
		if one.Constraints, err = eachPart(path+".constraints", s.Constraints, constraintDefinition); err != nil {
			return one, err
		}
		one.Distributions, err = eachPart(path+".distributions", s.Distributions, distributionDefinition)
		return one, err
	})
	return d, err
}

func variantDefinition(path string, v *models.FlagDefinitionVariant) (entity.VariantDefinition, error) {
	attachment, err := attachmentOf(v.Attachment)
	if err != nil {
		return entity.VariantDefinition{}, entity.Invalid("%s: %s", path, err)
	}
	return entity.VariantDefinition{ID: optionalID(v.ID), Key: *v.Key, Attachment: attachment}, nil
}

func constraintDefinition(_ string, c *models.FlagDefinitionConstraint) (entity.ConstraintDefinition, error) {
	return entity.ConstraintDefinition{ID: optionalID(c.ID), Property: *c.Property, Operator: *c.Operator, Value: *c.Value}, nil
}

func distributionDefinition(_ string, d *models.FlagDefinitionDistribution) (entity.DistributionDefinition, error) {
	return entity.DistributionDefinition{VariantID: optionalID(d.VariantID), VariantKey: d.VariantKey, Percent: uint(*d.Percent)}, nil
}

// eachPart converts a list. The generated code has validated the members, except that they may be
// null.
func eachPart[M, D any](path string, list []*M, convert func(path string, m *M) (D, error)) ([]D, error) {
	if list == nil {
		return nil, nil
	}
	all := make([]D, len(list))
	for i, m := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if m == nil {
			return nil, entity.Invalid("%s: must not be null", at)
		}
		var err error
		if all[i], err = convert(at, m); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func optionalID(id *int64) uint {
	if id == nil {
		return 0
	}
	return uint(*id)
}
