package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarprom"
)

// datarStats returns the statistics of Datar.
type datarStats func() datar.Stats

// Stats implements datarprom.Engine.
func (f datarStats) Stats() datar.Stats { return f() }

// NewDatar returns a collector of Datar's series, like datarprom, with the prefix of all series of
// the server. It calls stats for each scrape.
func NewDatar(stats func() datar.Stats) prometheus.Collector {
	return prometheus.WrapCollectorWithPrefix("flagr_", datarprom.NewCollector(datarStats(stats), nil))
}
