package gormstore

import (
	"fmt"
	"strings"

	"gorm.io/gorm"
)

// dialect is what the databases do differently.
type dialect struct {
	// onConflict begins the part of an upsert that says what to do with a row that is there.
	onConflict string
	// present and incoming format a column of the row that is there, and of the row to be inserted.
	present, incoming string
	// widen makes the column of counts 64 bits wide where Flagr left 32. Empty: it always was.
	widen string
	// narrow are the names, in lower case, that the database has for 32-bit integers.
	narrow []string
}

var dialects = map[string]dialect{
	"sqlite": {
		onConflict: "ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET",
		present:    eventsTable + ".%s",
		incoming:   "excluded.%s",
	},
	"postgres": {
		onConflict: "ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET",
		present:    eventsTable + ".%s",
		incoming:   "excluded.%s",
		widen:      "ALTER TABLE " + eventsTable + " ALTER COLUMN eval_count TYPE bigint",
		narrow:     []string{"integer", "int4"},
	},
	"mysql": {
		onConflict: "ON DUPLICATE KEY UPDATE",
		present:    "%s",
		incoming:   "VALUES(%s)", // the one form that MySQL and MariaDB share
		widen:      "ALTER TABLE " + eventsTable + " MODIFY COLUMN eval_count bigint NOT NULL DEFAULT 0",
		narrow:     []string{"int"},
	},
}

// columns are those of an upsert, in the order of its values.
var columns = [...]string{
	"flag_id", "bucket_hour", "variant_id", "segment_id", "eval_count", "first_evaluated_ms", "last_evaluated_ms", "updated_at",
}

// upsert renders the statement that adds counts: new keys are inserted, known ones grow.
func (d dialect) upsert(rows int) string {
	// With NULL on one side a comparison is not true, and the incoming value is taken.
	extreme := func(column, comparison string) string {
		present, incoming := fmt.Sprintf(d.present, column), fmt.Sprintf(d.incoming, column)
		return fmt.Sprintf("%s = CASE WHEN %s %s %s THEN %s ELSE %s END", column, present, comparison, incoming, present, incoming)
	}
	set := []string{
		fmt.Sprintf("eval_count = "+d.present+" + "+d.incoming, "eval_count", "eval_count"),
		extreme("first_evaluated_ms", "<="),
		extreme("last_evaluated_ms", ">="),
		fmt.Sprintf("updated_at = "+d.incoming, "updated_at"),
	}
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	return "INSERT INTO " + eventsTable + " (" + strings.Join(columns[:], ", ") + ") VALUES " +
		row + strings.Repeat(", "+row, rows-1) + " " + d.onConflict + " " + strings.Join(set, ", ")
}

// migrate creates what is missing. Of a table that Flagr created it only adds the columns and widens the count: Flagr
// goes on working with both.
func migrate(db *gorm.DB, d dialect) error {
	m := db.Migrator()
	if !m.HasTable(&writer{}) {
		if err := m.CreateTable(&writer{}); err != nil {
			return err
		}
	}
	if !m.HasTable(&hourlyEvent{}) {
		return m.CreateTable(&hourlyEvent{})
	}
	for _, column := range []string{"FirstEvaluatedMs", "LastEvaluatedMs"} {
		if !m.HasColumn(&hourlyEvent{}, column) {
			if err := m.AddColumn(&hourlyEvent{}, column); err != nil {
				return err
			}
		}
	}
	if d.widen == "" {
		return nil
	}
	types, err := m.ColumnTypes(&hourlyEvent{})
	if err != nil {
		return err
	}
	for _, column := range types {
		if column.Name() != "eval_count" {
			continue
		}
		for _, narrow := range d.narrow {
			if strings.EqualFold(column.DatabaseTypeName(), narrow) {
				return db.Exec(d.widen).Error
			}
		}
	}
	return nil
}
