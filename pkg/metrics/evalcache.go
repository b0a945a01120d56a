package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// EvalCacheOptions are what the series of the evaluation cache are computed from, at each scrape.
// All are required.
type EvalCacheOptions struct {
	// Flags returns the number of flags in memory.
	Flags func() int
	// LastCheck returns when the source of the flags was last read, or zero if it was not.
	LastCheck func() time.Time
	// Now is the clock of LastCheck.
	Now func() time.Time
}

// evalCacheCollector collects the state of the evaluation cache at each scrape.
type evalCacheCollector struct {
	options    EvalCacheOptions
	flags, age *prometheus.Desc
}

// NewEvalCache returns a collector of the evaluation cache's series.
func NewEvalCache(o EvalCacheOptions) prometheus.Collector {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("flagr_evalcache_"+name, help, nil, nil)
	}
	return &evalCacheCollector{
		options: o,
		flags:   describe("flags", "Flags that evaluations read, from memory."),
		age:     describe("age_seconds", "Seconds since the source of the flags last confirmed or replaced those in memory. It stays below the refresh interval while all is well."),
	}
}

// Describe implements prometheus.Collector.
func (c *evalCacheCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.flags
	out <- c.age
}

// Collect implements prometheus.Collector.
func (c *evalCacheCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	gauge(c.flags, float64(c.options.Flags()))
	age := 0.0
	if at := c.options.LastCheck(); !at.IsZero() {
		age = c.options.Now().Sub(at).Seconds()
	}
	gauge(c.age, age)
}
