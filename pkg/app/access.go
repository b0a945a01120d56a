package app

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// login is a kind of access control. All logins that are turned on must admit a request.
type login interface {
	// Wrap protects a handler.
	Wrap(next http.Handler) http.Handler
	// Check reports whether it admits a request. With open, its open paths pass. The challenge is
	// the value of WWW-Authenticate in a rejection.
	Check(r *http.Request, open bool) (challenge string, ok bool)
}

// accessControl is what a request needs to enter the server. API, pages, profiler and OFREP use the
// same logins.
type accessControl struct {
	logins []login // that are turned on; the first one is checked first
	names  []string
	// secrets of all kinds of login derive OFREP's tickets, also of those that are turned off.
	secrets []string
	jwt     *web.JWTAuth // nil if turned off; it also names the user of a request
}

// newAccessControl constructs the logins of the configuration. Errors name the variable.
func newAccessControl(c *config.Config, logger *slog.Logger) (*accessControl, error) {
	a := &accessControl{secrets: []string{c.JWTAuth.Secret, c.BasicAuth.Username, c.BasicAuth.Password}}
	if c.JWTAuth.Enabled {
		var err error
		if a.jwt, err = web.NewJWTAuth(c.JWTAuth, c.Web.Prefix, logger); err != nil {
			return nil, err
		}
		a.add(a.jwt, "jwt "+c.JWTAuth.SigningMethod)
	}
	if c.BasicAuth.Enabled {
		a.add(web.NewBasicAuth(c.BasicAuth, c.Web.Prefix, logger), "basic")
	}
	return a, nil
}

func (a *accessControl) add(l login, name string) {
	a.logins, a.names = append(a.logins, l), append(a.names, name)
}

// String returns the names of the logins, for the log.
func (a *accessControl) String() string {
	if len(a.names) == 0 {
		return "none"
	}
	return strings.Join(a.names, ",")
}

// on reports whether requests need a login.
func (a *accessControl) on() bool { return len(a.logins) > 0 }

// guard protects a handler with all logins.
func (a *accessControl) guard(h http.Handler) http.Handler {
	for _, l := range slices.Backward(a.logins) {
		h = l.Wrap(h)
	}
	return h
}

// check performs the checks of guard. With open, paths pass that are open for all logins.
func (a *accessControl) check(r *http.Request, open bool) (challenge string, ok bool) {
	for _, l := range a.logins {
		if challenge, ok := l.Check(r, open); !ok {
			return challenge, false
		}
	}
	return "", true
}
