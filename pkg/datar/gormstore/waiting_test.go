package gormstore_test

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// TestBatchesWaitWithoutASnapshot checks that batches that wait for another one do not keep
// PostgreSQL from removing old versions of rows. Each flush would read those versions, so that the
// database would store less the more servers wait. Other databases have no such versions.
func TestBatchesWaitWithoutASnapshot(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		const servers, rounds = 5, 4
		dsn := kind.Fresh(t)
		db := openKind(t, kind, dsn)
		pool, err := db.DB()
		if err != nil {
			t.Fatal(err)
		}
		pool.SetMaxIdleConns(servers + 1)
		s := newStore(t, db)
		beside := kind.Open(t, dsn)
		row := datar.Row{Key: datar.Key{FlagID: 1, Hour: 1}, Count: 1}
		fewest := servers
		for round := range int64(rounds) {
			holder := db.Begin()
			if err := s.Lock(holder); err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			for i := range servers {
				group.Go(func() {
					batch := datar.Batch{Writer: fmt.Sprint("writer-", i), Sequence: round + 1, Rows: []datar.Row{row}}
					if err := s.Apply(t.Context(), batch); err != nil {
						t.Error(err)
					}
				})
			}
			if kind.Driver == "postgres" {
				fewest = min(fewest, awaitWaiting(t, beside, servers))
			}
			if err := holder.Commit().Error; err != nil {
				t.Fatal(err)
			}
			group.Wait()
		}
		// A connection that is new, or whose cache was reset, reads the catalog, with a snapshot.
		if kind.Driver == "postgres" && fewest != 0 {
			t.Errorf("at least %d of the %d waiting batches have a snapshot or a transaction ID in each of %d rounds", fewest, servers, rounds)
		}
		totals, err := s.Totals(t.Context(), datar.TotalsQuery{From: 0, To: 2, GroupBy: datar.ByFlag})
		if err != nil || len(totals) != 1 || totals[0].Count != servers*rounds {
			t.Errorf("totals are %+v (%v), want %d", totals, err, servers*rounds)
		}
	})
}

// awaitWaiting waits until some transactions wait for a lock. It returns how many of them have a
// snapshot or a transaction ID.
func awaitWaiting(t *testing.T, db *sql.DB, want int) (snapshots int) {
	t.Helper()
	waiting := 0
	for deadline := time.Now().Add(time.Minute); waiting < want; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d batches wait, want %d", waiting, want)
		}
		if err := db.QueryRowContext(t.Context(), "SELECT count(*), count(coalesce(backend_xmin, backend_xid)) FROM pg_stat_activity "+
			"WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting, &snapshots); err != nil {
			t.Fatal(err)
		}
	}
	return snapshots
}

// TestServerThatStalls checks that a server that loses its network within a batch holds up the
// others only for a limited time.
func TestServerThatStalls(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		if kind.Driver != "postgres" {
			return // MySQL and MariaDB have no such limit for a transaction: see docs/datar.md
		}
		db := openKind(t, kind, kind.Fresh(t))
		s := newStore(t, db)
		stalled := db.Begin()
		defer stalled.Rollback()
		if err := s.Lock(stalled); err != nil {
			t.Fatal(err)
		}
		var limit string
		if err := stalled.Raw("SHOW idle_in_transaction_session_timeout").Scan(&limit).Error; err != nil || limit != "1min" {
			t.Errorf("the database ends a transaction that stalls after %q, %v; want 1min", limit, err)
		}
		if err := stalled.Exec("SET LOCAL idle_in_transaction_session_timeout = '100ms'").Error; err != nil {
			t.Fatal(err)
		}
		row := datar.Row{Key: datar.Key{FlagID: 1, Hour: 1}, Count: 1}
		if err := s.Apply(t.Context(), datar.Batch{Writer: "w", Sequence: 1, Rows: []datar.Row{row}}); err != nil {
			t.Error(err)
		}
		if err := stalled.Commit().Error; err == nil {
			t.Error("the transaction that stalled was committed")
		}
	})
}
