package services_test

import (
	"os"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/services/servicestest"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
)

// TestClickHouseIsKilled kills ClickHouse while an engine writes, and restarts it.
func TestClickHouseIsKilled(t *testing.T) {
	t.Parallel()
	if os.Getenv("FLAGR_TEST_CLICKHOUSE") == "" {
		t.Skip("FLAGR_TEST_CLICKHOUSE is not set: see integration_tests/README.md")
	}
	own := servicestest.Own(t, "clickhouse")
	options, err := chstore.ParseURL(own.DSN)
	if err != nil {
		t.Fatal(err)
	}
	store, err := chstore.New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	e, err := datar.New(datar.Options{Store: store, FlushInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	recorded := int64(0)
	for range 3 {
		for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; {
			for i := range 10 {
				e.Record(datar.Event{FlagID: int64(i) + 1, Outcome: datar.NoMatch, Time: time.Now()})
				recorded++
			}
			_ = e.Flush(t.Context()) // fails while the server is down
		}
		if err := own.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := store.Ping(t.Context()); err == nil {
			t.Error("Ping succeeds while there is no server")
		}
		e.Record(datar.Event{FlagID: 1, Outcome: datar.NoMatch, Time: time.Now()})
		recorded++
		if e.Flush(t.Context()) == nil {
			t.Error("a flush succeeded while there is no server")
		}
		if err := own.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Recorded != recorded || s.Stored != recorded {
		t.Errorf("statistics are %+v, want %d recorded and stored", s, recorded)
	}
	now := datar.HourOf(time.Now())
	totals, err := store.Totals(t.Context(), datar.TotalsQuery{From: now - 2, To: now + 2, GroupBy: datar.ByFlag})
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, total := range totals {
		sum += total.Count
	}
	if sum != recorded {
		t.Errorf("the sum is %d, want %d", sum, recorded)
	}
}
