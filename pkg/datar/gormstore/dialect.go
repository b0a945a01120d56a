package gormstore

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// dialect holds the differences between the databases.
type dialect struct {
	// rowsPerStatement is the most rows of one INSERT, a power of two unless arrays is set (BenchmarkFlush).
	rowsPerStatement int
	// arrays: an INSERT takes one array for each column, so that its text does not depend on the number of rows.
	// Otherwise it has a VALUES list.
	arrays bool
	// staging: a batch with details goes through a temporary table.
	staging bool
	// alias names the row that exists, in growth, which completes each insertion: what to do with a row whose key exists.
	alias  string
	growth map[table]string
	// hour is the expression for the hour of a bucket_hour, and at the one for a bound hour, which bindHour makes.
	hour, at string
	bindHour func(datar.Hour) any
	// bindTime makes the parameter for a column of times.
	bindTime func(time.Time) any
	// sentTime returns, as text, what a time that the driver binds becomes in a column. Empty: an instant, in any zone.
	sentTime string
	// offsets finds an event whose bucket_hour is not in UTC. Empty: every bucket_hour is an instant, or is in UTC.
	offsets string
	// indexes are needed beside those of all databases.
	indexes []index
	// widen makes the column of counts 64 bits wide where Flagr created it with 32. Empty: it always has 64.
	widen string
	// narrow are the database's names, in lower case, for 32-bit integers.
	narrow []string
	// identifier is the type of columns whose ASCII text is compared byte by byte, and exact that of other texts.
	identifier, exact string
	// lockMigration lets one process at a time migrate. It returns 1 when it has the lock, and anything else if it gave up.
	// unlockMigration releases it where the end of the transaction does not.
	lockMigration, unlockMigration string
	// writeTx are the options of transactions that write. After waiting for a lock, they see what others have committed.
	writeTx *sql.TxOptions
	// lockShared and lockExclusive lock the row of datar_meta with the given name.
	lockShared, lockExclusive string
	// oneMoment is the isolation level in which all statements of a transaction see one state.
	oneMoment sql.IsolationLevel
	// tableOptions end the statements that create tables, except that of the events.
	tableOptions string
	// refused recognizes errors that a row causes, and will cause each time.
	refused func(error) bool
	// checkDeferred checks the constraints that are otherwise checked at the commit. Empty: there are none.
	checkDeferred string
	// rolledBack recognizes errors after which the transaction is gone and can be retried at once.
	rolledBack func(error) bool
}

// table names a table that batches add to.
type table string

const (
	eventsTable  table = "datar_hourly_events"
	detailsTable table = "datar_hourly_details"
	unknownTable table = "datar_unknown_hourly"
	writersTable table = "datar_writers"
	serversTable table = "datar_servers"
)

const (
	selectMeta = "SELECT name FROM datar_meta WHERE name = ?"
	updateMeta = "UPDATE datar_meta SET value = value WHERE name = ?"
)

