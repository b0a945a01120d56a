package testdb

import (
	"sync"
	"testing"

	"gorm.io/gorm"
)

// CountTexts returns a function that returns how many different statement texts the database has
// received since the call to CountTexts, apart from those that create, update and delete models.
func CountTexts(t *testing.T, db *gorm.DB) func() int {
	t.Helper()
	var mu sync.Mutex
	texts := map[string]bool{}
	note := func(statement *gorm.DB) {
		mu.Lock()
		defer mu.Unlock()
		texts[statement.Statement.SQL.String()] = true
	}
	for _, err := range []error{
		db.Callback().Raw().After("gorm:raw").Register("note", note),
		db.Callback().Query().After("gorm:query").Register("note", note),
		db.Callback().Row().After("gorm:row").Register("note", note),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(texts)
	}
}
