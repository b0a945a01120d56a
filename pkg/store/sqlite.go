package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/migrator"
	"gorm.io/gorm/schema"
)

const (
	// sqliteReaders bounds the connections that read a file in parallel.
	sqliteReaders = 8
	// sqliteBusyTimeout is how long a connection waits for a lock of another process, in
	// milliseconds.
	sqliteBusyTimeout = 10_000
	// Error codes: a file must not be opened, cannot be written, or cannot be opened or created.
	sqlitePermission = 3
	sqliteReadOnly   = 8
	sqliteCannotOpen = 14
	// The file is damaged, or is not a database.
	sqliteCorrupt     = 11
	sqliteNotDatabase = 26
)

// sqlitePool sends writes through one connection and reads through others. SQLite lets one
// connection write at a time. Other writers poll, and some may starve. A queue in front of one
// connection is fair. Readers do not wait for the writer, because the file is in WAL mode.
type sqlitePool struct {
	writer, readers *sql.DB
	file            string
	readOnly        bool // the options open it read-only
}

func openSQLite(dsn string, _ *slog.Logger) (target, error) {
	file, options, memory, err := parseSQLite(dsn)
	if err != nil {
		return target{}, err
	}
	name := file + "?" + options.Encode()
	writer, err := sql.Open(sqlite.DriverName, name)
	if err != nil {
		return target{}, err
	}
	writer.SetMaxOpenConns(1)
	p := &sqlitePool{writer: writer, readers: writer, file: file, readOnly: options.Get("mode") == "ro" || options.Get("immutable") == "1"}
	if !memory { // an in-memory database belongs to one connection
		if p.readers, err = sql.Open(sqlite.DriverName, name); err != nil {
			return target{}, errors.Join(err, writer.Close())
		}
		p.readers.SetMaxOpenConns(sqliteReaders)
		p.readers.SetMaxIdleConns(sqliteReaders)
	}
	return target{dialector: sqliteDialector{&sqlite.Dialector{Conn: p}}, pool: p, name: file}, nil
}

// errNoFile reports a file that does not exist and cannot be created.
var errNoFile = errors.New("cannot open or create the file: the path must be that of a file, in a folder that exists and is writable")

func refusedBySQLite(err error) bool {
	return errors.Is(err, errNoFile) || slices.Contains([]int{sqlitePermission, sqliteReadOnly, sqliteCannotOpen, sqliteCorrupt, sqliteNotDatabase}, codeOf(err))
}

// sqliteDialector creates primary keys as plain integers, without the AUTOINCREMENT of the driver's
// dialector. Existing databases have the same columns. IDs are not reused, because no row with an
// ID is ever removed.
type sqliteDialector struct{ *sqlite.Dialector }

func (d sqliteDialector) DataTypeOf(field *schema.Field) string {
	if field.AutoIncrement {
		return "integer"
	}
	return d.Dialector.DataTypeOf(field)
}

func (d sqliteDialector) Migrator(db *gorm.DB) gorm.Migrator {
	return sqlite.Migrator{Migrator: migrator.Migrator{
		Config: migrator.Config{DB: db, Dialector: d, CreateIndexAfterCreateTable: true},
	}}
}

// readText makes the driver read a text unchanged. For a column, the driver looks up the declared
// type of each text, and tries many layouts for times.
func (sqliteDialector) readText(column string) string { return "CAST(`" + column + "` AS TEXT)" }

func (sqliteDialector) readList() string { return "SELECT value FROM json_each(?)" }

// sqliteTime is the layout of times that this server and its driver write.
const sqliteTime = "2006-01-02 15:04:05.999999999-07:00"

// parseTime parses a time of a SQLite file, in one of the layouts that the driver reads. Times
// without a time zone are in UTC.
func parseTime(text string) (time.Time, error) {
	if t, err := time.ParseInLocation(sqliteTime, text, time.UTC); err == nil {
		return t, nil
	}
	if before, _, ok := strings.Cut(text, "m="); ok { // a monotonic clock, from time.Time.String
		text = strings.TrimSpace(before)
	}
	for _, layout := range []string{
		"2006-01-02 15:04:05.999999999 -0700 MST", sqliteTime, "2006-01-02T15:04:05.999999999-07:00", "2006-01-02 15:04:05.999999999",
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, strings.TrimSuffix(text, "Z"), time.UTC); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time", text)
}

// parseSQLite parses a connection string and adds defaults for the options that it does not set.
func parseSQLite(dsn string) (file string, options url.Values, memory bool, err error) {
	file, query, _ := strings.Cut(dsn, "?")
	if file == "" {
		return "", nil, false, errors.New("the connection string is not valid: it must be :memory:, the path of a file, or a file: URI")
	}
	options, err = url.ParseQuery(query)
	if err != nil {
		return "", nil, false, fmt.Errorf("the options after '?' in the connection string are not valid: %w", err)
	}
	if options.Get("_time_format") == "sqlite" {
		options.Del("_time_format") // it is the driver's default, and if it is set, the driver ignores _txlock
	}
	if !options.Has("_txlock") {
		// A transaction that begins with a read could not wait for the lock before its first write.
		options.Set("_txlock", "immediate")
	}
	pragmas := options["_pragma"]
	options.Del("_pragma")
	for _, pragma := range []struct{ name, value string }{
		// Waiting comes first, because changing the journal mode needs a lock.
		{"busy_timeout", fmt.Sprint(sqliteBusyTimeout)},
		{"journal_mode", "WAL"},
		// In KiB. The connections of the process share one cache of all their sizes. Two of them, a
		// reader and the writer, have room for 1,450 pages, and the counts of one flag over a month
		// take some 800. In memory, a page of 4 KiB takes 8.6 KiB.
		{"cache_size", "-3072"},
	} {
		if !hasPragma(pragmas, pragma.name) {
			options.Add("_pragma", pragma.name+"("+pragma.value+")")
		}
	}
	options["_pragma"] = append(options["_pragma"], pragmas...)
	memory = strings.Contains(file, ":memory:") || options.Get("mode") == "memory"
	return file, options, memory, nil
}

