package app

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// newService creates the service that all evaluation endpoints use. Further observers are called
// after the observers of the meters.
func (a *App) newService(ctx context.Context, c *config.Config, m *meters, further []func(*eval.Result)) *eval.Service {
	observers := slices.Concat(m.evaluations, further)
	var recorder eval.Recorder // nil if no recorder is on, so that no exposure counts as recorded
	if !a.recorders.Empty() {
		recorder = a.recorders
	}
	if c.Log.Evaluations && c.Log.EvaluationsPerSecond > 0 && a.logger.Enabled(ctx, slog.LevelInfo) {
		observers = append(observers, eval.NewLog(a.logger, c.Log.EvaluationsPerSecond).Observe)
	}
	return eval.NewService(a.cache, recorder, eval.Options{
		DebugEnabled:      c.Eval.DebugEnabled,
		BatchSize:         c.Eval.BatchSize,
		AnswerBytes:       c.Eval.AnswerBytes,
		ExposureBatchSize: c.Exposure.BatchSize,
		Observe:           observeAll(observers),
		Trace:             m.tracer,
		Turns:             a.turns,
		Now:               a.now,
	})
}

// observeAll returns an observer that calls all observers, or nil if there are none.
func observeAll(observers []func(*eval.Result)) func(*eval.Result) {
	switch len(observers) {
	case 0:
		return nil
	case 1:
		return observers[0]
	}
	return func(r *eval.Result) {
		for _, observe := range observers {
			observe(r)
		}
	}
}

// handlerOptions returns the dependencies of the API. The database is nil if flags come from a JSON
// document.
func (a *App) handlerOptions(c *config.Config, service *eval.Service, db *store.Store, d *counting) handler.Options {
	o := handler.Options{
		Eval:             service,
		Snapshots:        a.cache,
		States:           a.cache,
		RecorderStats:    a.recorders.Stats,
		MaxGetQueryBytes: c.Eval.GetMaxURLBytes,
		Now:              a.now,
		Actor:            web.Actor(a.edge.access.jwt, c.HeaderAuth, c.CookieAuth),
		HealthChecks: handler.HealthChecks{
			LastCheck: a.cache.LastCheck,
			Failing:   a.cache.Failing,
			MaxAge:    max(staleAfter*c.EvalCache.RefreshInterval, time.Minute),
			Recorders: a.recorders.Statuses,
			Stopping:  a.stopping.Load,
			Version:   Version,
		},
		Turns:       a.turns,
		BatchMemory: a.memory,
		Logger:      a.logger,
	}
	if db != nil {
		o.HealthChecks.Ping = db.Ping
		if !c.Eval.OnlyMode {
			o.Store = db
		}
	}
	if c.InjectedContext.Enabled {
		o.InjectedContext = &handler.InjectedContext{
			Headers:        c.InjectedContext.HTTPHeaders,
			HeaderPrefixes: c.InjectedContext.HTTPHeaderPrefixes,
			Now:            a.now,
		}
	}
	if d.engine != nil {
		o.Datar, o.Fleet = d.engine, d.engine
	}
	switch {
	case c.Datar.IngestEnabled && d.counts != nil:
		o.Ingester = &ingest.Ingester{Store: d.counts, Flags: countedFlags{a.cache, d.allFlags}, Logger: a.logger}
	case c.Datar.IngestEnabled:
		a.logger.Warn("FLAGR_RECORDER_DATAR_INGEST_ENABLED has no effect without Datar and a database")
	}
	return o
}
