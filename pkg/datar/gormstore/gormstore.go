// Package gormstore keeps Datar's counts in a SQL database through GORM: SQLite, PostgreSQL, MySQL or MariaDB.
//
// It owns some tables. datar_hourly_events has one row for each flag, variant, segment and hour, and is compatible
// with the table of that name that Flagr writes. datar_writers is the ledger: the last batch of each writer that was
// applied. datar_meta has the identity of the database. datar_rollups, datar_rollup_totals and datar_rollup_outcomes are
// made from the events, to answer queries over long windows fast. datar_receipts remembers answers to counts that were
// sent in. Options can put a prefix before all of these names; no other table is read or written.
package gormstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

const (
	eventsTable  = "datar_hourly_events"
	writersTable = "datar_writers"
	metaTable    = "datar_meta"

	// A writer that was not seen for so long is taken out of the ledger. Journals that are older than that are not
	// safe from being counted twice any more. It is a day more than the 90 that rows may be old that are sent in: a row
	// may be dated ahead, and clocks differ.
	writerLifetime = 91 * 24 * time.Hour

	// forgetAtOnce bounds how many writers a start or a maintenance takes out of the ledger.
	forgetAtOnce = 500

	// The hours that every database can keep: all of the years 1 to 9999 but the very last one.
	firstHour, lastHour datar.Hour = -17_259_888, 70_389_527

	// attempts is how often a transaction is tried that the database rolled back in favour of another transaction.
	attempts = 5

	// startPatience is how long a start goes on trying after that: others that start may be changing the tables.
	startPatience = time.Minute
)

// hourlyEvent is a row of counts. Its first seven columns are Flagr's; the others may be NULL, as they are in rows that
// Flagr wrote.
type hourlyEvent struct {
	ID         uint      `gorm:"column:id;primaryKey"`
	FlagID     int64     `gorm:"column:flag_id;not null"`
	BucketHour time.Time `gorm:"column:bucket_hour;not null"`
	VariantID  int64     `gorm:"column:variant_id;not null;default:0"`
	SegmentID  int64     `gorm:"column:segment_id;not null;default:0"`
	EvalCount  int64     `gorm:"column:eval_count;not null;default:0"`
	UpdatedAt  time.Time `gorm:"column:updated_at"`
	// Unix milliseconds: integers compare alike in every database and zone.
	FirstEvaluatedMs *int64 `gorm:"column:first_evaluated_ms"`
	LastEvaluatedMs  *int64 `gorm:"column:last_evaluated_ms"`
	// IngestedCount is how many of EvalCount were counted elsewhere and sent in.
	IngestedCount *int64 `gorm:"column:ingested_count"`
}

// writer is a row of the ledger.
type writer struct {
	WriterID     identifier `gorm:"column:writer_id;primaryKey"`
	LastSequence int64      `gorm:"column:last_sequence;not null"`
	UpdatedAt    time.Time  `gorm:"column:updated_at"`
}

// identifier is text in which upper and lower case differ, which the usual collations of MySQL and MariaDB ignore.
type identifier string

// GormDBDataType implements GORM's interface for types of columns.
func (identifier) GormDBDataType(db *gorm.DB, _ *schema.Field) string {
	return dialects[db.Name()].identifier
}

// meta is a named value.
type meta struct {
	Name  string `gorm:"column:name;primaryKey;type:varchar(64)"`
	Value string `gorm:"column:value;type:varchar(64);not null"`
}

// Options configure a Store. The zero value is a good default.
type Options struct {
	// TablePrefix begins the names of all tables, such as "shop_": up to 24 small letters of ASCII, digits and
	// underscores, of which the first is a letter. In names of indexes it comes after their idx_, as in
	// idx_shop_datar_hourly. Stores with different prefixes share a database and nothing else.
	TablePrefix string
}

var prefixPattern = regexp.MustCompile(`^([a-z][a-z0-9_]{0,23})?$`)

func (o Options) validate() error {
	if !prefixPattern.MatchString(o.TablePrefix) {
		return fmt.Errorf("datar store: Options.TablePrefix is %q, want up to 24 of a to z, 0 to 9 and _, the first a letter", o.TablePrefix)
	}
	return nil
}

