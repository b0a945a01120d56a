package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// BasicAuth admits requests with the one user name and password, and requests for open paths.
type BasicAuth struct {
	open               openPaths
	username, password [sha256.Size]byte
}

const basicChallenge = `Basic realm="flagr", charset="UTF-8"`

// NewBasicAuth returns a BasicAuth. Entries of the lists of open paths may begin with the web
// prefix.
func NewBasicAuth(o config.BasicAuth, webPrefix string, logger *slog.Logger) *BasicAuth {
	b := &BasicAuth{
		open:     newOpenPaths(o.WhitelistPaths, o.ExactWhitelistPaths, webPrefix),
		username: sha256.Sum256([]byte(o.Username)),
		password: sha256.Sum256([]byte(o.Password)),
	}
	if b.open.everything() {
		logger.Warn("an entry of FLAGR_BASIC_AUTH_WHITELIST_PATHS opens every path: no request needs a password")
	}
	return b
}

// Wrap protects next. It must see the same path that next uses for routing.
func (b *BasicAuth) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !b.open.contain(r.URL) && !b.knows(r) {
			rw.Header().Set("WWW-Authenticate", basicChallenge)
			writeError(rw, http.StatusUnauthorized, "a user name and a password are needed")
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// Check reports whether a request has the user name and the password or, with open, is for an open
// path. The challenge is the value of WWW-Authenticate in a rejection.
func (b *BasicAuth) Check(r *http.Request, open bool) (challenge string, ok bool) {
	return basicChallenge, open && b.open.contain(r.URL) || b.knows(r)
}

// knows compares checksums, and always both, so that its duration does not reveal a length or which
// one was right.
func (b *BasicAuth) knows(r *http.Request) bool {
	username, password, ok := r.BasicAuth()
	u, p := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	same := subtle.ConstantTimeCompare(u[:], b.username[:]) & subtle.ConstantTimeCompare(p[:], b.password[:])
	return ok && same == 1
}
