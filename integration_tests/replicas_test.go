package integration_tests

import (
	"database/sql"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/flagr-datar/flagr-datar/integration_tests/services"
	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// ownServer starts a database server for this test, with an empty database, and returns its
// connection string. The test may stop it, and its deadlock count has no deadlocks of other tests.
func ownServer(t *testing.T, kind testdb.Kind) (*services.Server, string) {
	t.Helper()
	_ = kind.Fresh(t) // skips the test where no servers are wanted
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("tests start their own database servers only on Linux on amd64")
	}
	own := servicestest.Own(t, kind.Name)
	if kind.Driver != "mysql" {
		return own, own.DSN
	}
	config, err := mysql.ParseDSN(own.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.DBName = "flagr"
	if _, err := kind.Open(t, own.DSN).ExecContext(t.Context(), "CREATE DATABASE flagr"); err != nil {
		t.Fatal(err)
	}
	return own, config.FormatDSN()
}

// TestDatabaseOutage stops the database for 6 s while 200 evaluations per second arrive, and then
// kills it. All evaluations must be acknowledged and counted.
func TestDatabaseOutage(t *testing.T) {
	onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
		const outage, clients, perSecond = 6 * time.Second, 4, 200
		own, dsn := ownServer(t, kind)
		s := startRough(t, t.TempDir(), quick.with(db.environ(dsn)).with(counting("100ms")))
		flags := splitFlags(t, s)
		var l load
		for client := range clients {
			l.clients.Go(func() {
				ticker := time.NewTicker(time.Second * clients / perSecond)
				defer ticker.Stop()
				for i := 0; !l.ending.Load(); i++ {
					<-ticker.C
					l.sent.Add(1)
					a, err := s.try(http.MethodPost, "/evaluation",
						object{"flagID": flags[i%len(flags)].ID, "entityID": fmt.Sprintf("c%d-%d", client, i)})
					switch {
					case err != nil:
						t.Errorf("an evaluation got no response: %v", err)
						return
					case a.status != http.StatusOK:
						l.failed.Add(1)
					default:
						l.acknowledged.Add(1)
					}
				}
			})
		}
		load := func(what string, evaluations int64) {
			t.Helper()
			until := l.acknowledged.Load() + evaluations
			poll(t, what, func() bool { return l.acknowledged.Load() >= until })
		}
		load("load before the outage", perSecond/2)

		if err := own.Stop(); err != nil {
			t.Fatal(err)
		}
		stopped, before := time.Now(), l.acknowledged.Load()
		load("load during the outage", int64(outage.Seconds()*perSecond))
		poll(t, "the outage to end", func() bool { return time.Since(stopped) >= outage })
		if now := statistics(t, s); now.LastError == "" || now.Pending < perSecond {
			t.Errorf("during the outage: %+v, want an error and pending evaluations", now)
		}
		t.Logf("%d evaluations were acknowledged in an outage of %s", l.acknowledged.Load()-before, time.Since(stopped).Round(time.Millisecond))
		resume(t, own)
		poll(t, "flushes to work again", func() bool { return statistics(t, s).LastError == "" })
		load("load after the outage", perSecond/2)

		if err := own.Kill(); err != nil {
			t.Fatal(err)
		}
		load("load after the crash", perSecond)
		resume(t, own)
		load("load after the recovery", perSecond/2)

		l.end()
		settle(t, s)
		s.stop(t, syscall.SIGTERM)
		l.checkAnswered(t, storedTwice(t, db, dsn))
	})
}

// resume starts a database server again. After a crash, it may take a moment until the server
// detects that the previous process is gone.
func resume(t *testing.T, own *services.Server) {
	t.Helper()
	poll(t, "the database to be back", func() bool {
		err := own.Resume(t.Context())
		if err != nil {
			t.Logf("the database does not start yet: %v", err)
		}
		return err == nil
	})
}

const (
	sharedFlags, sharedVariants, sharedSegments = 50, 5, 2 // 500 keys
	replicas, perReplica                        = 4, 4     // clients
)

// beginShared evaluates all flags for entities of both segments at full speed.
func (l *load) beginShared(s *server, flags []int64, clients int) {
	for client := range clients {
		var entities []object
		for i := range 20 {
			country := fmt.Sprint("C", i%sharedSegments)
			entities = append(entities, object{"entityID": fmt.Sprintf("%s-%d-%d", s.url, client, i), "entityContext": object{"country": country}})
		}
		size := int64(len(entities) * len(flags))
		l.clients.Go(func() {
			for !l.ending.Load() {
				l.sent.Add(size)
				a, err := s.try(http.MethodPost, "/evaluation/batch", object{"flagIDs": flags, "entities": entities})
				if err != nil {
					return
				}
				if a.status != http.StatusOK {
					l.failed.Add(1)
					return
				}
				l.acknowledged.Add(size)
			}
		})
	}
}

