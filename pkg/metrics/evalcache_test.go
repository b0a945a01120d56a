package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/metrics"
)

// TestSeriesOfFlagsAndEvents scrapes before and after the flags were read for the first time.
func TestSeriesOfFlagsAndEvents(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	var checked time.Time
	flags, sent := 0, uint64(0)
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	cache := metrics.EvalCacheOptions{
		Flags: func() int { return flags }, LastCheck: func() time.Time { return checked }, Now: func() time.Time { return now },
	}
	if err := p.Register(metrics.NewEvalCache(cache)); err != nil {
		t.Fatal(err)
	}
	if err := p.Register(metrics.NewEvents(func() (uint64, uint64) { return sent, 2 })); err != nil {
		t.Fatal(err)
	}
	scrape := func(lines ...string) {
		t.Helper()
		answer := httptest.NewRecorder()
		p.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for _, line := range lines {
			if !strings.Contains(answer.Body.String(), "\n"+line+"\n") {
				t.Errorf("no line %q in:\n%s", line, answer.Body)
			}
		}
	}
	scrape("flagr_evalcache_flags 0", "flagr_evalcache_age_seconds 0", "flagr_otel_events_total 0", "flagr_otel_events_dropped_total 2")
	flags, sent, checked = 7, 5, now.Add(-1500*time.Millisecond)
	scrape("flagr_evalcache_flags 7", "flagr_evalcache_age_seconds 1.5", "flagr_otel_events_total 5", "flagr_otel_events_dropped_total 2",
		"# TYPE flagr_evalcache_flags gauge", "# TYPE flagr_otel_events_total counter")
}
