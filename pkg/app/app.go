// Package app puts the server together: it builds everything from the configuration, starts it, and takes it down in the
// reverse order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-openapi/runtime/middleware"
	"go.opentelemetry.io/otel"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/notification"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/web"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

const (
	// StopTimeout is a good deadline for Stop. It is below the 30 s that Kubernetes gives a container, of which the
	// generated server's --graceful-timeout takes up to 15 s before.
	StopTimeout = 10 * time.Second

	// drainFlushInterval is the longest time that a count waits for the store once the server is stopping.
	drainFlushInterval = 100 * time.Millisecond

	// staleAfter is how many refreshes of the flags may fail until readiness says so.
	staleAfter = 10
)

// Options change what the configuration does not.
type Options struct {
	// Logger gets everything that the server has to say; nil means stderr, in the configured format and level.
	Logger *slog.Logger
	// OwnsProcess says that the process is there for this server alone, which may then change what there is once in a
	// process: when the garbage collector runs, and who gets the errors of OpenTelemetry's libraries.
	OwnsProcess bool
}

// App is the whole server but for its listeners.
type App struct {
	logger    *slog.Logger
	edge      *edge
	cache     *evalcache.Cache
	recorders *handler.DataRecorders
	handler   *handler.Handler
	ingesting bool                  // counts from elsewhere are taken
	ofrep     *ofrep.Handler        // nil when switched off
	evaluator fastpath.Evaluator    // nil when every evaluation takes the generated way
	webhook   *notification.Webhook // nil when switched off

	cleanups    []cleanup
	ownsProcess bool

	beginStop sync.Once
	stopping  atomic.Bool
	stop      sync.Once
	stopErr   error // the result of Stop

	// draining is the context of the flushes between BeginStop and Stop, which ends them with endDraining.
	draining    context.Context
	endDraining context.CancelFunc
	drained     sync.WaitGroup
}

// cleanup undoes one step of New.
type cleanup struct {
	name string
	run  func(ctx context.Context) error
}

