package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func TestSQLiteConnectionStrings(t *testing.T) {
	t.Parallel()
	const (
		wal    = "&_txlock=immediate"
		busy   = "_pragma=busy_timeout%2810000%29"
		cache  = "&_pragma=cache_size%28-3072%29"
		normal = busy + "&_pragma=journal_mode%28WAL%29" + cache
	)
	for name, c := range map[string]struct {
		dsn, file, options string
		memory             bool
	}{
		"path":             {"flagr.sqlite", "flagr.sqlite", normal + wal, false},
		"options of users": {"a.db?_pragma=journal_mode(DELETE)&_pragma=foreign_keys(1)", "a.db", busy + cache + "&_pragma=journal_mode%28DELETE%29&_pragma=foreign_keys%281%29" + wal, false},
		"other spellings":  {"a.db?_pragma=Busy_Timeout%3D5&_txlock=deferred", "a.db", "_pragma=journal_mode%28WAL%29" + cache + "&_pragma=Busy_Timeout%3D5&_txlock=deferred", false},
		"time format":      {"a.db?_time_format=sqlite", "a.db", normal + wal, false},
		"URI":              {"file:/tmp/a.db?cache=private", "file:/tmp/a.db", normal + wal + "&cache=private", false},
		"memory":           {":memory:", ":memory:", normal + wal, true},
		"memory URI":       {"file::memory:?cache=shared", "file::memory:", normal + wal + "&cache=shared", true},
		"named memory":     {"file:x?mode=memory", "file:x", normal + wal + "&mode=memory", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, options, memory, err := parseSQLite(c.dsn)
			ok(t, err)
			if file != c.file || options.Encode() != c.options || memory != c.memory {
				t.Errorf("got %s, %s, %t", file, options.Encode(), memory)
			}
		})
	}
}

// TestEveryKindOfSQLiteDatabaseWorks checks that the store works the same on every kind of file and
// memory.
func TestEveryKindOfSQLiteDatabaseWorks(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, c := range map[string]struct{ dsn, file string }{
		"path":          {filepath.Join(folder, "a b.sqlite"), "a b.sqlite"},
		"URI":           {"file:" + filepath.Join(folder, "c%20d.sqlite") + "?mode=rwc", "c d.sqlite"},
		"memory":        {":memory:", ""},
		"memory URI":    {"file::memory:", ""},
		"shared memory": {"file:everykind?mode=memory&cache=shared", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openFile(t, c.dsn)
			ok(t, s.Ping(t.Context()))
			if _, err := os.Stat(filepath.Join(folder, c.file)); err != nil {
				t.Error(err)
			}
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					if _, err := s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Template: TemplateBoolean}); err != nil {
						t.Error(err)
					}
					if _, err := s.EvalFlags(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if flags := must[[]entity.Flag](t)(s.EvalFlags(t.Context())); len(flags) != 4 || len(flags[3].Segments) != 1 {
				t.Errorf("flags are %+v", flags)
			}
		})
	}
}

func TestSQLiteWritesAheadAndWaits(t *testing.T) {
	t.Parallel()
	s := setup(t, testdb.SQLite())
	for pragma, want := range map[string]string{"journal_mode": "wal", "busy_timeout": "10000"} {
		var got string
		ok(t, s.db.Raw("PRAGMA "+pragma).Scan(&got).Error)
		if got != want {
			t.Errorf("%s is %s", pragma, got)
		}
	}
}

