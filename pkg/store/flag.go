package store

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TemplateBoolean is the template of a flag that, once enabled, is on for all entities.
const TemplateBoolean = "simple_boolean_flag"

// NewFlag describes a flag to create.
type NewFlag struct {
	// Description must not be empty.
	Description string
	// Key is generated if it is empty.
	Key string
	// Template is empty or simple_boolean_flag, which adds a variant "on" and a segment that
	// assigns it to all entities.
	Template string
	// DataRecordsEnabled turns on recording of the flag's evaluations.
	DataRecordsEnabled bool
}

// FlagPatch lists changes of a flag. Nil fields stay unchanged.
type FlagPatch struct {
	Description, Key, Notes *string
	// EntityType may be empty. Evaluations then keep the entity type of their request.
	EntityType         *string
	DataRecordsEnabled *bool
}

// CreateFlag creates a disabled flag and returns it with all its parts.
func (s *Store) CreateFlag(ctx context.Context, by string, f NewFlag) (*entity.Flag, error) {
	if f.Template != "" && f.Template != TemplateBoolean {
		return nil, entity.Invalid("unknown value for template: %s", f.Template)
	}
	if err := checkDescription(f.Description); err != nil {
		return nil, err
	}
	created, err := s.mutate(ctx, by, &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentFlag}, func(tx *gorm.DB) (uint, error) {
		flag := entity.Flag{Key: f.Key, Description: f.Description, CreatedBy: storable(by), DataRecordsEnabled: f.DataRecordsEnabled}
		if err := insertFlag(tx, &flag); err != nil {
			return 0, fmt.Errorf("cannot create flag. %w", err)
		}
		if f.Template == TemplateBoolean {
			return flag.ID, addBooleanParts(tx, flag.ID)
		}
		return flag.ID, nil
	})
	return created, s.nameOwner(ctx, err, f.Key)
}

func addBooleanParts(tx *gorm.DB, flagID uint) error {
	variant := entity.Variant{FlagID: flagID, Key: "on"}
	if err := insert(tx, &variant); err != nil {
		return err
	}
	segment := entity.Segment{FlagID: flagID, Rank: entity.DefaultSegmentRank, RolloutPercent: 100}
	if err := insert(tx, &segment); err != nil {
		return err
	}
	return insert(tx, &entity.Distribution{SegmentID: segment.ID, VariantID: variant.ID, VariantKey: variant.Key, Percent: 100})
}

// UpdateFlag changes a flag and returns it with all its parts.
func (s *Store) UpdateFlag(ctx context.Context, by string, id int64, p FlagPatch) (*entity.Flag, error) {
	columns, err := p.columns()
	if err != nil {
		return nil, err
	}
	changed, err := s.mutateFlag(ctx, by, &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentFlag}, id, func(tx *gorm.DB, flag *entity.Flag) error {
		if p.EntityType != nil {
			if err := keepEntityType(tx, *p.EntityType); err != nil {
				return err
			}
		}
		// The time of the change is set even if no column changes.
		columns["updated_at"] = tx.NowFunc()
		if p.Key != nil {
			if err := checkKeyIsFree(tx, *p.Key, flag.ID); err != nil {
				return fmt.Errorf("cannot update flag. %w", err)
			}
		}
		if err := duplicate(updateRow(tx, &entity.Flag{}, flag.ID, columns)); err != nil {
			return fmt.Errorf("cannot update flag. %w", err)
		}
		return nil
	})
	if p.Key != nil {
		err = s.nameOwner(ctx, err, *p.Key)
	}
	return changed, err
}

// columns validates the new values and returns them by column name.
func (p FlagPatch) columns() (map[string]any, error) {
	columns := map[string]any{}
	if p.Description != nil {
		if err := checkDescription(*p.Description); err != nil {
			return nil, err
		}
		columns["description"] = *p.Description
	}
	if p.Key != nil {
		if err := entity.CheckKey(*p.Key); err != nil {
			return nil, fmt.Errorf("cannot update flag. %w", err)
		}
		columns["key"] = *p.Key
	}
	if p.Notes != nil {
		if err := entity.CheckText("notes", *p.Notes); err != nil {
			return nil, err
		}
		columns["notes"] = *p.Notes
	}
	if p.EntityType != nil {
		if err := entity.CheckKey(*p.EntityType); *p.EntityType != "" && err != nil {
			return nil, fmt.Errorf("invalid entityType. %w", err)
		}
		columns["entity_type"] = *p.EntityType
	}
	if p.DataRecordsEnabled != nil {
		columns["data_records_enabled"] = *p.DataRecordsEnabled
	}
	return columns, nil
}

