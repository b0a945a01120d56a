package app

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/go-openapi/loads"

	"github.com/flagr-datar/flagr-datar/pkg/apidoc"
	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// Process starts an App once its listeners are bound. So if a port is taken, no database is opened
// and no file is created. It is the http.Handler that the generated server gets before it listens.
type Process struct {
	config *config.Config
	api    *operations.FlagrAPI
	// description is what clients see of the API.
	description []byte
	line        CommandLine
	headers     *budget.Memory
	logger      *slog.Logger
	out         io.Writer // for text output

	start   sync.Once
	err     error
	handler http.Handler // once started
}

// NewProcess prepares a server for Listening. It takes over the process: output of the standard log
// package is written in the configured format.
//
// The API gets the routes of its flattened description instead of the document that it was created
// with, so that the document can be freed.
func NewProcess(c *config.Config, api *operations.FlagrAPI, description, flat []byte, line CommandLine) (*Process, error) {
	routes, err := apidoc.Routes(flat)
	if err != nil {
		return nil, err
	}
	document, err := loads.Embedded(routes, routes)
	if err != nil {
		return nil, fmt.Errorf("routes of the API: %w", err)
	}
	api.SetSpec(document)
	p := &Process{config: c, api: api, description: description, line: line, headers: budget.NewMemory(budget.HeaderBytes), logger: newLogger(c.Log, os.Stderr), out: os.Stdout}
	log.SetFlags(0)
	log.SetOutput(&fatalLog{logger: p.logger, address: line.address})
	return p, nil
}

// ServeHTTP must only be called after Listening.
func (p *Process) ServeHTTP(rw http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(rw, r) }

// Listening is called for each listener after it is bound and before it accepts connections. The
// first call starts the App. address is the address of the listener.
func (p *Process) Listening(server *http.Server, scheme, address string) error {
	p.start.Do(func() { p.err = p.run(scheme, address) })
	if p.err != nil {
		return p.err
	}
	server.Handler = p.handler
	server.ConnContext = inTurn()
	if scheme != "https" {
		web.LimitHeaders(server, p.headers)
	}
	if h, ok := p.handler.(*web.Server); ok {
		server.ErrorLog = h.ErrorLog
	}
	if server.MaxHeaderBytes == 1_000_000 { // the default of --max-header-size, "1MiB" as the generated server reads it
		server.MaxHeaderBytes = web.MaxHeaderBytes
	}
	return nil
}

// connectionsInTurn is the number of connections that are accepted in a row.
const connectionsInTurn = 8

// inTurn returns a function that is called for each accepted connection before the next one is
// accepted. After every connectionsInTurn of them, it lets those run first. Otherwise thousands of
// connections that arrive at once are all waiting for a processor before a request on an older
// connection. If each connection were let run before the next one, new ones would wait for hundreds
// of milliseconds beside clients that open and close connections all the time: the goroutine that
// accepts is the last of all that are ready to run.
func inTurn() func(context.Context, net.Conn) context.Context {
	var accepted atomic.Uint64
	return func(ctx context.Context, _ net.Conn) context.Context {
		if accepted.Add(1)%connectionsInTurn == 0 {
			runtime.Gosched()
		}
		return ctx
	}
}

// run starts the App. A signal aborts the start, as it would end a process without a signal
// handler.
func (p *Process) run(scheme, address string) error {
	interrupted, release := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer release()
	ctx, cancel := context.WithCancel(context.Background()) // stays valid after the start
	detach := context.AfterFunc(interrupted, cancel)
	defer detach()
	err := p.startApp(ctx, scheme, address)
	if err != nil && interrupted.Err() != nil {
		return fmt.Errorf("a signal ended the start: %w", err)
	}
	return err
}

func (p *Process) startApp(ctx context.Context, scheme, address string) error {
	a, err := New(ctx, p.config, Options{OwnsProcess: true, Description: p.description})
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout)
		defer cancel()
		if stopErr := a.Stop(stopCtx); stopErr != nil {
			a.logger.Warn("stop after a failed start", "error", stopErr)
		}
		return err
	}
	a.Register(p.api)
	p.api.PreServerShutdown = a.BeginStop
	p.api.ServerShutdown = func() {
		ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
		defer cancel()
		p.Exit(a.Stop(ctx))
	}
	p.logger, p.handler = a.logger, a.Handler(p.api.Serve(nil))
	a.logStart(p.config, scheme+"://"+address)
	return p.printFirstSteps(scheme, address)
}

// Exit ends the process, and prints one line if there is an error.
func (p *Process) Exit(err error) {
	if err != nil {
		p.logger.Error("server failed", "error", err)
		os.Exit(1)
	}
}

// defaultURL is replaced by the server's address in files for FirstSteps.
const defaultURL = "http://localhost:18000"

func (p *Process) printFirstSteps(scheme, address string) error {
	if p.line.FirstSteps == "" {
		return nil
	}
	file, err := os.ReadFile(p.line.FirstSteps)
	if err != nil {
		return fmt.Errorf("--first-steps: %w", err)
	}
	url := scheme + "://" + address
	var text strings.Builder
	fmt.Fprintf(&text, "\nFlagr with Datar is at %s%s/, and its API below /api/v1. Stop it with Ctrl-C.\n", url, p.config.Web.Prefix)
	fmt.Fprintf(&text, "Flags and counts are in %s. Now paste this into another terminal:\n\n", databaseName(p.config.Database))
	for line := range strings.Lines(strings.ReplaceAll(string(file), defaultURL, url+p.config.Web.Prefix)) {
		if !strings.HasPrefix(line, "#") {
			text.WriteString(line)
		}
	}
	if _, err := fmt.Fprintln(p.out, text.String()); err != nil {
		return fmt.Errorf("--first-steps: %w", err)
	}
	return nil
}

// fatalLog converts the generated main's output before it exits to log lines.
type fatalLog struct {
	logger  *slog.Logger
	address string
}

// Write logs one error.
func (l *fatalLog) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	failure, listens := strings.CutPrefix(text, "listen ")
	if !listens {
		l.logger.Error(text)
		return len(p), nil
	}
	host, port, err := net.SplitHostPort(l.address)
	if err != nil {
		host, port = "", l.address
	}
	l.logger.Error(fmt.Sprintf("cannot listen on port %s of %q; set PORT= to a free port, or stop the process that has it", port, host), "error", failure)
	return len(p), nil
}
