package integration_tests

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// proxy is between a server and its database, and causes network faults.
type proxy struct {
	listener net.Listener
	target   string // host:port of the database
	commit   []byte // the last bytes of the driver's COMMIT

	// lostAnswers counts commits that the database received and whose response was dropped,
	// lostCommits commits that it did not receive, and cuts other closed connections.
	lostAnswers, lostCommits, cuts atomic.Int64

	mu       sync.Mutex
	faults   faults
	changed  chan struct{} // closed when faults are replaced
	relays   map[*relay]bool
	finished sync.WaitGroup
}

// faults are the faults of a proxy. The zero value has no faults.
type faults struct {
	// down closes all connections, and new ones at once.
	down bool
	// hang keeps all connections open, and forwards nothing.
	hang bool
	// Shares of the commits whose responses are lost, and that are lost themselves, with the
	// connection.
	loseAnswer, loseCommit float64
	// cut is the share of other pieces of data at which the connection is closed.
	cut float64
	// delay is the maximum delay of a piece of data.
	delay time.Duration
}

// relay is a connection through a proxy.
type relay struct {
	server, database net.Conn
	// mute drops the next data of the database, and closes the connection.
	mute atomic.Bool
}

func (r *relay) close() {
	_ = r.server.Close()
	_ = r.database.Close()
}

// newProxy returns a proxy for the database, and the connection string for the proxy.
func newProxy(t *testing.T, kind testdb.Kind, dsn string) (*proxy, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, relays: map[*relay]bool{}, changed: make(chan struct{})}
	switch kind.Driver {
	case "mysql":
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		p.target, p.commit = config.Addr, []byte("\x03commit")
		config.Addr = listener.Addr().String()
		dsn = config.FormatDSN()
	default:
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		p.target, p.commit = u.Host, []byte("commit\x00")
		u.Host = listener.Addr().String()
		dsn = u.String()
	}
	p.finished.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.set(faults{down: true})
		p.finished.Wait()
	})
	return p, dsn
}

// set replaces the faults.
func (p *proxy) set(f faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
	close(p.changed)
	p.changed = make(chan struct{})
	if f.down {
		for r := range p.relays {
			r.close()
		}
	}
}

func (p *proxy) accept() {
	for {
		server, err := p.listener.Accept()
		if err != nil {
			return
		}
		database, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = server.Close()
			continue
		}
		r := &relay{server: server, database: database}
		if !p.add(r) {
			r.close()
			continue
		}
		p.finished.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { p.pass(r, server, database, true) })
			both.Go(func() { p.pass(r, database, server, false) })
			both.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.relays, r)
		})
	}
}

// add registers a connection, unless the database is down.
func (p *proxy) add(r *relay) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.faults.down {
		p.relays[r] = true
	}
	return !p.faults.down
}

// untilItMoves waits while the proxy hangs, and returns the current faults.
func (p *proxy) untilItMoves() faults {
	for {
		p.mu.Lock()
		f, changed := p.faults, p.changed
		p.mu.Unlock()
		if !f.hang {
			return f
		}
		<-changed
	}
}

// pass copies one direction of a connection until it is closed.
func (p *proxy) pass(r *relay, from, to net.Conn, toDatabase bool) {
	defer r.close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		piece := buffer[:n]
		f := p.untilItMoves()
		if f.down || r.mute.Load() {
			return
		}
		if f.delay > 0 {
			<-time.After(rand.N(f.delay))
		}
		commit := toDatabase && bytes.HasSuffix(bytes.ToLower(piece), p.commit)
		switch chance := rand.Float64(); {
		case commit && chance < f.loseCommit:
			p.lostCommits.Add(1)
			return
		case commit && chance < f.loseCommit+f.loseAnswer:
			p.lostAnswers.Add(1)
			r.mute.Store(true)
		case !commit && chance < f.cut:
			p.cuts.Add(1)
			return
		}
		if _, err := to.Write(piece); err != nil {
			return
		}
	}
}

// pace is the pause of clients after a request. It leaves CPU time for the database on a busy
// machine, because these tests are about its faults.
const pace = 5 * time.Millisecond

// TestLostAnswers closes connections after the database may have committed, when the server cannot
// know whether it did.
func TestLostAnswers(t *testing.T) {
	onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
		dsn := db.fresh(t)
		p, through := newProxy(t, kind, dsn)
		s := startRough(t, t.TempDir(), quick.with(db.environ(through)).with(counting("50ms")))
		flags := splitFlags(t, s)
		l := load{pace: pace}
		l.begin(s, flags, endless)
		for _, step := range []struct {
			name   string
			faults faults
			enough func() bool
		}{
			{"half of the answers to commits are lost", faults{loseAnswer: 0.5}, func() bool { return p.lostAnswers.Load() >= 10 }},
			{"a third of the commits and of their answers are lost, and all is slow",
				faults{loseAnswer: 0.3, loseCommit: 0.3, delay: 20 * time.Millisecond},
				func() bool { return p.lostAnswers.Load() >= 15 && p.lostCommits.Load() >= 5 }},
			{"connections are cut anywhere", faults{cut: 0.05}, func() bool { return p.cuts.Load() >= 10 }},
			{"all of it", faults{loseAnswer: 0.3, loseCommit: 0.1, cut: 0.03, delay: 5 * time.Millisecond},
				func() bool { return p.lostAnswers.Load() >= 20 && p.cuts.Load() >= 15 }},
		} {
			p.set(step.faults)
			poll(t, step.name, func() bool {
				statistics(t, s)
				return step.enough()
			})
		}
		p.set(faults{})
		l.end()
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		t.Logf("%d responses to commits, %d commits and %d connections were lost", p.lostAnswers.Load(), p.lostCommits.Load(), p.cuts.Load())
		l.checkAnswered(t, storedTwice(t, db, dsn))
	})
}

