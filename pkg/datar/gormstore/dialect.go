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
	// lockMigration lets one process at a time migrate; unlockMigration ends it where the transaction's end does not.
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
	// rolledBack tells errors after which the transaction is gone, and may be tried again at once.
	rolledBack func(error) bool
}

const selectMeta = "SELECT name FROM " + metaTable + " WHERE name = ?"

var dialects = map[string]dialect{
	"sqlite": {
		identifier: "varchar(64)",
