package gormstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// hourlyEvent is a row of counts. Its first seven columns are Flagr's. The others may be NULL, as
// they are in rows that Flagr wrote.
type hourlyEvent struct {
	ID         uint      `gorm:"column:id;primaryKey"`
	FlagID     int64     `gorm:"column:flag_id;not null"`
	BucketHour time.Time `gorm:"column:bucket_hour;not null"`
	VariantID  int64     `gorm:"column:variant_id;not null;default:0"`
	SegmentID  int64     `gorm:"column:segment_id;not null;default:0"`
	EvalCount  int64     `gorm:"column:eval_count;not null;default:0"`
	UpdatedAt  time.Time `gorm:"column:updated_at"`
	// Unix milliseconds: integers compare the same in every database and time zone.
	FirstEvaluatedMs *int64 `gorm:"column:first_evaluated_ms"`
	LastEvaluatedMs  *int64 `gorm:"column:last_evaluated_ms"`
	// IngestedCount is the part of EvalCount that was counted elsewhere and sent in.
	IngestedCount *int64 `gorm:"column:ingested_count"`
}

// writer is a row of the ledger.
type writer struct {
	WriterID     identifier `gorm:"column:writer_id;primaryKey"`
	LastSequence int64      `gorm:"column:last_sequence;not null"`
	UpdatedAt    time.Time  `gorm:"column:updated_at"`
}

// meta is a named value.
type meta struct {
	Name  string `gorm:"column:name;primaryKey;type:varchar(64)"`
	Value string `gorm:"column:value;type:varchar(64);not null"`
}

// receipt is the response to a batch that was sent in.
type receipt struct {
	// KeyHash is the SHA-256 of the sender's key, in hex, because keys are longer and more varied
	// than columns allow.
	KeyHash   string    `gorm:"column:key_hash;primaryKey;type:char(64)"`
	Digest    string    `gorm:"column:digest;type:varchar(64);not null"`
	Answer    string    `gorm:"column:answer"`
	CreatedAt time.Time `gorm:"column:created_at"`
}

// rollup records that the rollup of a kind over a span exists.
type rollup struct {
	Kind      int16 `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour int64 `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	// Purged is true if the span's hourly events were moved into the rollup.
	Purged bool `gorm:"column:purged;not null;default:false"`
	// Made is a random number that identifies the rollup: a new rollup of the same span gets a new
	// number. It is 0 if an older version made the rollup.
	Made int64 `gorm:"column:made;not null;default:0"`
}

// rollupTotal is the total of one flag over a span.
type rollupTotal struct {
	Kind            int16  `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour       int64  `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	FlagID          int64  `gorm:"column:flag_id;primaryKey;autoIncrement:false"`
	EvalCount       int64  `gorm:"column:eval_count;not null"`
	LastEvaluatedMs *int64 `gorm:"column:last_evaluated_ms"`
}

// rollupOutcome is the total of one variant and segment of a flag over a span.
type rollupOutcome struct {
	Kind            int16  `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour       int64  `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	FlagID          int64  `gorm:"column:flag_id;primaryKey;autoIncrement:false"`
	VariantID       int64  `gorm:"column:variant_id;primaryKey;autoIncrement:false"`
	SegmentID       int64  `gorm:"column:segment_id;primaryKey;autoIncrement:false"`
	EvalCount       int64  `gorm:"column:eval_count;not null"`
	IngestedCount   int64  `gorm:"column:ingested_count;not null"`
	LastEvaluatedMs *int64 `gorm:"column:last_evaluated_ms"`
}

