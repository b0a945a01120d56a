package integration_tests

import (
	"database/sql"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// database is one kind of database that the server runs on.
type database struct {
	name string
	// driver is the value of FLAGR_DB_DBDRIVER.
	driver string
	// fresh returns the connection string of an empty database that only this test uses.
	fresh func(t *testing.T) string
	// open connects to the database beside the server. The connection is closed when the test ends.
	open func(t *testing.T, dsn string) *sql.DB
}

// databases lists what the suite runs on, SQLite first: the name of each is the last part of the names of its tests.
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

// onEachDatabase runs a test once for each kind of database, in parallel with all other tests. Kinds whose server is not
// there are skipped.
func onEachDatabase(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) { test(t, databaseOf(kind)) })
}

// environ names a database to a server.
func (db database) environ(dsn string) environ {
	return environ{"FLAGR_DB_DBDRIVER": db.driver, "FLAGR_DB_DBCONNECTIONSTR": dsn}
}