// New opens what the configuration names and builds the server on it. Start must be called before it serves, and Stop
// after. On an error nothing is left open.
func New(ctx context.Context, c *config.Config, o Options) (_ *App, err error) {
	a := &App{logger: o.Logger, ownsProcess: o.OwnsProcess}
	a.draining, a.endDraining = context.WithCancel(context.Background())
	if a.logger == nil {
		a.logger = newLogger(c.Log, os.Stderr)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop(ctx))
		}
	}()
	for _, n := range c.Unused() {
		a.logger.Warn("environment variable has no effect", "variable", n.Variable, "reason", n.Explanation)
	}

	if c.Sentry.Enabled {
		logger, flush, err := newSentry(c.Sentry, a.logger)
		if err != nil {
			return nil, err
		}
		a.logger = logger
		a.onStop("Sentry", lastWords("Sentry", lastWordsTimeout, logger, flush))
	}
	meters, err := newMeters(ctx, c, a.logger, a.onStop)
	if err != nil {
		return nil, err
	}
	if o.OwnsProcess && meters.telemetry != nil {
		// By default the libraries write lines of a form of their own.
		otel.SetErrorHandler(&telemetryLog{logger: a.logger})
	}
	access := web.AccessLog{Logger: a.logger, Exclude: c.Log.RequestsExcludeURLs}
	if o.Logger == nil {
		lines := newLineBuffer(os.Stderr)
		access.Logger = newLogger(c.Log, lines)
		access.Lines, access.JSON = lines, c.Log.Format == config.FormatJSON
		a.onStop("access log", lines.stop)
	}
	a.edge, err = newEdge(c, a.logger, access, meters)
	if err != nil {
		return nil, err
	}

	var onChange func(entity.Change)
	if c.Notification.WebhookEnabled {
		a.webhook = notification.New(notification.Options{
			URL:        c.Notification.WebhookURL,
			Header:     c.Notification.Header(),
			Timeout:    c.Notification.Timeout,
			MaxRetries: c.Notification.MaxRetries,
			RetryBase:  c.Notification.RetryBase,
			RetryMax:   c.Notification.RetryMax,
			Logger:     a.logger,
		})
		onChange = a.webhook.Notify
		// It stops after the recorders: a receiver that hangs must not cost them the time to store their counts.
		a.onStop("notifications", lastWords("webhook", webhookStopTimeout, a.logger, a.webhook.Stop))
	}

	var db *store.Store // nil when the flags come from a JSON document
	var source evalcache.FlagSource
	switch c.Database.Driver {
	case config.DriverJSONFile:
		source = evalcache.FromFile(c.Database.DSN)
	case config.DriverJSONHTTP:
		source = evalcache.FromHTTP(c.Database.DSN, nil)
	default:
		db, err = store.Open(ctx, store.Options{
			Driver:        c.Database.Driver,
			DSN:           c.Database.DSN,
			LogQueries:    c.Database.LogQueries,
			RetryAttempts: c.Database.RetryAttempts,
			RetryDelay:    c.Database.RetryDelay,
			OnChange:      onChange,
			ChangeDetails: a.webhook != nil && c.Notification.DetailedDiffEnabled,
			Logger:        a.logger,
		})
		if err != nil {
			return nil, err
		}
		a.onStop("database", func(context.Context) error { return db.Close() })
		source = evalcache.FromStore(db)
	}

	cacheOptions := evalcache.Options{
		RefreshInterval: c.EvalCache.RefreshInterval,
		RefreshTimeout:  c.EvalCache.RefreshTimeout,
		Logger:          a.logger,
	}
	if o.OwnsProcess {
		// The old flags, and all that reading the new ones took, would else stay until the heap has doubled.
		cacheOptions.Swapped = runtime.GC
	}
	a.cache = evalcache.New(source, cacheOptions)
	a.onStop("evaluation cache", a.cache.Stop)
	if err := meters.watchCache(a.cache); err != nil {
		return nil, err
	}

	var counts *gormstore.Store // nil while Datar is off
	recorderOptions := handler.RecorderOptions{
		Enabled:            c.Recorder.Enabled,
		Types:              c.Recorder.Types,
		DatarFlushInterval: c.Datar.FlushInterval,
		DatarJournal:       journalOptions(c.Datar.JournalDir),
		DatarRetention:     c.Datar.Retention,
		Kafka:              c.Kafka,
		Kinesis:            c.Kinesis,
		PubSub:             c.PubSub,
		RawJSONFrames:      c.Recorder.FrameOutputMode == config.FramePayloadRawJSON,
		QueueRecords:       c.Recorder.QueueRecords,
		QueueBytes:         int64(c.Recorder.QueueBytes),
		Logger:             a.logger,
	}
	if db != nil {
		recorderOptions.Catalog = handler.NewCatalog(db)
		recorderOptions.DatarStore = func(ctx context.Context) (_ datar.Store, err error) {
			counts, err = gormstore.New(ctx, db.DB(), gormstore.Options{})
			return counts, err
		}
	}
	if c.Datar.ForwardURL != "" && c.Recorder.Enabled {
		recorderOptions.DatarForward, err = forward.New(forward.Options{
			URL: c.Datar.ForwardURL, Header: c.Datar.ForwardHeader(), Dir: recorderOptions.DatarJournal.Dir, Logger: a.logger,
		})
		if err != nil {
			return nil, err
		}
		recorderOptions.Catalog = noCatalog{}
	}
	a.recorders, err = handler.NewDataRecorder(ctx, recorderOptions)
	if err != nil {
		return nil, err
	}
	a.onStop("recorders", a.recorders.Close)
	if err := meters.watchRecorders(a.recorders); err != nil {
		return nil, err
	}

	var recorder eval.Recorder // nil when nothing is switched on, so that no exposure counts as recorded
	if !a.recorders.Empty() {
		recorder = a.recorders
	}
	observers := meters.evaluations
	if c.Log.Evaluations && c.Log.EvaluationsPerSecond > 0 && a.logger.Enabled(ctx, slog.LevelInfo) {
		observers = append(observers, eval.NewLog(a.logger, c.Log.EvaluationsPerSecond).Observe)
	}
	service := eval.NewService(a.cache, recorder, eval.Options{
		DebugEnabled:      c.Eval.DebugEnabled,
		BatchSize:         c.Eval.BatchSize,
		ExposureBatchSize: c.Exposure.BatchSize,
		Observe:           observeAll(observers),
	})
	if !c.InjectedContext.Enabled { // which only the generated way does
		a.evaluator = service
	}
	handlerOptions := handler.Options{
		Eval:             service,
		Snapshots:        a.cache,
		RecorderStats:    a.recorders.Stats,
		MaxGetQueryBytes: c.Eval.GetMaxURLBytes,
		Actor:            web.Actor(a.edge.jwt, c.HeaderAuth, c.CookieAuth),
		Vitals: handler.Vitals{
			LastCheck: a.cache.LastCheck,
			MaxAge:    max(staleAfter*c.EvalCache.RefreshInterval, time.Minute),
			Recorders: a.recorders.Statuses,
			Stopping:  a.stopping.Load,
		},
		Logger: a.logger,
	}
	if db != nil {
		handlerOptions.Vitals.Ping = db.Ping
	}
	if c.InjectedContext.Enabled {
		handlerOptions.InjectedContext = &handler.InjectedContext{
			Headers:        c.InjectedContext.HTTPHeaders,
			HeaderPrefixes: c.InjectedContext.HTTPHeaderPrefixes,
		}
	}
	if c.OFREP.Enabled {
		a.ofrep = newOFREP(c, service, a.cache, handlerOptions.InjectedContext, a.edge)
		a.edge.ofrep = a.ofrep
		a.onStop("OFREP", func(context.Context) error { a.ofrep.Stop(); return nil })
		if err := meters.watchOFREP(a.ofrep); err != nil {
			return nil, err
		}
	}
	if db != nil && !c.Eval.OnlyMode {
		handlerOptions.Store = db
	}
	if engine := a.recorders.Datar(); engine != nil {
		handlerOptions.Datar = engine
		if err := meters.watchDatar(engine); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Datar.IngestEnabled && counts != nil:
		handlerOptions.Ingester = &ingest.Ingester{
			Store: counts, Flags: handler.SnapshotFlags{Snapshots: a.cache}, Logger: a.logger,
		}
		a.ingesting = true
	case c.Datar.IngestEnabled:
		a.logger.Warn("FLAGR_RECORDER_DATAR_INGEST_ENABLED has no effect without Datar and a database")
	}
	a.handler = handler.New(handlerOptions)
	return a, nil
}

