package integration_tests

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/services"
	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

const datarStore = "FLAGR_RECORDER_DATAR_STORE"

// ownClickHouse starts a ClickHouse that only this test uses.
func ownClickHouse(t *testing.T) *services.Server {
	t.Helper()
	if os.Getenv("FLAGR_TEST_CLICKHOUSE") == "" {
		t.Skip("FLAGR_TEST_CLICKHOUSE is not set: make test-clickhouse runs these tests")
	}
	return servicestest.Own(t, "clickhouse")
}

// countsIn returns the connection string of an empty database: of the cluster in the environment,
// or of a ClickHouse that only this test uses.
func countsIn(t *testing.T) string {
	t.Helper()
	cluster := os.Getenv("FLAGR_TEST_CLICKHOUSE_CLUSTER")
	if cluster == "" {
		return ownClickHouse(t).DSN
	}
	name := "flagr_test_" + strings.ToLower(rand.Text()[:16])
	onCluster(t, cluster, "CREATE DATABASE "+name+" ON CLUSTER flagr")
	t.Cleanup(func() { onCluster(t, cluster, "DROP DATABASE "+name+" ON CLUSTER flagr") })
	return strings.Replace(cluster, "/default?", "/"+name+"?", 1)
}

// onCluster runs a statement on the first host of a connection string.
func onCluster(t *testing.T, cluster, statement string) {
	t.Helper()
	options, err := chstore.ParseURL(cluster)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+options.Hosts[0], strings.NewReader(statement))
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true // old versions close connections that are idle for 3 s
	request.Header.Set("X-ClickHouse-User", options.User)
	request.Header.Set("X-ClickHouse-Key", options.Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it is read to its end
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", statement, response.StatusCode, err, text)
	}
}

// TestClickHouseAnswersAlike runs the main job with counts in ClickHouse. The database of the flags
// must have no table of Datar.
func TestClickHouseAnswersAlike(t *testing.T) {
	db, dsn := onSQLite(t)
	s := start(t, db, dsn, environ{datarStore: countsIn(t)})
	j := runMainJob(t, s)
	checkMainJob(t, s, j)
	s.stop(t, syscall.SIGTERM)
	if strings.Contains(s.log.String(), "flagr-test-password") {
		t.Errorf("the log has the password:\n%s", s.log)
	}
	next := s.again(t)
	checkMainJob(t, next, j)
	if tables := db.open(t, dsn); tables != nil {
		var n int
		if err := tables.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 'datar%'").Scan(&n); err != nil || n != 0 {
			t.Errorf("the database of the flags has %d tables of Datar, %v; want none", n, err)
		}
	}
}

// TestClickHouseUnderKills kills the server and ClickHouse in turn, under load. Each acknowledged
// evaluation must be counted once.
func TestClickHouseUnderKills(t *testing.T) {
	db, dsn := onSQLite(t)
	own := ownClickHouse(t)
	s := startRough(t, t.TempDir(), quick.with(db.environ(dsn)).with(counting("100ms")).with(environ{datarStore: own.DSN}))
	flags := splitFlags(t, s)
	l := load{pace: 20 * time.Millisecond}
	for range 3 {
		l.begin(s, flags, endless)
		until := l.acknowledged.Load() + 3_000
		poll(t, "load before a kill", func() bool { return l.acknowledged.Load() > until })
		if err := own.Kill(); err != nil {
			t.Fatal(err)
		}
		until = l.acknowledged.Load() + 3_000
		poll(t, "load while ClickHouse is away", func() bool { return l.acknowledged.Load() > until })
		poll(t, "readiness to tell", func() bool {
			a := s.call(t, http.MethodGet, "/ready", nil)
			return strings.Contains(string(a.body), `"failing"`) && statistics(t, s).LastError != ""
		})
		s.kill(t)
		l.end()
		l.ending.Store(false)
		resume(t, own)
		dir, env := s.cmd.Dir, s.env
		s = startRough(t, dir, env)
	}
	l.begin(s, flags, endless)
	until := l.acknowledged.Load() + 3_000
	poll(t, "load at the end", func() bool { return l.acknowledged.Load() > until })
	l.end()
	settle(t, s)
	l.check(t, get[summary](t, s, "/datar/summary?limit=1000").sum())
}

