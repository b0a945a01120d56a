package gormstore_test

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	gomysql "github.com/go-sql-driver/mysql"
	"gorm.io/driver/mysql"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

// openKind connects to a database as a program that uses this package would.
func openKind(t testing.TB, kind testdb.Kind, dsn string) *gorm.DB {
	t.Helper()
	var dialector gorm.Dialector
	switch kind.Driver {
	case "postgres":
		dialector = postgres.Open(dsn)
	case "mysql":
		config, err := gomysql.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		config.ParseTime, config.Loc = true, time.UTC
		dialector = mysql.Open(config.FormatDSN())
	default:
		// Like pkg/store, but with a longer timeout for busy machines, because writers poll for the
		// lock.
		dialector = sqlite.Open(dsn + "?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(300000)&_pragma=cache_size(-3072)")
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestStoreOnServers(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		storetest.Run(t, func(t *testing.T) datar.Store { return newStore(t, openKind(t, kind, kind.Fresh(t))) })
		storetest.RunIngest(t, func(t *testing.T) storetest.IngestStore { return newStore(t, openKind(t, kind, kind.Fresh(t))) })
	})
}

// TestNoDeadlocks checks that writers that share keys, existing and new ones, do not cause
// deadlocks. Each deadlock would cost a repeated batch and an error in a log.
func TestNoDeadlocks(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		const writers, batches, keys = 6, 20, 1500
		dsn := kind.Fresh(t)
		beside := kind.Open(t, dsn)
		before := kind.Deadlocks(t, beside)
		var group sync.WaitGroup
		for w := range writers {
			s := newStore(t, openKind(t, kind, dsn)) // each one is a separate server
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(w), 1))
				for b := range int64(batches) {
					batch := datar.Batch{Writer: fmt.Sprint("writer-", w), Sequence: b + 1}
					for k := range int64(keys) {
						if random.IntN(3) > 0 { // a different selection each time
							hour := datar.Hour(490_000 + b/5) // they add new keys
							ms := hour.Time().UnixMilli()
							key := datar.Key{FlagID: k/10 + 1, VariantID: k % 10, SegmentID: 1, Hour: hour}
							batch.Rows = append(batch.Rows, datar.Row{Key: key, Count: 1, First: ms, Last: ms})
						}
					}
					slices.SortFunc(batch.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
					if err := s.Apply(t.Context(), batch); err != nil {
						t.Errorf("writer %d, batch %d: %v", w, b, err)
					}
				}
			})
		}
		group.Wait()
		if n := kind.Deadlocks(t, beside) - before; n != 0 {
			t.Errorf("%d deadlocks", n)
		}
	})
}

// TestManyStartAtOnce starts replicas at the same time on an empty database. All must start and use
// the same identity.
func TestManyStartAtOnce(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const replicas = 8
		dsn := kind.Fresh(t)
		identities := make([]string, replicas)
		var group sync.WaitGroup
		for i := range replicas {
			db := openKind(t, kind, dsn)
			if kind.Driver == "sqlite3" && i > 1 {
				continue // processes rarely share a file, and two are enough for the test
			}
			group.Go(func() {
				s, err := gormstore.New(t.Context(), db, gormstore.Options{})
				if err != nil {
					t.Errorf("replica %d: %v", i, err)
					return
				}
				identities[i] = s.Identity()
			})
		}
		group.Wait()
		for i, identity := range identities {
			if identity != identities[0] && (identity != "" || kind.Driver != "sqlite3") {
				t.Errorf("replica %d takes the database for %q, the first one for %q", i, identity, identities[0])
			}
		}
	})
}

