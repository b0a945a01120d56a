package integration_tests

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "github.com/glebarez/go-sqlite"
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

// databases lists what the suite runs on: the name of each is the last part of the names of its tests.
var databases = []database{
	{name: "sqlite", driver: "sqlite3", fresh: freshSQLite, open: openSQLite},
}

// onEachDatabase runs a test once for each kind of database, in parallel with all other tests.
func onEachDatabase(t *testing.T, test func(t *testing.T, db database)) {
	t.Helper()
	t.Parallel()
	for _, db := range databases {
		t.Run(db.name, func(t *testing.T) {
			t.Parallel()
			test(t, db)
		})
	}
}

// environ names a database to a server.
func (db database) environ(dsn string) environ {
	return environ{"FLAGR_DB_DBDRIVER": db.driver, "FLAGR_DB_DBCONNECTIONSTR": dsn}
}

func freshSQLite(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "flagr.sqlite")
}

func openSQLite(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
