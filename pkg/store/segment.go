package store

import (
	"context"
	"fmt"
	"slices"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Segments lists the segments of a flag with their parts, in evaluation order. The list is empty if
// the flag does not exist.
func (s *Store) Segments(ctx context.Context, flagID int64) ([]entity.Segment, error) {
	var segments []entity.Segment
	err := s.read(ctx, "segments", func(tx *gorm.DB) (err error) {
		if err := reserveFlag(tx, flagID); err != nil {
			return err
		}
		segments, err = segmentsOf(tx, []uint{uint(max(flagID, 0))}, whole())
		return err
	})
	if err != nil {
		return nil, err
	}
	return segments, nil
}

// CreateSegment appends a segment after those that were reordered. The rollout is 0 to 100 percent.
func (s *Store) CreateSegment(ctx context.Context, by string, flagID int64, description string, rolloutPercent uint) (*entity.Segment, error) {
	if err := checkSegment(description, rolloutPercent); err != nil {
		return nil, err
	}
	segment := &entity.Segment{Description: description, Rank: entity.DefaultSegmentRank, RolloutPercent: rolloutPercent}
	change := &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentSegment}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) error {
		segment.FlagID = flag.ID
		err := insert(tx, segment)
		change.ComponentID = segment.ID
		return err
	})
	if err != nil {
		return nil, err
	}
	segment.Constraints, segment.Distributions = []entity.Constraint{}, []entity.Distribution{}
	return segment, nil
}

// UpdateSegment changes a segment and returns it with its parts.
func (s *Store) UpdateSegment(ctx context.Context, by string, flagID, segmentID int64, description string, rolloutPercent uint) (*entity.Segment, error) {
	if err := checkSegment(description, rolloutPercent); err != nil {
		return nil, err
	}
	change := &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentSegment}
	after, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) error {
		segment, err := segmentOf(tx, flagID, segmentID)
		if err != nil {
			return err
		}
		change.ComponentID = segment.ID
		return updateRow(tx, &entity.Segment{}, segment.ID, map[string]any{"description": description, "rollout_percent": rolloutPercent})
	})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(after.Segments, func(one entity.Segment) bool { return int64(one.ID) == segmentID })
	return &after.Segments[i], nil
}

// DeleteSegment removes a segment.
func (s *Store) DeleteSegment(ctx context.Context, by string, flagID, segmentID int64) error {
	change := &entity.Change{Operation: entity.OperationDelete, Component: entity.ComponentSegment}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) error {
		segment, err := segmentOf(tx, flagID, segmentID)
		if err != nil {
			return err
		}
		change.ComponentID = segment.ID
		return tx.Delete(&entity.Segment{}, segment.ID).Error
	})
	return err
}

// ReorderSegments gives segments of a flag the ranks 0, 1, 2 and so on, in the order of ids.
// Segments that are not in ids keep their rank.
func (s *Store) ReorderSegments(ctx context.Context, by string, flagID int64, ids []int64) error {
	if len(ids) == 0 {
		return entity.Invalid("segmentIDs must not be empty")
	}
	seen := make(map[int64]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			return entity.Invalid("segmentIDs has %d more than once", id)
		}
		seen[id] = true
	}
	_, err := s.mutateFlag(ctx, by, &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentSegment}, flagID, func(tx *gorm.DB, _ *entity.Flag) error {
		for rank, id := range ids {
			segment, err := segmentOf(tx, flagID, id)
			if err != nil {
				return fmt.Errorf("segmentIDs: %w", err)
			}
			if err := updateRow(tx, &entity.Segment{}, segment.ID, map[string]any{"rank": rank}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func segmentOf(tx *gorm.DB, flagID, segmentID int64) (*entity.Segment, error) {
	segment, err := take(tx.Where("id = ? AND flag_id = ?", segmentID, flagID), segmentColumns(), whole())
	if err != nil {
		return nil, missing(err, "segment %d does not belong to flag %d", segmentID, flagID)
	}
	return segment, nil
}

func checkSegment(description string, rolloutPercent uint) error {
	if rolloutPercent > 100 {
		return entity.Invalid("rolloutPercent must be between 0 and 100, not %d", rolloutPercent)
	}
	return entity.CheckText("description", description)
}