// TestAStartWaitsForAnother starts a store while another one creates the tables. On SQLite, a
// transaction that has read fails immediately if it then writes while another one writes.
func TestAStartWaitsForAnother(t *testing.T) {
	t.Parallel()
	dsn := testdb.SQLite().Fresh(t)
	other := openKind(t, testdb.SQLite(), dsn).Begin()
	if err := other.Exec("CREATE TABLE others (id integer)").Error; err != nil {
		t.Fatal(err)
	}
	db := openKind(t, testdb.SQLite(), dsn)
	const turns = 20
	refused := 0
	if err := db.Callback().Raw().After("gorm:raw").Register("count", func(statement *gorm.DB) {
		if statement.Error == nil {
			return
		}
		if refused++; refused == turns {
			if err := other.Commit().Error; err != nil {
				t.Error(err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	newStore(t, db)
	if refused < turns {
		t.Errorf("the start was sent away %d times, want %d before it succeeds", refused, turns)
	}
}

// TestRecordsOfAnEarlierVersion opens a database whose servers did not tell about journals, and
// writes the record of one of them again.
func TestRecordsOfAnEarlierVersion(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		at := time.UnixMilli(1_769_000_000_000).UTC()
		record := datar.ServerRecord{Name: "a", Run: "1", Kind: datar.KindServer, Start: at, At: at, FlushInterval: time.Minute}
		if err := newStore(t, db).Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Server: &record}); err != nil {
			t.Fatal(err)
		}
		execute(t, db, "ALTER TABLE datar_servers DROP COLUMN journal")
		s := newStore(t, db)
		if records, err := s.Servers(t.Context()); err != nil || len(records) != 1 || records[0].Journal != nil {
			t.Fatalf("got %+v (%v), want a record that does not tell", records, err)
		}
		record.At, record.Journal = at.Add(time.Minute), &datar.JournalRecord{Adopted: []string{"0"}}
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 2, Server: &record}); err != nil {
			t.Fatal(err)
		}
		if records, err := s.Servers(t.Context()); err != nil || len(records) != 1 || !reflect.DeepEqual(records[0].Journal, record.Journal) {
			t.Errorf("got %+v (%v), want what it found", records, err)
		}
	})
}

// TestOldWritersAreForgotten checks that the ledger keeps only writers of the last 91 days, whose
// batches count once. Others are removed when a server starts, and while it runs.
func TestOldWritersAreForgotten(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		db := openKind(t, kind, kind.Fresh(t))
		s := newStore(t, db)
		row := datar.Row{Key: datar.Key{FlagID: 1, Hour: 1}, Count: 1}
		apply := func(writer string) {
			t.Helper()
			if err := s.Apply(t.Context(), datar.Batch{Writer: writer, Sequence: 5, Rows: []datar.Row{row}}); err != nil {
				t.Fatal(err)
			}
		}
		seen := func(writer string, days int) {
			t.Helper()
			at := time.Now().UTC().AddDate(0, 0, -days)
			if err := db.Exec("UPDATE datar_writers SET updated_at = ? WHERE writer_id = ?", at, writer).Error; err != nil {
				t.Fatal(err)
			}
		}
		wantLeft := func(when string) {
			t.Helper()
			var left []string
			if err := db.Table("datar_writers").Pluck("writer_id", &left).Error; err != nil || !slices.Equal(left, []string{"recent"}) {
				t.Errorf("left %s are %q (%v)", when, left, err)
			}
		}
		apply("recent")
		seen("recent", 90)
		apply("old")
		seen("old", 92)
		s = newStore(t, db)
		wantLeft("by a start")
		apply("older")
		seen("older", 100)
		if err := s.Maintain(t.Context(), time.Now(), 0); err != nil {
			t.Fatal(err)
		}
		wantLeft("by maintenance")
		apply("recent")
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: 0, To: 2, GroupBy: datar.ByFlag})
		if err != nil || len(totals) != 1 || totals[0].Count != 3 {
			t.Errorf("totals are %+v (%v), want 3", totals, err)
		}
	})
}

