package entity

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"time"
)

// Model has the fields of every row. Names, types and tags are the same as in GORM's model, which
// is not used: programs that evaluate flags in process import this package without a database
// library.
type Model struct {
	ID        uint `gorm:"primarykey"`
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt DeletedAt `gorm:"index"`
}

// DeletedAt is the time of a deletion; it is not Valid if the row is not deleted. In JSON it is a
// time or null. Package store excludes deleted rows from queries.
type DeletedAt sql.NullTime

// Scan reads a database column.
func (d *DeletedAt) Scan(value any) error { return (*sql.NullTime)(d).Scan(value) }

// Value returns the value to store.
func (d DeletedAt) Value() (driver.Value, error) { return sql.NullTime(d).Value() }

// MarshalJSON returns the time or null.
func (d DeletedAt) MarshalJSON() ([]byte, error) {
	if !d.Valid {
		return []byte("null"), nil
	}
	return json.Marshal(d.Time)
}

// UnmarshalJSON parses a time or null.
func (d *DeletedAt) UnmarshalJSON(text []byte) error {
	*d = DeletedAt{}
	if string(text) == "null" {
		return nil
	}
	if err := json.Unmarshal(text, &d.Time); err != nil {
		return err
	}
	d.Valid = true
	return nil
}