// TestManyWriters saves the same and different flags from several goroutines, through the
// connections of two processes. All writes must succeed, and every change must have its snapshot.
func TestManyWriters(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const writers, changes, flags = 16, 25, 3
		dsn := shared(kind, kind.Fresh(t))
		stores := []*Store{open(t, kind, dsn), open(t, kind, dsn)}
		for i := range flags {
			must[*entity.Flag](t)(stores[0].CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: fmt.Sprint("k", i)}))
		}
		var group sync.WaitGroup
		for writer := range writers {
			group.Go(func() {
				s := stores[writer%len(stores)]
				for i := range changes {
					flag := int64(writer%flags + 1)
					if _, err := s.UpdateFlag(t.Context(), fmt.Sprint(writer), flag, FlagPatch{Notes: new(fmt.Sprint(writer, i))}); err != nil {
						t.Errorf("writer %d, change %d: %v", writer, i, err)
					}
					if i%10 != 0 {
						continue
					}
					if _, err := s.Flag(t.Context(), flag); err != nil {
						t.Errorf("reader %d: %v", writer, err)
					}
				}
			})
		}
		group.Wait()
		if newest := must[int64](t)(stores[0].MaxSnapshotID(t.Context())); newest != flags+writers*changes {
			t.Errorf("%d snapshots", newest)
		}
		for _, flag := range must[[]entity.Flag](t)(stores[1].Flags(t.Context(), FlagQuery{})) {
			newest := must[[]entity.FlagSnapshot](t)(stores[1].Snapshots(t.Context(), int64(flag.ID), SnapshotQuery{Limit: new(int64(1))}))
			if newest[0].ID != flag.SnapshotID || newest[0].UpdatedBy != flag.UpdatedBy {
				t.Errorf("flag %d names snapshot %d of %q, the newest is %d of %q", flag.ID, flag.SnapshotID, flag.UpdatedBy, newest[0].ID, newest[0].UpdatedBy)
			}
		}
	})
}

// TestSameThingsAtOnce creates the same tag, entity type and key from many goroutines at once. Each
// must become one row.
func TestSameThingsAtOnce(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		const people = 8
		for range people {
			must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d"}))
		}
		var group sync.WaitGroup
		taken := make(chan error, people)
		for i := range people {
			group.Go(func() {
				if _, err := s.CreateTag(t.Context(), "", int64(i+1), "web"); err != nil {
					t.Error(err)
				}
				if _, err := s.UpdateFlag(t.Context(), "", int64(i+1), FlagPatch{EntityType: new("user")}); err != nil {
					t.Error(err)
				}
				_, err := s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "wanted"})
				taken <- err
			})
		}
		group.Wait()
		close(taken)
		won := 0
		for err := range taken {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, entity.ErrDuplicateKey):
				t.Error(err)
			}
		}
		tags := must[[]entity.Tag](t)(s.Tags(t.Context(), TagQuery{}))
		types := must[[]string](t)(s.EntityTypes(t.Context()))
		if won != 1 || len(tags) != 1 || len(types) != 1 {
			t.Errorf("%d flags with the key, %d tags, entity types %v", won, len(tags), types)
		}
	})
}

