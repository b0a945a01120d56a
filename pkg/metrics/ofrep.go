package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// ofrepCollector collects statistics of OFREP beyond single flags, at each scrape.
type ofrepCollector struct {
	stats                           func() ofrep.Stats
	flags, streams, events, refused *prometheus.Desc
}

// NewOFREP returns a collector of OFREP's series. It calls stats for each scrape.
func NewOFREP(stats func() ofrep.Stats) prometheus.Collector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("flagr_ofrep_"+name, help, labels, nil)
	}
	return &ofrepCollector{
		stats:   stats,
		flags:   describe("bulk_flags_total", "Flags evaluated for answers with all flags, recorded or not."),
		streams: describe("streams", "Open event streams."),
		events:  describe("stream_events_total", "Events sent, one for each stream."),
		refused: describe("streams_refused_total", "Event streams that were refused.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (c *ofrepCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.flags, c.streams, c.events, c.refused} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *ofrepCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	counter(c.flags, s.BulkFlags)
	counter(c.events, s.StreamEvents)
	counter(c.refused, s.RefusedByLimit, "limit")
	counter(c.refused, s.RefusedByTicket, "ticket")
	out <- prometheus.MustNewConstMetric(c.streams, prometheus.GaugeValue, float64(s.Streams))
}
