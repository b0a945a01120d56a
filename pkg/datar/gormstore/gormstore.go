// Package gormstore keeps Datar's counts in a SQL database through GORM: SQLite, PostgreSQL, MySQL or MariaDB.
//
// It owns some tables. datar_hourly_events has one row for each flag, variant, segment and hour, and is compatible
// with the table of that name that Flagr writes. datar_writers is the ledger: the last batch of each writer that was
// applied. datar_meta has the identity of the database. datar_rollups and datar_rollup_totals are made from the events,
// to answer queries over long windows fast.
package gormstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	eventsTable  = "datar_hourly_events"
	writersTable = "datar_writers"
	metaTable    = "datar_meta"

	// rowsPerStatement times the 8 columns stays below the smallest limit of bound values, SQLite's 32,766, by far:
	// larger statements were not faster, and they cost memory.
	rowsPerStatement = 500

	// A writer that was not seen for so long is taken out of the ledger. Journals that are older than that are not
	// safe from being counted twice any more.
	writerLifetime = 90 * 24 * time.Hour

	// attempts is how often a batch is tried that the database rolled back in favour of another transaction.
	attempts = 5
)

// hourlyEvent is a row of counts. Its first seven columns are Flagr's; the others may be NULL, as they are in rows that
// Flagr wrote.
type hourlyEvent struct {
	ID         uint      `gorm:"primaryKey"`
	FlagID     int64     `gorm:"not null;uniqueIndex:idx_datar_hourly,priority:1"`
	BucketHour time.Time `gorm:"not null;uniqueIndex:idx_datar_hourly,priority:2;index:idx_datar_bucket_hour"`
	VariantID  int64     `gorm:"not null;default:0;uniqueIndex:idx_datar_hourly,priority:3"`
	SegmentID  int64     `gorm:"not null;default:0;uniqueIndex:idx_datar_hourly,priority:4"`
	EvalCount  int64     `gorm:"not null;default:0"`
	UpdatedAt  time.Time
	// Unix milliseconds: integers compare alike in every database and zone.
	FirstEvaluatedMs *int64
	LastEvaluatedMs  *int64
}

func (hourlyEvent) TableName() string { return eventsTable }

// writer is a row of the ledger.
type writer struct {
	WriterID     string `gorm:"primaryKey;type:varchar(64)"`
	LastSequence int64  `gorm:"not null"`
	UpdatedAt    time.Time
}

func (writer) TableName() string { return writersTable }

// meta is a named value.
type meta struct {
	Name  string `gorm:"primaryKey;type:varchar(64)"`
	Value string `gorm:"type:varchar(64);not null"`
}

func (meta) TableName() string { return metaTable }

// Store is a datar.Store and a datar.Maintainer in a SQL database.
type Store struct {
	db       *gorm.DB
	dialect  dialect
	identity string
	full     string // the upsert of rowsPerStatement rows
}

var (
	_ datar.Store      = (*Store)(nil)
	_ datar.Maintainer = (*Store)(nil)
)

// New returns a store in the given database, whose tables it creates or completes. It keeps all rows that are there.
func New(ctx context.Context, db *gorm.DB) (*Store, error) {
	dialect, ok := dialects[db.Name()]
	if !ok {
		return nil, fmt.Errorf("datar store: database %q is not supported, want sqlite, postgres or mysql", db.Name())
	}
	db = db.Session(&gorm.Session{
		NewDB: true,
		// A statement carries thousands of values; and each write here is in a transaction of its own making.
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true,
	})
	db.TranslateError = false // of this session only: the dialects read the codes of the databases
	s := &Store{db: db, dialect: dialect, full: dialect.upsert(rowsPerStatement)}
	prepare := func() (err error) {
		if err = migrate(db.WithContext(ctx), dialect); err == nil {
			s.identity, err = identity(db.WithContext(ctx))
		}
		if err == nil {
			_, err = metaValue(db.WithContext(ctx), lockName, "")
		}
		return err
	}
	if prepare() != nil {
		// Another replica may have been doing the same just now; then a second look finds it done.
		if err := prepare(); err != nil {
			return nil, fmt.Errorf("datar store: migrate: %w", err)
		}
	}
	return s, nil
}

