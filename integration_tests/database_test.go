package integration_tests

import (
	"database/sql"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// database is a kind of database that the tests run the server on.
type database struct {
	name string
	// driver is the value of FLAGR_DB_DBDRIVER.
	driver string
	// fresh returns the connection string of an empty database for this test.
	fresh func(t *testing.T) string
	// open returns another connection to the database, which is closed when the test ends.
	open func(t *testing.T, dsn string) *sql.DB
}

// databases lists the kinds of databases, SQLite first. Subtests have their names.
var databases = allDatabases()

func allDatabases() []database {
	var all []database
	for _, kind := range testdb.Kinds() {
		all = append(all, databaseOf(kind))
	}
	return all
}

func databaseOf(kind testdb.Kind) database {
	return database{
		name:   kind.Name,
		driver: kind.Driver,
		fresh:  func(t *testing.T) string { t.Helper(); return kind.Fresh(t) },
		open:   func(t *testing.T, dsn string) *sql.DB { t.Helper(); return kind.Open(t, dsn) },
	}
}

// onEachDatabase runs a test on each kind of database, in parallel with all other tests. It skips
// kinds whose server is not configured.
func onEachDatabase(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) { test(t, databaseOf(kind)) })
}

// environ returns the environment variables that configure a server with this database.
func (db database) environ(dsn string) environ {
	return environ{"FLAGR_DB_DBDRIVER": db.driver, "FLAGR_DB_DBCONNECTIONSTR": dsn}
}
