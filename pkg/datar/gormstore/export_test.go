package gormstore

import (
	"context"

	"gorm.io/gorm"
)

// PrepareAfter migrates once the statement has taken the lock.
func PrepareAfter(ctx context.Context, db *gorm.DB, lockMigration string) error {
	s := OnTables(db)
	s.dialect.lockMigration = lockMigration
	return db.WithContext(ctx).Transaction(s.prepare, s.dialect.writeTx)
}

// OnTables is New for tables that are there, for tests of what goes wrong later.
func OnTables(db *gorm.DB) *Store {
	d := dialects[db.Name()]
	return &Store{db: db, dialect: d, full: d.upsert(d.rowsPerStatement)}
}
