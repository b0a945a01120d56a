package app

import (
	"context"
	"net/http"

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
		Eval:       service,
		States:     a.cache,
		Version:    versionText(),
		FlagSetID:  c.OFREP.FlagSetID,
		Prefix:     web.CleanPrefix(c.Web.Prefix),
		RecordBulk: c.OFREP.BulkRecord,
		Now:        a.now,
		Access: ofrep.Access{
			KeyUsed: web.NoteAPIKey,
			Secrets: []string{c.JWTAuth.Secret, c.BasicAuth.Username, c.BasicAuth.Password},
		},
		Events: ofrep.Events{Disabled: !c.OFREP.EventsEnabled, URL: c.OFREP.EventsURL, Max: c.OFREP.EventsMax, Spread: spread},
	}
	for _, key := range c.OFREP.Keys() {
		o.Access.Keys = append(o.Access.Keys, ofrep.APIKey(key))
	}
	if a.edge.jwt != nil || a.edge.basic != nil {
		o.Access.Login = a.edge.login
	}
	if injected != nil {
		o.Inject = injected.Inject
	}
	return ofrep.New(o)
}

// login performs the checks of guard. With open, open paths pass.
func (e *edge) login(r *http.Request, open bool) (challenge string, ok bool) {
	if e.jwt != nil {
		if challenge, ok = e.jwt.Check(r, open); !ok {
			return challenge, false
		}
	}
	if e.basic != nil {
		return e.basic.Check(r, open)
	}
	return "", true
}

// compressOFREP compresses responses, except event streams.
func (e *edge) compressOFREP(h http.Handler) http.Handler {
	if e.gzip == nil {
		return h
	}
	compressed := e.gzip(h)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == ofrep.EventsPath {
			h.ServeHTTP(rw, r)
			return
		}
		compressed.ServeHTTP(rw, r)
	})
}
