package gormstore

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"gorm.io/gorm"
)

// insertion describes an INSERT into a table. Its statements have few different texts, whatever the
// number of rows: drivers and databases keep a prepared statement for each text as long as the
// connection is open.
type insertion struct {
	table table
	// columns are all columns that are set, for a VALUES list.
	columns string
	// arrays selects the columns from one array for each column. Arrays are bound as text, because
	// a driver that recognizes the type would parse them.
	arrays string
	// width is the number of columns.
	width int
	// rows is the maximum number of rows of one statement. 0 means dialect.rowsPerStatement.
	rows int
}

var addEvents = insertion{
	table:   eventsTable,
	columns: "flag_id, bucket_hour, variant_id, segment_id, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms, updated_at",
	arrays: `SELECT flag_id, to_timestamp(seconds), variant_id, segment_id, eval_count, ingested_count, first_ms, last_ms, to_timestamp(updated / 1e6)
		FROM unnest(?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[])
		AS added(flag_id, seconds, variant_id, segment_id, eval_count, ingested_count, first_ms, last_ms, updated)`,
	width: 9,
}

// onConflict and onDuplicate complete INSERTs: a row with a new key is inserted, and a row with an
// existing key grows. If one side of a comparison is NULL, the comparison is not true and the
// incoming value is used. Columns that Flagr does not have are NULL in its rows.
var (
	onConflict = map[table]string{
		eventsTable: ` ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET
			eval_count = t.eval_count + excluded.eval_count,
			ingested_count = COALESCE(t.ingested_count, 0) + excluded.ingested_count,
			first_evaluated_ms = CASE WHEN t.first_evaluated_ms <= excluded.first_evaluated_ms THEN t.first_evaluated_ms ELSE excluded.first_evaluated_ms END,
			last_evaluated_ms = CASE WHEN t.last_evaluated_ms >= excluded.last_evaluated_ms THEN t.last_evaluated_ms ELSE excluded.last_evaluated_ms END,
			updated_at = excluded.updated_at`,
		detailsTable: ` ON CONFLICT (bucket_hour, flag_id, variant_id, segment_id, outcome, version, asked) DO UPDATE SET
			eval_count = t.eval_count + excluded.eval_count,
			ingested_count = t.ingested_count + excluded.ingested_count,
			first_evaluated_ms = CASE WHEN t.first_evaluated_ms <= excluded.first_evaluated_ms THEN t.first_evaluated_ms ELSE excluded.first_evaluated_ms END,
			last_evaluated_ms = CASE WHEN t.last_evaluated_ms >= excluded.last_evaluated_ms THEN t.last_evaluated_ms ELSE excluded.last_evaluated_ms END`,
		unknownTable: ` ON CONFLICT (bucket_hour, asked) DO UPDATE SET
			eval_count = t.eval_count + excluded.eval_count,
			first_evaluated_ms = CASE WHEN t.first_evaluated_ms <= excluded.first_evaluated_ms THEN t.first_evaluated_ms ELSE excluded.first_evaluated_ms END,
			last_evaluated_ms = CASE WHEN t.last_evaluated_ms >= excluded.last_evaluated_ms THEN t.last_evaluated_ms ELSE excluded.last_evaluated_ms END`,
		writersTable: " ON CONFLICT (writer_id) DO NOTHING",
		serversTable: " ON CONFLICT (name, run) DO NOTHING",
	}
	// VALUES(column) is the only form that both MySQL and MariaDB accept.
	onDuplicate = map[table]string{
		eventsTable: ` ON DUPLICATE KEY UPDATE
			eval_count = eval_count + VALUES(eval_count),
			ingested_count = COALESCE(ingested_count, 0) + VALUES(ingested_count),
			first_evaluated_ms = CASE WHEN first_evaluated_ms <= VALUES(first_evaluated_ms) THEN first_evaluated_ms ELSE VALUES(first_evaluated_ms) END,
			last_evaluated_ms = CASE WHEN last_evaluated_ms >= VALUES(last_evaluated_ms) THEN last_evaluated_ms ELSE VALUES(last_evaluated_ms) END,
			updated_at = VALUES(updated_at)`,
		detailsTable: ` ON DUPLICATE KEY UPDATE
			eval_count = eval_count + VALUES(eval_count),
			ingested_count = ingested_count + VALUES(ingested_count),
			first_evaluated_ms = LEAST(first_evaluated_ms, VALUES(first_evaluated_ms)),
			last_evaluated_ms = GREATEST(last_evaluated_ms, VALUES(last_evaluated_ms))`,
		unknownTable: ` ON DUPLICATE KEY UPDATE
			eval_count = eval_count + VALUES(eval_count),
			first_evaluated_ms = LEAST(first_evaluated_ms, VALUES(first_evaluated_ms)),
			last_evaluated_ms = GREATEST(last_evaluated_ms, VALUES(last_evaluated_ms))`,
		writersTable: " ON DUPLICATE KEY UPDATE writer_id = VALUES(writer_id)",
		serversTable: " ON DUPLICATE KEY UPDATE run = VALUES(run)",
	}
)

