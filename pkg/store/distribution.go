package store

import (
	"context"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Distributions lists the distributions of a segment in the order of their variants' IDs. The list
// is empty if the flag does not have the segment.
func (s *Store) Distributions(ctx context.Context, flagID, segmentID int64) ([]entity.Distribution, error) {
	distributions, err := find(s.db.WithContext(ctx).Where("segment_id IN (?)", s.ownSegment(flagID, segmentID)).
		Order("variant_id, id"), distributionColumns(), whole())
	if err != nil {
		return nil, explain("read distributions", err)
	}
	return distributions, nil
}

// ReplaceDistributions replaces the distributions of a segment and returns the new ones in the
// given order. Of each distribution, it uses variant ID, variant key and percent. The percents must
// sum to 100.
func (s *Store) ReplaceDistributions(ctx context.Context, by string, flagID, segmentID int64, distributions []entity.Distribution) ([]entity.Distribution, error) {
	if err := checkPercents(distributions); err != nil {
		return nil, err
	}
	var created []entity.Distribution
	change := &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentDistribution}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) error {
		segment, err := segmentOf(tx, flagID, segmentID)
		if err != nil {
			return err
		}
		change.ComponentID = segment.ID
		variants, err := partsOf(tx, variantColumns(), whole(), ofFlag, []uint{flag.ID}, compareVariants)
		if err != nil {
			return err
		}
		if err := checkVariants(distributions, variants); err != nil {
			return err
		}
		if err := tx.Where("segment_id = ?", segment.ID).Delete(&entity.Distribution{}).Error; err != nil {
			return err
		}
		for _, d := range distributions {
			one := entity.Distribution{SegmentID: segment.ID, VariantID: d.VariantID, VariantKey: d.VariantKey, Percent: d.Percent}
			if err := insert(tx, &one); err != nil {
				return err
			}
			created = append(created, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

func checkPercents(distributions []entity.Distribution) error {
	sum := uint(0)
	for _, d := range distributions {
		if d.Percent > 100 {
			return entity.Invalid("percent must be between 0 and 100, not %d", d.Percent)
		}
		sum += d.Percent
	}
	if sum != 100 {
		return entity.Invalid("the sum of distributions' percent %d is not 100", sum)
	}
	return nil
}

func checkVariants(distributions []entity.Distribution, variants []entity.Variant) error {
	keys := make(map[uint]string, len(variants))
	ids := make([]uint, len(variants))
	for i, v := range variants {
		keys[v.ID], ids[i] = v.Key, v.ID
	}
	for _, d := range distributions {
		key, ok := keys[d.VariantID]
		if !ok {
			return entity.Invalid("error finding variantID %d under this flag. expecting %v", d.VariantID, ids)
		}
		if key != d.VariantKey {
			return entity.Invalid("error matching variantID %d with variantKey %s. expecting %s", d.VariantID, d.VariantKey, key)
		}
	}
	return nil
}
