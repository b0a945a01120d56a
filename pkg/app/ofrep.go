package app

import (
	"context"
	"net/http"
	"net/url"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// addOFREP creates the OFREP handler if it is turned on.
func (a *App) addOFREP(c *config.Config, service *eval.Service, injected *handler.InjectedContext, m *meters) error {
	if !c.OFREP.Enabled {
		return nil
	}
	a.ofrep = a.newOFREP(c, service, injected)
	a.edge.ofrep = a.ofrep
	a.onStop("OFREP", func(context.Context) error { a.ofrep.Stop(); return nil })
	return m.watchOFREP(a.ofrep)
}

// newOFREP creates the OFREP handler.
func (a *App) newOFREP(c *config.Config, service *eval.Service, injected *handler.InjectedContext) *ofrep.Handler {
	spread := c.OFREP.EventsSpread
	if spread == 0 {
		spread = -1
	}
	o := ofrep.Options{
		Eval:        service,
		States:      a.cache,
		Version:     versionText(),
		FlagSetID:   c.OFREP.FlagSetID,
		Prefix:      web.CleanPrefix(c.Web.Prefix),
		RecordBulk:  c.OFREP.BulkRecord,
		Now:         a.now,
		Bodies:      a.edge.bodies,
		Answers:     a.memory,
		AnswerBytes: c.Eval.AnswerBytes,
		Turns:       a.turns,
		Access:      a.edge.accessOFREP(),
		Events:      ofrep.Events{Disabled: !c.OFREP.EventsEnabled, URL: c.OFREP.EventsURL, Max: c.OFREP.EventsMax, Spread: spread},
	}
	if injected != nil {
		o.Inject = injected.Inject
	}
	return ofrep.New(o)
}

// accessOFREP returns who may use OFREP.
func (e *edge) accessOFREP() ofrep.Access {
	access := ofrep.Access{Login: e.access.on(), Secrets: e.access.secrets}
	for _, key := range e.config.OFREP.Keys() {
		access.Keys = append(access.Keys, ofrep.APIKey(key))
	}
	anonymous := http.Request{Header: http.Header{}, URL: &url.URL{Path: ofrep.EventsPath}}
	_, access.OpenStreams = e.access.check(&anonymous, true)
	return access
}

// callersOFREP tells h who sends a request, and the access log which API key h found. With API
// keys, only a login opens paths that are open otherwise.
func (e *edge) callersOFREP(h http.Handler) http.Handler {
	keys := len(e.config.OFREP.Keys()) > 0
	if !keys && !e.access.on() {
		return h
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var caller ofrep.Caller
		if e.access.on() {
			caller.Login = func() (challenge string, ok bool) { return e.access.check(withTokenOfKey(r), !keys) }
		}
		inner := ofrep.WithCaller(r, &caller)
		defer func() { // also when a stream is aborted
			r.Pattern = inner.Pattern // for web.Observe
			if caller.Key != "" {
				web.NoteAPIKey(rw, caller.Key)
			}
		}()
		h.ServeHTTP(rw, inner)
	})
}

// withTokenOfKey returns r with its API key as a bearer token, if it has no other login.
func withTokenOfKey(r *http.Request) *http.Request {
	secret := r.Header.Get(ofrep.APIKeyHeader)
	if secret == "" || r.Header.Get("Authorization") != "" {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+secret)
	return r
}

// compressOFREP compresses responses, except event streams.
func (e *edge) compressOFREP(h http.Handler) http.Handler {
	if e.gzip == nil {
		return h
	}
	compressed := e.gzip.Wrap(h)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == ofrep.EventsPath {
			h.ServeHTTP(rw, r)
			return
		}
		compressed.ServeHTTP(rw, r)
	})
}
