package testdb

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Schema describes a database in the database's terms: each table.column, and each index and
// constraint. The description of a column begins with "required" if an INSERT must set it, and with
// "optional" otherwise.
type Schema struct {
	Columns map[string]string
	Keys    map[string]string
}

// schemaQueries return columns as table.column and description, and keys as name and description.
var schemaQueries = map[string]struct{ columns, keys string }{
	"sqlite3": {
		columns: `SELECT m.name || '.' || c.name, CASE WHEN c."notnull" = 0 OR c.dflt_value IS NOT NULL OR c.pk > 0 THEN 'optional ' ELSE 'required ' END || c.type || ' ' || c."notnull" || ' ' || coalesce(c.dflt_value, '') || ' ' || c.pk
			FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'`,
		keys: `SELECT 'index ' || name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index' UNION ALL
			SELECT 'foreign key ' || m.name || '.' || f."from", f."table" || '.' || f."to" || ' ' || f.on_update || ' ' || f.on_delete
			FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`,
	},
	"postgres": {
		columns: `SELECT table_name || '.' || column_name, CASE WHEN is_nullable = 'YES' OR column_default IS NOT NULL THEN 'optional ' ELSE 'required ' END || data_type || ' ' || coalesce(character_maximum_length::text, '') || ' ' ||
			is_nullable || ' ' || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = current_schema()`,
		keys: `SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() UNION ALL
			SELECT 'constraint ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace = current_schema()::regnamespace AND contype <> 'n'`, // 18 lists NOT NULL, too
	},
	"mysql": {
		columns: `SELECT concat(table_name, '.', column_name), concat_ws(' ',
				IF(is_nullable = 'YES' OR column_default IS NOT NULL OR extra = 'auto_increment', 'optional', 'required'), column_type, is_nullable, column_default, extra, collation_name)
			FROM information_schema.columns WHERE table_schema = database()`,
		keys: `SELECT concat('index ', table_name, '.', index_name),
				concat(group_concat(column_name ORDER BY seq_in_index), ' ', non_unique)
			FROM information_schema.statistics WHERE table_schema = database() GROUP BY table_name, index_name, non_unique UNION ALL
			SELECT concat('foreign key ', table_name, '.', column_name), concat_ws('.', referenced_table_name, referenced_column_name)
			FROM information_schema.key_column_usage WHERE table_schema = database() AND referenced_table_name IS NOT NULL`,
	},
}

// Schema reads the description of a database.
func (k Kind) Schema(t testing.TB, db *sql.DB) Schema {
	t.Helper()
	queries := schemaQueries[k.Driver]
	return Schema{Columns: pairs(t, db, queries.columns), Keys: pairs(t, db, queries.keys)}
}

func pairs(t testing.TB, db *sql.DB, query string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, row := range Rows(t, db, query) {
		all[row[0]] = row[1]
	}
	return all
}

// Tables returns the tables of the schema with their columns.
func (s Schema) Tables() map[string][]string {
	tables := map[string][]string{}
	for name := range s.Columns {
		table, column, _ := strings.Cut(name, ".")
		tables[table] = append(tables[table], column)
	}
	return tables
}

// CheckAdditions fails the test unless everything is as before, apart from new tables, new keys,
// and new optional columns. widened maps names of columns that may change to their new
// descriptions.
func (s Schema) CheckAdditions(t testing.TB, before Schema, widened map[string]string) {
	t.Helper()
	check := func(what string, was, is map[string]string) {
		for name, old := range was {
			want, ok := widened[name]
			if !ok {
				want = old
			}
			if got := is[name]; got != want && got != old {
				t.Errorf("%s %s was %q and is %q", what, name, old, got)
			}
		}
	}
	check("column", before.Columns, s.Columns)
	check("key", before.Keys, s.Keys)
	tables := before.Tables()
	for name, is := range s.Columns {
		table, _, _ := strings.Cut(name, ".")
		if _, old := before.Columns[name]; !old && tables[table] != nil && strings.HasPrefix(is, "required") {
			t.Errorf("column %s is new and %q, but older writers do not know it", name, is)
		}
	}
}

// Rows returns the rows of a query as strings. NULL is "NULL".
func Rows(t testing.TB, db *sql.DB, query string) [][]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err reports errors
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for rows.Next() {
		values, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		row := make([]string, len(columns))
		for i, value := range values {
			row[i] = text(value)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

func text(value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	default:
		return fmt.Sprint(v)
	}
}