// hourlyDetail is a row of counts by all parts of a key. Its events are counted in hourlyEvent,
// too. The primary key begins with the hour, so it needs no other index and grows at its end, which
// makes flushes cheapest.
type hourlyDetail struct {
	BucketHour time.Time `gorm:"column:bucket_hour;primaryKey"`
	FlagID     int64     `gorm:"column:flag_id;primaryKey;autoIncrement:false"`
	VariantID  int64     `gorm:"column:variant_id;primaryKey;autoIncrement:false"`
	SegmentID  int64     `gorm:"column:segment_id;primaryKey;autoIncrement:false"`
	// Outcome is a datar.Outcome. Text would double PostgreSQL's time to insert a row.
	Outcome int16 `gorm:"column:outcome;primaryKey;autoIncrement:false"`
	Version int32 `gorm:"column:version;primaryKey;autoIncrement:false"`
	// Asked contains the bits of datar.Asked.
	Asked            int16 `gorm:"column:asked;primaryKey;autoIncrement:false"`
	EvalCount        int64 `gorm:"column:eval_count;not null"`
	IngestedCount    int64 `gorm:"column:ingested_count;not null"`
	FirstEvaluatedMs int64 `gorm:"column:first_evaluated_ms;not null"`
	LastEvaluatedMs  int64 `gorm:"column:last_evaluated_ms;not null"`
}

// outcomeName names an outcome, for manual queries.
type outcomeName struct {
	Outcome int16  `gorm:"column:outcome;primaryKey;autoIncrement:false"`
	Name    string `gorm:"column:name;type:varchar(16);not null"`
}

// hourlyUnknown counts requests for flags that do not exist.
type hourlyUnknown struct {
	BucketHour       time.Time `gorm:"column:bucket_hour;primaryKey"`
	Asked            exactText `gorm:"column:asked;primaryKey"`
	EvalCount        int64     `gorm:"column:eval_count;not null"`
	FirstEvaluatedMs int64     `gorm:"column:first_evaluated_ms;not null"`
	LastEvaluatedMs  int64     `gorm:"column:last_evaluated_ms;not null"`
}

// rollupPack contains the details of some flags over a span. See packs.go.
type rollupPack struct {
	Kind      int16  `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour int64  `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	Pack      int64  `gorm:"column:pack;primaryKey;autoIncrement:false"`
	Details   []byte `gorm:"column:details;not null"`
}

// identifier is case-sensitive text. The default collations of MySQL and MariaDB ignore case.
type identifier string

// GormDBDataType implements GORM's interface for column types.
func (identifier) GormDBDataType(db *gorm.DB, _ *schema.Field) string {
	return dialects[db.Name()].identifier
}

// exactText is any text of at most 63 bytes.
type exactText string

// GormDBDataType implements GORM's interface for column types.
func (exactText) GormDBDataType(db *gorm.DB, _ *schema.Field) string {
	return dialects[db.Name()].exact
}

// index is an index that GORM does not create with the table, because its name contains the prefix.
type index struct {
	kind, name, table, columns string
	// condition selects the rows in the index. Empty means all rows.
	condition string
}

var indexes = []index{
	{"UNIQUE INDEX", "idx_datar_hourly", "datar_hourly_events", "flag_id, bucket_hour, variant_id, segment_id", ""},
	{"INDEX", "idx_datar_bucket_hour", "datar_hourly_events", "bucket_hour", ""},
	{"INDEX", "idx_datar_receipts_created_at", "datar_receipts", "created_at", ""},
}

// errLocked reports a timeout while waiting for the migration lock.
var errLocked = errors.New("timed out waiting for the migration lock: another replica is changing the tables; start again when it has ended")

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

// prepare creates missing tables, columns and indexes, in one replica at a time.
func (s *Store) prepare(tx *gorm.DB) (err error) {
	if s.dialect.lockMigration != "" {
		if err := lockTables(tx, s.dialect.lockMigration); err != nil {
			return fmt.Errorf("lock the tables: %w", err)
		}
	}
	if s.dialect.unlockMigration != "" {
		defer func() { err = errors.Join(err, tx.Exec(s.dialect.unlockMigration).Error) }()
	}
	if err := s.migrate(tx); err != nil {
		return err
	}
	// The first process to start sets the identity of the database.
	if s.identity, err = s.metaValue(tx, "identity", newIdentity()); err != nil {
		return err
	}
	if _, err := s.metaValue(tx, lockName, ""); err != nil {
		return err
	}
	if _, err := s.metaValue(tx, editedName, ""); err != nil {
		return err
	}
	return s.forget(tx)
}

// migration lists what was missing in a database and was created, and what was changed.
type migration struct {
	kept    int // tables that existed
	changes []string
}