// identity reads the identity of the database, which the first to look gives it.
func identity(db *gorm.DB) (string, error) {
	return metaValue(db, "identity", strings.ToLower(rand.Text()))
}

// metaValue reads a named value, which it sets first if there is none.
func metaValue(db *gorm.DB, name, initial string) (string, error) {
	var found []meta
	if err := db.Where("name = ?", name).Find(&found).Error; err != nil {
		return "", err
	}
	if len(found) == 1 {
		return found[0].Value, nil
	}
	return initial, db.Create(&meta{Name: name, Value: initial}).Error
}

// Identity implements datar.Store.
func (s *Store) Identity() string { return s.identity }

// Apply implements datar.Store.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	for attempt := 1; ; attempt++ {
		err := s.applyOnce(ctx, batch)
		switch {
		case err == nil:
			return nil
		case s.dialect.refused(err):
			return fmt.Errorf("%w: %w", datar.ErrRefused, err)
		case !s.dialect.rolledBack(err) || attempt == attempts:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(attempt) * (5*time.Millisecond + mathrand.N(20*time.Millisecond))):
		}
	}
}

func (s *Store) applyOnce(ctx context.Context, batch datar.Batch) error {
	now := time.Now().UTC()
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lock(tx, s.dialect.lockShared); err != nil {
			return err
		}
		known, err := note(tx, batch.Writer, batch.Sequence, now)
		if known || err != nil {
			return err
		}
		values := make([]any, 0, min(len(batch.Rows), rowsPerStatement)*len(columns))
		for rows := batch.Rows; len(rows) > 0; {
			chunk := rows[:min(len(rows), rowsPerStatement)]
			rows = rows[len(chunk):]
			values = values[:0]
			for _, r := range chunk {
				values = append(values, r.FlagID, r.Hour.Time(), r.VariantID, r.SegmentID, r.Count, r.First, r.Last, now)
			}
			if err := tx.Exec(s.upsert(len(chunk)), values...).Error; err != nil {
				return fmt.Errorf("add counts: %w", err)
			}
		}
		return invalidate(tx, batch.Rows)
	})
}

func (s *Store) upsert(rows int) string {
	if rows == rowsPerStatement {
		return s.full
	}
	return s.dialect.upsert(rows)
}

// note writes the sequence into the ledger, or reports that it is known. The ledger row stays locked until the
// transaction ends.
func note(tx *gorm.DB, id string, sequence int64, now time.Time) (known bool, err error) {
	updated := tx.Exec("UPDATE "+writersTable+" SET last_sequence = ?, updated_at = ? WHERE writer_id = ? AND last_sequence < ?",
		sequence, now, id, sequence)
	if updated.Error != nil {
		return false, fmt.Errorf("note batch: %w", updated.Error)
	}
	if updated.RowsAffected > 0 {
		return false, nil
	}
	var found writer
	err = tx.Where("writer_id = ?", id).Take(&found).Error
	if err == nil {
		return true, nil // with this sequence or a later one
	}
	if !errors.Is(err, gorm.ErrRecordNotFound) {
		return false, fmt.Errorf("look up writer: %w", err)
	}
	if err := tx.Create(&writer{WriterID: id, LastSequence: sequence, UpdatedAt: now}).Error; err != nil {
		return false, fmt.Errorf("note first batch: %w", err)
	}
	if err := tx.Where("updated_at < ?", now.Add(-writerLifetime)).Delete(&writer{}).Error; err != nil {
		return false, fmt.Errorf("clean up the ledger: %w", err)
	}
	return false, nil
}
