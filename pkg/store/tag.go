package store

import (
	"context"
	"errors"
	"strconv"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// flagTag is one row of the join table of tags and flags.
type flagTag struct {
	TagID  uint `gorm:"primaryKey;autoIncrement:false"`
	FlagID uint `gorm:"primaryKey;autoIncrement:false"`
}

func (flagTag) TableName() string { return "flags_tags" }

// CreateTag adds a tag to a flag, which may already have it.
func (s *Store) CreateTag(ctx context.Context, by string, flagID int64, value string) (*entity.Tag, error) {
	if err := entity.CheckTagValue(value); err != nil {
		return nil, err
	}
	var tag *entity.Tag
	change := &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentTag}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) (err error) {
		if tag, err = keepTag(tx, value); err != nil {
			return err
		}
		change.ComponentID, change.ComponentKey = tag.ID, tag.Value
		return attach(tx, flag.ID, tag.ID)
	})
	if err != nil {
		return nil, err
	}
	return tag, nil
}

// DeleteTag removes a tag from a flag. The tag itself stays for other flags.
func (s *Store) DeleteTag(ctx context.Context, by string, flagID, tagID int64) error {
	change := &entity.Change{Operation: entity.OperationDelete, Component: entity.ComponentTag}
	_, err := s.mutateFlag(ctx, by, change, flagID, func(tx *gorm.DB, flag *entity.Flag) error {
		deleted := tx.Where("flag_id = ? AND tag_id = ?", flagID, tagID).Delete(&flagTag{})
		if deleted.Error == nil && deleted.RowsAffected == 0 {
			return entity.NotFound("tag %d does not belong to flag %d", tagID, flagID)
		}
		if deleted.Error != nil {
			return deleted.Error
		}
		tag, err := take(tx.Unscoped().Where("id = ?", tagID), tagColumns(), whole())
		if err != nil {
			return err
		}
		change.ComponentID, change.ComponentKey = tag.ID, tag.Value
		return nil
	})
	return err
}

// keepTag returns the tag with a value. It creates the tag if it does not exist.
func keepTag(tx *gorm.DB, value string) (*entity.Tag, error) {
	tag, err := take(tx.Unscoped().Where("value = ?", value), tagColumns(), whole())
	if errors.Is(err, gorm.ErrRecordNotFound) {
		// Another request may create it at this moment. A locking query then sees that row.
		err = tx.Clauses(clause.OnConflict{DoNothing: true}).Omit(clause.Associations).Create(&entity.Tag{Value: value}).Error
		if err != nil {
			return nil, err
		}
		locked := tx.Unscoped().Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate})
		tag, err = take(locked.Where("value = ?", value), tagColumns(), whole())
	}
	if err != nil {
		return nil, err
	}
	if tag.Value != value {
		return nil, entity.Wrong("api.store.tag", "a", strconv.Quote(value), "b", strconv.Quote(tag.Value))
	}
	if tag.DeletedAt.Valid {
		tag.DeletedAt = entity.DeletedAt{}
		return tag, updateRow(tx.Unscoped(), &entity.Tag{}, tag.ID, map[string]any{"deleted_at": nil})
	}
	return tag, nil
}

// attach adds a tag to a flag. The transaction has locked the flag's row, so no other request adds
// the same tag.
func attach(tx *gorm.DB, flagID, tagID uint) error {
	var ties int64
	if err := tx.Model(&flagTag{}).Where("flag_id = ? AND tag_id = ?", flagID, tagID).Count(&ties).Error; err != nil || ties > 0 {
		return err
	}
	return tx.Create(&flagTag{TagID: tagID, FlagID: flagID}).Error
}
