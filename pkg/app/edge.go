package app

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// edge is the middleware between the listener and the API. Parts that are turned off are nil and
// cost nothing.
type edge struct {
	config *config.Config
	logger *slog.Logger

	observers []func(*web.Exchange)
	access    *accessControl
	gzip      *web.Gzip
	metrics   http.Handler
	ofrep     http.Handler // set before handler is called
	trace     func(http.Handler) http.Handler
	basePath  string // of the API

	disconnects *budget.Disconnects
	bodies      *budget.Memory
}

// newEdge constructs the middleware of the configuration. Errors name the variable.
func newEdge(c *config.Config, logger *slog.Logger, access web.AccessLog, m *meters) (*edge, error) {
	e := &edge{config: c, logger: logger, observers: slices.Clone(m.requests), disconnects: budget.NewDisconnects(), bodies: budget.NewMemory(budget.BodyBytes)}
	var err error
	if e.access, err = newAccessControl(c, logger); err != nil {
		return nil, err
	}
	if c.Web.GzipEnabled {
		if e.gzip, err = web.NewGzip(); err != nil {
			return nil, fmt.Errorf("compression of answers: %w", err)
		}
	}
	if c.Log.Requests {
		e.observers = append(e.observers, access.Observer())
	}
	if m.prometheus != nil {
		e.metrics = m.prometheus.Handler()
	}
	if m.telemetry != nil {
		e.trace = m.telemetry.Wrap
	}
	return e, nil
}

// handler wraps the API, from the inside to the outside. Access control sees paths as the router
// does, without the web prefix. Headers that browsers must see on every response, including
// rejections, are further out. Metrics and logs are outermost.
func (e *edge) handler(api http.Handler) http.Handler {
	api = web.LimitBody(web.MaxBodyBytes, e.bodies, web.AnswerHead([]string{e.basePath + "/health", e.basePath + "/ready"}, web.NameRoutes(e.basePath, api)))
	routes := web.Routes{
		Prefix:      e.config.Web.Prefix,
		API:         e.access.guard(api),
		Metrics:     e.metrics,
		MetricsPath: e.config.Prometheus.Path,
	}
	if e.ofrep != nil {
		routes.OFREP, routes.OFREPRoot = web.DelayDisconnected(e.disconnects, e.callersOFREP(e.compressOFREP(e.ofrep))), ofrep.Root
	}
	if e.config.Web.PprofEnabled {
		routes.Pprof = e.access.guard(web.LimitBody(web.MaxPprofBodyBytes, nil,
			web.ProtectPage("default-src 'none'; style-src 'unsafe-inline'", web.Pprof())))
	}
	// SDKs in browsers send counts as text, which needs no preflight request.
	h := web.Protect(handler.IngestPaths(), routes.Handler())
	if e.config.CORS.Enabled {
		h = web.CORS(e.config.CORS, web.CORSBelow{
			Path: web.CleanPrefix(e.config.Web.Prefix) + ofrep.Root, AllowedHeaders: ofrep.RequestHeaders(), ExposedHeaders: ofrep.ResponseHeaders(),
		}, h)
	}
	h = web.Observe(e.observers, web.Recover(e.logger, h))
	if e.trace != nil {
		h = e.trace(h)
	}
	return h
}
