package store

import (
	"database/sql"
	"log/slog"
	"time"

	"gorm.io/gorm"
)

// dialect describes how a database differs from the others.
type dialect struct {
	// open prepares the connections for a connection string, without opening them yet. The logger
	// gets the driver's messages, if the driver has any.
	open func(dsn string, logger *slog.Logger) (target, error)
	// refuses reports whether an error is a final answer of the database, such as a wrong password,
	// a database that does not exist, or a file that is not a database.
	refuses func(error) bool
	// contains is a condition on @column and @text: the column contains the text, ignoring case.
	// The functions have no wildcards, so the text needs no escaping.
	contains string
	// bytes is an expression for the bytes of a text column, %s. It is set if '=' and IN on the
	// column itself use a collation that ignores case, accents or trailing spaces. It is empty if
	// they compare bytes.
	bytes string
	// writeTx and readTx are the options of the two kinds of transaction. All queries of one readTx
	// see the same moment.
	writeTx, readTx *sql.TxOptions
	// tooLong returns the column that a text does not fit in, if the error is about that. It is nil
	// for a database without column limits that a request could reach.
	tooLong func(error) (column string, ok bool)
	// unfit is like tooLong for a text with characters that the column cannot hold.
	unfit func(error) (column string, ok bool)
	// incomparable reports whether an error is about a text with characters that the compared
	// column cannot hold. It is nil for a database without such errors.
	incomparable func(error) bool
	// lockMigration lets one process at a time migrate. It returns 1 when the lock is held, and
	// another value if it timed out. unlockMigration releases the lock if the end of the
	// transaction does not release it.
	lockMigration, unlockMigration string
	// oneWriter is true if only one transaction can write at a time, so that snapshots are
	// committed in the order of their IDs.
	oneWriter bool
	// probe changes nothing, and fails if the database is not writable. It is empty if write
	// transactions fail by themselves.
	probe string
}

// target is a parsed connection string with its connections.
type target struct {
	dialector gorm.Dialector
	pool      pool
	// secrets are the parts of the connection string that must not be shown.
	secrets []string
	// name is the part of the connection string that may be shown: a file, or host and database.
	name string
}

// Limits of the connections to a server. Their lifetime is limited, so that a failover is noticed.
// The idle limit equals the open limit, so that no connection is closed between two bursts: opening
// one costs more than most queries. Unused connections are closed after serverConnectionIdle.
const (
	serverConnections    = 32
	serverConnectionIdle = 5 * time.Minute
	serverConnectionLife = 30 * time.Minute
)

// dialects are the dialects by the name of the driver.
var dialects = map[string]dialect{
	"sqlite3": {
		open:      openSQLite,
		refuses:   refusedBySQLite,
		contains:  "instr(lower(@column), lower(@text)) > 0", // SQLite ignores the case of ASCII letters only
		readTx:    &sql.TxOptions{ReadOnly: true},
		probe:     "DELETE FROM flags WHERE 1 = 0",
		oneWriter: true,
	},
	"postgres": {
		open:     openPostgres,
		refuses:  refusedByPostgres,
		contains: "strpos(lower(@column), lower(@text)) > 0",
		readTx:   &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
		// The number must differ from those of other programs in the same database. It has no
		// other meaning.
		lockMigration: "SELECT 1 FROM pg_advisory_xact_lock(7031988215)",
	},
	"mysql": {
		open:     openMySQL,
		refuses:  refusedByMySQL,
		contains: "locate(lower(@text), lower(@column)) > 0",
		bytes:    "CAST(CONVERT(%s USING utf8mb4) AS BINARY)",
		// The default, repeatable read, locks gaps between index entries. Writers of two flags
		// would deadlock there.
		writeTx:         &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		readTx:          &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
		tooLong:         func(err error) (string, bool) { return columnOf(err, dataTooLong) },
		incomparable:    incomparableForMySQL,
		unfit:           func(err error) (string, bool) { return columnOf(err, incorrectString) },
		lockMigration:   "SELECT GET_LOCK('flagr_datar_migration', 60)",
		unlockMigration: "SELECT RELEASE_LOCK('flagr_datar_migration')",
	},
}

func limitServer(db *sql.DB) {
	db.SetMaxOpenConns(serverConnections)
	db.SetMaxIdleConns(serverConnections)
	db.SetConnMaxIdleTime(serverConnectionIdle)
	db.SetConnMaxLifetime(serverConnectionLife)
}
