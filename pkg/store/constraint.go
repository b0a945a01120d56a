package store

import (
	"context"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Constraints lists the constraints of a segment in the order of their IDs. The list is empty if
// the flag does not have the segment.
func (s *Store) Constraints(ctx context.Context, flagID, segmentID int64) ([]entity.Constraint, error) {
	if err := reserveFlag(s.db.WithContext(ctx), flagID); err != nil {
		return nil, explain("read constraints", err)
	}
	constraints, err := find(s.db.WithContext(ctx).Where("segment_id IN (?)", s.ownSegment(flagID, segmentID)).Order("id"), constraintColumns(), whole())
	if err != nil {
		return nil, explain("read constraints", err)
	}
	return constraints, nil
}

// CreateConstraint adds a constraint to a segment. Of c, it uses property, operator and value.
func (s *Store) CreateConstraint(ctx context.Context, by string, flagID, segmentID int64, c entity.Constraint) (*entity.Constraint, error) {
	if err := checkConstraint(c); err != nil {
		return nil, err
	}
	constraint := &entity.Constraint{Property: c.Property, Operator: c.Operator, Value: c.Value}
	change := &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentConstraint}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) error {
		segment, err := segmentOf(tx, flagID, segmentID)
		if err != nil {
			return err
		}
		constraint.SegmentID = segment.ID
		err = insert(tx, constraint)
		change.ComponentID, change.ComponentKey = constraint.ID, constraint.Property
		return err
	})
	if err != nil {
		return nil, err
	}
	return constraint, nil
}

// UpdateConstraint changes property, operator and value of a constraint.
func (s *Store) UpdateConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64, c entity.Constraint) (*entity.Constraint, error) {
	if err := checkConstraint(c); err != nil {
		return nil, err
	}
	var constraint *entity.Constraint
	change := &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentConstraint}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) (err error) {
		if constraint, err = constraintOf(tx, flagID, segmentID, constraintID); err != nil {
			return err
		}
		constraint.Property, constraint.Operator, constraint.Value = c.Property, c.Operator, c.Value
		change.ComponentID, change.ComponentKey = constraint.ID, constraint.Property
		return updateRow(tx, &entity.Constraint{}, constraint.ID, map[string]any{
			"property": c.Property, "operator": c.Operator, "value": c.Value,
		})
	})
	if err != nil {
		return nil, err
	}
	return constraint, nil
}

// DeleteConstraint removes a constraint.
func (s *Store) DeleteConstraint(ctx context.Context, by string, flagID, segmentID, constraintID int64) error {
	change := &entity.Change{Operation: entity.OperationDelete, Component: entity.ComponentConstraint}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) error {
		constraint, err := constraintOf(tx, flagID, segmentID, constraintID)
		if err != nil {
			return err
		}
		change.ComponentID, change.ComponentKey = constraint.ID, constraint.Property
		return tx.Delete(&entity.Constraint{}, constraint.ID).Error
	})
	return err
}

func constraintOf(tx *gorm.DB, flagID, segmentID, constraintID int64) (*entity.Constraint, error) {
	if _, err := segmentOf(tx, flagID, segmentID); err != nil {
		return nil, err
	}
	constraint, err := take(tx.Where("id = ? AND segment_id = ?", constraintID, segmentID), constraintColumns(), whole())
	if err != nil {
		return nil, missing(err, "constraint %d does not belong to segment %d", constraintID, segmentID)
	}
	return constraint, nil
}

// ownSegment selects the ID of the segment if the segment belongs to the flag.
func (s *Store) ownSegment(flagID, segmentID int64) *gorm.DB {
	return s.db.Model(&entity.Segment{}).Select("id").Where("id = ? AND flag_id = ?", segmentID, flagID)
}

func checkConstraint(c entity.Constraint) error {
	for _, field := range []struct{ name, value string }{{"property", c.Property}, {"value", c.Value}} {
		if field.value == "" {
			return entity.Invalid("%s must not be empty", field.name)
		}
		if err := entity.CheckText(field.name, field.value); err != nil {
			return err
		}
	}
	_, err := c.Expr()
	return err
}
