package metrics

import "github.com/prometheus/client_golang/prometheus"

// eventCollector collects the numbers of a Tracer's events at each scrape.
type eventCollector struct {
	events        func() (sent, dropped uint64)
	sent, dropped *prometheus.Desc
}

// NewEvents returns a collector of the series of evaluations that are sent as events. It calls
// events, which is Tracer.Events, for each scrape.
func NewEvents(events func() (sent, dropped uint64)) prometheus.Collector {
	return &eventCollector{
		events:  events,
		sent:    prometheus.NewDesc("flagr_otel_events_total", "Evaluations that were sent as events with OpenTelemetry.", nil, nil),
		dropped: prometheus.NewDesc("flagr_otel_events_dropped_total", "Evaluations that were too many to be sent as events.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *eventCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.sent
	out <- c.dropped
}

// Collect implements prometheus.Collector.
func (c *eventCollector) Collect(out chan<- prometheus.Metric) {
	sent, dropped := c.events()
	out <- prometheus.MustNewConstMetric(c.sent, prometheus.CounterValue, float64(sent))
	out <- prometheus.MustNewConstMetric(c.dropped, prometheus.CounterValue, float64(dropped))
}