// TestBatchSentAgainWhileItIsApplied sends a batch again while its first transaction is still open.
// It must count once. The same holds for the first batch of a writer, which has no ledger row to
// wait for.
func TestBatchSentAgainWhileItIsApplied(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.Fresh(t)
		s := newStore(t, openKind(t, kind, dsn))
		hour := datar.Hour(490_000)
		ms := hour.Time().UnixMilli()
		for sequence := int64(1); sequence <= 20; sequence++ {
			batch := datar.Batch{Writer: fmt.Sprint("w", sequence%10), Sequence: sequence}
			for k := range int64(50) {
				batch.Rows = append(batch.Rows, datar.Row{Key: datar.Key{FlagID: k + 1, Hour: hour}, Count: 1, First: ms, Last: ms})
			}
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					if err := s.Apply(t.Context(), batch); err != nil {
						t.Errorf("batch %d: %v", sequence, err)
					}
				})
			}
			group.Wait()
		}
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: hour, To: hour + 1, GroupBy: datar.ByFlag})
		if err != nil || len(totals) != 50 {
			t.Fatalf("totals are %+v (%v), want those of 50 flags", totals, err)
		}
		for _, total := range totals {
			if total.Count != 20 {
				t.Errorf("total is %+v, want 20", total)
			}
		}
	})
}

// TestRefusedRows checks that errors of a single row are distinguished from errors of the database.
// The row is dropped, but after a database error the batch waits until the database is repaired.
func TestRefusedRows(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		year := func(y int) datar.Hour { return datar.HourOf(time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC)) }
		for name, test := range map[string]struct {
			prepare map[string][]string // by driver; a missing driver has no such rows
			row     datar.Row
		}{
			"trigger": {
				prepare: map[string][]string{
					"sqlite3": {"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events WHEN NEW.flag_id = 7 BEGIN SELECT RAISE(ABORT, 'no'); END"},
					"postgres": {
						"CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF NEW.flag_id = 7 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
						"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events FOR EACH ROW EXECUTE PROCEDURE refuse()",
					},
					"mysql": {"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events FOR EACH ROW BEGIN IF NEW.flag_id = 7 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END"},
				},
				row: datar.Row{Key: datar.Key{FlagID: 7, Hour: 1}, Count: 1},
			},
			"check": {
				prepare: map[string][]string{
					"postgres": {"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison CHECK (flag_id <> 7)"},
					"mysql":    {"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison CHECK (flag_id <> 7)"},
				},
				row: datar.Row{Key: datar.Key{FlagID: 7, Hour: 1}, Count: 1},
			},
			"foreign key": {
				prepare: map[string][]string{
					"postgres": {"CREATE TABLE known (id bigint PRIMARY KEY)", "INSERT INTO known VALUES (1)",
						"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison FOREIGN KEY (flag_id) REFERENCES known (id)"},
					"mysql": {"CREATE TABLE known (id bigint PRIMARY KEY)", "INSERT INTO known VALUES (1)",
						"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison FOREIGN KEY (flag_id) REFERENCES known (id)"},
				},
				row: datar.Row{Key: datar.Key{FlagID: 7, Hour: 1}, Count: 1},
			},
			"foreign key at the commit": {
				prepare: map[string][]string{
					"postgres": {"CREATE TABLE known (id bigint PRIMARY KEY)", "INSERT INTO known VALUES (1)",
						"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison FOREIGN KEY (flag_id) REFERENCES known (id) DEFERRABLE INITIALLY DEFERRED"},
				},
				row: datar.Row{Key: datar.Key{FlagID: 7, Hour: 1}, Count: 1},
			},
			"trigger at the commit": {
				prepare: map[string][]string{
					"postgres": {
						"CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF NEW.flag_id = 7 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
						"CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON datar_hourly_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE PROCEDURE refuse()",
					},
				},
				row: datar.Row{Key: datar.Key{FlagID: 7, Hour: 1}, Count: 1},
			},
			"narrow column": {
				prepare: map[string][]string{
					"postgres": {"ALTER TABLE datar_hourly_events ALTER COLUMN eval_count TYPE integer"},
					"mysql":    {"ALTER TABLE datar_hourly_events MODIFY eval_count int NOT NULL"},
				},
				row: datar.Row{Key: datar.Key{FlagID: 1, Hour: 1}, Count: math.MaxInt32 + 1},
			},
			"sum out of range": {
				prepare: map[string][]string{"postgres": nil, "mysql": nil},
				row:     datar.Row{Key: datar.Key{FlagID: 1, Hour: 0}, Count: math.MaxInt64},
			},
			"year of six digits": {
				prepare: map[string][]string{"sqlite3": nil, "postgres": nil, "mysql": nil},
				row:     datar.Row{Key: datar.Key{FlagID: 1, Hour: math.MaxInt32}, Count: 1},
			},
			"year before Christ": {
				prepare: map[string][]string{"sqlite3": nil, "postgres": nil, "mysql": nil},
				row:     datar.Row{Key: datar.Key{FlagID: 1, Hour: year(-5)}, Count: 1},
			},
		} {
			statements, ok := test.prepare[kind.Driver]
			if !ok {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := openKind(t, kind, kind.Fresh(t))
				s := newStore(t, db)
				good := datar.Row{Key: datar.Key{FlagID: 1, Hour: 0}, Count: 1}
				if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{good}}); err != nil {
					t.Fatal(err)
				}
				for _, statement := range statements {
					if err := db.Exec(statement).Error; err != nil {
						t.Fatal(err)
					}
				}
				err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 2, Rows: []datar.Row{test.row}})
				if !errors.Is(err, datar.ErrRefused) {
					t.Errorf("got %v, want ErrRefused", err)
				}
				good.Hour = 1
				if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 2, Rows: []datar.Row{good}}); err != nil {
					t.Errorf("the same number with another row: %v", err)
				}
				totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: -1_000_000, To: math.MaxInt32, GroupBy: datar.ByFlag})
				if err != nil || len(totals) != 1 || totals[0].Count != 2 {
					t.Errorf("totals are %+v (%v), want the 2 good ones", totals, err)
				}
			})
		}
	})
}

