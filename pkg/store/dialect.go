package store

import (
	"database/sql"
	"log/slog"
	"time"

	"gorm.io/gorm"
)

// dialect is what differs between the databases.
type dialect struct {
	// open prepares the connections that a connection string names, without using them yet. The logger gets what a driver
	// has to say, if it has.
	open func(dsn string, logger *slog.Logger) (target, error)
	// refuses reports that the database has answered, and that its answer will be the same next time: a wrong password, a
	// database that does not exist, a file that is not a database.
	refuses func(error) bool
	// contains is a condition on @column and @text: the one holds the other, whatever the case of letters. The functions
	// have no wildcards, so there is nothing to escape.
	contains string
	// bytes is an expression for the bytes of a column of text, %s, if '=' and IN on the column itself follow a collation
	// that ignores case, accents or trailing spaces; empty if they compare bytes.
	bytes string
	// writeTx and readTx are the options of the two kinds of transaction. All queries of one readTx see the same moment.
	writeTx, readTx *sql.TxOptions
	// tooLong names the column that a text does not fit in, if that is what the error says; nil where none has a limit
	// that a request could reach.
	tooLong func(error) (column string, ok bool)
	// unfit is tooLong for a text with characters that the column cannot hold.
	unfit func(error) (column string, ok bool)
	// incomparable reports that a text has characters that the column it is compared with cannot hold; nil if that cannot be.
	incomparable func(error) bool
	// lockMigration lets one process at a time migrate. It answers 1 once the lock is had, and something else if it gave up.
	// unlockMigration ends it where the transaction's end does not.
	lockMigration, unlockMigration string
	// probe changes nothing, and fails if the database cannot be written; empty if transactions that write fail by themselves.
	probe string
}

// target is an opened connection string.
type target struct {
	dialector gorm.Dialector
	pool      pool
	// secrets are the parts of the connection string that must not be shown.
	secrets []string
	// name is what may be shown of the connection string: a file, or host and database.
	name string
}

// Limits of the connections to a server. They do not live for ever, so that a failover is noticed. None is closed
// between two bursts, since opening one costs more than most queries; those that nobody needs go after a while.
const (
	serverConnections    = 32
	serverConnectionIdle = 5 * time.Minute
	serverConnectionLife = 30 * time.Minute
)

func dialectOf(driver string) (dialect, bool) {
	switch driver {
	case "sqlite3":
		return dialect{
			open:     openSQLite,
			refuses:  refusedBySQLite,
			contains: "instr(lower(@column), lower(@text)) > 0", // SQLite knows the case of ASCII letters only
			readTx:   &sql.TxOptions{ReadOnly: true},
			probe:    "DELETE FROM flags WHERE 1 = 0",
		}, true
	case "postgres":
		return dialect{
			open:     openPostgres,
			refuses:  refusedByPostgres,
			contains: "strpos(lower(@column), lower(@text)) > 0",
			readTx:   &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
			// The number only has to differ from those of other programs in the same database.
			lockMigration: "SELECT 1 FROM pg_advisory_xact_lock(7031988215)",
		}, true
	case "mysql":
		return dialect{
			open:     openMySQL,
			refuses:  refusedByMySQL,
			contains: "locate(lower(@text), lower(@column)) > 0",
			bytes:    "CAST(CONVERT(%s USING utf8mb4) AS BINARY)",
			// The default, repeatable read, locks gaps between index entries, and writers of two flags deadlock there.
			writeTx:         &sql.TxOptions{Isolation: sql.LevelReadCommitted},
			readTx:          &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead},
			tooLong:         func(err error) (string, bool) { return columnOf(err, dataTooLong) },
			incomparable:    incomparableForMySQL,
			unfit:           func(err error) (string, bool) { return columnOf(err, incorrectString) },
			lockMigration:   "SELECT GET_LOCK('flagr_datar_migration', 60)",
			unlockMigration: "SELECT RELEASE_LOCK('flagr_datar_migration')",
		}, true
	default:
		return dialect{}, false
	}
}

func limitServer(db *sql.DB) {
	db.SetMaxOpenConns(serverConnections)
	db.SetMaxIdleConns(serverConnections)
	db.SetConnMaxIdleTime(serverConnectionIdle)
	db.SetConnMaxLifetime(serverConnectionLife)
}
