// Package datarhttp serves the counts of a Datar engine over HTTP, with the paths and the JSON of
// the Flagr server:
//
//	GET /datar/summary                  flags by traffic; parameters from, to, limit, offset
//	GET /datar/flags/{flagID}/summary   one flag by variant, segment and day; parameters from, to
//	GET /datar/status                   the engine's statistics
//
// It needs only the standard library, so it works with any net/http server. Handler is for a
// router, and Mount for a server that has one handler for all requests, such as a go-swagger
// server. Neither checks who calls: put them behind the access control of the host.
package datarhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Engine provides the data of the endpoints. *datar.Engine implements it.
type Engine interface {
	QuerySummary(ctx context.Context, query datar.SummaryQuery) ([]datar.FlagSummary, error)
	QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, query datar.BreakdownQuery) (*datar.FlagBreakdown, error)
	Stats() datar.Stats
}

// Completer is an Engine that reports how complete its results are. The endpoints add the member
// complete to their responses if the engine implements it and its store keeps the records of
// servers. *datar.Engine implements it.
type Completer interface {
	QueryCompleteness(ctx context.Context, from, to *time.Time) (*datar.Completeness, error)
}

var (
	_ Engine    = (*datar.Engine)(nil)
	_ Completer = (*datar.Engine)(nil)
)

// Option changes how the endpoints are served.
type Option func(*endpoints)

// WithLogger sets the log for failed queries, whose errors clients do not see. Without it, or with
// nil, it is slog.Default().
func WithLogger(logger *slog.Logger) Option {
	return func(e *endpoints) { e.logger = logger }
}

// Handler serves the three endpoints at the paths above, and 404 at all others. With a nil engine
// they return 503, so a host can mount them whether it counts or not.
func Handler(engine Engine, options ...Option) http.Handler {
	return Mount(http.HandlerFunc(pathNotFound), "", engine, options...)
}

// Mount serves the three endpoints below a prefix such as /api/v1, and passes all other requests to
// next, unchanged. An empty prefix or "/" serves them at the root. A trailing slash, or a missing
// leading one, makes no difference.
//
// Call it in setupGlobalMiddleware of a go-swagger server, inside the server's access control, with
// its basePath as the prefix:
//
//	func setupGlobalMiddleware(handler http.Handler) http.Handler {
//		return authenticate(datarhttp.Mount(handler, "/api/v1", engine))
//	}
func Mount(next http.Handler, prefix string, engine Engine, options ...Option) http.Handler {
	if e, ok := engine.(*datar.Engine); ok && e == nil {
		engine = nil
	}
	e := &endpoints{engine: engine}
	for _, option := range options {
		option(e)
	}
	if e.logger == nil {
		e.logger = slog.Default()
	}
	if next == nil {
		next = http.HandlerFunc(pathNotFound)
	}
	prefix = strings.Trim(prefix, "/")
	if prefix != "" {
		prefix = "/" + prefix
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path, below := strings.CutPrefix(r.URL.Path, prefix+"/datar/")
		if !below {
			next.ServeHTTP(rw, r)
			return
		}
		path = strings.TrimSuffix(path, "/")
		serve, flagID := e.summary, ""
		switch path {
		case "summary":
		case "status":
			serve = e.status
		default:
			rest, isFlag := strings.CutPrefix(path, "flags/")
			id, isSummary := strings.CutSuffix(rest, "/summary")
			if !isFlag || !isSummary || id == "" || strings.Contains(id, "/") {
				next.ServeHTTP(rw, r)
				return
			}
			serve, flagID = e.flagSummary, id
		}
		switch {
		case r.Method != http.MethodGet:
			rw.Header().Set("Allow", http.MethodGet)
			refuse(rw, http.StatusMethodNotAllowed, http.StatusMethodNotAllowed, "method %s is not allowed, but [GET] are", r.Method)
		case e.engine == nil:
			reply(rw, http.StatusServiceUnavailable, problem{Message: "Datar is off: this server counts no evaluations"})
		default:
			serve(rw, r, flagID)
		}
	})
}

type endpoints struct {
	engine Engine // nil: off
	logger *slog.Logger
}

func (e *endpoints) summary(rw http.ResponseWriter, r *http.Request, _ string) {
	p := parameters{values: r.URL.Query()}
	query := datar.SummaryQuery{From: p.time("from"), Limit: p.int32("limit"), Offset: p.int32("offset"), To: p.time("to")}
	if p.refused(rw) {
		return
	}
	flags, err := e.engine.QuerySummary(r.Context(), query)
	if err != nil {
		e.fail(rw, r, err)
		return
	}
	e.replyCompletely(rw, r, SummaryBody(flags), query.From, query.To)
}

func (e *endpoints) flagSummary(rw http.ResponseWriter, r *http.Request, flagID string) {
	p := parameters{values: r.URL.Query()}
	id, err := strconv.ParseInt(flagID, 10, 64)
	if err != nil {
		p.wrong("flagID", "path", "an integer of 64 bits", flagID)
	}
	query := datar.BreakdownQuery{From: p.time("from"), To: p.time("to")}
	if p.refused(rw) {
		return
	}
	b, err := e.engine.QueryFlagSummaryBreakdown(r.Context(), id, query)
	if err != nil {
		e.fail(rw, r, err)
		return
	}
	e.replyCompletely(rw, r, FlagSummaryBody(b), query.From, query.To)
}

