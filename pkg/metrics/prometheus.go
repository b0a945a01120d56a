package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// latencyBuckets are seconds. An evaluation takes less than the first; a change waits for the
// database.
func latencyBuckets() []float64 {
	return []float64{0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
}

// Prometheus has the metrics for a Prometheus server.
type Prometheus struct {
	registry *prometheus.Registry
	logger   *slog.Logger

	requests  *prometheus.CounterVec
	latencies []*prometheus.HistogramVec // none unless turned on
	exchanges series[exchangeKey, *exchangeSeries]

	results, decisions *prometheus.CounterVec
}

// NewPrometheus creates the metrics. With latencies, it creates histograms of request durations,
// which have 17 series for each route and status.
func NewPrometheus(latencies bool, logger *slog.Logger) *Prometheus {
	requestLabels := []string{"status", "path", "method"}
	p := &Prometheus{
		registry: prometheus.NewRegistry(),
		logger:   logger,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flagr_requests_total",
			Help: "HTTP requests by status, route and method.",
		}, requestLabels),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flagr_eval_results",
			Help: "Evaluations of flags that were on and had segments, by entity type, flag and variant. VariantID 0 means that no variant was assigned.",
		}, []string{"EntityType", "FlagID", "FlagKey", "VariantID", "VariantKey"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flagr_evaluations_total",
			Help: "All evaluations by flag, variant and reason: matched, no_match, no_segments, flag_disabled, flag_not_found.",
		}, []string{"flag_key", "variant_key", "reason"}),
	}
	p.registry.MustRegister(p.requests, p.results, p.decisions, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if latencies {
		p.latencies = []*prometheus.HistogramVec{
			prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name:    "flagr_requests_buckets",
				Help:    "Seconds that HTTP requests take, by status, route and method. The same as flagr_http_request_duration_seconds.",
				Buckets: latencyBuckets(),
			}, requestLabels),
			prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name:    "flagr_http_request_duration_seconds",
				Help:    "Seconds that HTTP requests take, by status, route and method.",
				Buckets: latencyBuckets(),
			}, []string{"status", "route", "method"}),
		}
		for _, l := range p.latencies {
			p.registry.MustRegister(l)
		}
	}
	return p
}

// Register adds metrics of other parts of the server. It fails if a name is already used.
func (p *Prometheus) Register(c prometheus.Collector) error { return p.registry.Register(c) }

// BuildInfo adds flagr_build_info, whose value is always 1.
func (p *Prometheus) BuildInfo(version string) error {
	return p.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "flagr_build_info",
		Help:        "The version of the server and of Go. The value is 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 }))
}

// Handler serves the metrics.
func (p *Prometheus) Handler() http.Handler {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{
		ErrorLog:      errorLog{p.logger},
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// errorLog is a promhttp.Logger.
type errorLog struct{ logger *slog.Logger }

func (l errorLog) Println(v ...any) { l.logger.Error("metrics are incomplete", "error", v) }

func (p *Prometheus) evaluations(l evaluationLabels) (count func()) {
	total := p.decisions.WithLabelValues(l.flagKey, l.variantKey, l.reason)
	if !l.decided {
		return total.Inc
	}
	result := p.results.WithLabelValues(l.entityType, l.flagID, l.flagKey, l.variantID, l.variantKey)
	return func() {
		total.Inc()
		result.Inc()
	}
}

// exchangeKey has only bounded values: routes are routes of the API, and the server chooses the
// status.
type exchangeKey struct {
	route, method string
	status        int
	aborted       bool
}

type exchangeSeries struct {
	requests  prometheus.Counter
	latencies []prometheus.Observer
}

// ObserveRequest counts a request and records its duration.
func (p *Prometheus) ObserveRequest(e *web.Exchange) {
	key := exchangeKeyOf(e)
	s := p.exchanges.get(key, func(key exchangeKey) (*exchangeSeries, bool) {
		status := key.statusLabel()
		s := &exchangeSeries{requests: p.requests.WithLabelValues(status, key.route, key.method)}
		for _, l := range p.latencies {
			s.latencies = append(s.latencies, l.WithLabelValues(status, key.route, key.method))
		}
		return s, true
	})
	s.requests.Inc()
	if key.route == ofrep.EventsPath { // clients choose its duration
		return
	}
	for _, l := range s.latencies {
		l.Observe(e.Duration.Seconds())
	}
}

func exchangeKeyOf(e *web.Exchange) exchangeKey {
	key := exchangeKey{route: e.Request.Pattern, method: e.Request.Method, status: e.Status, aborted: e.Aborted}
	if key.route == "" {
		key.route = overflow
	}
	switch key.method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions:
	default:
		key.method = overflow
	}
	return key
}

func (k exchangeKey) statusLabel() string {
	if k.aborted {
		return "aborted"
	}
	return strconv.Itoa(k.status)
}
