package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// migrate creates the tables, columns and indexes that are missing. GORM's own AutoMigrate also changes the types of
// columns, for which it rebuilds whole tables on SQLite; a database that another program wrote must stay as it is.
func (s *Store) migrate(ctx context.Context) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
		if err := lock(tx, s.dialect.lockMigration); err != nil {
			return fmt.Errorf("lock the tables: %w", err)
		}
		defer func() {
			if unlockErr := run(tx, s.dialect.unlockMigration); err == nil {
				err = unlockErr
			}
		}()
		tables, err := tables(tx)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if err := migrateTable(tx, table); err != nil {
				return err
			}
		}
		return run(tx, s.dialect.probe)
	}, s.dialect.writeTx)
}

// errLocked is what a server ends with that has waited for its turn in vain.
var errLocked = errors.New("another server is changing the tables and has not ended in time: start again when it has")

// lock runs the statement that waits until no other server migrates; an empty one is nothing to do.
func lock(tx *gorm.DB, statement string) error {
	if statement == "" {
		return nil
	}
	var locked sql.NullInt64
	if err := tx.Raw(statement).Scan(&locked).Error; err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return errLocked
	}
	return nil
}

// run executes a statement whose rows do not matter; an empty one is nothing to do.
func run(tx *gorm.DB, statement string) error {
	if statement == "" {
		return nil
	}
	return tx.Exec(statement).Error
}

// tables gives a value of each table, those that others refer to first.
func tables(tx *gorm.DB) ([]any, error) {
	statement := &gorm.Statement{DB: tx}
	if err := statement.Parse(&entity.Tag{}); err != nil {
		return nil, err
	}
	join := statement.Schema.Relationships.Relations["Flags"].JoinTable.ModelType
	return append(entity.Tables(), reflect.New(join).Interface()), nil
}

func migrateTable(tx *gorm.DB, value any) error {
	migrator := tx.Migrator()
	if !migrator.HasTable(value) {
		return migrator.CreateTable(value)
	}
	statement := &gorm.Statement{DB: tx}
	if err := statement.Parse(value); err != nil {
		return err
	}
	columns, err := columns(tx, statement.Table)
	if err != nil {
		return err
	}
	for _, column := range statement.Schema.DBNames {
		if !slices.Contains(columns, column) {
			if err := migrator.AddColumn(value, column); err != nil {
				return fmt.Errorf("add column %s to table %s: %w", column, statement.Table, err)
			}
		}
	}
	for _, index := range statement.Schema.ParseIndexes() {
		if !migrator.HasIndex(value, index.Name) {
			if err := migrator.CreateIndex(value, index.Name); err != nil {
				return fmt.Errorf("create index %s on table %s: %w", index.Name, statement.Table, err)
			}
		}
	}
	return nil
}

func columns(tx *gorm.DB, table string) ([]string, error) {
	rows, err := tx.Table(table).Limit(0).Rows()
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s: %w", table, err)
	}
	defer func() { _ = rows.Close() }() // there are none
	names, err := rows.Columns()
	return names, errors.Join(err, rows.Err())
}
