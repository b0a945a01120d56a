package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// snapshotColumn is the column of flag_snapshots that holds a whole flag. No other column has this
// name.
const snapshotColumn = "flag"

// mutate is the only function that changes flags. In a single transaction, it calls change, which
// makes the change and returns the ID of the flag, and then writes the flag as a new snapshot. It
// returns the flag with all its parts, as it is after the commit. Then it passes c to onChange. The
// caller sets what changes in c, and mutate fills in the rest.
func (s *Store) mutate(ctx context.Context, by string, c *entity.Change, change func(tx *gorm.DB) (flagID uint, err error)) (*entity.Flag, error) {
	by = storable(by)
	var after *entity.Flag
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		id, err := change(tx)
		if err != nil {
			return err
		}
		if s.changeDetails {
			if c.Before, err = lastSnapshot(tx, id); err != nil {
				return err
			}
		}
		after, c.After, err = record(tx, id, by)
		return err
	}, s.dialect.writeTx)
	if err = s.tooLong(err); err != nil {
		return nil, explain(fmt.Sprintf("%s %s", c.Operation, c.Component), err)
	}
	c.FlagID, c.FlagKey, c.User, c.Time = after.ID, after.Key, by, after.UpdatedAt
	if c.Component == entity.ComponentFlag {
		c.ComponentID, c.ComponentKey = after.ID, after.Key
	}
	if !s.changeDetails {
		c.After = nil
	}
	s.onChange(*c)
	return after, nil
}

// tooLong maps a database error about a text that a column cannot hold to an error for the client.
func (s *Store) tooLong(err error) error {
	if err == nil || s.dialect.tooLong == nil {
		return err
	}
	if column, ok := s.dialect.unfit(err); ok {
		return entity.Wrong("api.store.characters", "column", column)
	}
	switch column, ok := s.dialect.tooLong(err); {
	case !ok:
		return err
	case column == snapshotColumn:
		return entity.Wrong("api.store.snapshot")
	default:
		return entity.Wrong("api.store.long", "column", column)
	}
}

// mutateFlag is mutate for an existing flag that is not deleted. It locks the flag's row before it
// calls change, so that changes of one flag run one after another.
func (s *Store) mutateFlag(ctx context.Context, by string, c *entity.Change, id int64, change func(tx *gorm.DB, flag *entity.Flag) error) (*entity.Flag, error) {
	return s.mutate(ctx, by, c, func(tx *gorm.DB) (uint, error) {
		flag, err := lockFlag(tx, id)
		if err != nil {
			return 0, err
		}
		return flag.ID, change(tx, flag)
	})
}

// lockFlag reads and locks the flag's row, and reserves the memory of the flag. It finds deleted
// flags only through tx.Unscoped().
func lockFlag(tx *gorm.DB, id int64) (*entity.Flag, error) {
	how := whole()
	flag, err := take(tx.Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate}).Where("id = ?", id), flagColumns(), how)
	if err != nil {
		return nil, missing(err, "unable to find flag %d in the database", id)
	}
	flags := []entity.Flag{*flag}
	how.mark(flags)
	return &flags[0], reserveFlag(tx, id)
}

// take reads the first row of a query. The error is gorm.ErrRecordNotFound if there is none.
func take[T any](query *gorm.DB, of columnsOf[T], how reading) (*T, error) {
	rows, err := find(query.Limit(1), of, how)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, gorm.ErrRecordNotFound
	}
	return &rows[0], nil
}

// lastSnapshot returns the JSON of the flag's newest snapshot, or nil if the flag has no snapshot.
func lastSnapshot(tx *gorm.DB, flagID uint) ([]byte, error) {
	snapshots, err := find(tx.Where("flag_id = ?", flagID).Order("id DESC").Limit(1), snapshotColumns(), whole())
	if err != nil || len(snapshots) == 0 {
		return nil, err
	}
	return snapshots[0].Flag, nil
}

// record writes the flag with all its parts as a snapshot, whose JSON it also returns, and sets it
// in the flag's row. The flag in the snapshot still refers to the previous snapshot.
func record(tx *gorm.DB, id uint, by string) (*entity.Flag, []byte, error) {
	how := whole()
	flag, err := take(tx.Unscoped().Where("id = ?", id), flagColumns(), how)
	if err != nil {
		return nil, nil, fmt.Errorf("read the changed flag: %w", err)
	}
	flags := []entity.Flag{*flag}
	if err := loadParts(tx, flags, how); err != nil {
		return nil, nil, err
	}
	flag = &flags[0]
	flag.UpdatedBy = by
	text := entity.EncodeFlag(flag)
	snapshot := entity.FlagSnapshot{FlagID: id, UpdatedBy: by, Flag: text}
	if err := tx.Create(&snapshot).Error; err != nil {
		return nil, nil, fmt.Errorf("write the snapshot: %w", err)
	}
	flag.SnapshotID, flag.UpdatedAt = snapshot.ID, tx.NowFunc()
	err = tx.Unscoped().Model(&entity.Flag{}).Where("id = ?", id).Updates(map[string]any{
		"snapshot_id": flag.SnapshotID, "updated_by": by, "updated_at": flag.UpdatedAt,
	}).Error
	if err != nil {
		return nil, nil, fmt.Errorf("point the flag to its snapshot: %w", err)
	}
	return flag, text, nil
}

// missing maps GORM's error for a missing row to an error for the client.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return entity.NotFound(format, args...)
	}
	return err
}

// storable makes a user name from a request fit for every database, so that a user with an unusual
// name can still change flags.
func storable(name string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(name, "\x00", ""), "\uFFFD")
}

// withoutParts returns the flag's own row, as some responses show it.
func withoutParts(flag *entity.Flag) *entity.Flag {
	flag.Segments, flag.Variants, flag.Tags = []entity.Segment{}, []entity.Variant{}, []entity.Tag{}
	return flag
}
