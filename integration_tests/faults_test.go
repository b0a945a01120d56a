package integration_tests

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// onKinds runs a test on each of these kinds of database, in parallel with all other tests. It
// skips kinds whose server is not configured.
func onKinds(t *testing.T, names []string, test func(t *testing.T, kind testdb.Kind, db database)) {
	t.Helper()
	t.Parallel()
	for _, kind := range testdb.Kinds() {
		if !slices.Contains(names, kind.Name) {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			test(t, kind, databaseOf(kind))
		})
	}
}

// Databases for tests of faults: one of each kind, and those that are servers.
var (
	faultKinds   = []string{"sqlite", "postgres15", "mariadb"}
	serverKinds  = []string{"postgres15", "mariadb"}
	killingKinds = []string{"sqlite", "postgres15"}
)

// counting returns the environment of a server that flushes at this interval and does not log
// requests.
func counting(interval string) environ {
	return environ{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL": interval, "FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false"}
}

// startRough is startIn for servers that may log errors and may exit with an error, but must not
// panic.
func startRough(t *testing.T, dir string, env environ, args ...string) *server {
	t.Helper()
	s := &server{process: launch(t, dir, env, args...), env: env, args: args, client: newClient()}
	t.Cleanup(func() {
		if log := s.log.String(); strings.Contains(log, "panic") {
			t.Errorf("the server panicked:\n%s", log)
		}
	})
	s.await(t)
	return s
}

// status is the part of the response of GET /datar/status that the tests use.
type status struct {
	Recorded, Adopted, Stored, Pending int64
	Dropped                            map[string]int64
	LastFlushAt                        time.Time
	LastFlushSeconds                   float64
	LastError                          string
	Journal                            struct {
		State string
		Lost  int64
	}
}

// checkBalance checks that recorded = stored + pending + dropped.
func (s status) checkBalance(t *testing.T) {
	t.Helper()
	sum := s.Stored + s.Pending
	for _, n := range s.Dropped {
		sum += n
	}
	if s.Recorded != sum {
		t.Errorf("recorded is %d, but stored, pending and dropped are %d together: %+v", s.Recorded, sum, s)
	}
}

// statistics reads the status and checks that it balances. Nothing may have been dropped.
func statistics(t *testing.T, s *server) status {
	t.Helper()
	now := get[status](t, s, "/datar/status")
	now.checkBalance(t)
	for reason, n := range now.Dropped {
		if n != 0 {
			t.Errorf("%d evaluations were dropped as %s", n, reason)
		}
	}
	return now
}

// settle waits until the server has stored all its counts.
func settle(t *testing.T, s *server) {
	t.Helper()
	poll(t, "everything to be stored", func() bool {
		// A query flushes, at any interval. It may fail while the database does not work.
		if a, err := s.try(http.MethodGet, "/datar/summary", nil); err != nil || a.status != http.StatusOK {
			return false
		}
		return statistics(t, s).Pending == 0
	})
}

// storedTwice is stored for databases whose details must have all counts, too.
func storedTwice(t *testing.T, db database, dsn string) int64 {
	t.Helper()
	checkDetails(t, db.open(t, dsn))
	return stored(t, db, dsn)
}

// stored returns the sum of all counts in a database.
func stored(t *testing.T, db database, dsn string) int64 {
	t.Helper()
	var sum int64
	if err := db.open(t, dsn).QueryRowContext(t.Context(), "SELECT COALESCE(SUM(eval_count), 0) FROM datar_hourly_events").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	return sum
}

// checkDetails compares the events of each flag and hour with the details of the outcomes that are
// also in events: matched, held_out, no_match and error. It compares segments only for events with
// a variant, because events without one may have lost their segment.
func checkDetails(t *testing.T, db *sql.DB) {
	t.Helper()
	for _, columns := range []string{"flag_id, bucket_hour", "flag_id, bucket_hour, variant_id, segment"} {
		// The sums of both tables have opposite signs.
		n := count(t, db, `SELECT COUNT(*) FROM (
			SELECT flag_id FROM (
				SELECT flag_id, bucket_hour, variant_id, CASE WHEN variant_id = 0 THEN 0 ELSE segment_id END AS segment, eval_count AS n
				FROM datar_hourly_events
				UNION ALL
				SELECT flag_id, bucket_hour, variant_id, CASE WHEN variant_id = 0 THEN 0 ELSE segment_id END, -eval_count
				FROM datar_hourly_details WHERE outcome IN (1, 2, 3, 6)
			) AS both_tables GROUP BY `+columns+` HAVING SUM(n) <> 0
		) AS differences`)
		if n != 0 {
			t.Errorf("details and events differ for %d combinations of %s", n, columns)
		}
	}
}

// check compares a total with what the clients sent. Without kills, each evaluation has a response,
// and all are counted.
func (l *load) check(t *testing.T, total int64) {
	t.Helper()
	acknowledged, sent := l.acknowledged.Load(), l.sent.Load()
	if total < acknowledged || total > sent {
		t.Errorf("%d evaluations counted, want at least the %d acknowledged and at most the %d sent", total, acknowledged, sent)
	}
	if n := l.failed.Load(); n != 0 {
		t.Errorf("%d responses had another status than 200", n)
	}
	t.Logf("sent %d, acknowledged %d, counted %d", sent, acknowledged, total)
}

// checkAnswered is check for servers that were never down.
func (l *load) checkAnswered(t *testing.T, total int64) {
	t.Helper()
	l.check(t, total)
	if acknowledged, sent := l.acknowledged.Load(), l.sent.Load(); acknowledged != sent {
		t.Errorf("only %d of %d evaluations were acknowledged", acknowledged, sent)
	}
}

// journals lists the journals in the folder of a server, including damaged ones. It omits journals
// that a killed server had not completed: these have no counts, and are removed when they are old.
func journals(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "datar-*.journal*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found, func(path string) bool { return strings.HasSuffix(path, ".new") })
}

// atSomeMoment returns after a random part of the duration. The test needs a random moment, not a
// condition.
func atSomeMoment(least, most time.Duration) {
	<-time.After(least + rand.N(most-least))
}

// TestKilledAtRandomMoments kills a loaded server repeatedly, sometimes during its start.
func TestKilledAtRandomMoments(t *testing.T) {
	onKinds(t, killingKinds, func(t *testing.T, _ testdb.Kind, db database) {
		const kills, startsKilled = 50, 10
		dsn := db.fresh(t)
		s := start(t, db, dsn, counting("50ms"))
		flags := splitFlags(t, s)
		l := load{pace: time.Millisecond}
		var adopted int64
		for round := range kills {
			l.begin(s, flags, endless)
			atSomeMoment(20*time.Millisecond, 250*time.Millisecond)
			s.kill(t)
			l.clients.Wait()
			if round%(kills/startsKilled) == 0 {
				p := launch(t, s.cmd.Dir, s.env, s.args...)
				atSomeMoment(50*time.Millisecond, 400*time.Millisecond)
				_ = p.cmd.Process.Kill()
				<-p.done
			}
			s = s.again(t)
			adopted += statistics(t, s).Adopted
		}
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		l.check(t, storedTwice(t, db, dsn))
		t.Logf("%d kills, %d of them during a start; %d evaluations came from journals", kills, startsKilled, adopted)
		if adopted == 0 {
			t.Error("no kill left counts in a journal, so the test proves nothing")
		}
		if files := journals(t, s.cmd.Dir); len(files) != 0 {
			t.Errorf("after a clean stop there are still %q", files)
		}
	})
}

// TestKilledWithoutAnyFlush kills a server before its first flush. The counts, which are only in
// the journal, must not be lost.
func TestKilledWithoutAnyFlush(t *testing.T) {
	onKinds(t, faultKinds, func(t *testing.T, _ testdb.Kind, db database) {
		const evaluations = 10_000
		dsn := db.fresh(t)
		s := start(t, db, dsn, counting("1h"))
		flags := splitFlags(t, s)
		var l load
		l.begin(s, flags, evaluations/loadClients)
		l.clients.Wait()
		if now := statistics(t, s); now.Pending != evaluations {
			t.Fatalf("before the kill: %+v, want %d pending", now, evaluations)
		}
		if n := stored(t, db, dsn); n != 0 {
			t.Fatalf("%d evaluations are stored before the kill, want none", n)
		}
		s.kill(t)

		s = s.again(t)
		if now := statistics(t, s); now.Adopted != evaluations || now.Recorded != evaluations {
			t.Errorf("after the restart: %+v, want %d adopted", now, evaluations)
		}
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		l.checkAnswered(t, storedTwice(t, db, dsn))
	})
}

// TestStatisticsBalanceAtAnyMoment reads the status under load.
func TestStatisticsBalanceAtAnyMoment(t *testing.T) {
	onKinds(t, faultKinds, func(t *testing.T, _ testdb.Kind, db database) {
		dsn := db.fresh(t)
		s := start(t, db, dsn, counting("50ms"))
		flags := splitFlags(t, s)
		var l load
		l.begin(s, flags, endless)
		flushes := map[time.Time]bool{}
		for samples := 0; samples < 50 || len(flushes) < 5; samples++ {
			acknowledged := l.acknowledged.Load()
			now := statistics(t, s)
			if sent := l.sent.Load(); now.Recorded < acknowledged || now.Recorded > sent {
				t.Errorf("recorded is %d, but %d were acknowledged before and %d sent after", now.Recorded, acknowledged, sent)
			}
			flushes[now.LastFlushAt] = true
			if t.Failed() || samples > 100_000 {
				break
			}
		}
		l.end()
		settle(t, s)
		l.checkAnswered(t, statistics(t, s).Recorded)
		l.checkAnswered(t, storedTwice(t, db, dsn))
	})
}

// TestStopAtTheLastMoment stops a server while one client prevents it from draining, and other
// requests end around the end of the graceful timeout. Acknowledged evaluations must be in the
// database or in the journal.
func TestStopAtTheLastMoment(t *testing.T) {
	onKinds(t, killingKinds, func(t *testing.T, _ testdb.Kind, db database) {
		const patience, requests = 2 * time.Second, 60
		dsn := db.fresh(t)
		s := start(t, db, dsn, counting("1h"), "--graceful-timeout", patience.String())
		f := newFlag(t, s, "late")
		awaitChanges(t, s)
		var l load
		body := fmt.Sprintf(`{"flagID":%d,"entityID":"slow"}`, f.ID)
		begin := func() net.Conn {
			t.Helper()
			c, err := net.Dial("tcp", s.address())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
			if _, err := fmt.Fprintf(c, "POST /api/v1/evaluation HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
				"Content-Length: %d\r\n\r\n%s", s.address(), len(body), body[:10]); err != nil {
				t.Fatal(err)
			}
			return c
		}
		finish := func(c net.Conn) bool {
			if _, err := io.WriteString(c, body[10:]); err != nil {
				return false
			}
			if c.SetReadDeadline(time.Now().Add(stopDeadline)) != nil {
				return false
			}
			response, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				return false
			}
			_, err = io.ReadAll(response.Body)
			return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
		}
		begin() // never completed
		slow := make([]net.Conn, requests)
		for i := range slow {
			slow[i] = begin()
		}
		evaluate(t, s, f, "u", nil) // the server has read the others by now
		l.sent.Add(1 + requests)
		l.acknowledged.Add(1)

		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		signalled := time.Now()
		var group sync.WaitGroup
		for i, c := range slow {
			group.Go(func() {
				// From 200 ms before the end of the timeout until after it.
				<-time.After(patience - 200*time.Millisecond + time.Duration(i)*5*time.Millisecond)
				if finish(c) {
					l.acknowledged.Add(1)
				}
			})
		}
		code := s.wait(t)
		t.Logf("the server ended %s after the signal, with code %d", time.Since(signalled).Round(time.Millisecond), code)
		group.Wait()
		if l.acknowledged.Load() < 2 {
			t.Error("no late request was acknowledged, so the test proves nothing")
		}

		s = s.again(t)
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		l.check(t, storedTwice(t, db, dsn))
	})
}