func (m *migration) add(change string) { m.changes = append(m.changes, change) }

// log logs the changes, as a warning if tables of Datar existed before.
func (m *migration) log(ctx context.Context, logger *slog.Logger) {
	switch {
	case len(m.changes) == 0:
	case m.kept == 0:
		logger.InfoContext(ctx, "tables of Datar created", "tables", len(m.changes))
	default:
		logger.WarnContext(ctx, "tables of Datar migrated", "changes", strings.Join(m.changes, ", "))
	}
}

// migrate creates what is missing. In a table that Flagr created, it only adds columns and widens
// the count. Flagr works with both changes.
func (s *Store) migrate(db *gorm.DB) error {
	m := db.Migrator()
	s.changes = migration{} // of an attempt that was rolled back
	for _, t := range []struct {
		name, options string
		model         any
	}{
		{"datar_writers", s.dialect.tableOptions, &writer{}},
		{"datar_meta", s.dialect.tableOptions, &meta{}},
		{"datar_rollups", s.dialect.tableOptions, &rollup{}},
		{"datar_rollup_totals", s.dialect.tableOptions, &rollupTotal{}},
		{"datar_rollup_outcomes", s.dialect.tableOptions, &rollupOutcome{}},
		{"datar_receipts", s.dialect.tableOptions, &receipt{}},
		{"datar_rollup_details", "", &rollupPack{}}, // its values are too long for the tree of the primary key
		{"datar_hourly_details", s.dialect.tableOptions, &hourlyDetail{}},
		{"datar_outcomes", s.dialect.tableOptions, &outcomeName{}},
		{"datar_unknown_hourly", s.dialect.tableOptions, &hourlyUnknown{}},
		{"datar_servers", s.dialect.tableOptions, &serverRun{}},
		{"datar_hourly_events", "", &hourlyEvent{}},
	} {
		name := s.sql(t.name)
		if m.HasTable(name) {
			s.changes.kept++
			continue
		}
		s.changes.add("table " + name)
		if err := db.Table(name).Set("gorm:table_options", t.options).Migrator().CreateTable(t.model); err != nil {
			return err
		}
	}
	if err := s.rebuildPacks(db); err != nil {
		return fmt.Errorf("rebuild %s: %w", s.sql(packTable), err)
	}
	rollups := db.Table(s.sql("datar_rollups")).Migrator()
	if !rollups.HasColumn(&rollup{}, "Made") {
		s.changes.add("column made of " + s.sql("datar_rollups"))
		if err := rollups.AddColumn(&rollup{}, "Made"); err != nil {
			return err
		}
	}
	servers := db.Table(s.sql("datar_servers")).Migrator()
	if !servers.HasColumn(&serverRun{}, "Journal") {
		s.changes.add("column journal of " + s.sql("datar_servers"))
		if err := servers.AddColumn(&serverRun{}, "Journal"); err != nil {
			return err
		}
	}
	events := db.Table(s.sql("datar_hourly_events")).Migrator()
	for _, column := range []string{"FirstEvaluatedMs", "LastEvaluatedMs", "IngestedCount"} {
		if !events.HasColumn(&hourlyEvent{}, column) {
			s.changes.add("column " + column + " of " + s.sql("datar_hourly_events"))
			if err := events.AddColumn(&hourlyEvent{}, column); err != nil {
				return err
			}
		}
	}
	for _, i := range append(slices.Clip(indexes), s.dialect.indexes...) {
		if m.HasIndex(s.sql(i.table), s.sql(i.name)) {
			continue
		}
		if err := db.Exec(s.sql("CREATE " + i.kind + " " + i.name + " ON " + i.table + " (" + i.columns + ")" + i.condition)).Error; err != nil {
			return err
		}
	}
	if err := s.nameOutcomes(db); err != nil {
		return err
	}
	return s.widenCounts(db, events)
}

