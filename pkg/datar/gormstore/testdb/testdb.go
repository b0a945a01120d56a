// Package testdb provides an empty database to each test, of each kind that the server supports.
// SQLite is always available. PostgreSQL and MariaDB are available if the environment names a
// server, as services/run does.
package testdb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/glebarez/go-sqlite" // the driver named sqlite
	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver named pgx
)

// requireServers is an environment variable. If it is 1, a test that needs a missing server fails
// instead of being skipped.
const requireServers = "FLAGR_TEST_REQUIRE_SERVERS"

// administration is the timeout for creating or dropping a database.
const administration = time.Minute

// Kind is a kind of database.
type Kind struct {
	// Name is part of test names, such as postgres15.
	Name string
	// Driver is the value of FLAGR_DB_DBDRIVER: sqlite3, postgres or mysql.
	Driver string
	// variable names the environment variable with the server. It is empty for SQLite, which needs
	// no server.
	variable string
	// sqlDriver is the name of the driver in database/sql.
	sqlDriver string
	// dump is the file under testdata/databases that Flagr 1.2.3 wrote.
	dump string
}

// Kinds returns all kinds, SQLite first.
func Kinds() []Kind {
	return []Kind{
		{Name: "sqlite", Driver: "sqlite3", sqlDriver: "sqlite", dump: "flagr-1.2.3.sqlite"},
		{Name: "postgres10", Driver: "postgres", variable: "FLAGR_TEST_POSTGRES10", sqlDriver: "pgx", dump: "flagr-1.2.3.postgres.sql"},
		{Name: "postgres15", Driver: "postgres", variable: "FLAGR_TEST_POSTGRES15", sqlDriver: "pgx", dump: "flagr-1.2.3.postgres.sql"},
		{Name: "postgres18", Driver: "postgres", variable: "FLAGR_TEST_POSTGRES18", sqlDriver: "pgx", dump: "flagr-1.2.3.postgres.sql"},
		{Name: "mariadb", Driver: "mysql", variable: "FLAGR_TEST_MARIADB", sqlDriver: "mysql", dump: "flagr-1.2.3.mariadb.sql"},
	}
}

// SQLite returns the kind that needs no server.
func SQLite() Kind { return Kinds()[0] }

// OnEach runs a test for each kind, in parallel with all others. The kind is the last part of the
// test's name.
func OnEach(t *testing.T, test func(t *testing.T, kind Kind)) {
	t.Helper()
	onEach(t, Kinds(), test)
}

// OnEachServer is OnEach without SQLite.
func OnEachServer(t *testing.T, test func(t *testing.T, kind Kind)) {
	t.Helper()
	onEach(t, Kinds()[1:], test)
}

func onEach(t *testing.T, kinds []Kind, test func(t *testing.T, kind Kind)) {
	t.Helper()
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			kind.require(t)
			test(t, kind)
		})
	}
}

// require skips the test if there is no server of this kind.
func (k Kind) require(t testing.TB) {
	t.Helper()
	if k.variable == "" || os.Getenv(k.variable) != "" {
		return
	}
	if os.Getenv(requireServers) == "1" {
		t.Fatalf("%s is not set, and %s=1 allows no test to be skipped", k.variable, requireServers)
	}
	t.Skipf("set %s to the connection string of a server, or run the tests with: "+
		"go run ./integration_tests/services/run go test ...", k.variable)
}

// Fresh returns the connection string of an empty database, in the format of
// FLAGR_DB_DBCONNECTIONSTR. The database is removed when the test ends.
func (k Kind) Fresh(t testing.TB) string {
	t.Helper()
	k.require(t)
	if k.variable == "" {
		return filepath.Join(t.TempDir(), "flagr.sqlite")
	}
	server := os.Getenv(k.variable)
	name := "flagr_test_" + strings.ToLower(rand.Text()[:16])
	dsn, err := k.renamed(server, name)
	if err != nil {
		t.Fatalf("%s: %v", k.variable, err)
	}
	k.administer(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		if k.Driver == "postgres" { // it does not drop a database with connections, such as those of a killed server
			k.administer(t, server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"'")
		}
		k.administer(t, server, "DROP DATABASE "+name)
	})
	return dsn
}

// renamed returns the connection string for another database of the server.
func (k Kind) renamed(dsn, name string) (string, error) {
	if k.Driver == "mysql" {
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			return "", err
		}
		config.DBName = name
		return config.FormatDSN(), nil
	}
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return "", fmt.Errorf("want a connection string that begins with postgres://")
	}
	u.Path = "/" + name
	return u.String(), nil
}

// administer runs a statement outside of the test's own database.
func (k Kind) administer(t testing.TB, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), administration)
	defer cancel()
	db, err := sql.Open(k.sqlDriver, server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // nothing is pending
	if _, err := db.ExecContext(ctx, statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}

// Open opens connections to a database in addition to those of the program under test. They are
// closed when the test ends.
func (k Kind) Open(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	if k.Driver == "mysql" {
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		config.ParseTime, config.MultiStatements = true, true
		dsn = config.FormatDSN()
	}
	db, err := sql.Open(k.sqlDriver, dsn)
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

// FreshFromFlagr is Fresh with everything that Flagr 1.2.3 had written into such a database. folder
// contains the recorded databases.
func (k Kind) FreshFromFlagr(t testing.TB, folder string) string {
	t.Helper()
	dsn := k.Fresh(t)
	content, err := os.ReadFile(filepath.Join(folder, k.dump))
	if err != nil {
		t.Fatal(err)
	}
	if k.Driver == "sqlite3" {
		if err := os.WriteFile(dsn, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return dsn
	}
	var script strings.Builder
	for line := range strings.Lines(string(content)) {
		switch {
		case strings.HasPrefix(line, `\`): // a command for psql, not for the server
		case strings.HasPrefix(line, "/*M!999999"): // a command for the client of MariaDB
		case k.Name == "postgres10" && strings.HasPrefix(line, "SET default_table_access_method"): // newer than 10
		default:
			script.WriteString(line)
		}
	}
	db := k.Open(t, dsn)
	// All on one connection, which is then closed: the script changes settings of its session.
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(t.Context(), script.String()); err != nil {
		t.Fatalf("load %s: %v", k.dump, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// Deadlocks returns the number of deadlocks that the server has resolved. PostgreSQL counts those
// of this database, and MariaDB those of all databases. SQLite has no deadlocks.
func (k Kind) Deadlocks(t testing.TB, db *sql.DB) int {
	t.Helper()
	query := map[string]string{
		"postgres": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
		"mysql":    "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_DEADLOCKS'",
	}[k.Driver]
	if query == "" {
		return 0
	}
	var n int
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("count deadlocks: %v", err)
	}
	return n
}