// TestRollback checks that a change that fails at its end leaves no rows.
func TestRollback(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		for _, statement := range map[string][]string{
			"sqlite3": {"CREATE TRIGGER no BEFORE INSERT ON flag_snapshots BEGIN SELECT RAISE(ABORT, 'full'); END"},
			"postgres": {
				"CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'full'; END $$ LANGUAGE plpgsql",
				"CREATE TRIGGER no BEFORE INSERT ON flag_snapshots FOR EACH ROW EXECUTE PROCEDURE no()",
			},
			"mysql": {"CREATE TRIGGER no BEFORE INSERT ON flag_snapshots FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'full'"},
		}[kind.Driver] {
			ok(t, s.db.Exec(statement).Error)
		}
		before := dump(t, s.db)
		if _, err := s.DuplicateFlag(t.Context(), "", 1, "", ""); err == nil || errors.Is(err, entity.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		if err := s.DeleteSegment(t.Context(), "", 1, 1); err == nil {
			t.Error("a change without its snapshot succeeded")
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.SetFlagEnabled(gone, "", 1, true); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		same(t, before, dump(t, s.db))
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, c := range map[string]struct {
		driver, dsn, want string
	}{
		"driver":   {"oracle", "x", `unknown database driver "oracle": it must be sqlite3, postgres or mysql`},
		"empty":    {"sqlite3", "", "open the sqlite3 database: the connection string is not valid: it must be :memory:, the path of a file, or a file: URI"},
		"folder":   {"sqlite3", folder + "/no/a.db", "open the sqlite3 database " + folder + "/no/a.db: cannot open or create the file: the path must be that of a file, in a folder that exists and is writable"},
		"postgres": {"postgres", "postgres://u:hunter2@[bad", "open the postgres database: the connection string is not valid: it must look like postgres://user:password@host:5432/database?sslmode=require or host=db user=me password=secret dbname=flagr"},
		"mysql":    {"mysql", "u:hunter2@tcp(x", "open the mysql database: the connection string is not valid: it must look like user:password@tcp(host:3306)/database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(t.Context(), Options{Driver: c.driver, DSN: c.dsn})
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestTablesThatAreNotLockedAreLeftAlone checks both failures of MySQL's GET_LOCK: 0 after a
// timeout, and NULL after an error.
func TestTablesThatAreNotLockedAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"SELECT 0", "SELECT NULL"} {
		s := setup(t, testdb.SQLite())
		ok(t, s.db.Exec("DROP TABLE tags").Error)
		s.dialect.lockMigration = statement
		if _, err := s.migrate(t.Context()); !errors.Is(err, errLocked) {
			t.Errorf("%s: error is %v", statement, err)
		}
		if s.db.Migrator().HasTable(&entity.Tag{}) {
			t.Errorf("%s: a table was created", statement)
		}
		s.dialect.lockMigration = "SELECT 1"
		_, err := s.migrate(t.Context())
		ok(t, err)
	}
}

// TestRetriesWithoutSecrets checks that Open retries as configured, and that neither log nor error
// contains the password.
func TestRetriesWithoutSecrets(t *testing.T) {
	t.Parallel()
	for driver, dsn := range map[string]string{
		"postgres": "postgres://ann:hunter2@127.0.0.1:1/flagr?connect_timeout=2",
		"mysql":    "ann:hunter2@tcp(127.0.0.1:1)/flagr",
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			_, err := Open(t.Context(), Options{
				Driver: driver, DSN: dsn, RetryAttempts: 2, RetryDelay: time.Millisecond, LogQueries: true,
				Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			if err == nil {
				t.Fatal("a server where there is none")
			}
			if tries := strings.Count(log.String(), "trying again"); tries != 2 {
				t.Errorf("tried again %d times:\n%s", tries, log.String())
			}
			if all := log.String() + fmt.Sprintf("%v %+v %#v", err, err, err.Error()); strings.Contains(all, "hunter2") {
				t.Errorf("the password shows:\n%s", all)
			}
		})
	}
}

// TestDriverLogs checks that messages of the MySQL driver about a broken connection are logged in
// the log's format.
func TestDriverLogs(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_ = connection.Close()
		}
	}()
	var log bytes.Buffer
	_, err = Open(t.Context(), Options{
		Driver: "mysql", DSN: "ann:hunter2@tcp(" + listener.Addr().String() + ")/flagr",
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err == nil {
		t.Fatal("a server where there is none")
	}
	if !strings.Contains(log.String(), `level=DEBUG msg="database connection given up" driver=mysql`) || strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has:\n%s", log.String())
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, Options{Driver: "mysql", DSN: "ann@tcp(127.0.0.1:1)/flagr", RetryAttempts: 9, RetryDelay: time.Hour})
	if err == nil {
		t.Error("a server where there is none")
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	err := redact(fmt.Errorf("dial db://a:pw@h: pw refused: %w", context.DeadlineExceeded), []string{"db://a:pw@h", "pw", ""})
	if want := "dial [redacted]: [redacted] refused: context deadline exceeded"; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if !errors.Is(err, context.DeadlineExceeded) || errors.Unwrap(err) != nil {
		t.Error("the cause must be recognised but not handed out")
	}
}

func TestAPasswordThatIsAlsoAName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ password, message, want string }{
		{"flagr", "user=flagr database=flagr: refused", "user=flagr database=flagr: refused"},
		{"flagr", "parse postgres://flagr:flagr@db", "parse postgres://flagr[redacted]db"},
		{"flagr", "user=flagr password=flagr", "user=flagr [redacted]"},
		{"flagr", "user=flagr password='flagr'", "user=flagr [redacted]'"},
		{"s3cret", "user=flagr: s3cret is wrong", "user=flagr: [redacted] is wrong"},
		{"", "user=flagr: refused", "user=flagr: refused"},
	} {
		if got := redact(errors.New(test.message), secretsOf("the whole", test.password, "flagr", "db")).Error(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.message, got, test.want)
		}
	}
}

