// Package store keeps flags and their parts in a SQL database.
//
// Every change is one transaction: it locks the flag's row, changes what was asked, writes the flag as it now is into
// flag_snapshots, and notes that snapshot and the author in the flag's row. Errors match entity.ErrInvalid,
// entity.ErrNotFound or entity.ErrDuplicateKey where the request is at fault; all others come from the database.
package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"gorm.io/gorm"
)

// Options says which database to open and how.
type Options struct {
	// Driver is sqlite3, postgres or mysql.
	Driver string
	// DSN is the driver's connection string. It may hold a password and is never logged.
	DSN string
	// LogQueries logs every statement, without its parameters, at debug level.
	LogQueries bool
	// RetryAttempts is how often a failed first connection is tried again, RetryDelay how long to wait in between.
	RetryAttempts uint
	RetryDelay    time.Duration
	// Logger gets the messages of the store; nil means none.
	Logger *slog.Logger
}

// Store reads and writes flags. It is safe for concurrent use.
type Store struct {
	db *gorm.DB
}

var errNotYet = errors.New("not implemented yet")

// Open connects to the database, trying again as Options says, and creates the tables, columns and indexes that are
// missing. It changes nothing that is there already.
func Open(ctx context.Context, o Options) (*Store, error) { return nil, errNotYet }

// DB gives the database for tables that are not the store's own.
func (s *Store) DB() *gorm.DB { return s.db }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return errNotYet }

// Close releases the connections.
func (s *Store) Close() error { return errNotYet }
