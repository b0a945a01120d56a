package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/metrics"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

func TestRecorderSeries(t *testing.T) {
	t.Parallel()
	stats := []recorder.Stats{
		{
			Name: "kafka", State: recorder.Failing, Recorded: 12, Delivered: 7, Pending: 3, PendingBytes: 3000, Retried: 5,
			Dropped: map[recorder.Reason]uint64{recorder.QueueFull: 2}, LastDelivery: time.Unix(1700000000, 250e6),
		},
		{Name: "pubsub", State: recorder.Unproven},
	}
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	if err := p.Register(metrics.NewRecorders(func() []recorder.Stats { return stats })); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	p.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`flagr_recorder_recorded_total{recorder="kafka"} 12`,
		`flagr_recorder_delivered_total{recorder="kafka"} 7`,
		`flagr_recorder_dropped_total{reason="queue_full",recorder="kafka"} 2`,
		`flagr_recorder_dropped_total{reason="undelivered",recorder="kafka"} 0`,
		`flagr_recorder_retried_total{recorder="kafka"} 5`,
		`flagr_recorder_pending{recorder="kafka"} 3`,
		`flagr_recorder_pending_bytes{recorder="kafka"} 3000`,
		`flagr_recorder_failing{recorder="kafka"} 1`,
		`flagr_recorder_last_delivery_timestamp_seconds{recorder="kafka"} 1.70000000025e+09`,
		`flagr_recorder_failing{recorder="pubsub"} 0`,
		`flagr_recorder_last_delivery_timestamp_seconds{recorder="pubsub"} 0`,
	} {
		if !strings.Contains(answer.Body.String(), line+"\n") {
			t.Errorf("no line %q in:\n%s", line, answer.Body)
		}
	}
}