// text returns the statement for a number of rows.
func (i insertion) text(d dialect, rows int) string {
	into := "INSERT INTO " + string(i.table) + d.alias + " (" + i.columns + ") "
	if d.arrays {
		return into + i.arrays + d.growth[i.table]
	}
	row := "(?" + strings.Repeat(", ?", i.width-1) + ")"
	return into + "VALUES " + row + strings.Repeat(", "+row, rows-1) + d.growth[i.table]
}

// insert inserts n rows. appendRow appends the values of one row.
func (s *Store) insert(tx *gorm.DB, i insertion, n int, appendRow func(values []any, row int) []any) error {
	most := cmp.Or(i.rows, s.dialect.rowsPerStatement)
	values := make([]any, 0, min(n, most)*i.width)
	for done := 0; done < n; {
		size := min(n-done, most)
		if !s.dialect.arrays {
			size = 1 << (bits.Len(uint(size)) - 1) // so that there are few texts
		}
		values = values[:0]
		for row := done; row < done+size; row++ {
			values = appendRow(values, row)
		}
		done += size
		bound := values
		if s.dialect.arrays {
			bound = arraysOf(values, i.width)
		}
		if err := tx.Exec(s.insertText(i, size), bound...).Error; err != nil {
			return err
		}
	}
	return nil
}

// insertText returns the text of an INSERT. It caches texts of full size, which are long.
func (s *Store) insertText(i insertion, rows int) string {
	if rows != cmp.Or(i.rows, s.dialect.rowsPerStatement) {
		return s.sql(i.text(s.dialect, rows))
	}
	if text, ok := s.texts.Load(i.table); ok {
		return text.(string)
	}
	text := s.sql(i.text(s.dialect, rows))
	s.texts.Store(i.table, text)
	return text
}

// array is a PostgreSQL array as text, which every driver sends unchanged.
type array string

// Value implements driver.Valuer, so that GORM does not expand it.
func (a array) Value() (driver.Value, error) { return string(a), nil }

// arraysOf converts rows with width values each to one array for each column.
func arraysOf(values []any, width int) []any {
	arrays := make([]any, width)
	var text []byte
	for column := range width {
		text = append(text[:0], '{')
		for i := column; i < len(values); i += width {
			if i > column {
				text = append(text, ',')
			}
			text = appendElement(text, values[i])
		}
		arrays[column] = array(append(text, '}'))
	}
	return arrays
}

func appendElement(text []byte, value any) []byte {
	switch v := value.(type) {
	case int64:
		return strconv.AppendInt(text, v, 10)
	case time.Time:
		return strconv.AppendInt(text, v.UnixMicro(), 10)
	default:
		text = append(text, '"')
		for _, c := range []byte(fmt.Sprint(v)) {
			if c == '"' || c == '\\' {
				text = append(text, '\\')
			}
			text = append(text, c)
		}
		return append(text, '"')
	}
}

// padded repeats the last element of a list until its length is a power of two, so that conditions
// with IN have few different texts.
func padded[E any](list []E) []E {
	if len(list) == 0 {
		return list
	}
	size := 1 << bits.Len(uint(len(list)-1))
	list = slices.Clip(list)
	for len(list) < size {
		list = append(list, list[len(list)-1])
	}
	return list
}