// TestQueryLog checks that statements are logged if configured, and never with their parameters.
func TestQueryLog(t *testing.T) {
	t.Parallel()
	for _, queries := range []bool{true, false} {
		var log bytes.Buffer
		s, err := Open(t.Context(), Options{
			Driver: "sqlite3", DSN: ":memory:", LogQueries: queries,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		ok(t, err)
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "private words"}))
		ok(t, s.Close())
		if logged := strings.Contains(log.String(), "INSERT INTO `flags`"); logged != queries || strings.Contains(log.String(), "private") {
			t.Errorf("queries %t, log:\n%s", queries, log.String())
		}
	}
}

// TestTimesAreUTC checks that times are UTC in the database and when they are read, in any time
// zone of the host.
func TestTimesAreUTC(t *testing.T) {
	const inside = "STORE_TEST_INSIDE_ZONE"
	if os.Getenv(inside) == "" {
		t.Parallel()
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestTimesAreUTC$")
		again.Env = append(os.Environ(), inside+"=1", "TZ=Asia/Kolkata")
		if output, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, output)
		}
		return
	}
	if time.Now().Format("-0700") != "+0530" {
		t.Skip("no data about time zones here")
	}
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ok(t, s.DeleteSegment(t.Context(), "", 1, 2))
		for table, rows := range dump(t, s.db) {
			for _, row := range rows {
				for name := range timeNames {
					if at, isTime := row[name].(time.Time); isTime && at.Location() != time.UTC {
						t.Errorf("%s.%s is %v", table, name, at)
					}
				}
			}
		}
		var texts []string
		if kind.Driver == "sqlite3" {
			ok(t, s.db.Raw("SELECT created_at || '' FROM flags UNION ALL SELECT updated_at || '' FROM segments UNION ALL "+
				"SELECT deleted_at || '' FROM segments WHERE id = 2 UNION ALL SELECT updated_at || '' FROM flags").Scan(&texts).Error)
			for _, text := range texts {
				if !strings.HasSuffix(text, "+00:00") {
					t.Errorf("stored %q", text)
				}
			}
		}
		if created := must[*entity.Flag](t)(s.Flag(t.Context(), 1)).CreatedAt; time.Since(created).Abs() > time.Hour {
			t.Errorf("a flag that was just created dates from %s", created)
		}
		snapshots := must[[]entity.FlagSnapshot](t)(s.Snapshots(t.Context(), 1, SnapshotQuery{}))
		if strings.Contains(string(snapshots[0].Flag), "+05:30") || snapshots[0].CreatedAt.Location() != time.UTC {
			t.Errorf("snapshot is %s of %v", snapshots[0].Flag, snapshots[0].CreatedAt)
		}
	})
}

// TestOnlyUTCOnMySQL checks connection strings with time zones in which times would be stored. It
// needs no server.
func TestOnlyUTCOnMySQL(t *testing.T) {
	t.Parallel()
	for zone, refused := range map[string]bool{"Europe%2FBerlin": true, "Europe%2FLondon": true, "America%2FNew_York": true, "UTC": false, "Etc%2FUTC": false} {
		_, err := openMySQL("user:s3cret@tcp(127.0.0.1:1)/flagr?loc="+zone, slog.New(slog.DiscardHandler))
		if (err != nil) != refused || refused && (!strings.Contains(err.Error(), "loc="+strings.ReplaceAll(zone, "%2F", "/")) ||
			!strings.Contains(err.Error(), "docs/operations.md") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: error %v, want one that names the zone and how to convert: %t", zone, err, refused)
		}
	}
}

// TestMemoryIsReleased checks that a database is usable after its memory was released.
func TestMemoryIsReleased(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		flag, err := s.CreateFlag(t.Context(), "somebody", NewFlag{Description: "kept", Key: "kept"})
		ok(t, err)
		ok(t, s.ReleaseMemory(t.Context()))
		found, err := s.Flag(t.Context(), int64(flag.ID))
		ok(t, err)
		if found.Key != "kept" {
			t.Errorf("the flag is %q", found.Key)
		}
	})
}