func hasPragma(pragmas []string, name string) bool {
	for _, pragma := range pragmas {
		if end := strings.IndexAny(pragma, "(= "); end >= 0 && strings.EqualFold(pragma[:end], name) {
			return true
		}
	}
	return false
}

func (p *sqlitePool) PingContext(ctx context.Context) error {
	err := p.readers.PingContext(ctx) // the writer may be busy
	if codeOf(err) == sqliteCannotOpen && unwritable(p, err) == nil {
		return errNoFile
	}
	return err
}

func (p *sqlitePool) Close() error {
	err := p.writer.Close()
	if p.readers != p.writer {
		err = errors.Join(err, p.readers.Close())
	}
	return err
}

// attaches reports whether a connection can write to another attached file. It cannot if the
// options open the database read-only, or if the database is in memory and so has no spare
// connection.
func (p *sqlitePool) attaches() bool { return p.readers != p.writer && !p.readOnly }

// fill runs statements that read this file, as it is at one moment, and write to the file at path,
// which they refer to as attached.
func (p *sqlitePool) fill(ctx context.Context, path string, statements []string) (err error) {
	connection, err := p.readers.Conn(ctx)
	if err != nil {
		return err
	}
	// Closing the connection detaches the file in any case.
	defer func() { _ = connection.Raw(func(any) error { return driver.ErrBadConn }) }()
	if _, err := connection.ExecContext(ctx, "ATTACH DATABASE ? AS "+attached, path); err != nil {
		return err
	}
	before := []string{"PRAGMA " + attached + ".journal_mode = OFF", "PRAGMA " + attached + ".synchronous = OFF", "BEGIN"}
	for _, statement := range slices.Concat(before, statements, []string{"COMMIT"}) {
		if _, err := connection.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// uninterrupted is a context whose end database/sql and the driver do not notice. For one that can
// end, they start a goroutine for each transaction and two for each query. Each of them wakes a
// thread, which is a tenth of the CPU time of a short list.
type uninterrupted struct{ context.Context } //nolint:containedctx // it is a context

func (uninterrupted) Done() <-chan struct{} { return nil }

// uninterrupted runs queries on one connection, for which it waits until ctx ends. They are
// uninterrupted.
func (p *sqlitePool) uninterrupted(ctx context.Context, db *gorm.DB, queries func(tx *gorm.DB) error) (err error) {
	connection, err := p.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := connection.Close(); !errors.Is(closeErr, sql.ErrConnDone) { // it is closed if it was broken
			err = errors.Join(err, closeErr)
		}
	}()
	tx := db.Session(&gorm.Session{Context: uninterrupted{ctx}})
	tx.Statement.ConnPool = connection
	return queries(tx)
}

// read runs queries in one read transaction. They are uninterrupted.
func (p *sqlitePool) read(ctx context.Context, db *gorm.DB, queries func(tx *gorm.DB) error) error {
	return p.uninterrupted(ctx, db, func(tx *gorm.DB) (err error) {
		connection, ctx := tx.Statement.ConnPool.(*sql.Conn), tx.Statement.Context
		if _, err := connection.ExecContext(ctx, "BEGIN"); err != nil {
			return err
		}
		defer func() { // also if queries panics
			if _, endErr := connection.ExecContext(ctx, "COMMIT"); endErr != nil {
				_ = connection.Raw(func(any) error { return driver.ErrBadConn }) // so that no later query is part of the transaction
				err = errors.Join(err, endErr)
			}
		}()
		return queries(tx)
	})
}

// BeginTx starts a transaction. Unless it is read-only, it waits for the write connection.
func (p *sqlitePool) BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error) {
	if options != nil && options.ReadOnly {
		return p.readers.BeginTx(ctx, options)
	}
	return p.writer.BeginTx(ctx, options)
}

// ExecContext runs a statement that returns no rows.
func (p *sqlitePool) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return p.writer.ExecContext(ctx, query, args...)
}

// PrepareContext prepares a statement, which may write.
func (p *sqlitePool) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return p.writer.PrepareContext(ctx, query)
}

// QueryContext runs a query.
func (p *sqlitePool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return p.readers.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a query that returns one row.
func (p *sqlitePool) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return p.readers.QueryRowContext(ctx, query, args...)
}

// GetDBConn returns the connection that may write.
func (p *sqlitePool) GetDBConn() (*sql.DB, error) { return p.writer, nil }

var (
	_ gorm.ErrorTranslator = sqliteDialector{}
	_ gorm.ConnPool        = (*sqlitePool)(nil)
	_ gorm.TxBeginner      = (*sqlitePool)(nil)
	_ gorm.GetDBConnector  = (*sqlitePool)(nil)
)
