package store

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// exportRows is how many rows are written at once. With about ten columns each they stay well below SQLite's 32,766
// parameters.
const exportRows = 200

// exportBytes is how many bytes of states are written at once, about.
const exportBytes = 1 << 20

// ExportSQLite writes all flags as they are at one moment into a new SQLite file, which must be empty or not there yet,
// and which a server can use as its database. Deleted flags and parts are in it, so that a flag can be restored from
// it, too. Without history the snapshots of flags are left out. Whatever the error is, the file is the caller's to
// remove.
func (s *Store) ExportSQLite(ctx context.Context, path string, history bool) error {
	// Nobody else has the file, and after a crash it is worth nothing: no journal, and no waiting for the disk.
	const options = "?_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"
	file, err := Open(ctx, Options{Driver: "sqlite3", DSN: path + options})
	if err != nil {
		return fmt.Errorf("create the exported file: %w", err)
	}
	err = s.read(ctx, "the rows to export", func(from *gorm.DB) error {
		return file.db.WithContext(ctx).Transaction(func(to *gorm.DB) error {
			copies := []func(from, to *gorm.DB) error{
				copyRows[entity.Flag], copyRows[entity.Tag], copyRows[flagTag], copyRows[entity.Segment],
				copyRows[entity.Variant], copyRows[entity.Constraint], copyRows[entity.Distribution],
				copyRows[entity.FlagEntityType],
			}
			if history {
				copies = append(copies, copyRows[entity.FlagSnapshot])
			}
			for _, run := range copies {
				if err := run(from, to); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return errors.Join(err, file.Close())
}

// copyRows writes the rows of one table as they are, deleted ones included.
func copyRows[T any](from, to *gorm.DB) (err error) {
	rows, err := from.Unscoped().Model(new(T)).Rows()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	to = to.Omit(clause.Associations).Session(&gorm.Session{})
	batch, size := make([]T, 0, exportRows), 0
	write := func() error {
		if len(batch) == 0 {
			return nil
		}
		defer func() {
			clear(batch)
			batch, size = batch[:0], 0
		}()
		return to.Create(&batch).Error
	}
	for rows.Next() {
		var row T
		if err := from.ScanRows(rows, &row); err != nil {
			return err
		}
		if snapshot, ok := any(&row).(*entity.FlagSnapshot); ok {
			size += len(snapshot.Flag)
		}
		if batch = append(batch, row); len(batch) == exportRows || size >= exportBytes {
			if err := write(); err != nil {
				return err
			}
		}
	}
	return errors.Join(rows.Err(), write())
}