// prefix begins the names of tables, and comes after idx_ in those of indexes.
type prefix string

// table is where a statement goes that GORM writes; name is one without the prefix.
func (p prefix) table(db *gorm.DB, name string) *gorm.DB { return db.Table(string(p) + name) }

// in puts the prefix before the names of tables in a statement, which all begin with datar_, as nothing else does.
func (p prefix) in(statement string) string {
	if p == "" {
		return statement
	}
	return strings.ReplaceAll(statement, "datar_", string(p)+"datar_")
}

// Store is a datar.Store and a datar.Maintainer in a SQL database.
type Store struct {
	db       *gorm.DB
	dialect  dialect
	prefix   prefix
	identity string
	full     string // the upsert of as many rows as fit a statement
}

var (
	_ datar.Store      = (*Store)(nil)
	_ datar.Maintainer = (*Store)(nil)
	_ ingest.Store     = (*Store)(nil)
)

// New returns a store in the given database, whose tables it creates or completes. It keeps all rows that are there.
// The connections stay the host's: the store opens and closes none. It takes the times of MySQL and MariaDB as UTC, so
// their connection string needs parseTime=true.
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
	p := prefix(options.TablePrefix)
	dialect = dialect.with(p)
	db = db.Session(&gorm.Session{
		NewDB: true,
		// A statement carries thousands of values; and each write here is in a transaction of its own making.
		Logger:                 logger.Discard,
		SkipDefaultTransaction: true,
	})
	db.TranslateError = false // of this session only: the dialects read the codes of the databases
	s := &Store{db: db, dialect: dialect, prefix: p, full: dialect.upsert(dialect.rowsPerStatement)}
	if err := s.again(ctx, startPatience, func() error {
		return db.WithContext(ctx).Transaction(s.prepare, dialect.writeTx)
	}); err != nil {
		return nil, fmt.Errorf("datar store: migrate: %w", err)
	}
	return s, nil
}

// errLocked is what a replica gets that has waited for its turn in vain.
var errLocked = errors.New("another replica is changing the tables and has not ended in time: start again when it has")

// lockTables runs the statement that waits until no other replica migrates.
func lockTables(tx *gorm.DB, statement string) error {
	var locked sql.NullInt64
	if err := tx.Raw(statement).Scan(&locked).Error; err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return errLocked
	}
	return nil
}

// prepare creates or completes the tables, one replica after the other.
func (s *Store) prepare(tx *gorm.DB) (err error) {
	if s.dialect.lockMigration != "" {
		if err := lockTables(tx, s.dialect.lockMigration); err != nil {
			return fmt.Errorf("lock the tables: %w", err)
		}
	}
	if s.dialect.unlockMigration != "" {
		defer func() { err = errors.Join(err, tx.Exec(s.dialect.unlockMigration).Error) }()
	}
	if err := migrate(tx, s.dialect); err != nil {
		return err
	}
	// The first to look gives the database its identity.
	if s.identity, err = s.metaValue(tx, "identity", strings.ToLower(rand.Text())); err != nil {
		return err
	}
	if _, err := s.metaValue(tx, lockName, ""); err != nil {
		return err
	}
	return s.forget(tx)
}

// metaValue reads a named value, which it sets first if there is none.
func (s *Store) metaValue(db *gorm.DB, name, initial string) (string, error) {
	var found []meta
	if err := s.prefix.table(db, metaTable).Where("name = ?", name).Find(&found).Error; err != nil {
		return "", err
	}
	if len(found) == 1 {
		return found[0].Value, nil
	}
	return initial, s.prefix.table(db, metaTable).Create(&meta{Name: name, Value: initial}).Error
}

// Identity implements datar.Store.
func (s *Store) Identity() string { return s.identity }

// Apply implements datar.Store. It refuses hours outside of the years 1 to 9999, which not every database can keep.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	return s.add(ctx, batch.Rows, func(tx *gorm.DB, now time.Time) (bool, error) {
		return s.note(tx, batch.Writer, batch.Sequence, now)
	}, nil)
}