var dialects = map[string]dialect{
	"sqlite": {
		rowsPerStatement: 64,
		staging:          true,
		alias:            " AS t",
		growth:           onConflict,
		hour:             sqliteHour,
		at:               "?",
		bindHour:         func(h datar.Hour) any { return h.Time().Format("2006-01-02 15:04:05+00:00") },
		bindTime:         func(t time.Time) any { return t.UTC().Format("2006-01-02 15:04:05.999999999+00:00") },
		// In the order of the index, or SQLite would read all events.
		offsets:      "SELECT 1 FROM datar_hourly_events WHERE " + sqliteOffset + " ORDER BY " + sqliteHour + " LIMIT 1",
		indexes:      []index{{"INDEX", "idx_datar_offset_hour", "datar_hourly_events", sqliteHour, " WHERE " + sqliteOffset}},
		tableOptions: " WITHOUT ROWID", // the rows are where their primary key is
		identifier:   "varchar(64)",
		exact:        "varchar(63)",
		// There is one writer at a time, whatever it writes.
		lockShared:    updateMeta,
		lockExclusive: updateMeta,
		refused:       sqliteCode(18, 19, 20), // TOOBIG, CONSTRAINT, MISMATCH
		rolledBack:    sqliteCode(5, 6),       // BUSY, LOCKED
	},
	"postgres": {
		rowsPerStatement: 2000,
		arrays:           true,
		alias:            " AS t",
		growth:           onConflict,
		hour:             "CAST(FLOOR(EXTRACT(EPOCH FROM bucket_hour) / 3600) AS bigint)",
		at:               "to_timestamp(CAST(? AS bigint))",
		bindHour:         func(h datar.Hour) any { return int64(h) * 3600 },
		bindTime:         func(t time.Time) any { return t },
		widen:            "ALTER TABLE datar_hourly_events ALTER COLUMN eval_count TYPE bigint",
		narrow:           []string{"integer", "int4"},
		identifier:       "varchar(64)",
		exact:            `varchar(63) COLLATE "C"`,
		// The number only has to differ from those of other programs in the same database.
		lockMigration: "SELECT 1 FROM pg_advisory_xact_lock(7031988216)",
		writeTx:       &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		lockShared:    selectMeta + " FOR SHARE",
		lockExclusive: selectMeta + " FOR UPDATE",
		oneMoment:     sql.LevelRepeatableRead,
		// Data exceptions, constraint violations, and what a trigger raises. Not a key that exists already (23505): counts are
		// added to that, so it is an id, from a sequence that was not restored together with the table.
		refused:       sqlState("22", "23000", "23001", "23502", "23503", "23514", "23P01", "P0001"),
		checkDeferred: "SET CONSTRAINTS ALL IMMEDIATE",
		// Serialization failure, deadlock, lock not available.
		rolledBack: sqlState("40001", "40P01", "55P03"),
	},
	"mysql": {
		rowsPerStatement: 512,
		growth:           onDuplicate,
		hour:             "TIMESTAMPDIFF(HOUR, '1970-01-01 00:00:00', bucket_hour)",
		at:               "?",
		// As text, so that the zone of the connection string (loc) does not shift it.
		bindHour:        func(h datar.Hour) any { return h.Time().Format("2006-01-02 15:04:05") },
		bindTime:        func(t time.Time) any { return t.UTC().Format("2006-01-02 15:04:05.999999") },
		sentTime:        "SELECT CAST(? AS CHAR)",
		widen:           "ALTER TABLE datar_hourly_events MODIFY COLUMN eval_count bigint NOT NULL DEFAULT 0",
		narrow:          []string{"int"},
		identifier:      "varchar(64) CHARACTER SET ascii COLLATE ascii_bin",
		exact:           "varbinary(63)", // collations ignore case, or spaces at the end
		lockMigration:   "SELECT GET_LOCK(CONCAT('datar migration ', MD5(DATABASE())), 60)",
		unlockMigration: "SELECT RELEASE_LOCK(CONCAT('datar migration ', MD5(DATABASE())))",
		writeTx:         &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		// InnoDB also locks gaps of the unique index, in which writers deadlock although they add in one order.
		lockShared:    selectMeta + " FOR UPDATE",
		lockExclusive: selectMeta + " FOR UPDATE",
		oneMoment:     sql.LevelRepeatableRead,
		// Values out of range or not convertible, constraints of MySQL and MariaDB, and what a trigger signals.
		refused: mysqlNumber(1048, 1216, 1264, 1265, 1292, 1366, 1406, 1452, 1644, 1690, 3819, 4025),
		// Lock wait timeout, deadlock. The former rolls back a statement only, so the transaction ends with the error.
		rolledBack: mysqlNumber(1205, 1213),
	},
}

const (
	// SQLite keeps times as text, with the offset of the zone in which they were bound: Flagr binds the hour in that of
	// its process, so one hour may have several texts.
	sqliteHour   = "CAST(strftime('%s', bucket_hour) AS INTEGER) / 3600"
	sqliteOffset = "substr(bucket_hour, -6) <> '+00:00'"
)

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