// SetFlagEnabled enables or disables a flag and returns it without parts and tags.
func (s *Store) SetFlagEnabled(ctx context.Context, by string, id int64, enabled bool) (*entity.Flag, error) {
	after, err := s.mutateFlag(ctx, by, &entity.Change{Operation: entity.OperationUpdate, Component: entity.ComponentFlag}, id, func(tx *gorm.DB, flag *entity.Flag) error {
		return updateRow(tx, &entity.Flag{}, flag.ID, map[string]any{"enabled": enabled})
	})
	if err != nil {
		return nil, err
	}
	return withoutParts(after), nil
}

// DeleteFlag marks a flag as deleted. Its key stays taken. RestoreFlag undoes the deletion.
func (s *Store) DeleteFlag(ctx context.Context, by string, id int64) error {
	_, err := s.mutateFlag(ctx, by, &entity.Change{Operation: entity.OperationDelete, Component: entity.ComponentFlag}, id, func(tx *gorm.DB, flag *entity.Flag) error {
		return tx.Delete(&entity.Flag{}, flag.ID).Error
	})
	return err
}

// RestoreFlag restores a deleted flag with all its parts, and returns it with its tags only.
func (s *Store) RestoreFlag(ctx context.Context, by string, id int64) (*entity.Flag, error) {
	after, err := s.mutate(ctx, by, &entity.Change{Operation: entity.OperationRestore, Component: entity.ComponentFlag}, func(tx *gorm.DB) (uint, error) {
		flag, err := lockFlag(tx.Unscoped(), id)
		if err != nil {
			return 0, err
		}
		return flag.ID, updateRow(tx.Unscoped(), &entity.Flag{}, flag.ID, map[string]any{"deleted_at": nil})
	})
	if err != nil {
		return nil, err
	}
	tags := after.Tags
	withoutParts(after).Tags = tags
	return after, nil
}

// DuplicateFlag creates a flag that evaluates like the given one, and returns it with all its
// parts. An empty key is generated. An empty description becomes that of the given flag with a
// note.
func (s *Store) DuplicateFlag(ctx context.Context, by string, id int64, key, description string) (*entity.Flag, error) {
	if err := entity.CheckText("description", description); err != nil {
		return nil, err
	}
	created, err := s.mutate(ctx, by, &entity.Change{Operation: entity.OperationCreate, Component: entity.ComponentFlag}, func(tx *gorm.DB) (uint, error) {
		locked, err := lockFlag(tx, id)
		if err != nil {
			return 0, err
		}
		sources := []entity.Flag{*locked}
		if err := loadParts(tx, sources, whole()); err != nil {
			return 0, err
		}
		source := &sources[0]
		if source.Unreadable != "" {
			return 0, unreadableError(source.ID, source.Unreadable)
		}
		if description == "" {
			description = source.Description + " (cloned)"
		}
		flag := entity.Flag{
			Key:                key,
			Description:        description,
			CreatedBy:          storable(by),
			Enabled:            source.Enabled,
			Notes:              source.Notes,
			DataRecordsEnabled: source.DataRecordsEnabled,
			EntityType:         source.EntityType,
		}
		if err := insertFlag(tx, &flag); err != nil {
			return 0, fmt.Errorf("cannot duplicate flag. %w", err)
		}
		return flag.ID, copyParts(tx, source, flag.ID)
	})
	return created, s.nameOwner(ctx, err, key)
}