// noCatalog knows no flags: an engine that forwards its counts answers no queries.
type noCatalog struct{}

func (noCatalog) Flags(context.Context, []int64) (map[int64]datar.FlagInfo, error) { return nil, nil }

// journalOptions makes a folder mandatory only if it was named: the default must not keep a server from starting where
// nothing can be written.
func journalOptions(dir string) datar.JournalOptions {
	switch dir {
	case config.JournalOff:
		return datar.JournalOptions{}
	case "":
		return datar.JournalOptions{Dir: "."}
	default:
		return datar.JournalOptions{Dir: dir, Required: true}
	}
}

// Register assigns the operations of the generated API. Call it before the API's Serve.
func (a *App) Register(api *operations.FlagrAPI) {
	api.Logger = func(format string, args ...any) { a.logger.Info(fmt.Sprintf(format, args...)) }
	a.handler.Register(api)
	a.edge.basePath = api.Context().BasePath()
	api.Middleware = func(builder middleware.Builder) http.Handler {
		checked := func(operations http.Handler) http.Handler {
			operations = handler.CheckSwitches(handler.Deadline(handler.StoreTimeout, operations))
			if builder != nil {
				operations = builder(operations)
			}
			return operations
		}
		return describe(api.Context().APIHandlerWithUI(checked, documentation), a.edge.basePath, a.edge.config.Web.Prefix)
	}
}

// Handler wraps the generated API's handler in what happens to every request.
func (a *App) Handler(api http.Handler) http.Handler {
	if a.ingesting {
		api = handler.IngestDoor(a.edge.basePath, api)
	}
	if a.evaluator != nil {
		api = fastpath.New(a.evaluator, a.edge.basePath, api)
	}
	return a.edge.handler(api)
}

// Start loads the flags, which must succeed, and starts what runs in the background.
func (a *App) Start(ctx context.Context) error {
	if err := a.cache.Start(ctx); err != nil {
		return err
	}
	a.recorders.Start()
	if a.ofrep != nil {
		a.ofrep.Start()
	}
	if a.ownsProcess {
		a.onStop("garbage collector", startCollector().stop)
	}
	if a.webhook != nil {
		a.webhook.Start()
	}
	return nil
}

// BeginStop is to be called when the server begins to stop, while requests are still served. From then on recorders
// are flushed again and again: the generated server calls Stop only if all requests end in time, and a count must not
// depend on that.
func (a *App) BeginStop() {
	a.beginStop.Do(func() {
		a.stopping.Store(true)
		if a.ofrep != nil { // its streams would keep the server from draining
			a.ofrep.Stop()
		}
		a.drained.Go(func() { a.recorders.Drain(a.draining, drainFlushInterval) })
	})
}

// Stop takes everything down in the reverse order of New: recorders deliver what they still have, then the cache and
// the database are closed. All of it happens, and the errors are joined; ctx bounds the waiting. Further calls return
// the first one's result.
func (a *App) Stop(ctx context.Context) error {
	a.stop.Do(func() {
		a.endDraining()
		a.drained.Wait()
		var errs []error
		for i := len(a.cleanups) - 1; i >= 0; i-- {
			if err := a.cleanups[i].run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", a.cleanups[i].name, err))
			}
		}
		a.stopErr = errors.Join(errs...)
	})
	return a.stopErr
}

func (a *App) onStop(name string, run func(ctx context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, run})
}

// observeAll tells every one of the observers; nil if there are none.
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
