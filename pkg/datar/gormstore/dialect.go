package gormstore

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
	"gorm.io/gorm"
)

// dialect is what the databases do differently.
type dialect struct {
	// rowsPerStatement is how many rows are added by one statement. More made it slower (BenchmarkFlush).
	rowsPerStatement int
	// onConflict begins the part of an upsert that says what to do with a row that is there.
	onConflict string
	// present and incoming format a column of the row that is there, and of the row to be inserted.
	present, incoming string
	// widen makes the column of counts 64 bits wide where Flagr left 32. Empty: it always was.
	widen string
	// narrow are the names, in lower case, that the database has for 32-bit integers.
	narrow []string
	// identifier is the type of columns whose text is compared byte by byte.
	identifier string
	// lockMigration lets one process at a time migrate. It answers 1 once the lock is had, and something else if it gave up.
	// unlockMigration ends it where the transaction's end does not.
	lockMigration, unlockMigration string
	// writeTx are the options of transactions that write. What others have committed must show once the lock is had.
	writeTx *sql.TxOptions
	// lockShared and lockExclusive lock the row of metaTable that has the given name.
	lockShared, lockExclusive string
	// oneMoment is the isolation in which all statements of a transaction see one state.
	oneMoment sql.IsolationLevel
	// tableOptions end the statements that create tables, other than that of the events.
	tableOptions string
	// refused tells errors that a row causes, and always will, from others.
	refused func(error) bool
	// checkDeferred makes constraints show that are checked at the commit otherwise. Empty: a table cannot be given any.
	checkDeferred string
	// prefix begins the names of tables; empty in the table below.
	prefix prefix
	// rolledBack tells errors after which the transaction is gone, and may be tried again at once.
	rolledBack func(error) bool
}

const selectMeta = "SELECT name FROM " + metaTable + " WHERE name = ?"

var dialects = map[string]dialect{
	"sqlite": {
		rowsPerStatement: 50,
		onConflict:       "ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET",
		present:          eventsTable + ".%s",
		incoming:         "excluded.%s",
		tableOptions:     " WITHOUT ROWID", // the rows are where their primary key is
		identifier:       "varchar(64)",
		// There is one writer at a time, whatever it writes.
		lockShared:    "UPDATE " + metaTable + " SET value = value WHERE name = ?",
		lockExclusive: "UPDATE " + metaTable + " SET value = value WHERE name = ?",
		refused:       sqliteCode(18, 19, 20), // TOOBIG, CONSTRAINT, MISMATCH
		rolledBack:    sqliteCode(5, 6),       // BUSY, LOCKED
	},
	"postgres": {
		rowsPerStatement: 500,
		onConflict:       "ON CONFLICT (flag_id, bucket_hour, variant_id, segment_id) DO UPDATE SET",
		present:          eventsTable + ".%s",
		incoming:         "excluded.%s",
		widen:            "ALTER TABLE " + eventsTable + " ALTER COLUMN eval_count TYPE bigint",
		narrow:           []string{"integer", "int4"},
		identifier:       "varchar(64)",
		// The number only has to differ from those of other programs in the same database.
		lockMigration: "SELECT 1 FROM pg_advisory_xact_lock(7031988216)",
		writeTx:       &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		lockShared:    selectMeta + " FOR SHARE",
		lockExclusive: selectMeta + " FOR UPDATE",
		oneMoment:     sql.LevelRepeatableRead,
		// Data exceptions, constraint violations, and what a trigger raises. Not a key that is there already (23505): counts
		// are added to that, so it is an id, from a sequence that was not put back together with the table.
		refused:       sqlState("22", "23000", "23001", "23502", "23503", "23514", "23P01", "P0001"),
		checkDeferred: "SET CONSTRAINTS ALL IMMEDIATE",
		// Serialisation failure, deadlock, lock not available.
		rolledBack: sqlState("40001", "40P01", "55P03"),
	},
	"mysql": {
		rowsPerStatement: 500,
		onConflict:       "ON DUPLICATE KEY UPDATE",
		present:          "%s",
		incoming:         "VALUES(%s)", // the one form that MySQL and MariaDB share
		widen:            "ALTER TABLE " + eventsTable + " MODIFY COLUMN eval_count bigint NOT NULL DEFAULT 0",
		narrow:           []string{"int"},
		identifier:       "varchar(64) CHARACTER SET ascii COLLATE ascii_bin",
		lockMigration:    "SELECT GET_LOCK(CONCAT('datar migration ', MD5(DATABASE())), 60)",
		unlockMigration:  "SELECT RELEASE_LOCK(CONCAT('datar migration ', MD5(DATABASE())))",
		writeTx:          &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		// InnoDB locks gaps of the unique index as well, in which writers deadlock although they add in one order.
		lockShared:    selectMeta + " FOR UPDATE",
		lockExclusive: selectMeta + " FOR UPDATE",
		oneMoment:     sql.LevelRepeatableRead,
		// Values out of range or not convertible, constraints of MySQL and MariaDB, and what a trigger signals.
		refused: mysqlNumber(1048, 1216, 1264, 1265, 1292, 1366, 1406, 1452, 1644, 1690, 3819, 4025),
		// Lock wait timeout, deadlock. The former rolls back a statement only, so the transaction ends with the error.
		rolledBack: mysqlNumber(1205, 1213),
	},
}