// TestClickHouseStart starts servers with unusable ClickHouse settings.
func TestClickHouseStart(t *testing.T) {
	db, dsn := onSQLite(t)
	own := ownClickHouse(t)
	for name, test := range map[string]struct{ address, want string }{
		"no such database": {strings.TrimSuffix(own.DSN, "/default") + "/nowhere", "create the database"},
		"wrong password":   {strings.Replace(own.DSN, "flagr-test-password", "other-s3cret", 1), "Wrong password"},
		"malformed":        {"clickhouse://u:other-s3cret@h:1/a-b", "FLAGR_RECORDER_DATAR_STORE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := launch(t, t.TempDir(), quick.with(db.environ(dsn)).with(environ{datarStore: test.address}))
			if code := p.wait(t); code == 0 {
				t.Error("the server ended with code 0, want another one")
			}
			if log := p.log.String(); !strings.Contains(log, test.want) || strings.Contains(log, "other-s3cret") || strings.Contains(log, "flagr-test-password") {
				t.Errorf("the log has no %q, or a password:\n%s", test.want, log)
			}
		})
	}
}

// moveEnd matches the last line of a move whose sums are equal.
const moveEnd = "the sums of each flag and day are equal"

// TestClickHouseMove copies counts from SQL while a server counts there. The move is killed, and
// completed once the server has stopped. A server on ClickHouse must then return the same counts.
func TestClickHouseMove(t *testing.T) {
	t.Parallel()
	for _, kind := range testdb.Kinds() {
		if kind.Name != "sqlite" && kind.Name != "postgres15" {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			if kind.Name != "sqlite" && os.Getenv("FLAGR_TEST_POSTGRES15") == "" {
				t.Skip("FLAGR_TEST_POSTGRES15 is not set: make test-clickhouse runs this test")
			}
			db := databaseOf(kind)
			dsn := db.fresh(t)
			counts := countsIn(t)
			s := startRough(t, t.TempDir(), quick.with(db.environ(dsn)).with(counting("100ms")))
			flags := splitFlags(t, s)
			env := s.env.with(environ{datarStore: counts})
			l := load{pace: 20 * time.Millisecond}
			l.begin(s, flags, endless)
			poll(t, "some counts", func() bool { return l.acknowledged.Load() > 3_000 })
			killed := launch(t, t.TempDir(), env, "--move-counts")
			poll(t, "the move to begin", func() bool { return killed.log.String() != "" || killed.ended() })
			if err := killed.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			<-killed.done
			beside := launch(t, t.TempDir(), env, "--move-counts")
			if code := beside.wait(t); (code == 0) != strings.Contains(beside.log.String(), moveEnd) {
				t.Errorf("a move beside a server ended with code %d:\n%s", code, beside.log)
			}
			l.end()
			settle(t, s)
			want := get[summary](t, s, "/datar/summary")
			s.stop(t, syscall.SIGTERM)
			last := launch(t, t.TempDir(), env, "--move-counts")
			if code := last.wait(t); code != 0 || !strings.Contains(last.log.String(), moveEnd) || strings.Contains(last.log.String(), "flagr-test-password") {
				t.Fatalf("the last move ended with code %d, or its log has the password:\n%s", code, last.log)
			}
			next := startRough(t, s.cmd.Dir, env)
			if diff := cmp.Diff(want, get[summary](t, next, "/datar/summary")); diff != "" {
				t.Errorf("summary after the move (-want +got):\n%s", diff)
			}
			l.check(t, get[summary](t, next, "/datar/summary?limit=1000").sum())
		})
	}
}
