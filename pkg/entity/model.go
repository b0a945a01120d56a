package entity

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"time"
)

// Model is what every row has. Names, types and tags are those of GORM's model, which is not used itself: programs
// that evaluate flags in process import this package, and need no database library.
type Model struct {
	ID        uint `gorm:"primarykey"`
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt DeletedAt `gorm:"index"`
}

// DeletedAt is when a row was deleted; it is not Valid while the row is there. In JSON it is a time or null. Package
// store leaves deleted rows out of queries.
type DeletedAt sql.NullTime

// Scan reads a database column.
func (d *DeletedAt) Scan(value any) error { return (*sql.NullTime)(d).Scan(value) }

// Value gives what to store.
func (d DeletedAt) Value() (driver.Value, error) { return sql.NullTime(d).Value() }

// MarshalJSON gives the time or null.
func (d DeletedAt) MarshalJSON() ([]byte, error) {
	if !d.Valid {
		return []byte("null"), nil
	}
	return json.Marshal(d.Time)
}

// UnmarshalJSON reads a time or null.
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