// add adds the rows in one transaction with what note does before, unless note reports that they are known. Nothing is
// kept if it ends with the error end.
func (s *Store) add(ctx context.Context, rows []datar.Row, note func(tx *gorm.DB, now time.Time) (known bool, err error), end error) error {
	for _, r := range rows {
		if r.Hour < firstHour || r.Hour >= lastHour {
			return fmt.Errorf("%w: the hour %d since 1970 is not in the years 1 to 9999", datar.ErrRefused, r.Hour)
		}
	}
	return s.again(ctx, 0, func() error {
		now := time.Now().UTC()
		written := false
		err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if err := lock(tx, s.dialect.lockShared); err != nil {
				return err
			}
			if known, err := note(tx, now); known || err != nil {
				return err
			}
			if err := s.upsertRows(tx, rows, now); err != nil {
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
		if err != nil && written && !errors.Is(err, end) { // from the commit, where deferred constraints are checked
			return s.refusal(err)
		}
		return err
	})
}

// refusal tells whether an error is the rows' fault.
func (s *Store) refusal(err error) error {
	if s.dialect.refused(err) {
		return fmt.Errorf("add counts: %w: %w", datar.ErrRefused, err)
	}
	return fmt.Errorf("add counts: %w", err)
}

// again does a transaction again that the database rolled back in favour of another one: until it has had its attempts and
// the patience is over.
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

// upsertRows adds the rows in portions, and deletes the rollups that they belong to.
func (s *Store) upsertRows(tx *gorm.DB, rows []datar.Row, now time.Time) error {
	if len(rows) == 0 {
		return nil
	}
	values := make([]any, 0, min(len(rows), s.dialect.rowsPerStatement)*len(columns))
	for left := rows; len(left) > 0; {
		chunk := left[:min(len(left), s.dialect.rowsPerStatement)]
		left = left[len(chunk):]
		values = values[:0]
		for _, r := range chunk {
			values = append(values, r.FlagID, r.Hour.Time(), r.VariantID, r.SegmentID, r.Count, r.Ingested, r.First, r.Last, now)
		}
		if err := tx.Exec(s.upsert(len(chunk)), values...).Error; err != nil {
			return s.refusal(err)
		}
	}
	return s.invalidate(tx, rows)
}

func (s *Store) upsert(rows int) string {
	if rows == s.dialect.rowsPerStatement {
		return s.full
	}
	return s.dialect.upsert(rows)
}

// note writes the sequence into the ledger, or reports that it is known. The ledger row stays locked until the
// transaction ends.
func (s *Store) note(tx *gorm.DB, id string, sequence int64, now time.Time) (known bool, err error) {
	advance := func() (bool, error) {
		updated := tx.Exec(s.prefix.in("UPDATE "+writersTable+" SET last_sequence = ?, updated_at = ? WHERE writer_id = ? AND last_sequence < ?"),
			sequence, now, id, sequence)
		if updated.Error != nil {
			return false, fmt.Errorf("note batch: %w", updated.Error)
		}
		return updated.RowsAffected > 0, nil
	}
	if advanced, err := advance(); advanced || err != nil {
		return false, err
	}
	// The writer is new; or the sequence is known; or the first batch of the writer, whose answer never came, is being
	// committed just now, and this statement waits for that.
	if err := s.prefix.table(tx, writersTable).Clauses(clause.OnConflict{DoNothing: true}).
		Create(&writer{WriterID: identifier(id), UpdatedAt: now}).Error; err != nil {
		return false, fmt.Errorf("note first batch: %w", err)
	}
	advanced, err := advance()
	return !advanced, err
}

// forget takes writers out of the ledger that were not seen for long. It looks for them without locking rows.
func (s *Store) forget(db *gorm.DB) error {
	old := time.Now().UTC().Add(-writerLifetime)
	var ids []string
	err := s.prefix.table(db, writersTable).Where("updated_at < ?", old).Limit(forgetAtOnce).Pluck("writer_id", &ids).Error
	if err != nil || len(ids) == 0 {
		return err
	}
	return s.prefix.table(db, writersTable).Where("writer_id IN ? AND updated_at < ?", ids, old).Delete(&writer{}).Error
}
