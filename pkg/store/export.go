package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// exportRows is the number of rows that one statement writes. At about ten columns each, they stay
// well below SQLite's limit of 32,766 parameters.
const exportRows = 200

// exportBytes is the approximate number of bytes of states that one statement writes.
const exportBytes = 1 << 20

// ExportSQLite writes all flags, as they are at one moment, into a SQLite file that a server can
// use as its database. The file must be empty or not exist. It also contains deleted flags and
// parts, so that a flag can be restored from it. Without history, it does not contain the snapshots
// of flags. After an error, the caller must remove the file. If the source is a SQLite file, SQLite
// copies the rows.
func (s *Store) ExportSQLite(ctx context.Context, path string, history bool) error {
	// No other process uses the file, and it is useless after a crash. So it needs no journal and
	// no sync.
	const options = "?_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"
	file, err := Open(ctx, Options{Driver: "sqlite3", DSN: path + options})
	if err != nil {
		return fmt.Errorf("create the exported file: %w", err)
	}
	tables := exportedTables(history)
	if err := dropIndexes(s.db.WithContext(ctx), file.db.WithContext(ctx), tables); err != nil {
		return errors.Join(fmt.Errorf("prepare the exported file: %w", err), file.Close())
	}
	if source, ok := s.pool.(*sqlitePool); ok && source.attaches() && !s.readOnly {
		statements, err := insertions(s.db, tables)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return explain("export to a file", source.fill(ctx, path, statements))
	}
	err = s.read(ctx, "the rows to export", func(from *gorm.DB) error {
		return file.db.WithContext(ctx).Transaction(func(to *gorm.DB) error {
			for _, t := range tables {
				if err := t.copy(from, to); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return errors.Join(err, file.Close())
}

// dropIndexes drops the unique indexes that from does not have: its rows may repeat values.
func dropIndexes(from, to *gorm.DB, tables []exportedTable) error {
	for _, t := range tables {
		table, err := parsed(from, t.model)
		if err != nil {
			return err
		}
		for _, index := range table.Schema.ParseIndexes() {
			if index.Class == "UNIQUE" && !from.Migrator().HasIndex(t.model, index.Name) {
				if err := to.Migrator().DropIndex(t.model, index.Name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// exportedTable is a table of the exported file.
type exportedTable struct {
	model any
	copy  func(from, to *gorm.DB) error
}

func exportedTables(history bool) []exportedTable {
	tables := []exportedTable{
		exported[entity.Flag](), exported[entity.Tag](), exported[flagTag](), exported[entity.Segment](), exported[entity.Variant](),
		exported[entity.Constraint](), exported[entity.Distribution](), exported[entity.FlagEntityType](),
	}
	if history {
		tables = append(tables, exported[entity.FlagSnapshot]())
	}
	return tables
}

func exported[T any]() exportedTable { return exportedTable{new(T), copyRows[T]} }

// attached is the name of the exported file in the statements that fill it.
const attached = "exported"

// insertions returns statements that copy all rows of tables to the attached file.
func insertions(db *gorm.DB, tables []exportedTable) ([]string, error) {
	statements := make([]string, len(tables))
	for i, t := range tables {
		table, err := parsed(db, t.model)
		if err != nil {
			return nil, err
		}
		columns := "`" + strings.Join(table.Schema.DBNames, "`, `") + "`"
		statements[i] = fmt.Sprintf("INSERT INTO %s.%s (%s) SELECT %s FROM main.%s", attached, table.Schema.Table, columns, columns, table.Schema.Table)
	}
	return statements, nil
}

// copyRows copies all rows of one table unchanged, including deleted ones and values that this
// server cannot read.
func copyRows[T any](from, to *gorm.DB) (err error) {
	table, err := parsed(from, new(T))
	if err != nil {
		return err
	}
	names := table.Schema.DBNames
	rows, err := from.Unscoped().Model(new(T)).Select(names).Rows()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values, targets := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	batch, size := make([]map[string]any, 0, exportRows), 0
	write := func() error {
		if len(batch) == 0 {
			return nil
		}
		defer func() { batch, size = batch[:0], 0 }()
		return to.Table(table.Schema.Table).Create(&batch).Error
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		row := make(map[string]any, len(names))
		for i, name := range names {
			row[name] = values[i]
			switch value := values[i].(type) {
			case string:
				if name == snapshotColumn { // the only one with bytes, in each database
					size += len(value)
					row[name] = []byte(value)
				}
			case []byte:
				if size += len(value); name != snapshotColumn {
					row[name] = string(value)
				}
			}
		}
		if batch = append(batch, row); len(batch) == exportRows || size >= exportBytes {
			if err := write(); err != nil {
				return err
			}
		}
	}
	return errors.Join(rows.Err(), write())
}
