// Package store keeps flags and their parts in a SQL database.
//
// Every change is one transaction. It locks the flag's row, makes the change, writes the resulting
// flag into flag_snapshots, and stores that snapshot's ID and the author in the flag's row. Errors
// match entity.ErrInvalid, entity.ErrNotFound or entity.ErrDuplicateKey if the request is at fault.
// All other errors come from the database. Times are stored and returned in UTC.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Options configures which database Open opens and how.
type Options struct {
	// Driver is sqlite3, postgres or mysql.
	Driver string
	// DSN is the driver's connection string. It may contain a password, so no log line or error
	// repeats it. For sqlite3, it is a path, a file: URI or :memory:, with the driver's options
	// after a '?'.
	DSN string
	// LogQueries logs every statement, without its parameters, at debug level.
	LogQueries bool
	// RetryAttempts is the number of retries of a failed first connection. RetryDelay is the pause
	// before each retry.
	RetryAttempts uint
	RetryDelay    time.Duration
	// AllowReadOnly opens a SQLite file that is not writable, without changing it, instead of
	// returning an error. Store.ReadOnly then returns true, and changes fail.
	AllowReadOnly bool
	// OnChange is called for every change of a flag right after its commit, by the goroutine that
	// made the change. It must return immediately. Nil calls nothing.
	OnChange func(entity.Change)
	// ChangeDetails adds the snapshots before and after to changes.
	ChangeDetails bool
	// Logger logs the messages of the store. Nil logs nothing.
	Logger *slog.Logger
	// Now is the clock for saved times, in any time zone. Nil means time.Now.
	Now func() time.Time
}

// Store reads and writes flags. It is safe for concurrent use.
type Store struct {
	db      *gorm.DB
	pool    pool
	dialect dialect
	// onChange is never nil.
	onChange      func(entity.Change)
	changeDetails bool
	readOnly      bool
}

// ReadOnly reports whether the database was opened without permission to write. See
// Options.AllowReadOnly.
func (s *Store) ReadOnly() bool { return s.readOnly }

// Name returns the part of a connection string that may be shown: the file, or host and name of the
// database. It returns "" if Open would reject the string or the driver.
func Name(driver, dsn string) string {
	d, ok := dialects[driver]
	if !ok {
		return ""
	}
	target, err := d.open(dsn, slog.New(slog.DiscardHandler))
	if err != nil {
		return ""
	}
	_ = target.pool.Close() // no connection was opened yet
	return target.name
}

// pool is what the store needs from its connections in addition to GORM. It is a *sql.DB, or the
// pair of them for SQLite.
type pool interface {
	PingContext(ctx context.Context) error
	io.Closer
}

// Open connects to the database, with the retries of Options, and creates missing tables, columns
// and indexes. It does not change existing ones.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d, ok := dialects[o.Driver]
	if !ok {
		return nil, fmt.Errorf("unknown database driver %q: it must be sqlite3, postgres or mysql", o.Driver)
	}
	target, err := d.open(o.DSN, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("open the %s database: %w", o.Driver, err)
	}
	s := &Store{pool: target.pool, dialect: d, onChange: o.OnChange, changeDetails: o.ChangeDetails}
	if s.onChange == nil {
		s.onChange = func(entity.Change) {}
	}
	err = s.connect(ctx, target, o)
	if cause := (*unwritableError)(nil); o.AllowReadOnly && errors.As(err, &cause) {
		err = s.reopenReadOnly(ctx, o, cause)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the %s database %s: %w", o.Driver, target.name, redact(err, target.secrets)), s.pool.Close())
	}
	return s, nil
}

// reopenReadOnly replaces the connections, which cannot write, with read-only ones.
func (s *Store) reopenReadOnly(ctx context.Context, o Options, cause *unwritableError) error {
	readOnly, err := openSQLiteReadOnly(ctx, o.DSN)
	if err != nil {
		return errors.Join(cause, err)
	}
	if err := s.pool.Close(); err != nil {
		return errors.Join(err, readOnly.pool.Close())
	}
	s.pool, s.readOnly = readOnly.pool, true
	o.Logger.WarnContext(ctx, "the database is read only: "+cause.fact())
	return s.use(readOnly.dialector, o)
}

func (s *Store) connect(ctx context.Context, target target, o Options) error {
	if err := s.pingWithRetries(ctx, target, o); err != nil {
		return err
	}
	if err := s.use(target.dialector, o); err != nil {
		return err
	}
	changes, err := s.migrate(ctx)
	if err != nil {
		if cause := unwritable(target.pool, err); cause != nil {
			return cause
		}
		return fmt.Errorf("create what is missing: %w", err)
	}
	changes.log(ctx, o.Logger, target.name)
	return nil
}

