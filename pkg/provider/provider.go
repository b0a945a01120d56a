// Package provider is an OpenFeature provider for Go programs. It evaluates flags in the program's
// own process, on a snapshot that it keeps up to date, and counts evaluations so that the server
// shows them like its own.
//
//	p, err := provider.New(provider.Options{URL: "https://flagr.example.com"})
//	...
//	err = openfeature.SetProviderAndWait(p)
//
// No evaluation waits for the network, unless Options.Remote is set.
package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

const (
	// DefaultPollInterval is the default of Options.PollInterval.
	DefaultPollInterval = 10 * time.Second
	// DefaultTimeout is the default of Options.Timeout.
	DefaultTimeout = 10 * time.Second

	// stalePolls is the number of failed polls after which the provider is stale.
	stalePolls = 3
	// shutdownTimeout limits Shutdown without a context.
	shutdownTimeout = 10 * time.Second
	// eventCapacity is the maximum number of events queued for the SDK. Further events are dropped.
	eventCapacity = 16

	exportPath  = "/api/v1/export/eval_cache/json"
	countsPath  = "/api/v1/datar/evaluations"
	eventsPath  = "/ofrep/v1/events"
	onePath     = "/ofrep/v1/evaluate/flags/"
	serviceName = "Flagr"
)

// Options configure a Provider. URL is required; the zero value of the others is a good default.
type Options struct {
	// URL is the URL of the server, with its web prefix and without /api/v1, such as
	// https://flagr.example.com.
	URL string
	// Header is sent with each request, such as Authorization.
	Header http.Header
	// Client sends the requests; nil means one like http.DefaultClient.
	Client *http.Client
	// Timeout limits each request, except the event stream. 0 means DefaultTimeout.
	Timeout time.Duration
	// PollInterval is the time between two checks for changed flags, at least 1 second. 0 means
	// DefaultPollInterval.
	PollInterval time.Duration
	// IgnoreEvents relies on polling alone. Otherwise the server's event stream reports changes
	// promptly.
	IgnoreEvents bool
	// CacheFile stores the newest flags, so that the program can start while the server is
	// unavailable. Empty means no file.
	CacheFile string
	// Remote makes the server evaluate each evaluation and count it. Only URL, Header, Client and
	// Timeout of the options above then have an effect.
	Remote bool

	// DisableCounts turns counting off. Otherwise evaluations of flags with dataRecordsEnabled are
	// counted, and those of unknown keys.
	DisableCounts bool
	// CountsInterval is the time between two deliveries of counts, evallog.MinFlushInterval to
	// evallog.MaxFlushInterval. 0 means evallog.DefaultFlushInterval.
	CountsInterval time.Duration
	// SpoolDir is a directory for undelivered counts. If it is empty, they are lost with the
	// process.
	SpoolDir string
	// TargetingKeys is how targeting keys appear in counts.
	TargetingKeys evallog.TargetingKeys
	// Service is the name of the program in counts.
	Service evallog.Context

	// Logger receives failures; nil means no logging.
	Logger *slog.Logger
}

