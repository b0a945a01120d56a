package gormstore

import "gorm.io/gorm"

// OnTables is New for tables that are there, for tests of what goes wrong later.
func OnTables(db *gorm.DB) *Store {
	d := dialects[db.Name()]
	return &Store{db: db, dialect: d, full: d.upsert(rowsPerStatement)}
}
