package datarprom_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarprom"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

type stub datar.Stats

func (s stub) Stats() datar.Stats { return datar.Stats(s) }

// Engines of one process are told apart by their labels, in one registry.
func TestEachEngineHasItsSeries(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for tenant, recorded := range map[string]int64{"a": 12, "b": 34} {
		stats := stub{
			Recorded: recorded, Stored: 7, Pending: 3, Flushes: 2, FlushDuration: 1500 * time.Millisecond, InMemory: true, StoreClockOffset: -90 * time.Second,
			LastFlush: time.Unix(1700000000, 250e6), Dropped: map[datar.DropReason]int64{datar.DropCapacity: 2, datar.DropRefused: 0},
		}
		if err := registry.Register(datarprom.NewCollector(stats, prometheus.Labels{"tenant": tenant})); err != nil {
			t.Fatal(err)
		}
	}
	want := `# HELP datar_dropped_total Evaluations that will not be counted.
# TYPE datar_dropped_total counter
datar_dropped_total{reason="capacity",tenant="a"} 2
datar_dropped_total{reason="capacity",tenant="b"} 2
datar_dropped_total{reason="refused",tenant="a"} 0
datar_dropped_total{reason="refused",tenant="b"} 0
# HELP datar_flush_duration_seconds Time of the flushes that the database confirmed.
# TYPE datar_flush_duration_seconds summary
datar_flush_duration_seconds_sum{tenant="a"} 1.5
datar_flush_duration_seconds_count{tenant="a"} 2
datar_flush_duration_seconds_sum{tenant="b"} 1.5
datar_flush_duration_seconds_count{tenant="b"} 2
# HELP datar_journal_in_memory 1 while a journal is wanted and cannot be written, else 0.
# TYPE datar_journal_in_memory gauge
datar_journal_in_memory{tenant="a"} 1
datar_journal_in_memory{tenant="b"} 1
# HELP datar_last_flush_timestamp_seconds Start of the last flush that the database confirmed, 0 before the first.
# TYPE datar_last_flush_timestamp_seconds gauge
datar_last_flush_timestamp_seconds{tenant="a"} 1.70000000025e+09
datar_last_flush_timestamp_seconds{tenant="b"} 1.70000000025e+09
# HELP datar_recorded_total Evaluations recorded, and taken over from journals.
# TYPE datar_recorded_total counter
datar_recorded_total{tenant="a"} 12
datar_recorded_total{tenant="b"} 34
# HELP datar_store_clock_offset_seconds How far the clock of the database is ahead, negative if it is behind, 0 if unknown.
# TYPE datar_store_clock_offset_seconds gauge
datar_store_clock_offset_seconds{tenant="a"} -90
datar_store_clock_offset_seconds{tenant="b"} -90
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "datar_dropped_total", "datar_flush_duration_seconds",
		"datar_journal_in_memory", "datar_last_flush_timestamp_seconds", "datar_recorded_total", "datar_store_clock_offset_seconds"); err != nil {
		t.Error(err)
	}
}

// The series of a real engine add up, as its statistics do.
func TestAnEngineIsCollected(t *testing.T) {
	t.Parallel()
	engine, err := datar.New(datar.Options{Store: &memstore.Store{}})
	if err != nil {
		t.Fatal(err)
	}
	engine.Record(datar.Event{FlagID: 1, Count: 5})
	want := "# HELP datar_pending Evaluations that wait for the database.\n# TYPE datar_pending gauge\ndatar_pending 5\n"
	if err := testutil.CollectAndCompare(datarprom.NewCollector(engine, nil), strings.NewReader(want), "datar_pending"); err != nil {
		t.Error(err)
	}
	if err := engine.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