func (o *Options) validate() error {
	target, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return fmt.Errorf("Options.URL: %w", err)
	case target.Scheme != "http" && target.Scheme != "https" || target.Host == "" || target.RawQuery != "":
		return fmt.Errorf("Options.URL is %q; want http://host or https://host, with a path or without", o.URL)
	case o.PollInterval != 0 && o.PollInterval < time.Second:
		return fmt.Errorf("Options.PollInterval is %s; want at least 1s, or 0 for the default", o.PollInterval)
	case o.Timeout < 0:
		return fmt.Errorf("Options.Timeout is %s; want more than 0, or 0 for the default", o.Timeout)
	case o.CountsInterval != 0 && (o.CountsInterval < evallog.MinFlushInterval || o.CountsInterval > evallog.MaxFlushInterval):
		return fmt.Errorf("Options.CountsInterval is %s; want %s to %s, or 0 for the default", o.CountsInterval, evallog.MinFlushInterval, evallog.MaxFlushInterval)
	}
	o.URL = strings.TrimRight(o.URL, "/")
	if o.PollInterval == 0 {
		o.PollInterval = DefaultPollInterval
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Client == nil {
		o.Client = &http.Client{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Provider evaluates flags. It is safe for concurrent use.
type Provider struct {
	options Options
	source  *source
	cache   *evalcache.Cache // nil if the server evaluates
	remote  *remote          // nil if the provider evaluates
	counts  *evallog.Engine  // nil if counting is off
	unknown unknownKeys
	results sync.Pool // of *eval.Result
	events  chan openfeature.Event

	// running ends at Shutdown, and ends all goroutines.
	running context.Context
	end     context.CancelFunc
	done    sync.WaitGroup

	mu struct {
		sync.Mutex
		started, stopped bool
	}
}

var (
	_ openfeature.FeatureProvider          = (*Provider)(nil)
	_ openfeature.ContextAwareStateHandler = (*Provider)(nil)
	_ openfeature.EventHandler             = (*Provider)(nil)
)

// New returns a Provider after checking the options. The SDK starts it and shuts it down.
func New(o Options) (*Provider, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("flag provider: %w", err)
	}
	p := &Provider{options: o, events: make(chan openfeature.Event, eventCapacity)}
	p.results.New = func() any { return new(eval.Result) }
	p.running, p.end = context.WithCancel(context.Background())
	if o.Remote {
		p.remote = &remote{options: &p.options}
		return p, nil
	}
	p.source = &source{options: &p.options}
	p.cache = evalcache.New(p.source, evalcache.Options{RefreshInterval: o.PollInterval, RefreshTimeout: o.Timeout, Logger: o.Logger})
	if !o.DisableCounts {
		if err := p.openCounts(); err != nil {
			return nil, fmt.Errorf("flag provider: %w", err)
		}
	}
	return p, nil
}

func (p *Provider) openCounts() error {
	o := &p.options
	writer, err := evallog.NewHTTPWriter(evallog.HTTPOptions{URL: o.URL + countsPath, Header: o.Header, Client: o.Client})
	if err != nil {
		return err
	}
	options := evallog.Options{
		Writer: writer, SpoolDir: o.SpoolDir, TargetingKeys: o.TargetingKeys, Context: o.Service, Logger: o.Logger,
		FlushInterval: o.CountsInterval,
	}
	p.counts, err = evallog.New(options)
	return err
}

// Metadata returns the name of the provider.
func (p *Provider) Metadata() openfeature.Metadata { return openfeature.Metadata{Name: serviceName} }

// Hooks returns no hooks: the provider counts by itself.
func (p *Provider) Hooks() []openfeature.Hook { return nil }

// EventChannel returns the channel of the provider's events. If the SDK does not read them, events
// beyond a few are dropped.
func (p *Provider) EventChannel() <-chan openfeature.Event { return p.events }

// Counts returns the statistics of counting, or zero if counting is off. Evaluations of unknown
// keys are in Dropped as FLAG_NOT_FOUND, because no flag has the key.
func (p *Provider) Counts() evallog.Stats {
	if p.counts == nil {
		return evallog.Stats{}
	}
	return p.counts.Stats()
}

// Init is InitWithContext limited only by Options.Timeout.
func (p *Provider) Init(c openfeature.EvaluationContext) error {
	return p.InitWithContext(context.Background(), c)
}

// InitWithContext loads the flags, from the server or else from Options.CacheFile. After an error
// the provider keeps retrying, and sends the event PROVIDER_READY when it has flags.
func (p *Provider) InitWithContext(ctx context.Context, _ openfeature.EvaluationContext) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.stopped:
		return errors.New("flag provider: already shut down")
	case p.mu.started:
		return nil
	case p.options.Remote:
		p.mu.started = true
		return nil
	}
	p.mu.started = true
	if p.counts != nil {
		p.counts.Start()
	}
	err := p.cache.Start(ctx)
	p.done.Go(func() { p.watch(err == nil) })
	if !p.options.IgnoreEvents {
		p.done.Go(p.follow)
	}
	if err != nil {
		return fmt.Errorf("flag provider: %w", err)
	}
	return nil
}

// Shutdown is ShutdownWithContext with a timeout of 10 seconds.
func (p *Provider) Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := p.ShutdownWithContext(ctx); err != nil {
		p.options.Logger.Error("flag provider did not shut down cleanly", "error", err)
	}
}

// ShutdownWithContext ends the provider. It delivers counts, or leaves them in the spool, until ctx
// ends. It may be called more than once.
func (p *Provider) ShutdownWithContext(ctx context.Context) error {
	p.mu.Lock()
	p.mu.stopped = true
	p.mu.Unlock()
	p.end()
	if p.options.Remote {
		return nil
	}
	err := p.cache.Stop(ctx)
	p.done.Wait()
	if p.counts != nil {
		err = errors.Join(err, p.counts.Close(ctx))
	}
	return err
}
