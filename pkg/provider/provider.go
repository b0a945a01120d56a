// Package provider is an OpenFeature provider for Go programs. It evaluates flags in the program's own process, on a
// snapshot that it keeps up to date, and counts evaluations so that the server shows them like its own.
//
//	p, err := provider.New(provider.Options{URL: "https://flagr.example.com"})
//	...
//	err = openfeature.SetProviderAndWait(p)
//
// No evaluation waits for the network, unless Options.Remote has the server evaluate.
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
	// DefaultPollInterval is the poll interval of Options that leave it out.
	DefaultPollInterval = 10 * time.Second
	// DefaultTimeout bounds a request of Options that leave it out.
	DefaultTimeout = 10 * time.Second

	// stalePolls is how many polls may fail until the provider is stale.
	stalePolls = 3
	// shutdownTimeout bounds Shutdown without a context.
	shutdownTimeout = 10 * time.Second
	// eventCapacity is how many events wait for the SDK. Further ones are dropped.
	eventCapacity = 16

	exportPath  = "/api/v1/export/eval_cache/json"
	countsPath  = "/api/v1/datar/evaluations"
	eventsPath  = "/ofrep/v1/events"
	onePath     = "/ofrep/v1/evaluate/flags/"
	serviceName = "Flagr"
)

// Options configure a Provider. URL is mandatory; the zero value of the others is a good default.
type Options struct {
	// URL is the address of the server, with its web prefix and without /api/v1, such as https://flagr.example.com.
	URL string
	// Header is sent with each request, such as Authorization.
	Header http.Header
	// Client sends the requests; nil means one like http.DefaultClient.
	Client *http.Client
	// Timeout bounds each request, but for the event stream. 0 means DefaultTimeout.
	Timeout time.Duration
	// PollInterval is the time between two looks for changed flags, at least 1 second. 0 means DefaultPollInterval.
	PollInterval time.Duration
	// IgnoreEvents leaves changes to polling. Otherwise the server's event stream makes them prompt.
	IgnoreEvents bool
	// CacheFile is where the newest flags are kept, so that the program starts while the server is away. Empty: nowhere.
	CacheFile string
	// Remote has the server evaluate, for each evaluation anew. It counts then, and the options above but URL, Header, Client and
	// Timeout have no effect.
	Remote bool

	// DisableCounts switches the counting off. Otherwise evaluations of flags with dataRecordsEnabled are counted, and those of keys
	// that no flag has.
	DisableCounts bool
	// CountsInterval is the time between two deliveries of counts, evallog.MinFlushInterval to evallog.MaxFlushInterval.
	// 0 means evallog.DefaultFlushInterval.
	CountsInterval time.Duration
	// SpoolDir is a directory for counts that could not be delivered. Empty: they are lost with the process.
	SpoolDir string
	// TargetingKeys says what becomes of targeting keys in counts.
	TargetingKeys evallog.TargetingKeys
	// Service names the program in counts.
	Service evallog.Context

	// Logger takes what goes wrong; nil means nothing is logged.
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
	counts  *evallog.Engine  // nil if nothing is counted
	unknown unknownKeys
	results sync.Pool // of *eval.Result
	events  chan openfeature.Event

	// running ends with Shutdown, and with it all goroutines.
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

// New checks the options. The SDK starts the provider, and ends it.
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

// Metadata names the provider.
func (p *Provider) Metadata() openfeature.Metadata { return openfeature.Metadata{Name: serviceName} }

// Hooks are none: the provider counts by itself.
func (p *Provider) Hooks() []openfeature.Hook { return nil }

// EventChannel has the provider's events. While the SDK does not read, events beyond a few are dropped.
func (p *Provider) EventChannel() <-chan openfeature.Event { return p.events }

// Counts is the state of the counting; zero if nothing is counted. What the server counts under a key without a flag is in
// Dropped as FLAG_NOT_FOUND, since no flag has it.
func (p *Provider) Counts() evallog.Stats {
	if p.counts == nil {
		return evallog.Stats{}
	}
	return p.counts.Stats()
}

// Init is InitWithContext without a bound beside Options.Timeout.
func (p *Provider) Init(c openfeature.EvaluationContext) error {
	return p.InitWithContext(context.Background(), c)
}

// InitWithContext loads the flags, from the server or else from Options.CacheFile. With an error the provider goes on trying,
// and sends the event PROVIDER_READY when it has flags.
func (p *Provider) InitWithContext(ctx context.Context, _ openfeature.EvaluationContext) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.stopped:
		return errors.New("flag provider: shut down already")
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

// Shutdown is ShutdownWithContext with 10 seconds.
func (p *Provider) Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := p.ShutdownWithContext(ctx); err != nil {
		p.options.Logger.Error("flag provider was not shut down in order", "error", err)
	}
}

// ShutdownWithContext ends the provider. Counts are delivered, or left in the spool, until ctx ends. It may be called more
// than once.
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
