package store

import (
	"cmp"
	"context"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Variants lists the variants of a flag in the order of their IDs. The list is empty if the flag
// does not exist.
func (s *Store) Variants(ctx context.Context, flagID int64) ([]entity.Variant, error) {
	if err := reserveFlag(s.db.WithContext(ctx), flagID); err != nil {
		return nil, explain("read variants", err)
	}
	variants, err := find(s.db.WithContext(ctx).Where("flag_id = ?", flagID).Order("id"), variantColumns(), whole())
	if err != nil {
		return nil, explain("read variants", err)
	}
	return variants, nil
}

// CreateVariant adds a variant to a flag. If attachment is empty, the variant gets {}.
func (s *Store) CreateVariant(ctx context.Context, by string, flagID int64, key string, attachment entity.Attachment) (*entity.Variant, error) {
	if err := cmp.Or(entity.CheckKey(key), attachment.CheckDepth()); err != nil {
		return nil, err
	}
	if attachment == "" {
		attachment = "{}"
	}
	variant := &entity.Variant{Key: key, Attachment: attachment}
	change := &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentVariant}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) error {
		variant.FlagID = flag.ID
		err := insert(tx, variant)
		change.ComponentID, change.ComponentKey = variant.ID, variant.Key
		return err
	})
	if err != nil {
		return nil, err
	}
	return variant, nil
}

// UpdateVariant changes the key of a variant, also in the distributions that repeat it. It changes
// the attachment unless that is empty.
func (s *Store) UpdateVariant(ctx context.Context, by string, flagID, variantID int64, key string, attachment entity.Attachment) (*entity.Variant, error) {
	if err := cmp.Or(entity.CheckKey(key), attachment.CheckDepth()); err != nil {
		return nil, err
	}
	var variant *entity.Variant
	change := &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentVariant}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, _ *entity.Flag) (err error) {
		read := variantColumns()
		if attachment != "" {
			read = bareVariantColumns()
		}
		if variant, err = variantOf(tx, flagID, variantID, read); err != nil {
			return err
		}
		if key != variant.Key {
			err := tx.Model(&entity.Distribution{}).Where("variant_id = ?", variantID).Updates(map[string]any{"variant_key": key}).Error
			if err != nil {
				return err
			}
		}
		variant.Key = key
		change.ComponentID, change.ComponentKey = variant.ID, variant.Key
		columns := map[string]any{"key": variant.Key}
		if attachment != "" {
			variant.Attachment = attachment
			columns["attachment"] = attachment
		}
		return updateRow(tx, &entity.Variant{}, variant.ID, columns)
	})
	if err != nil {
		return nil, err
	}
	return variant, nil
}

// DeleteVariant removes a variant and its distributions with 0 percent. While a segment of the flag
// gives the variant more, the error matches entity.ErrInvalid.
func (s *Store) DeleteVariant(ctx context.Context, by string, flagID, variantID int64) error {
	change := &entity.Change{Operation: entity.OperationDelete, Component: entity.ComponentVariant}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) error {
		variant, err := variantOf(tx, flagID, variantID, bareVariantColumns())
		if err != nil {
			return err
		}
		change.ComponentID, change.ComponentKey = variant.ID, variant.Key
		segments, err := segmentsOf(tx, []uint{flag.ID}, whole())
		if err != nil {
			return err
		}
		for _, segment := range segments {
			for _, d := range segment.Distributions {
				if d.VariantID == variant.ID && d.Percent != 0 {
					return entity.Invalid("error deleting variant %d. distribution %d still has non-zero distribution %d", variantID, d.ID, d.Percent)
				}
			}
		}
		if err := tx.Where("variant_id = ? AND percent = 0", variantID).Delete(&entity.Distribution{}).Error; err != nil {
			return err
		}
		return tx.Delete(&entity.Variant{}, variant.ID).Error
	})
	return err
}

func variantOf(tx *gorm.DB, flagID, variantID int64, columns columnsOf[entity.Variant]) (*entity.Variant, error) {
	variant, err := take(tx.Where("id = ? AND flag_id = ?", variantID, flagID), columns, whole())
	if err != nil {
		return nil, missing(err, "variant %d does not belong to flag %d", variantID, flagID)
	}
	return variant, nil
}
