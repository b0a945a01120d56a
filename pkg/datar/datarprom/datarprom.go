// Package datarprom exports the statistics of a datar.Engine as Prometheus series. It is a separate
// module, so that a program with another metrics library does not require Prometheus.
package datarprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Engine provides the statistics. *datar.Engine implements it.
type Engine interface {
	Stats() datar.Stats
}

// collector reads the statistics at each scrape.
type collector struct {
	engine Engine

	recorded, stored, dropped, pending, keys, flushes, lastFlush, oldestPending, lostJournals, inMemory, clockOffset *prometheus.Desc
}

// NewCollector returns a collector of an engine's series, whose names begin with datar_. Each
// series has the labels, which distinguish several engines of one process, for example by tenant;
// they may be nil. A series has no label for flags or other parts of a key, because those are
// unbounded, and the engine's queries return exact counts.
func NewCollector(engine Engine, labels prometheus.Labels) prometheus.Collector {
	describe := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("datar_"+name, help, variable, labels)
	}
	return &collector{
		engine:        engine,
		recorded:      describe("recorded_total", "Evaluations recorded, and taken over from journals."),
		stored:        describe("stored_total", "Evaluations that the database has confirmed."),
		dropped:       describe("dropped_total", "Evaluations that will not be counted.", "reason"),
		pending:       describe("pending", "Evaluations that wait for the database."),
		keys:          describe("keys", "Combinations of flag, variant, segment and hour counted in memory."),
		flushes:       describe("flush_duration_seconds", "Time of the flushes that the database confirmed."),
		lastFlush:     describe("last_flush_timestamp_seconds", "Start of the last flush that the database confirmed, 0 before the first."),
		oldestPending: describe("oldest_pending_timestamp_seconds", "A time before which nothing is pending, 0 when nothing is."),
		lostJournals:  describe("journals_lost_total", "Journals that were deleted or cut while in use."),
		inMemory:      describe("journal_in_memory", "1 while a journal is wanted and cannot be written, else 0."),
		clockOffset:   describe("store_clock_offset_seconds", "How far the clock of the database is ahead, negative if it is behind, 0 if unknown."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.recorded, c.stored, c.dropped, c.pending, c.keys, c.flushes, c.lastFlush, c.oldestPending, c.lostJournals, c.inMemory, c.clockOffset,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.engine.Stats()
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	counter(c.recorded, s.Recorded)
	counter(c.stored, s.Stored)
	for reason, n := range s.Dropped {
		counter(c.dropped, n, reason.String())
	}
	counter(c.lostJournals, int64(s.LostJournals))
	gauge(c.pending, float64(s.Pending))
	gauge(c.keys, float64(s.Keys))
	out <- prometheus.MustNewConstSummary(c.flushes, uint64(s.Flushes), s.FlushDuration.Seconds(), nil)
	var last, oldest, inMemory float64
	if !s.LastFlush.IsZero() {
		last = float64(s.LastFlush.UnixMilli()) / 1000
	}
	if !s.OldestPending.IsZero() {
		oldest = float64(s.OldestPending.UnixMilli()) / 1000
	}
	if s.InMemory {
		inMemory = 1
	}
	gauge(c.lastFlush, last)
	gauge(c.oldestPending, oldest)
	gauge(c.inMemory, inMemory)
	gauge(c.clockOffset, s.StoreClockOffset.Seconds())
}