// TestReplicasShareKeys counts the same 500 keys on four servers with one database, at full speed
// and with frequent flushes. Two of the servers are killed meanwhile.
func TestReplicasShareKeys(t *testing.T) {
	onKinds(t, serverKinds, func(t *testing.T, kind testdb.Kind, db database) {
		heavy.Lock()
		defer heavy.Unlock()
		own, dsn := ownServer(t, kind)
		beside := kind.Open(t, dsn)
		var servers [replicas]*server
		for i := range servers {
			interval := time.Duration(50+i*50/(replicas-1)) * time.Millisecond
			servers[i] = start(t, db, dsn, counting(interval.String()).with(environ{
				"FLAGR_EVALCACHE_REFRESHINTERVAL": "1s", "FLAGR_RECORDER_DATAR_SERVER_NAME": fmt.Sprint("replica-", i),
			}))
		}
		flags := wideFlags(t, servers[0], sharedFlags, sharedVariants, sharedSegments)
		for _, s := range servers {
			awaitChanges(t, s)
		}

		var l load
		begin := time.Now()
		for _, s := range servers {
			l.beginShared(s, flags, perReplica)
		}
		var took []float64 // durations of flushes in seconds, in order
		var last [replicas]time.Time
		tick := time.NewTicker(20 * time.Millisecond) // each tick sends a query
		defer tick.Stop()
		for time.Since(begin) < *fleet {
			<-tick.C
			for i, s := range servers {
				if now := statistics(t, s); now.LastFlushAt != last[i] {
					last[i] = now.LastFlushAt
					took = append(took, now.LastFlushSeconds)
				}
			}
		}
		l.end()
		for _, s := range servers {
			settle(t, s)
		}
		l.checkAnswered(t, totalOf(t, beside))
		logLatency(t, took)
		if keys := count(t, beside, "SELECT COUNT(DISTINCT (flag_id * 1000000 + variant_id) * 1000000 + segment_id) FROM datar_hourly_events"); keys != sharedFlags*sharedVariants*sharedSegments {
			t.Errorf("%d keys were counted, want %d", keys, sharedFlags*sharedVariants*sharedSegments)
		}

		// Two servers are killed and restarted twice, while the others continue.
		l.ending.Store(false)
		for _, s := range servers {
			l.beginShared(s, flags, perReplica)
		}
		for range 2 {
			until := l.acknowledged.Load() + 40_000
			poll(t, "some load", func() bool { return l.acknowledged.Load() > until })
			for i := range 2 {
				servers[i].kill(t)
			}
			for i := range 2 {
				servers[i] = servers[i].again(t)
				l.beginShared(servers[i], flags, perReplica)
			}
		}
		until := l.acknowledged.Load() + 40_000
		poll(t, "some load", func() bool { return l.acknowledged.Load() > until })
		l.end()
		for _, s := range servers {
			settle(t, s)
		}
		checkFleet(t, servers[replicas-1], totalOf(t, beside))
		checkDetails(t, beside)
		for _, s := range servers {
			s.stop(t, syscall.SIGTERM)
			if files := journals(t, s.cmd.Dir); len(files) != 0 {
				t.Errorf("after a clean stop there are still %q", files)
			}
		}
		l.check(t, totalOf(t, beside))

		if n := kind.Deadlocks(t, beside); n != 0 {
			t.Errorf("the database counted %d deadlocks", n)
		}
		if log := own.Log(); strings.Contains(strings.ToLower(log), "deadlock") {
			t.Errorf("the database's log has deadlocks:\n%s", log)
		}
	})
}

// checkFleet waits until all replicas have reported that nothing is pending. Their statistics must
// then balance, including the killed runs.
func checkFleet(t *testing.T, s *server, total int64) {
	t.Helper()
	type fleet struct {
		Recorded, Stored, Pending, Lost int64
		Dropped                         map[string]int64
		Balanced                        bool
		Servers                         []struct {
			Name, State               string
			Recorded, Stored, Pending int64
		}
	}
	var f fleet
	poll(t, "the fleet to have nothing pending", func() bool {
		f = get[fleet](t, s, "/datar/fleet")
		return f.Pending == 0
	})
	names := map[string]bool{}
	for _, one := range f.Servers {
		names[one.Name] = true
		if one.State != "heard" || one.Recorded != one.Stored {
			t.Errorf("a server of the fleet is %+v, want it heard, and all stored", one)
		}
	}
	// A batch that was stored just before a kill is in the statistics of the killed run and of the
	// run that adopted it.
	if !f.Balanced || f.Lost != 0 || len(f.Dropped) != 0 || len(names) != replicas || f.Recorded != f.Stored || f.Stored < total {
		t.Errorf("the fleet is %+v, want it balanced, %d replicas, and at least the %d evaluations of the database", f, replicas, total)
	}
}

func totalOf(t *testing.T, db *sql.DB) int64 {
	t.Helper()
	return count(t, db, "SELECT COALESCE(SUM(eval_count), 0) FROM datar_hourly_events")
}

func count(t *testing.T, db *sql.DB, query string) int64 {
	t.Helper()
	var n int64
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// logLatency logs whether flushes of the last third take longer than those of the first. Other load
// on the machine also affects this, so it does not fail the test.
func logLatency(t *testing.T, seconds []float64) {
	t.Helper()
	if len(seconds) < 3 {
		t.Errorf("only %d flushes were seen", len(seconds))
		return
	}
	median := func(of []float64) float64 { return slices.Sorted(slices.Values(of))[len(of)/2] }
	third := len(seconds) / 3
	t.Logf("%d flushes: a median of %.0f ms in the first third, %.0f ms in the last; at most %.0f ms", len(seconds),
		median(seconds[:third])*1000, median(seconds[len(seconds)-third:])*1000, slices.Max(seconds)*1000)
}
