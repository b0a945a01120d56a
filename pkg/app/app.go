// Package app assembles the server: it constructs all components from the configuration, starts
// them, and stops them in reverse order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/fastpath"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/notification"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/process"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
	"github.com/flagr-datar/flagr-datar/pkg/web"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

const (
	// StopTimeout is a suitable deadline for Stop. Kubernetes gives a container 30 s, of which the
	// generated server's --graceful-timeout takes up to 15 s first.
	StopTimeout = 10 * time.Second

	// drainFlushInterval is the maximum time until a count is flushed while the server is stopping.
	drainFlushInterval = 100 * time.Millisecond

	// staleAfter is the number of failed refreshes of the flags after which readiness reports them.
	staleAfter = 10
)

// Options override parts of the configuration.
type Options struct {
	// Logger receives all log records; nil means stderr, in the configured format and level.
	Logger *slog.Logger
	// OwnsProcess means that the process runs only this server. The server may then change settings
	// of the process: when the garbage collector runs, what memory is returned to the system, and
	// which handler gets the errors of OpenTelemetry's libraries.
	OwnsProcess bool
	// Description is the description of the API that clients get. Nil: the one of the generated
	// API.
	Description []byte
	// Now is the clock of flags, evaluations, counts and answers, for tests. Nil: time.Now.
	Now func() time.Time
}

// App is the whole server except its listeners.
type App struct {
	logger      *slog.Logger
	now         func() time.Time
	edge        *edge
	cache       *evalcache.Cache
	recorders   *handler.DataRecorders
	engine      *datar.Engine // nil while Datar is off
	handler     *handler.Handler
	memory      *budget.Memory // of flags, lists and histories
	turns       budget.Turns   // of large bodies
	reads       budget.Turns   // of requests that read flags or counts
	description []byte
	pages       *ui.UI                // nil if turned off
	ingesting   bool                  // counts from other servers and applications are accepted
	ofrep       *ofrep.Handler        // nil if turned off
	evaluator   fastpath.Evaluator    // nil if every evaluation takes the generated path
	webhook     *notification.Webhook // nil if turned off

	cleanups    []cleanup
	ownsProcess bool
	memoryTuned bool // the operator set GOGC or GOMEMLIMIT
	// releaseMemory returns memory of the database that this process holds.
	releaseMemory func(context.Context)

	beginStop sync.Once
	stopping  atomic.Bool
	stop      sync.Once
	stopErr   error // the result of Stop

	// draining is the context of the flushes between BeginStop and Stop. Stop cancels it with
	// endDraining.
	draining    context.Context
	endDraining context.CancelFunc
	drained     sync.WaitGroup
	sampling    sync.WaitGroup
}

// cleanup undoes one step of New.
type cleanup struct {
	name string
	run  func(ctx context.Context) error
}

// New constructs the server and opens what the configuration names. Call Start before it serves,
// and Stop afterward. On an error nothing stays open.
func New(ctx context.Context, c *config.Config, o Options) (_ *App, err error) {
	a := &App{
		logger: o.Logger, now: o.Now, memory: budget.NewMemory(budget.AnswerBytes),
		turns: budget.NewTurns(max(1, runtime.GOMAXPROCS(0)-1)), reads: readTurns(c), description: o.Description, ownsProcess: o.OwnsProcess, memoryTuned: c.GoRuntime.Tuned,
		releaseMemory: func(context.Context) {}, // for flags of a document
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.draining, a.endDraining = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop(ctx))
		}
	}()
	access, err := a.openLogs(c)
	if err != nil {
		return nil, err
	}
	meters, err := a.newMeters(ctx, c)
	if err != nil {
		return nil, err
	}
	if a.edge, err = newEdge(c, a.logger, access, meters); err != nil {
		return nil, err
	}
	a.webhook = a.newWebhook(c.Notification)
	db, source, err := a.openFlags(ctx, c)
	if err != nil {
		return nil, err
	}
	a.cache = a.newCache(c.EvalCache, source)
	counting, err := newCounting(ctx, c, db, a.logger, a.now)
	if err != nil {
		return nil, err
	}
	streams, err := newStreams(ctx, c, a.logger)
	a.recorders = handler.NewDataRecorders(counting.recorder(), streams, rawJSONFrames(c))
	a.engine = counting.engine
	a.onStop("recorders", a.closeRecorders)
	if err != nil {
		return nil, err
	}
	if err := meters.watch(a.cache, a.recorders, counting.engine, a.now); err != nil {
		return nil, err
	}
	answers := a.newAnswers(c, db, counting)
	service := a.newService(ctx, c, meters, answers.observers())
	if !c.InjectedContext.Enabled { // only the generated path injects
		a.evaluator = service
	}
	handlerOptions := a.handlerOptions(c, service, db, counting)
	handlerOptions.Answers, handlerOptions.Tail = answers.service, answers.tail
	a.ingesting = handlerOptions.Ingester != nil
	if err := a.addOFREP(c, service, handlerOptions.InjectedContext, meters); err != nil {
		return nil, err
	}
	a.handler = handler.New(handlerOptions)
	if c.Web.UIEnabled {
		if a.pages, err = a.newPages(c, handlerOptions.Actor, handlerOptions.Store != nil, db, counting, answers); err != nil {
			return nil, err
		}
		a.onStop("pages", a.pages.Stop)
	}
	return a, nil
}