// TestRowsThatWereSentInAndAreRefused sends a batch in which one row is rejected, by a trigger or
// by a constraint at the commit. The other rows must be stored, and a repeated batch must get the
// same response.
func TestRowsThatWereSentInAndAreRefused(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		for name, statements := range map[string]map[string][]string{
			"at once": {
				"sqlite3": {"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events WHEN NEW.flag_id = 7 BEGIN SELECT RAISE(ABORT, 'no'); END"},
				"postgres": {
					"CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF NEW.flag_id = 7 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
					"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events FOR EACH ROW EXECUTE PROCEDURE refuse()",
				},
				"mysql": {"CREATE TRIGGER poison BEFORE INSERT ON datar_hourly_events FOR EACH ROW BEGIN IF NEW.flag_id = 7 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END"},
			},
			"at the commit": {
				"postgres": {"CREATE TABLE known AS SELECT id::bigint FROM generate_series(1, 100) id WHERE id <> 7", "ALTER TABLE known ADD PRIMARY KEY (id)",
					"ALTER TABLE datar_hourly_events ADD CONSTRAINT poison FOREIGN KEY (flag_id) REFERENCES known (id) DEFERRABLE INITIALLY DEFERRED"},
			},
		} {
			if statements[kind.Driver] == nil {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := openKind(t, kind, kind.Fresh(t))
				s := newStore(t, db)
				execute(t, db, statements[kind.Driver]...)
				sendRefused(t, s)
			})
		}
	})
}

// sendRefused sends 100 rows, of which the database rejects the row of flag 7.
func sendRefused(t *testing.T, s *gormstore.Store) {
	t.Helper()
	in := ingest.Ingester{Store: s, Flags: numberedFlags{}}
	now := time.Now().UnixMilli()
	var rows []ingest.Row
	for flag := range 100 {
		rows = append(rows, ingest.Row{FlagKey: strconv.Itoa(flag + 1), First: now, Last: now, Count: 3})
	}
	keys := []string{"a key", "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1"}
	for _, key := range keys {
		for i := range 3 {
			got, err := in.Ingest(t.Context(), ingest.Batch{Key: key, Digest: "d", Rows: rows})
			if err != nil || got.Duplicate != (i > 0) || got.AcceptedRows != 99 || got.AcceptedCount != 297 ||
				len(got.Errors) != 1 || got.Errors[0].Index != 6 || got.Errors[0].Code != ingest.Refused {
				t.Errorf("%s, call %d: %+v, %v; want only row 6 refused", key, i, got, err)
			}
		}
	}
	totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: 0, To: math.MaxInt32, GroupBy: datar.ByFlag})
	if err != nil || len(totals) != 99 {
		t.Errorf("%d flags are counted (%v), want 99", len(totals), err)
	}
	for _, total := range totals {
		if total.Count != 3*int64(len(keys)) || total.FlagID == 7 {
			t.Errorf("total %+v", total)
		}
	}
}