// sqliteCode matches the primary result codes of SQLite.
func sqliteCode(codes ...int) func(error) bool {
	return func(err error) bool {
		var e interface{ Code() int }
		return errors.As(err, &e) && slices.Contains(codes, e.Code()&0xff)
	}
}

// sqlState matches the beginnings of SQLSTATE codes.
func sqlState(beginnings ...string) func(error) bool {
	return func(err error) bool {
		var e interface{ SQLState() string }
		return errors.As(err, &e) && slices.ContainsFunc(beginnings, func(s string) bool { return strings.HasPrefix(e.SQLState(), s) })
	}
}

// mysqlNumber matches the error numbers of MySQL and MariaDB.
func mysqlNumber(numbers ...uint16) func(error) bool {
	return func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && slices.Contains(numbers, e.Number)
	}
}

// columns are those of an upsert, in the order of its values.
var columns = [...]string{
	"flag_id", "bucket_hour", "variant_id", "segment_id", "eval_count", "ingested_count", "first_evaluated_ms", "last_evaluated_ms",
	"updated_at",
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
		// In rows that are older than the column it is NULL.
		fmt.Sprintf("ingested_count = COALESCE("+d.present+", 0) + "+d.incoming, "ingested_count", "ingested_count"),
		extreme("first_evaluated_ms", "<="),
		extreme("last_evaluated_ms", ">="),
		fmt.Sprintf("updated_at = "+d.incoming, "updated_at"),
	}
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	return "INSERT INTO " + string(d.prefix) + eventsTable + " (" + strings.Join(columns[:], ", ") + ") VALUES " +
		row + strings.Repeat(", "+row, rows-1) + " " + d.onConflict + " " + strings.Join(set, ", ")
}

// with puts a prefix before the names of tables.
func (d dialect) with(p prefix) dialect {
	d.prefix = p
	d.present, d.widen = p.in(d.present), p.in(d.widen)
	d.lockShared, d.lockExclusive = p.in(d.lockShared), p.in(d.lockExclusive)
	return d
}

// index is one that GORM does not create with the table, because its name has the prefix.
type index struct{ kind, name, table, columns string }

var indexes = [...]index{
	{"UNIQUE INDEX", "idx_datar_hourly", eventsTable, "flag_id, bucket_hour, variant_id, segment_id"},
	{"INDEX", "idx_datar_bucket_hour", eventsTable, "bucket_hour"},
	{"INDEX", "idx_datar_receipts_created_at", receiptsTable, "created_at"},
}

// migrate creates what is missing. Of a table that Flagr created it only adds the columns and widens the count: Flagr
// goes on working with both.
func migrate(db *gorm.DB, d dialect) error {
	p, m := d.prefix, db.Migrator()
	for _, t := range []struct {
		name, options string
		model         any
	}{
		{writersTable, d.tableOptions, &writer{}},
		{metaTable, d.tableOptions, &meta{}},
		{rollupsTable, d.tableOptions, &rollup{}},
		{totalsTable, d.tableOptions, &rollupTotal{}},
		{outcomesTable, d.tableOptions, &rollupOutcome{}},
		{receiptsTable, d.tableOptions, &receipt{}},
		{eventsTable, "", &hourlyEvent{}},
	} {
		if m.HasTable(string(p) + t.name) {
			continue
		}
		if err := p.table(db, t.name).Set("gorm:table_options", t.options).Migrator().CreateTable(t.model); err != nil {
			return err
		}
	}
	events := p.table(db, eventsTable).Migrator()
	for _, column := range []string{"FirstEvaluatedMs", "LastEvaluatedMs", "IngestedCount"} {
		if !events.HasColumn(&hourlyEvent{}, column) {
			if err := events.AddColumn(&hourlyEvent{}, column); err != nil {
				return err
			}
		}
	}
	for _, i := range indexes {
		if m.HasIndex(string(p)+i.table, p.in(i.name)) {
			continue
		}
		if err := db.Exec(p.in("CREATE " + i.kind + " " + i.name + " ON " + i.table + " (" + i.columns + ")")).Error; err != nil {
			return err
		}
	}
	if d.widen == "" {
		return nil
	}
	types, err := events.ColumnTypes(&hourlyEvent{})
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
