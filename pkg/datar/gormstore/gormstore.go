// Package gormstore keeps Datar's counts in a SQL database through GORM: SQLite, PostgreSQL, MySQL
// or MariaDB.
//
// It owns these tables:
//
//   - datar_hourly_events has one row for each flag, variant, segment and hour. It is compatible
//     with the table of that name that Flagr writes.
//   - datar_hourly_details has the same counts and others by outcome, version and how the flag was
//     requested.
//   - datar_unknown_hourly has requests for flags that do not exist.
//   - datar_servers has the statistics of the servers that write.
//   - datar_writers is the ledger: the last applied batch of each writer.
//   - datar_meta has the identity of the database.
//   - datar_rollups, datar_rollup_totals, datar_rollup_outcomes and datar_rollup_details are
//     computed from events and details. They make queries over long windows fast.
//   - datar_receipts has the responses to counts that were sent in.
//
// Options can add a prefix to all of these names. The package does not read or write other tables.
package gormstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

const (
	// forgetAtOnce bounds the number of writers that a start or one call of Maintain removes from
	// the ledger.
	forgetAtOnce = 500

	// The hours that all databases can store: the years 1 to 9999 except the very last hour.
	firstHour, lastHour datar.Hour = -17_259_888, 70_389_527

	// attempts is the number of attempts of a transaction that the database rolls back in favor of
	// another transaction.
	attempts = 5

	// startPatience is how long New retries, even after that many attempts, because other starting
	// servers may be changing the tables.
	startPatience = time.Minute
)

// Options configures a Store. The zero value is a good default.
type Options struct {
	// TablePrefix is the prefix of all table names, such as "shop_": up to 24 lowercase ASCII
	// letters, digits and underscores, starting with a letter. In index names it comes after idx_,
	// as in idx_shop_datar_hourly. Stores with different prefixes share a database but no data.
	TablePrefix string
	// Logger logs what New created or changed in the database. Nil means slog.Default().
	Logger *slog.Logger
	// UnpacedRollups makes Maintain add up old counts without pauses, so that it finishes sooner
	// and uses a whole processor. By default, a long call uses a third of one. It is for programs
	// that do nothing else meanwhile, such as benchmarks.
	UnpacedRollups bool
}

var prefixPattern = regexp.MustCompile(`^([a-z][a-z0-9_]{0,23})?$`)

func (o Options) validate() error {
	if !prefixPattern.MatchString(o.TablePrefix) {
		return fmt.Errorf("datar store: Options.TablePrefix is %q, want up to 24 of a to z, 0 to 9 and _, the first a letter", o.TablePrefix)
	}
	return nil
}

// Store is a datar.Store and a datar.Maintainer in a SQL database.
type Store struct {
	db       *gorm.DB
	dialect  dialect
	prefix   string // of table names
	identity string
	texts    sync.Map // of the longest INSERTs, by table
	changes  migration
	kept     kept
	unpaced  bool // Options.UnpacedRollups

	rollupProgress rollupProgress
}

var (
	_ datar.DetailStore = (*Store)(nil)
	_ datar.Maintainer  = (*Store)(nil)
	_ datar.RollupStore = (*Store)(nil)
	_ ingest.Store      = (*Store)(nil)
)

// New returns a store in the given database. It creates missing tables and columns, and keeps all
// existing rows. The caller owns the connections: the store neither opens nor closes any.
//
// All times are stored in UTC and read as numbers, so parseTime and loc in a connection string of
// MySQL or MariaDB have no effect. There is one exception: if Flagr wrote hours into the table with
// a loc other than UTC, New returns an error that names loc.
func New(ctx context.Context, db *gorm.DB, options Options) (*Store, error) {
	if db == nil || db.Config == nil || db.Dialector == nil {
		return nil, errors.New("datar store: the database is nil, or was not opened by gorm.Open")
	}
	if err := options.validate(); err != nil {
		return nil, err
	}
	dialect, ok := dialects[db.Name()]
	if !ok {
		return nil, fmt.Errorf("datar store: database %q is not supported, want sqlite, postgres or mysql", db.Name())
	}
	db = db.Session(&gorm.Session{
		NewDB: true,
		// A statement has thousands of values, and each write already runs in its own transaction.
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true,
	})
	db.TranslateError = false // of this session only: the dialects check the error codes of the databases
	s := &Store{db: db, dialect: dialect, prefix: options.TablePrefix, kept: kept{most: maxKeptRows}, unpaced: options.UnpacedRollups}
	if err := s.again(ctx, startPatience, func() error {
		return db.WithContext(ctx).Transaction(s.prepare, dialect.writeTx)
	}); err != nil {
		return nil, fmt.Errorf("datar store: migrate: %w", err)
	}
	s.changes.log(ctx, cmp.Or(options.Logger, slog.Default()))
	if err := s.checkZone(db.WithContext(ctx)); err != nil {
		return nil, fmt.Errorf("datar store: %w", err)
	}
	return s, nil
}

// sql adapts a statement to the database and the table prefix. Only table names begin with datar_.
func (s *Store) sql(statement string) string {
	return strings.NewReplacer("datar_", s.prefix+"datar_", "{hour}", s.dialect.hour, "{at}", s.dialect.at).Replace(statement)
}

func newIdentity() string { return strings.ToLower(rand.Text()) }

// Identity implements datar.Store.
func (s *Store) Identity() string { return s.identity }

// Apply implements datar.Store. It rejects hours outside of the years 1 to 9999, which some
// databases cannot store.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	return s.add(ctx, batch.Rows, func(tx *gorm.DB, now time.Time) (bool, error) {
		known, err := s.note(tx, batch.Writer, batch.Sequence, now)
		if known || err != nil {
			return known, err
		}
		return false, s.addBeside(tx, batch)
	}, nil)
}

