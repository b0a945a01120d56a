package gormstore_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

// openSQLite opens a new database file.
func openSQLite(t *testing.T) *gorm.DB {
	t.Helper()
	return openKind(t, testdb.SQLite(), filepath.Join(t.TempDir(), "datar.sqlite"))
}

func newStore(t *testing.T, db *gorm.DB) *gormstore.Store {
	t.Helper()
	s, err := gormstore.New(t.Context(), db, gormstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreOnSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) datar.Store { return newStore(t, openSQLite(t)) })
	storetest.RunIngest(t, func(t *testing.T) storetest.IngestStore { return newStore(t, openSQLite(t)) })
}

func TestStoreIsOpenedAgain(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.Fresh(t)
		storetest.RunReopen(t, func(t *testing.T) datar.Store { return newStore(t, openKind(t, kind, dsn)) })
	})
}

// TestTablesThatAreNotLockedAreLeftAlone checks both failures of MySQL's GET_LOCK: 0 after a
// timeout, and NULL after an error.
func TestTablesThatAreNotLockedAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"SELECT 0", "SELECT NULL"} {
		db := openSQLite(t)
		if err := gormstore.PrepareAfter(t.Context(), db, statement); err == nil || !strings.Contains(err.Error(), "timed out waiting for the migration lock") {
			t.Errorf("%s: error is %v", statement, err)
		}
		if tables, err := db.Migrator().GetTables(); err != nil || len(tables) != 0 {
			t.Errorf("%s: there are %v, %v", statement, tables, err)
		}
		if err := gormstore.PrepareAfter(t.Context(), db, "SELECT 1"); err != nil {
			t.Error(err)
		}
	}
}

func TestFlagrTableIsKept(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	for _, statement := range []string{
		"CREATE TABLE `datar_hourly_events` (`id` integer,`flag_id` integer NOT NULL,`bucket_hour` datetime NOT NULL,`variant_id` integer NOT NULL DEFAULT 0,`segment_id` integer NOT NULL DEFAULT 0,`eval_count` integer NOT NULL DEFAULT 0,`updated_at` datetime,PRIMARY KEY (`id`))",
		"CREATE UNIQUE INDEX `idx_datar_hourly` ON `datar_hourly_events`(`flag_id`,`bucket_hour`,`variant_id`,`segment_id`)",
		"INSERT INTO datar_hourly_events VALUES (1, 1, '2026-11-21 17:00:00+00:00', 2, 3, 40, '2026-11-21 17:10:13.738645572+00:00')",
	} {
		if err := db.Exec(statement).Error; err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t, db)
	newStore(t, db) // a second start changes nothing

	at := time.Date(2026, 11, 21, 17, 30, 0, 0, time.UTC)
	key := datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: datar.HourOf(at)}
	add := datar.Row{Key: key, Count: 2, First: at.UnixMilli(), Last: at.UnixMilli()}
	if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{add}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Totals(t.Context(), datar.TotalsQuery{From: key.Hour, To: key.Hour + 1, GroupBy: datar.ByFlag})
	if err != nil {
		t.Fatal(err)
	}
	if want := (datar.Total{FlagID: 1, Count: 42, Last: at.UnixMilli()}); len(got) != 1 || got[0] != want {
		t.Errorf("totals are %+v, want %+v", got, want)
	}
	var rows int64
	if err := db.Table("datar_hourly_events").Count(&rows).Error; err != nil || rows != 1 {
		t.Errorf("%d rows (%v), want Flagr's row to have grown", rows, err)
	}
}

func TestHoursAreBoundAsUTC(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	s := newStore(t, db)
	zone := time.FixedZone("Asia/Kolkata", 5*3600+1800)
	at := time.Date(2026, 11, 21, 23, 15, 0, 0, zone)
	add := datar.Row{Key: datar.Key{FlagID: 1, Hour: datar.HourOf(at)}, Count: 1, First: at.UnixMilli(), Last: at.UnixMilli()}
	if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{add}}); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := db.Raw("SELECT CAST(bucket_hour AS text) FROM datar_hourly_events").Row().Scan(&text); err != nil {
		t.Fatal(err)
	}
	if want := "2026-11-21 17:00:00+00:00"; text != want {
		t.Errorf("bucket_hour is %q, want %q", text, want)
	}
}

// TestWindowsEndWhereDatabasesDo compares the last hour of a query with the last hour of the
// tables.
func TestWindowsEndWhereDatabasesDo(t *testing.T) {
	t.Parallel()
	_, last, err := datar.Window(nil, new(time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC)), time.Now())
	if err != nil || last != gormstore.LastHour {
		t.Errorf("a window without an end ends at hour %d (%v), want %d", last, err, gormstore.LastHour)
	}
}