// TestKilledAfterLostAnswer kills a server that cannot know whether its last batch was stored. The
// next server sends the batch again, and the database must recognize it.
func TestKilledAfterLostAnswer(t *testing.T) {
	onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
		dsn := db.fresh(t)
		p, through := newProxy(t, kind, dsn)
		s := startRough(t, t.TempDir(), quick.with(db.environ(through)).with(counting("50ms")))
		flags := splitFlags(t, s)
		l := load{pace: pace}
		const rounds = 5
		for range rounds {
			before := p.lostAnswers.Load()
			p.set(faults{loseAnswer: 1})
			l.begin(s, flags, endless)
			poll(t, "an answer to be lost", func() bool { return p.lostAnswers.Load() > before })
			s.kill(t)
			l.clients.Wait()
			p.set(faults{})
			s = startRough(t, s.cmd.Dir, s.env)
		}
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		l.check(t, storedTwice(t, db, dsn))
	})
}

// TestManyKeysAfterAnOutage counts 11,200 combinations of flag, variant and segment while the
// database is down, and stores them with one flush.
func TestManyKeysAfterAnOutage(t *testing.T) {
	onKinds(t, faultKinds, func(t *testing.T, kind testdb.Kind, db database) {
		const nFlags, nVariants, nSegments, keys = 56, 100, 2, 11_200
		dsn := db.fresh(t)
		through := dsn
		var away, back func()
		if kind.Driver == "sqlite3" {
			// Another writer holds the lock for a long time.
			other, err := db.open(t, dsn).Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			exec := func(statement string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), startDeadline)
				defer cancel()
				if _, err := other.ExecContext(ctx, statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			exec("PRAGMA busy_timeout = 30000")
			away, back = func() { exec("BEGIN IMMEDIATE") }, func() { exec("ROLLBACK") }
		} else {
			var p *proxy
			p, through = newProxy(t, kind, dsn)
			away, back = func() { p.set(faults{down: true}) }, func() { p.set(faults{}) }
		}
		s := startRough(t, t.TempDir(), quick.with(db.environ(through)).with(counting("200ms")).with(environ{
			"FLAGR_EVALCACHE_REFRESHINTERVAL": "1s", // each refresh reads 11,200 distributions
		}))
		flags := wideFlags(t, s, nFlags, nVariants, nSegments)
		send[any](t, s, http.MethodPost, "/evaluation", object{"flagID": flags[0], "entityID": "u"})
		settle(t, s)

		away()
		// The first flush takes this count, and fails. Later counts wait for it.
		send[any](t, s, http.MethodPost, "/evaluation", object{"flagID": flags[0], "entityID": "u"})
		for _, id := range flags {
			for i := range nSegments {
				entities := oneOfEach(id, nVariants)
				for _, e := range entities {
					e["entityContext"] = object{"country": fmt.Sprint("C", i)} // the last one has no segment of its own
				}
				send[any](t, s, http.MethodPost, "/evaluation/batch", object{"flagIDs": []int64{id}, "entities": entities})
			}
		}
		if now := statistics(t, s); now.Pending < keys {
			t.Errorf("during the outage: %+v, want at least %d pending", now, keys)
		}
		back()
		settle(t, s)
		s.stop(t, syscall.SIGTERM)

		var rows, sum int
		if err := db.open(t, dsn).QueryRowContext(t.Context(),
			"SELECT COUNT(*), SUM(eval_count) FROM datar_hourly_events").Scan(&rows, &sum); err != nil {
			t.Fatal(err)
		}
		// The hour may have changed.
		if rows < keys || sum != keys+2 {
			t.Errorf("%d rows with %d evaluations, want at least %d with %d", rows, sum, keys, keys+2)
		}
		t.Logf("%d rows, %d evaluations", rows, sum)
	})
}

// TestStopWhileTheDatabaseIsDown stops a server that cannot store its counts, and restarts it when
// the database works.
func TestStopWhileTheDatabaseIsDown(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faults faults
	}{
		{"refusing", faults{down: true}},
		{"hanging", faults{hang: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
				dsn := db.fresh(t)
				p, through := newProxy(t, kind, dsn)
				// A flush is in flight when the server is stopped.
				s := startRough(t, t.TempDir(), quick.with(db.environ(through)).with(counting("50ms")), "--graceful-timeout", "2s")
				flags := splitFlags(t, s)
				p.set(tc.faults)
				l := load{pace: pace}
				l.begin(s, flags, endless)
				poll(t, "some load", func() bool { return l.acknowledged.Load() > 5_000 })
				statistics(t, s)
				if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				signalled := time.Now()
				code := s.wait(t)
				took := time.Since(signalled)
				l.clients.Wait()
				t.Logf("the server ended %s after the signal, with code %d", took.Round(time.Millisecond), code)
				// 2 s for the requests, 10 s for the counts, and a busy machine.
				if took > 20*time.Second {
					t.Errorf("the server ended %s after the signal", took)
				}
				p.set(faults{})
				s = startRough(t, s.cmd.Dir, s.env)
				if now := statistics(t, s); now.Adopted == 0 {
					t.Errorf("after the restart: %+v, want counts to be adopted", now)
				}
				settle(t, s)
				s.stop(t, syscall.SIGTERM)
				l.check(t, storedTwice(t, db, dsn))
			})
		})
	}
}