// rebuildPacks copies the packs of SQLite into a table with row IDs if a previous version created
// the table without them. With its rows in the tree of the primary key, SQLite reads eight levels
// to find a pack, and other packs on each level. The copy takes some seconds for 100 MB.
func (s *Store) rebuildPacks(db *gorm.DB) error {
	if s.dialect.tableOptions == "" {
		return nil
	}
	table := s.sql(packTable)
	var created string
	if err := db.Raw("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", table).Row().Scan(&created); err != nil {
		return err
	}
	if !strings.HasSuffix(strings.TrimSpace(created), strings.TrimSpace(s.dialect.tableOptions)) {
		return nil
	}
	s.changes.add("table " + table + " with row ids")
	if err := db.Exec("ALTER TABLE " + table + " RENAME TO " + table + "_before").Error; err != nil {
		return err
	}
	if err := db.Table(table).Migrator().CreateTable(&rollupPack{}); err != nil {
		return err
	}
	for _, statement := range []string{
		"INSERT INTO " + table + " (span, start_hour, pack, details) SELECT span, start_hour, pack, details FROM " + table + "_before",
		"DROP TABLE " + table + "_before",
	} {
		if err := db.Exec(statement).Error; err != nil {
			return err
		}
	}
	return nil
}

// nameOutcomes inserts missing names of outcomes.
func (s *Store) nameOutcomes(db *gorm.DB) error {
	var named []int64
	if err := db.Raw(s.sql("SELECT outcome FROM datar_outcomes")).Scan(&named).Error; err != nil {
		return err
	}
	for o := datar.Unattributed; o <= datar.NotFound; o++ {
		if slices.Contains(named, int64(o)) {
			continue
		}
		if err := db.Exec(s.sql("INSERT INTO datar_outcomes (outcome, name) VALUES (?, ?)"), int64(o), o.String()).Error; err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) widenCounts(db *gorm.DB, events gorm.Migrator) error {
	if s.dialect.widen == "" {
		return nil
	}
	types, err := events.ColumnTypes(&hourlyEvent{})
	if err != nil {
		return err
	}
	for _, column := range types {
		if column.Name() != "eval_count" {
			continue
		}
		for _, narrow := range s.dialect.narrow {
			if strings.EqualFold(column.DatabaseTypeName(), narrow) {
				s.changes.add("eval_count widened to 64 bits")
				return db.Exec(s.sql(s.dialect.widen)).Error
			}
		}
	}
	return nil
}

// metaValue reads a named value. If the value does not exist, metaValue sets it to initial first.
func (s *Store) metaValue(db *gorm.DB, name, initial string) (string, error) {
	var found []string
	if err := db.Raw(s.sql("SELECT value FROM datar_meta WHERE name = ?"), name).Scan(&found).Error; err != nil {
		return "", err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return initial, db.Exec(s.sql("INSERT INTO datar_meta (name, value) VALUES (?, ?)"), name, initial).Error
}

// checkZone rejects a database of MySQL or MariaDB if its connections shift times to a time zone
// other than UTC and Flagr wrote hours through such connections. This store writes and reads hours
// in UTC.
func (s *Store) checkZone(db *gorm.DB) error {
	if s.dialect.sentTime == "" {
		return nil
	}
	for _, month := range []time.Month{time.January, time.July} { // with and without daylight saving time
		sent := time.Date(2026, month, 1, 12, 0, 0, 0, time.UTC)
		var got string
		if err := db.Raw(s.dialect.sentTime, sent).Row().Scan(&got); err != nil {
			return fmt.Errorf("find the zone of the connection: %w", err)
		}
		if strings.HasPrefix(got, sent.Format("2006-01-02 15:04:05")) {
			continue
		}
		var flagr int64
		if err := db.Raw(s.sql("SELECT COUNT(*) FROM (SELECT 1 FROM datar_hourly_events WHERE first_evaluated_ms IS NULL LIMIT 1) AS f")).Scan(&flagr).Error; err != nil {
			return fmt.Errorf("look for rows that Flagr wrote: %w", err)
		}
		if flagr == 0 {
			return nil
		}
		return fmt.Errorf("the connection string's loc turns %s into %s, and %s has rows that Flagr wrote in that zone, while this store keeps hours in UTC: "+
			"stop Flagr, convert its rows as docs/datar.md (\"Convert hours that Flagr wrote with loc\") shows, and remove loc", sent.Format(time.RFC3339), got, s.sql("datar_hourly_events"))
	}
	return nil
}
