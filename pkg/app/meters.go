package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/metrics"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// meters observe requests and evaluations. Fields of meters that are turned off are nil.
type meters struct {
	prometheus  *metrics.Prometheus    // nil if off
	telemetry   *metrics.OpenTelemetry // nil if off
	requests    []func(*web.Exchange)
	evaluations []func(*eval.Result)
	tracer      eval.Tracer // nil if tracing is off
}

// newMeters constructs the meters of the configuration.
func (a *App) newMeters(ctx context.Context, c *config.Config) (*meters, error) {
	m := &meters{}
	var sinks []metrics.EvaluationSink
	if c.Prometheus.Enabled {
		m.prometheus = metrics.NewPrometheus(c.Prometheus.IncludeLatencyHistogram, a.logger)
		if err := m.prometheus.BuildInfo(Version); err != nil {
			return nil, err
		}
		m.requests = append(m.requests, m.prometheus.ObserveRequest)
		sinks = append(sinks, m.prometheus)
	}
	if c.Statsd.Enabled {
		s, err := metrics.NewStatsd(ctx, c.Statsd.Host, c.Statsd.Port, c.Statsd.Prefix, a.logger)
		if err != nil {
			return nil, err
		}
		a.onStop("statsd", s.Close)
		m.requests = append(m.requests, s.ObserveRequest)
		sinks = append(sinks, s)
	}
	logs := c.Telemetry.EvaluationEvents != config.EventsNone
	if t := c.OpenTelemetry; t.Traces || t.Metrics || logs {
		var err error
		if m.telemetry, err = metrics.NewOpenTelemetry(ctx, Version, t.Traces, t.Metrics, logs); err != nil {
			return nil, fmt.Errorf("OpenTelemetry: %w", err)
		}
		a.onStop("OpenTelemetry", flushOnStop("OpenTelemetry", flushTimeout, a.logger, m.telemetry.Close))
		if a.ownsProcess {
			// By default the libraries write log lines in their own format.
			otel.SetErrorHandler(metrics.NewErrorLog(a.logger))
		}
		if t.Traces {
			m.requests = append(m.requests, m.telemetry.NameRoute)
		}
		if t.Traces || logs {
			if err := m.trace(c); err != nil {
				return nil, err
			}
		}
		if m.telemetry.CountsEvaluations() {
			sinks = append(sinks, m.telemetry)
		}
	}
	if len(sinks) > 0 {
		m.evaluations = append(m.evaluations, metrics.NewEvaluations(sinks...).Observe)
	}
	return m, nil
}

// trace adds evaluations to traces and logs.
func (m *meters) trace(c *config.Config) error {
	o := metrics.TraceOptions{FlagSetID: c.OFREP.FlagSetID}
	switch c.Telemetry.EvaluationEvents {
	case config.EventsSampled:
		o.Events = metrics.EventsOfSampled
	case config.EventsAll:
		o.Events, o.EventsPerSecond = metrics.EventsOfAll, c.Telemetry.EventsPerSecond
	}
	switch c.Telemetry.ContextID {
	case config.ContextIDHashed:
		o.ContextID = metrics.ContextIDHashed
	case config.ContextIDClear:
		o.ContextID = metrics.ContextIDClear
	}
	tracer := m.telemetry.NewTracer(o)
	m.tracer = tracer
	if m.prometheus == nil || o.Events == metrics.EventsOff {
		return nil
	}
	return m.prometheus.Register(metrics.NewEvents(tracer.Events))
}

// watch exports the statistics of the evaluation cache, the streams and Datar's engine, which is
// nil if Datar is off.
func (m *meters) watch(cache *evalcache.Cache, recorders *handler.DataRecorders, engine *datar.Engine, now func() time.Time) error {
	if m.prometheus == nil {
		return nil
	}
	errs := []error{
		m.prometheus.Register(metrics.NewEvalCache(metrics.EvalCacheOptions{
			Flags: func() int { return cache.Snapshot().Len() }, LastCheck: cache.LastCheck, Now: now,
		})),
		m.prometheus.Register(metrics.NewRecorders(recorders.Stats)),
	}
	if engine != nil {
		errs = append(errs, m.prometheus.Register(metrics.NewDatar(engine.Stats)))
	}
	return errors.Join(errs...)
}

// watchOFREP exports the statistics of OFREP.
func (m *meters) watchOFREP(h *ofrep.Handler) error {
	if m.prometheus == nil {
		return nil
	}
	return m.prometheus.Register(metrics.NewOFREP(h.Stats))
}

// flushTimeout limits how long the server waits for a receiver of reports when it stops.
const (
	flushTimeout = 2 * time.Second
	// webhookStopTimeout is longer, because a lost change is not repeated, while metrics are
	// followed by newer ones.
	webhookStopTimeout = 5 * time.Second
)

// flushOnStop is a step of Stop that sends the remaining reports, metrics or notifications to a
// receiver. If the receiver does not accept them, this is logged and is not an error of the server.
func flushOnStop(receiver string, timeout time.Duration, logger *slog.Logger, send func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := send(ctx); err != nil {
			logger.Warn("the last reports were not sent", "to", receiver, "error", err)
		}
		return nil
	}
}
