package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/metrics"
)

func TestDatarSeries(t *testing.T) {
	t.Parallel()
	stats := datar.Stats{
		Recorded: 12, Stored: 7, Pending: 3, Keys: 4, Flushes: 2, FlushDuration: 1500 * time.Millisecond,
		LastFlush: time.Unix(1700000000, 250e6), OldestPending: time.Unix(1700000001, 0), LostJournals: 1, InMemory: true,
		Dropped: map[datar.DropReason]int64{datar.DropCapacity: 2, datar.DropRefused: 0},
	}
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	if err := p.Register(metrics.NewDatar(func() datar.Stats { return stats })); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	p.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		"flagr_datar_recorded_total 12",
		"flagr_datar_stored_total 7",
		`flagr_datar_dropped_total{reason="capacity"} 2`,
		`flagr_datar_dropped_total{reason="refused"} 0`,
		"flagr_datar_pending 3",
		"flagr_datar_keys 4",
		"flagr_datar_flush_duration_seconds_sum 1.5",
		"flagr_datar_flush_duration_seconds_count 2",
		"flagr_datar_last_flush_timestamp_seconds 1.70000000025e+09",
		"flagr_datar_oldest_pending_timestamp_seconds 1.700000001e+09",
		"flagr_datar_journals_lost_total 1",
		"flagr_datar_journal_in_memory 1",
	} {
		if !strings.Contains(answer.Body.String(), line+"\n") {
			t.Errorf("no line %q in:\n%s", line, answer.Body)
		}
	}
}
