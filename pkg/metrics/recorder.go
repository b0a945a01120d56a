package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// recorderCollector collects the statistics of the streaming recorders at each scrape.
type recorderCollector struct {
	stats func() []recorder.Stats

	recorded, delivered, dropped, retried, pending, pendingBytes, failing, lastDelivery *prometheus.Desc
}

// NewRecorders returns a collector of the streaming recorders' series. It calls stats for each
// scrape.
func NewRecorders(stats func() []recorder.Stats) prometheus.Collector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("flagr_recorder_"+name, help, append([]string{"recorder"}, labels...), nil)
	}
	return &recorderCollector{
		stats:        stats,
		recorded:     describe("recorded_total", "Evaluations and exposures given to the recorder."),
		delivered:    describe("delivered_total", "Records that the broker has confirmed."),
		dropped:      describe("dropped_total", "Records that were given up.", "reason"),
		retried:      describe("retried_total", "Records sent again after an attempt that failed."),
		pending:      describe("pending", "Records that wait or are being sent."),
		pendingBytes: describe("pending_bytes", "About how much memory the pending records take."),
		failing:      describe("failing", "1 while the last attempt to deliver has failed, else 0."),
		lastDelivery: describe("last_delivery_timestamp_seconds", "When the broker last confirmed something, 0 before the first time."),
	}
}

// Describe implements prometheus.Collector.
func (c *recorderCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.recorded, c.delivered, c.dropped, c.retried, c.pending, c.pendingBytes, c.failing, c.lastDelivery,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *recorderCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.stats() {
		counter := func(d *prometheus.Desc, value uint64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), append([]string{s.Name}, labels...)...)
		}
		gauge := func(d *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, s.Name)
		}
		counter(c.recorded, s.Recorded)
		counter(c.delivered, s.Delivered)
		counter(c.retried, s.Retried)
		for _, reason := range recorder.Reasons() { // including those that are 0, so that an alert sees the first increase
			counter(c.dropped, s.Dropped[reason], string(reason))
		}
		gauge(c.pending, float64(s.Pending))
		gauge(c.pendingBytes, float64(s.PendingBytes))
		var failing, last float64
		if s.State == recorder.Failing {
			failing = 1
		}
		if !s.LastDelivery.IsZero() {
			last = float64(s.LastDelivery.UnixMilli()) / 1000
		}
		gauge(c.failing, failing)
		gauge(c.lastDelivery, last)
	}
}