// use sets up GORM over the connections.
func (s *Store) use(dialector gorm.Dialector, o Options) error {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	db, err := gorm.Open(dialector, &gorm.Config{
		NowFunc:              func() time.Time { return now().UTC() },
		Logger:               queryLogger{logger: o.Logger, queries: o.LogQueries},
		TranslateError:       true,
		DisableAutomaticPing: true,
	})
	if err != nil {
		return err
	}
	if err := hideDeleted(db); err != nil {
		return err
	}
	s.db = db
	return nil
}

// parsed returns a statement with the table and schema of a model.
func parsed(db *gorm.DB, model any) (*gorm.Statement, error) {
	statement := &gorm.Statement{DB: db}
	return statement, statement.Parse(model)
}

// hideDeleted makes GORM treat entity.DeletedAt like its own type of that name: unless they are
// unscoped, queries skip deleted rows, and deleting a row marks it.
func hideDeleted(db *gorm.DB) error {
	for _, table := range entity.Tables() {
		statement, err := parsed(db, table)
		if err != nil {
			return err
		}
		field := statement.Schema.LookUpField("DeletedAt")
		statement.Schema.QueryClauses = append(statement.Schema.QueryClauses, gorm.SoftDeleteQueryClause{Field: field})
		statement.Schema.UpdateClauses = append(statement.Schema.UpdateClauses, gorm.SoftDeleteUpdateClause{Field: field})
		statement.Schema.DeleteClauses = append(statement.Schema.DeleteClauses, gorm.SoftDeleteDeleteClause{Field: field})
	}
	return nil
}

// pingWithRetries connects. It retries only while the database does not respond. A rejected
// connection, for example because of a wrong password, is final.
func (s *Store) pingWithRetries(ctx context.Context, target target, o Options) error {
	start := time.Now()
	for attempt := uint(1); ; attempt++ {
		err := target.pool.PingContext(ctx)
		if cause := unwritable(target.pool, err); cause != nil {
			return cause
		}
		if err == nil || ctx.Err() != nil || s.dialect.refuses(err) {
			return err
		}
		waited := time.Since(start).Round(time.Millisecond)
		if attempt > o.RetryAttempts {
			return fmt.Errorf("no answer, tried %d times in %s: %w", attempt, waited, err)
		}
		o.Logger.WarnContext(ctx, "database does not answer, trying again", "driver", o.Driver, "database", target.name,
			"attempt", attempt, "attempts", o.RetryAttempts+1, "delay", o.RetryDelay, "waited", waited, "error", redact(err, target.secrets))
		pause := time.NewTimer(o.RetryDelay)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// DB returns the database for tables that do not belong to the store. On SQLite, its transactions
// wait for each other and for those of the store, unless they are read-only.
func (s *Store) DB() *gorm.DB { return s.db }

// Ping reports whether the database responds.
func (s *Store) Ping(ctx context.Context) error { return s.pool.PingContext(ctx) }

// ReleaseMemory returns the memory of cached pages to the system, if the database runs in this
// process. They are read from the file again when they are needed.
func (s *Store) ReleaseMemory(ctx context.Context) error {
	files, ok := s.pool.(*sqlitePool)
	if !ok {
		return nil
	}
	// All connections of the process share one cache, so one of them releases it.
	_, err := files.readers.ExecContext(ctx, "PRAGMA shrink_memory")
	return explain("release memory", err)
}

// Close closes the connections. It discards an in-memory SQLite database.
func (s *Store) Close() error { return s.pool.Close() }

// read runs queries in one read transaction, so that all of them see the database at one moment.
func (s *Store) read(ctx context.Context, what string, queries func(tx *gorm.DB) error) error {
	return explain("read "+what, s.db.WithContext(ctx).Transaction(queries, s.dialect.readTx))
}

// readShort is read for queries that find their rows by an index, or use all rows that they read.
// On SQLite, the end of ctx ends them only between rows: see uninterrupted.
func (s *Store) readShort(ctx context.Context, what string, queries func(tx *gorm.DB) error) error {
	if files, ok := s.pool.(*sqlitePool); ok && files.readers != files.writer {
		return explain("read "+what, files.read(ctx, s.db, queries))
	}
	return s.read(ctx, what, queries)
}
