package integration_tests

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestWrongDatabasePassword checks that a server with a wrong password fails at once with the
// reason, and logs no password.
func TestWrongDatabasePassword(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		db := databaseOf(kind)
		const wrong = "hunter2-wrong"
		dsn := regexp.MustCompile(`:[^:@/]*@`).ReplaceAllString(db.fresh(t), ":"+wrong+"@")
		p := launch(t, t.TempDir(), quick.with(db.environ(dsn)).with(environ{
			"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "2", "FLAGR_DB_DBCONNECTION_RETRY_DELAY": "10ms",
			"FLAGR_DB_DBCONNECTION_DEBUG": "true", "FLAGR_LOGRUS_LEVEL": "debug",
		}))
		if code := p.wait(t); code != 1 {
			t.Errorf("the exit code is %d, want 1", code)
		}
		log := p.log.String()
		if strings.Contains(log, wrong) {
			t.Errorf("the password is in the log:\n%s", log)
		}
		if strings.Contains(log, "trying again") || !strings.Contains(log, "flagr") {
			t.Errorf("want no retry, and the name of the user, in the log:\n%s", log)
		}
	})
}

// TestMissingDatabase checks that a server whose database does not exist fails at once with the
// reason.
func TestMissingDatabase(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		db := databaseOf(kind)
		dsn := regexp.MustCompile(`/[^/?]+(\?|$)`).ReplaceAllString(db.fresh(t), "/no_such_database$1")
		p := launch(t, t.TempDir(), quick.with(db.environ(dsn)).with(environ{"FLAGR_DB_DBCONNECTION_RETRY_DELAY": "1h"}))
		if code := p.wait(t); code != 1 {
			t.Errorf("the exit code is %d, want 1", code)
		}
		if log := p.log.String(); strings.Contains(log, "trying again") || strings.Count(log, "no_such_database") == 0 {
			t.Errorf("want the name of the database, and no retry, in the log:\n%s", log)
		}
	})
}

// TestDatabaseThatComesUpLate starts a server before its database.
func TestDatabaseThatComesUpLate(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		db := databaseOf(kind)
		dsn, address, target := elsewhere(t, kind, db.fresh(t))
		env := quick.with(db.environ(dsn)).with(environ{
			"FLAGR_DB_DBCONNECTION_RETRY_ATTEMPTS": "1000", "FLAGR_DB_DBCONNECTION_RETRY_DELAY": "20ms",
		})
		s := &server{process: launch(t, t.TempDir(), env), env: env, client: newClient()}
		poll(t, "an attempt that fails", func() bool { return strings.Contains(s.log.String(), "trying again") })
		forward(t, address, target)
		s.await(t)
		newFlag(t, s, "late")
	})
}

// TestConnectionsAreBounded sends more concurrent requests than the server may have connections to
// its database.
func TestConnectionsAreBounded(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		const clients, requests, most = 100, 20, 32
		db := databaseOf(kind)
		dsn, address, target := elsewhere(t, kind, db.fresh(t))
		seen := forward(t, address, target)
		s := start(t, db, dsn, nil)
		newFlag(t, s, "f")
		var group sync.WaitGroup
		for range clients {
			group.Go(func() {
				for range requests {
					if a, err := s.try(http.MethodGet, "/flags?preload=true", nil); err != nil || a.status != http.StatusOK {
						t.Errorf("%s, %v", a, err)
						return
					}
				}
			})
		}
		group.Wait()
		if peak := seen.peak.Load(); peak < 2 || peak > most {
			t.Errorf("%d connections at once, want at most %d, and more than one", peak, most)
		}
	})
}

// elsewhere replaces the address in a connection string by a free one. It also returns the address
// of the database server.
func elsewhere(t *testing.T, kind testdb.Kind, dsn string) (changed, address, target string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if kind.Driver == "mysql" {
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		target, config.Addr = config.Addr, address
		return config.FormatDSN(), address, target
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	target, u.Host = u.Host, address
	return u.String(), address, target
}

// connections counts open connections.
type connections struct{ open, peak atomic.Int64 }

func (c *connections) opened() {
	now := c.open.Add(1)
	for peak := c.peak.Load(); now > peak && !c.peak.CompareAndSwap(peak, now); peak = c.peak.Load() {
	}
}

// forward accepts connections until the test ends, counts them, and forwards their data.
func forward(t *testing.T, from, to string) *connections {
	t.Helper()
	listener, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	seen := &connections{}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			seen.opened()
			go func() {
				defer seen.open.Add(-1)
				defer func() { _ = client.Close() }()
				target, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer func() { _ = target.Close() }()
				go func() {
					_, _ = io.Copy(target, client)
					_ = target.Close()
				}()
				_, _ = io.Copy(client, target)
			}()
		}
	}()
	return seen
}