// waitingReads is how many requests read flags or counts at once if a database outside of this
// process does the work.
const waitingReads = 32

// readTurns returns the turns of requests that read flags or counts. SQLite and documents are read
// in this process, so more of them at once than there are processors would finish nothing sooner,
// and delay evaluations. There are at least two, so that one long query does not hold up all
// others.
func readTurns(c *config.Config) budget.Turns {
	if c.Database.Driver == config.DriverMySQL || c.Database.Driver == config.DriverPostgres || c.Datar.Store != "" {
		return budget.NewTurns(waitingReads)
	}
	return budget.NewTurns(max(2, runtime.GOMAXPROCS(0)-1))
}

// Register assigns the operations of the generated API. Call it before the API's Serve.
func (a *App) Register(api *operations.FlagrAPI) {
	api.Logger = func(format string, args ...any) { a.logger.Info(fmt.Sprintf(format, args...)) }
	a.handler.Register(api)
	a.edge.basePath = api.Context().BasePath()
	api.Middleware = func(builder middleware.Builder) http.Handler {
		checked := func(operations http.Handler) http.Handler {
			operations = handler.CheckQuery(handler.Deadline(handler.StoreTimeout, a.memory, operations))
			if builder != nil {
				operations = builder(operations)
			}
			return operations
		}
		described := describe(api.Context().APIHandlerWithUI(checked, noPage), a.description, a.edge.basePath, a.edge.config.Web.Prefix)
		return document(described, a.edge.basePath, a.logger)
	}
}

// Handler wraps the generated API's handler in the middleware.
func (a *App) Handler(api http.Handler) http.Handler {
	if a.ingesting {
		api = handler.IngestMiddleware(a.edge.basePath, budget.NewMemory(budget.CountsBytes), a.turns, api)
	}
	if a.pages != nil {
		api = a.pages.Handler(api)
	}
	api = web.ReadInTurn(a.reads, api)
	api = web.DelayDisconnected(a.edge.disconnects, api)
	if a.evaluator != nil {
		o := fastpath.Options{
			Evaluator: a.evaluator, Refuse: a.handler.Refuse, BasePath: a.edge.basePath, Turns: a.turns, BatchMemory: a.memory, Disconnects: a.edge.disconnects,
		}
		if a.edge.gzip != nil {
			o.Compression = a.edge.gzip
		}
		api = fastpath.New(o, api)
	} else if a.edge.gzip != nil {
		api = a.edge.gzip.Wrap(api)
	}
	return &web.Server{Handler: a.edge.handler(api), ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn)}
}

// Start loads the flags, which must succeed, and starts background work.
func (a *App) Start(ctx context.Context) error {
	if err := a.cache.Start(ctx); err != nil {
		return err
	}
	a.recorders.Start()
	if a.ofrep != nil {
		a.ofrep.Start()
	}
	if a.ownsProcess {
		a.onStop("memory", process.StartMemoryKeeper(a.memoryTuned, a.releaseMemory, a.logger).Stop)
	}
	if a.webhook != nil {
		a.webhook.Start()
	}
	return nil
}

// BeginStop must be called when the server begins to stop, while requests are still served. From
// then on recorders are flushed repeatedly. The generated server calls Stop only if all requests
// end in time, and counts must not depend on that.
func (a *App) BeginStop() {
	a.beginStop.Do(func() {
		a.stopping.Store(true)
		if a.ofrep != nil { // its streams would prevent the server from draining
			a.ofrep.Stop()
		}
		a.drained.Go(func() { a.recorders.Drain(a.draining, drainFlushInterval) })
	})
}

// Stop stops all components in the reverse order of New. Recorders deliver their remaining records,
// then the cache and the database are closed. An error does not skip later steps; the errors are
// joined. ctx limits the waiting. Further calls return the result of the first one.
func (a *App) Stop(ctx context.Context) error {
	a.stop.Do(func() {
		a.endDraining()
		a.drained.Wait()
		var errs []error
		for _, v := range slices.Backward(a.cleanups) {
			if err := v.run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", v.name, err))
			}
		}
		a.stopErr = errors.Join(errs...)
	})
	return a.stopErr
}

func (a *App) onStop(name string, run func(ctx context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, run})
}
