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

// dialect describes how a database differs from the others.
type dialect struct {
	// rowsPerStatement is the maximum number of rows of one INSERT. It is a power of two unless
	// arrays is set (see BenchmarkFlush).
	rowsPerStatement int
	// arrays is true if an INSERT takes one array for each column, so that its text does not depend
	// on the number of rows. Otherwise it has a VALUES list.
	arrays bool
	// staging is true if a batch with details is written through a temporary table.
	staging bool
	// alias is the name of the existing row in growth. growth completes each INSERT: it defines how
	// an existing row with the same key changes.
	alias  string
	growth map[table]string
	// hour is the expression for the hour of a bucket_hour. at is the expression for the hour of a
	// parameter from bindHour.
	hour, at string
	bindHour func(datar.Hour) any
	// bindTime returns the parameter for a time column.
	bindTime func(time.Time) any
	// sentTime is a query for the text that a column contains after the driver binds a time. It is
	// empty if the column contains an instant, in any time zone.
	sentTime string
	// offsets is a query for an event with a bucket_hour that is not in UTC. It is empty if every
	// bucket_hour is an instant or is in UTC.
	offsets string
	// indexes are needed in addition to those of all databases.
	indexes []index
	// widen makes the count column, which Flagr may have created with 32 bits, 64 bits wide. It is
	// empty if the column always has 64 bits.
	widen string
	// narrow contains the database's names for 32-bit integers, in lower case.
	narrow []string
	// identifier is the type of columns with ASCII text that is compared byte by byte. exact is the
	// type for other text.
	identifier, exact string
	// lockMigration lets one process at a time migrate. It returns 1 when the lock is held, and
	// another value if it timed out. unlockMigration releases the lock if the end of the
	// transaction does not release it.
	lockMigration, unlockMigration string
	// writeTx are the options of write transactions. After waiting for a lock, they must see what
	// others have committed.
	writeTx *sql.TxOptions
	// lock contains the statements that let one transaction at a time add events or make rollups.
	// The end of the transaction releases the lock.
	lock []string
	// oneMoment is the isolation level in which all statements of a transaction see the same state.
	oneMoment sql.IsolationLevel
	// tableOptions are appended to the statements that create tables, except the events table.
	tableOptions string
	// refused reports whether a row caused an error, and will cause it again.
	refused func(error) bool
	// checkDeferred checks the constraints that are otherwise checked at the commit. It is empty if
	// there are no such constraints.
	checkDeferred string
	// rolledBack reports whether the transaction was rolled back and can be retried immediately.
	rolledBack func(error) bool
}

// hourText returns an hour in a statement for users: the text that is bound, or an instant.
func (d *dialect) hourText(h datar.Hour) string {
	if text, ok := d.bindHour(h).(string); ok {
		return text
	}
	return h.Time().Format(hourWithZone)
}

// table is the name of a table to which batches add rows.
type table string

const (
	eventsTable  table = "datar_hourly_events"
	detailsTable table = "datar_hourly_details"
	unknownTable table = "datar_unknown_hourly"
	writersTable table = "datar_writers"
	serversTable table = "datar_servers"
)

// hourWithZone is the layout of an hour in UTC.
const hourWithZone = "2006-01-02 15:04:05+00:00"

// lockName is the row of datar_meta that is locked where a row is.
const lockName = "rollup lock"

var dialects = map[string]dialect{
	"sqlite": {
		rowsPerStatement: 64,
		staging:          true,
		alias:            " AS t",
		growth:           onConflict,
		hour:             sqliteHour,
		at:               "?",
		bindHour:         func(h datar.Hour) any { return h.Time().Format(hourWithZone) },
		bindTime:         func(t time.Time) any { return t.UTC().Format("2006-01-02 15:04:05.999999999+00:00") },
		// In index order. Otherwise SQLite would read all events.
		offsets:      "SELECT 1 FROM datar_hourly_events WHERE " + sqliteOffset + " ORDER BY " + sqliteHour + " LIMIT 1",
		indexes:      []index{{"INDEX", "idx_datar_offset_hour", "datar_hourly_events", sqliteHour, " WHERE " + sqliteOffset}},
		tableOptions: " WITHOUT ROWID", // rows are stored in the tree of their primary key
		identifier:   "varchar(64)",
		exact:        "varchar(63)",
		// There is one writer at a time, whatever it writes.
		lock:       []string{"UPDATE datar_meta SET value = value WHERE name = '" + lockName + "'"},
		refused:    sqliteCode(18, 19, 20), // TOOBIG, CONSTRAINT, MISMATCH
		rolledBack: sqliteCode(5, 6),       // BUSY, LOCKED
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
		// The number must differ from those of other programs in the same database. It has no other
		// meaning.
		lockMigration: "SELECT 1 FROM pg_advisory_xact_lock(7031988216)",
		writeTx:       &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		lock: []string{
			// Otherwise the lock of a server that has lost its network is held until the database
			// closes the connection, by default after two hours.
			"SET LOCAL idle_in_transaction_session_timeout = '1min'",
			// Unlike a transaction that waits for a row, one that waits for a table has no
			// snapshot. A snapshot prevents that old versions of rows are removed, which every
			// flush makes, and each flush reads them.
			"LOCK TABLE datar_meta IN EXCLUSIVE MODE",
		},
		oneMoment: sql.LevelRepeatableRead,
		// Data exceptions, constraint violations, and errors that a trigger raises. An existing key
		// (23505) is not included: INSERT adds to existing counts, so this error is about an ID
		// from a sequence that was not restored together with the table.
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
		// As text, so that the time zone of the connection string (loc) does not shift it.
		bindHour:        func(h datar.Hour) any { return h.Time().Format(time.DateTime) },
		bindTime:        func(t time.Time) any { return t.UTC().Format("2006-01-02 15:04:05.999999") },
		sentTime:        "SELECT CAST(? AS CHAR)",
		widen:           "ALTER TABLE datar_hourly_events MODIFY COLUMN eval_count bigint NOT NULL DEFAULT 0",
		narrow:          []string{"int"},
		identifier:      "varchar(64) CHARACTER SET ascii COLLATE ascii_bin",
		exact:           "varbinary(63)", // collations ignore case, or spaces at the end
		lockMigration:   "SELECT GET_LOCK(CONCAT('datar migration ', MD5(DATABASE())), 60)",
		unlockMigration: "SELECT RELEASE_LOCK(CONCAT('datar migration ', MD5(DATABASE())))",
		writeTx:         &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		// InnoDB also locks gaps of the unique index. Writers deadlock there although they insert
		// in key order.
		lock:      []string{"SELECT name FROM datar_meta WHERE name = '" + lockName + "' FOR UPDATE"},
		oneMoment: sql.LevelRepeatableRead,
		// Values that are out of range or not convertible, constraints of MySQL and MariaDB, and
		// errors that a trigger signals.
		refused: mysqlNumber(1048, 1216, 1264, 1265, 1292, 1366, 1406, 1452, 1644, 1690, 3819, 4025),
		// Lock wait timeout, deadlock. The timeout rolls back only a statement, so the transaction
		// ends with the error.
		rolledBack: mysqlNumber(1205, 1213),
	},
}

const (
	// SQLite stores times as text, with the offset of the time zone in which they were bound. Flagr
	// binds the hour in the time zone of its process, so the same hour can have several texts.
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