func copyParts(tx *gorm.DB, source *entity.Flag, flagID uint) error {
	copies := make(map[uint]uint, len(source.Variants)) // from the IDs of variants to those of their copies
	for _, v := range source.Variants {
		variant := entity.Variant{FlagID: flagID, Key: v.Key, Attachment: v.Attachment}
		if err := insert(tx, &variant); err != nil {
			return err
		}
		copies[v.ID] = variant.ID
	}
	for _, old := range source.Segments {
		segment := entity.Segment{
			FlagID: flagID, Description: old.Description, Rank: old.Rank, RolloutPercent: old.RolloutPercent,
		}
		if err := insert(tx, &segment); err != nil {
			return err
		}
		for _, c := range old.Constraints {
			constraint := entity.Constraint{SegmentID: segment.ID, Property: c.Property, Operator: c.Operator, Value: c.Value}
			if err := insert(tx, &constraint); err != nil {
				return err
			}
		}
		for _, d := range old.Distributions {
			variantID, ok := copies[d.VariantID]
			if !ok {
				return entity.Wrong("api.store.copy", "id", catalog.Digits(old.ID), "percent", catalog.Digits(d.Percent), "variant", catalog.Digits(d.VariantID))
			}
			distribution := entity.Distribution{SegmentID: segment.ID, VariantID: variantID, VariantKey: d.VariantKey, Percent: d.Percent}
			if err := insert(tx, &distribution); err != nil {
				return err
			}
		}
	}
	for _, tag := range source.Tags {
		if err := attach(tx, flagID, tag.ID); err != nil {
			return err
		}
	}
	return nil
}

// insertFlag inserts a new flag, with a generated key if it has none. It checks first whether the
// key is taken: PostgreSQL and MySQL use up an ID for a rejected row, so IDs would depend on the
// database.
func insertFlag(tx *gorm.DB, flag *entity.Flag) error {
	if flag.Key == "" {
		flag.Key = entity.GenerateKey()
	}
	if err := entity.CheckKey(flag.Key); err != nil {
		return err
	}
	if err := checkKeyIsFree(tx, flag.Key, 0); err != nil {
		return err
	}
	return duplicate(insert(tx, flag)) // another request may have created it meanwhile
}

// checkKeyIsFree returns entity.ErrDuplicateKey if another flag than this one has the key. A
// database whose keys repeat has no unique index.
func checkKeyIsFree(tx *gorm.DB, key string, id uint) error {
	var taken int64
	err := tx.Session(&gorm.Session{}).Unscoped().Model(&entity.Flag{}).Where(map[string]any{"key": key}).Where("id <> ?", id).Count(&taken).Error
	if err == nil && taken > 0 {
		err = entity.ErrDuplicateKey
	}
	return err
}

// duplicate maps a unique violation to entity.ErrDuplicateKey. Use it for tables whose only unique
// column is the key.
func duplicate(err error) error {
	if errors.Is(err, gorm.ErrDuplicatedKey) {
		return entity.ErrDuplicateKey
	}
	return err
}

// nameOwner adds to an ErrDuplicateKey which flag has the key and, if that flag is deleted, what
// the client can do. It returns all other errors unchanged.
func (s *Store) nameOwner(ctx context.Context, err error, key string) error {
	if !errors.Is(err, entity.ErrDuplicateKey) {
		return err
	}
	var owners []entity.Flag
	found := s.db.WithContext(ctx).Unscoped().Where(map[string]any{"key": key}).Limit(1).Find(&owners)
	if found.Error != nil || len(owners) == 0 { // err is enough
		return err
	}
	owner := &owners[0]
	same := ""
	if owner.Key != key {
		same = ", which is the same key for this database"
	}
	if owner.DeletedAt.Valid {
		return fmt.Errorf("%w: deleted flag %d has the key %q%s; restore it by PUT /flags/%d/restore, or choose another key",
			err, owner.ID, owner.Key, same, owner.ID)
	}
	return fmt.Errorf("%w: flag %d has the key %q%s", err, owner.ID, owner.Key, same)
}

// keepEntityType adds an entity type to the list of those that flags have used. The empty entity
// type is one of them.
func keepEntityType(tx *gorm.DB, key string) error {
	known, err := find(tx.Unscoped().Where(map[string]any{"key": key}), entityTypeColumns(), whole())
	if err != nil || len(known) > 0 {
		return err
	}
	// Another request may insert the same key at this moment.
	return tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&entity.FlagEntityType{Key: key}).Error
}

func checkDescription(description string) error {
	if description == "" {
		return entity.Wrong("api.store.description")
	}
	return entity.CheckText("description", description)
}

// insert inserts one row without its associations.
func insert[T any](tx *gorm.DB, row *T) error {
	return tx.Omit(clause.Associations).Create(row).Error
}

// updateRow changes columns of one row and the time of its last change.
func updateRow(tx *gorm.DB, table any, id uint, columns map[string]any) error {
	return tx.Model(table).Where("id = ?", id).Updates(columns).Error
}