// numberedFlags contains every flag whose key is a number, which is also its ID.
type numberedFlags struct{}

func (numberedFlags) FlagByKey(key string) (ingest.Flag, bool) {
	id, err := strconv.ParseInt(key, 10, 64)
	return ingest.Flag{ID: id, RecordsEnabled: true}, err == nil
}

// TestTroubleIsNoRefusal checks errors that are not caused by a row.
func TestTroubleIsNoRefusal(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		for name, test := range map[string]struct {
			trouble func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB // the database to write to
		}{
			"connection closed": {func(t *testing.T, db *gorm.DB, _ string) *gorm.DB {
				pool, err := db.DB()
				if err != nil {
					t.Fatal(err)
				}
				if err := pool.Close(); err != nil {
					t.Fatal(err)
				}
				return db
			}},
			"table missing": {func(t *testing.T, db *gorm.DB, _ string) *gorm.DB {
				if err := db.Exec("DROP TABLE datar_hourly_events").Error; err != nil {
					t.Fatal(err)
				}
				return db
			}},
			"column missing": {func(t *testing.T, db *gorm.DB, _ string) *gorm.DB {
				if err := db.Exec("ALTER TABLE datar_hourly_events DROP COLUMN last_evaluated_ms").Error; err != nil {
					t.Fatal(err)
				}
				return db
			}},
			"ledger missing": {func(t *testing.T, db *gorm.DB, _ string) *gorm.DB {
				if err := db.Exec("DROP TABLE datar_writers").Error; err != nil {
					t.Fatal(err)
				}
				return db
			}},
			"read only": {func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB {
				switch kind.Driver {
				case "postgres":
					return openKind(t, kind, dsn+"&default_transaction_read_only=on")
				case "mysql":
					return openKind(t, kind, dsn+"?tx_read_only=1")
				}
				if err := db.Exec("PRAGMA query_only = 1").Error; err != nil {
					t.Fatal(err)
				}
				return db
			}},
			"no rights": {func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB {
				switch kind.Driver {
				case "postgres":
					role := "r" + strings.ToLower(cryptorand.Text())
					execute(t, db, "CREATE ROLE "+role+" LOGIN PASSWORD 'p'", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
					t.Cleanup(func() { execute(t, db, "DROP OWNED BY "+role, "DROP ROLE "+role) })
					return openKind(t, kind, regexp.MustCompile("//[^@]*@").ReplaceAllString(dsn, "//"+role+":p@"))
				case "mysql":
					config, err := gomysql.ParseDSN(dsn)
					if err != nil {
						t.Fatal(err)
					}
					config.User, config.Passwd = "r"+strings.ToLower(cryptorand.Text()), "p"
					execute(t, db, "CREATE USER "+config.User+"@'%' IDENTIFIED BY 'p'", "GRANT SELECT ON "+config.DBName+".* TO "+config.User+"@'%'")
					t.Cleanup(func() { execute(t, db, "DROP USER "+config.User+"@'%'") })
					return openKind(t, kind, config.FormatDSN())
				}
				t.Skip("SQLite has no accounts")
				return nil
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dsn := kind.Fresh(t)
				db := openKind(t, kind, dsn)
				pool, err := db.DB()
				if err != nil {
					t.Fatal(err)
				}
				pool.SetMaxOpenConns(1) // for settings of a connection
				s := newStore(t, db)
				target := test.trouble(t, db, dsn)
				if target != db {
					s = gormstore.OnTables(target)
				}
				row := datar.Row{Key: datar.Key{FlagID: 1}, Count: 1}
				err = s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{row}})
				if err == nil || errors.Is(err, datar.ErrRefused) {
					t.Errorf("got %v, want an error that is not the row's fault", err)
				}
			})
		}
	})
}

func execute(t *testing.T, db *gorm.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if err := db.WithContext(context.WithoutCancel(t.Context())).Exec(statement).Error; err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}