// addBeside adds the parts of a batch that are not rows.
func (s *Store) addBeside(tx *gorm.DB, batch datar.Batch) error {
	if err := s.insertUnknown(tx, batch.Unknown); err != nil {
		return s.refusal(err)
	}
	if batch.Server != nil {
		return s.writeServer(tx, batch.Server)
	}
	return nil
}

// add calls note and adds the rows, in one transaction. If note returns known, add adds nothing. If
// end is not nil, add rolls back and returns end.
func (s *Store) add(ctx context.Context, rows []datar.Row, note func(tx *gorm.DB, now time.Time) (known bool, err error), end error) error {
	for _, r := range rows {
		if r.Hour < firstHour || r.Hour >= lastHour {
			return fmt.Errorf("%w: the hour %d since 1970 is not in the years 1 to 9999", datar.ErrRefused, r.Hour)
		}
	}
	return s.again(ctx, 0, func() error {
		now := time.Now()
		written := false
		err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if err := s.lock(tx); err != nil {
				return err
			}
			if known, err := note(tx, now); known || err != nil {
				return err
			}
			if err := s.addRows(tx, rows, now); err != nil {
				return err
			}
			if end != nil && s.dialect.checkDeferred != "" {
				if err := tx.Exec(s.dialect.checkDeferred).Error; err != nil {
					return s.refusal(err)
				}
			}
			written = true
			return end
		}, s.dialect.writeTx)
		if err != nil && written && !errors.Is(err, end) { // from the commit, which checks deferred constraints
			return s.refusal(err)
		}
		return err
	})
}

// refusal wraps an error. The result matches datar.ErrRefused if the rows caused the error.
func (s *Store) refusal(err error) error {
	if s.dialect.refused(err) {
		return fmt.Errorf("add counts: %w: %w", datar.ErrRefused, err)
	}
	return fmt.Errorf("add counts: %w", err)
}

// again retries a transaction that the database rolled back in favor of another one. It stops after
// the maximum number of attempts, but not before patience has passed.
func (s *Store) again(ctx context.Context, patience time.Duration, do func() error) error {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil || !s.dialect.rolledBack(err) || attempt >= attempts && time.Since(began) >= patience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(min(attempt, attempts)) * (5*time.Millisecond + mathrand.N(20*time.Millisecond))):
		}
	}
}

// addRows adds the rows to events and details, and deletes the rollups that contain their hours.
func (s *Store) addRows(tx *gorm.DB, rows []datar.Row, now time.Time) error {
	if len(rows) == 0 {
		return nil
	}
	add := s.addToEach
	if s.dialect.staging && slices.ContainsFunc(rows, hasDetail) {
		add = s.addStaged
	}
	if err := add(tx, rows, now); err != nil {
		return s.refusal(err)
	}
	return s.invalidate(tx, rows)
}

func hasDetail(r datar.Row) bool { return r.Outcome != datar.Unattributed }

// addToEach adds rows to events, and the rows with details to details.
func (s *Store) addToEach(tx *gorm.DB, rows []datar.Row, now time.Time) error {
	updated := s.dialect.bindTime(now)
	events := datar.EventRows(rows)
	if err := s.insert(tx, addEvents, len(events), func(values []any, i int) []any {
		r := &events[i]
		return append(values, r.FlagID, s.dialect.bindHour(r.Hour), r.VariantID, r.SegmentID, r.Count, r.Ingested, r.First, r.Last, updated)
	}); err != nil {
		return err
	}
	return s.insertDetails(tx, rows)
}

// note writes the sequence into the ledger, or returns true if the batch is already there. The
// ledger row stays locked until the end of the transaction.
func (s *Store) note(tx *gorm.DB, id string, sequence int64, now time.Time) (known bool, err error) {
	updated := s.dialect.bindTime(now)
	advance := func() (bool, error) {
		done := tx.Exec(s.sql("UPDATE datar_writers SET last_sequence = ?, updated_at = ? WHERE writer_id = ? AND last_sequence < ?"),
			sequence, updated, id, sequence)
		if done.Error != nil {
			return false, fmt.Errorf("note batch: %w", done.Error)
		}
		return done.RowsAffected > 0, nil
	}
	if advanced, err := advance(); advanced || err != nil {
		return false, err
	}
	// There are three cases: the writer is new, the batch was applied before, or the first batch of
	// the writer is sent again after a lost response while it is just being committed. In the last
	// case, this statement waits for the commit.
	if err := tx.Exec(s.sql("INSERT INTO datar_writers (writer_id, last_sequence, updated_at) VALUES (?, 0, ?)"+s.dialect.growth[writersTable]),
		id, updated).Error; err != nil {
		return false, fmt.Errorf("note first batch: %w", err)
	}
	advanced, err := advance()
	return !advanced, err
}

// forget removes writers from the ledger that have not been seen for datar.RecordLifetime. It finds
// them without locking rows.
func (s *Store) forget(db *gorm.DB) error {
	old := s.dialect.bindTime(time.Now().Add(-datar.RecordLifetime))
	var ids []string
	err := db.Raw(s.sql("SELECT writer_id FROM datar_writers WHERE updated_at < ? LIMIT ?"), old, forgetAtOnce).Scan(&ids).Error
	if err != nil || len(ids) == 0 {
		return err
	}
	return db.Exec(s.sql("DELETE FROM datar_writers WHERE writer_id IN ? AND updated_at < ?"), padded(ids), old).Error
}