func (e *endpoints) status(rw http.ResponseWriter, r *http.Request, _ string) {
	body := StatusBody(e.engine.Stats())
	ctx, cancel := context.WithTimeout(r.Context(), StatusTimeout)
	defer cancel()
	if c, err := e.complete(ctx, nil, nil); err == nil {
		body = WithComplete(body, c)
	}
	reply(rw, http.StatusOK, body)
}

// StatusTimeout limits the query for the member complete of GET /datar/status, which is omitted if
// the store does not answer in time.
const StatusTimeout = time.Second

// complete returns how complete the results of a window are. It returns nil without an error if the
// engine is not a Completer.
func (e *endpoints) complete(ctx context.Context, from, to *time.Time) (*Complete, error) {
	completer, ok := e.engine.(Completer)
	if !ok {
		return nil, nil
	}
	c, err := completer.QueryCompleteness(ctx, from, to)
	switch {
	case errors.Is(err, datar.ErrNoDetails):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return CompleteOf(c), nil
}

// replyCompletely responds to a query over a window.
func (e *endpoints) replyCompletely(rw http.ResponseWriter, r *http.Request, body any, from, to *time.Time) {
	c, err := e.complete(r.Context(), from, to)
	if err != nil {
		e.fail(rw, r, err)
		return
	}
	reply(rw, http.StatusOK, WithComplete(body, c))
}

// statusClientClosedRequest never reaches a client, because the client has disconnected.
const statusClientClosedRequest = 499

// fail responds to a query that failed.
func (e *endpoints) fail(rw http.ResponseWriter, r *http.Request, err error) {
	preparing := (*datar.PreparingError)(nil)
	switch {
	case errors.As(err, &preparing):
		rw.Header().Set("Retry-After", "10")
		reply(rw, http.StatusServiceUnavailable, problem{Message: preparing.Error()})
	case errors.Is(err, datar.ErrInvalidQuery):
		reply(rw, http.StatusBadRequest, problem{Message: err.Error()})
	case errors.Is(err, datar.ErrFlagNotFound):
		reply(rw, http.StatusNotFound, problem{Message: err.Error()})
	case errors.Is(r.Context().Err(), context.Canceled):
		reply(rw, statusClientClosedRequest, problem{Message: "request canceled"})
	default:
		e.logger.ErrorContext(r.Context(), "datar: query failed", "path", r.URL.Path, "error", err)
		reply(rw, http.StatusInternalServerError, problem{Message: "internal error"})
	}
}

// problem is the body of an error response. Code is 0 unless the request itself was rejected.
type problem struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

// codeInvalidType is go-openapi's code of a parameter with another type.
const codeInvalidType = 601

func pathNotFound(rw http.ResponseWriter, r *http.Request) {
	refuse(rw, http.StatusNotFound, http.StatusNotFound, "path %s was not found", r.URL.Path)
}

func refuse(rw http.ResponseWriter, status, code int, format string, args ...any) {
	reply(rw, status, problem{Code: code, Message: fmt.Sprintf(format, args...)})
}

func reply(rw http.ResponseWriter, status int, body any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	encoder := json.NewEncoder(rw)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body) // fails only if the client disconnected
}

// parameters parses the query of a request, and keeps its first error.
type parameters struct {
	values  map[string][]string
	problem string
	// repeated describes the first parameter that is given twice. It takes precedence over problem.
	repeated string
}

func (p *parameters) wrong(name, in, want, value string) {
	if p.problem == "" {
		p.problem = fmt.Sprintf("%s in %s: %q is not accepted; want %s", name, in, shortened(value), want)
	}
}

// shortened keeps a message readable, regardless of the client's input.
func shortened(value string) string {
	const longest = 100
	if len(value) > longest {
		return value[:longest] + "..."
	}
	return value
}

// only returns the parameter's value; an empty value counts as missing. Call it in the order of the
// names, so that the responses are those of the Flagr server.
func (p *parameters) only(name string) string {
	values := p.values[name]
	switch {
	case len(values) == 0:
		return ""
	case len(values) > 1 && p.repeated == "":
		p.repeated = fmt.Sprintf("%s in query: given %d times; want it once", name, len(values))
	}
	return values[0]
}

// layouts are the time formats that the swagger operations accept; those without a zone are UTC.
// Parsing accepts fractions of a second even if the layout has none.
var layouts = [...]string{
	time.RFC3339, "2006-01-02T15:04:05.000Z0700", "2006-01-02T15:04:05.000000Z0700",
	"2006-01-02T15:04:05", "2006-01-02T15:04Z", "2006-01-02T15:04", time.DateTime, time.DateOnly,
}

func (p *parameters) time(name string) *time.Time {
	text := p.only(name)
	if text == "" {
		return nil
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return &t
		}
	}
	p.wrong(name, "query", "a time such as 2026-01-31T18:00:00Z", text)
	return nil
}

func (p *parameters) int32(name string) *int32 {
	text := p.only(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		p.wrong(name, "query", "an integer of 32 bits", text)
		return nil
	}
	return new(int32(n))
}

// refused responds with an error if a parameter is invalid, and reports whether it did.
func (p *parameters) refused(rw http.ResponseWriter) bool {
	switch {
	case p.repeated != "":
		reply(rw, http.StatusBadRequest, problem{Message: p.repeated})
		return true
	case p.problem == "":
		return false
	}
	refuse(rw, http.StatusUnprocessableEntity, codeInvalidType, "%s", p.problem)
	return true
}
