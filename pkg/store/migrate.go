package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// migrate creates missing tables, columns and indexes. GORM's own AutoMigrate also changes column
// types, and rebuilds whole tables on SQLite for that. But a database that another program wrote
// must stay unchanged.
func (s *Store) migrate(ctx context.Context) (done migration, err error) {
	err = s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) (err error) {
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
			if err := done.table(tx, table); err != nil {
				return err
			}
		}
		return run(tx, s.dialect.probe)
	}, s.dialect.writeTx)
	return done, err
}

// errLocked reports a timeout while waiting for the migration lock.
var errLocked = errors.New("another server is changing the tables and has not ended in time: start again when it has")

// lock runs the statement that waits until no other server migrates. An empty statement does
// nothing.
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

// run executes a statement and ignores its rows. An empty statement does nothing.
func run(tx *gorm.DB, statement string) error {
	if statement == "" {
		return nil
	}
	return tx.Exec(statement).Error
}

// tables returns a value of each table, in the order in which tables refer to each other.
func tables(tx *gorm.DB) ([]any, error) {
	statement, err := parsed(tx, &entity.Tag{})
	if err != nil {
		return nil, err
	}
	join := statement.Schema.Relationships.Relations["Flags"].JoinTable.ModelType
	return append(entity.Tables(), reflect.New(join).Interface()), nil
}

// migration lists the parts of a database that were missing and that were created.
type migration struct {
	kept    int      // tables that existed
	changes []string // such as "table tags" and "column flags.notes"
	// omitted are unique indexes that cannot be created, because values repeat in the table.
	omitted []string
}

// log logs the changes, as a warning if the database was in use before.
func (m migration) log(ctx context.Context, logger *slog.Logger, database string) {
	switch {
	case len(m.changes) == 0:
	case m.kept == 0:
		logger.InfoContext(ctx, "database tables created", "database", database, "tables", len(m.changes))
	default:
		logger.WarnContext(ctx, "database migrated", "database", database, "added", strings.Join(m.changes, ", "))
	}
	for _, index := range m.omitted {
		logger.WarnContext(ctx, "unique index is missing and cannot be created: several rows have the same value", "database", database, "index", index)
	}
}

// table creates the table of the value, or its missing columns and indexes.
func (m *migration) table(tx *gorm.DB, value any) error {
	migrator := tx.Migrator()
	statement, err := parsed(tx, value)
	if err != nil {
		return err
	}
	if !migrator.HasTable(value) {
		m.changes = append(m.changes, "table "+statement.Table)
		return migrator.CreateTable(value)
	}
	m.kept++
	columns, err := columns(tx, statement.Table)
	if err != nil {
		return err
	}
	for _, column := range statement.Schema.DBNames {
		if !slices.Contains(columns, column) {
			if err := migrator.AddColumn(value, column); err != nil {
				return fmt.Errorf("add column %s to table %s: %w", column, statement.Table, err)
			}
			m.changes = append(m.changes, "column "+statement.Table+"."+column)
		}
	}
	for _, index := range statement.Schema.ParseIndexes() {
		if !migrator.HasIndex(value, index.Name) {
			repeated, err := m.repeats(tx, value, index)
			if err != nil {
				return fmt.Errorf("look for values that repeat in table %s: %w", statement.Table, err)
			}
			if repeated {
				continue
			}
			if err := migrator.CreateIndex(value, index.Name); err != nil {
				return fmt.Errorf("create index %s on table %s: %w", index.Name, statement.Table, err)
			}
			m.changes = append(m.changes, "index "+index.Name)
		}
	}
	return nil
}

// repeats reports whether a missing index is unique and cannot be created, because several rows
// have the same value. The server works without it.
func (m *migration) repeats(tx *gorm.DB, value any, index *schema.Index) (bool, error) {
	if index.Class != "UNIQUE" {
		return false, nil
	}
	column := index.Fields[0].DBName // each has one
	var most sql.NullInt64
	counts := tx.Unscoped().Model(value).Select("COUNT(*) AS number").Where("? IS NOT NULL", clause.Column{Name: column}).Group(column)
	err := tx.Session(&gorm.Session{NewDB: true}).Table("(?) AS counts", counts).Select("MAX(number)").Scan(&most).Error
	if err != nil || most.Int64 <= 1 {
		return false, err
	}
	m.omitted = append(m.omitted, index.Name+" on "+column)
	return true, nil
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
