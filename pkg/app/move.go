package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// MoveCounts copies the counts in the database of the flags to the store that
// FLAGR_RECORDER_DATAR_STORE names, and compares them: see chstore.Store.Move. Progress is logged
// to stderr.
func MoveCounts(ctx context.Context, c *config.Config) (err error) {
	if c.Datar.Store == "" {
		return errors.New("--move-counts: FLAGR_RECORDER_DATAR_STORE is empty, want the clickhouse:// or clickhouses:// URL that counts are copied to")
	}
	if c.Database.IsDocument() {
		return fmt.Errorf("--move-counts: FLAGR_DB_DBDRIVER is %s, which has no counts, want sqlite3, postgres or mysql", c.Database.Driver)
	}
	logger := newLogger(c.Log, os.Stderr)
	db, err := store.Open(ctx, store.Options{
		Driver: c.Database.Driver, DSN: c.Database.DSN, LogQueries: c.Database.LogQueries,
		RetryAttempts: c.Database.RetryAttempts, RetryDelay: c.Database.RetryDelay, Logger: logger,
	})
	if err != nil {
		return fmt.Errorf("--move-counts: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return moveCounts(ctx, c, db, logger)
}

func moveCounts(ctx context.Context, c *config.Config, db *store.Store, logger *slog.Logger) error {
	source, err := gormstore.New(ctx, db.DB(), gormstore.Options{Logger: logger})
	if err != nil {
		return fmt.Errorf("--move-counts: open the counts in the database of the flags: %w", err)
	}
	options, err := chstore.ParseURL(c.Datar.Store)
	if err != nil {
		return fmt.Errorf("--move-counts: FLAGR_RECORDER_DATAR_STORE: %w", err)
	}
	target, err := chstore.New(ctx, options)
	if err != nil {
		return fmt.Errorf("--move-counts: %w", err)
	}
	defer target.Close()
	return target.Move(ctx, source, time.Now(), logger)
}
