package ofrep

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Access configures who may use OFREP. The zero value admits all requests.
type Access struct {
	// Keys are secrets for these paths only. If there are keys, each request needs one of them or
	// another login.
	Keys []APIKey
	// Login requires the server's own login of requests without a key. The middleware in front of
	// the handler passes Caller.Login with WithCaller; a request without it is refused.
	Login bool
	// OpenStreams admits all requests for event streams if there are no keys.
	OpenStreams bool
	// Secrets, with the secrets of Keys, derive the key of tickets. Servers with the same secrets
	// accept each other's tickets.
	Secrets []string
}

// Caller is who sends a request.
type Caller struct {
	// Login checks whether the server's own access control admits the request. The challenge is the
	// value of the header WWW-Authenticate if it does not. The handler calls it at most once, and
	// not for a request with an API key.
	Login func() (challenge string, ok bool)
	// Key is the name of the API key of the request. The handler sets it before it returns.
	Key string
}

type callerKey struct{}

// WithCaller returns r with c, for the handler.
func WithCaller(r *http.Request, c *Caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// APIKey is a secret for OFREP.
type APIKey struct {
	Name, Secret string
	// Tags is the scope: the key can read flags with one of these tags. Empty means all flags.
	Tags []string
}

// APIKeyHeader is the header of API keys. The header Authorization is accepted as well.
const APIKeyHeader = "X-Api-Key"

// RequestHeaders returns the headers that clients in browsers send, for CORS.
func RequestHeaders() []string {
	return []string{"Content-Type", "Authorization", APIKeyHeader, "If-None-Match", lastEventID, "Cache-Control", "traceparent", "tracestate"}
}

// ResponseHeaders returns the headers that clients in browsers must be able to read. A browser
// shows an entity tag to its page only if the header is listed, and the page then sends the tag.
func ResponseHeaders() []string { return []string{"ETag", "Retry-After"} }

// lastEventID is the header with which a client continues an event stream.
const lastEventID = "Last-Event-ID"

const (
	ticketName    = "ticket"
	ticketDay     = "2006-01-02"
	keyChallenge  = `Bearer realm="flagr"`
	ticketPurpose = "flagr ofrep stream ticket"
)

// gate is a prepared Access.
type gate struct {
	access    Access
	sums      [][sha256.Size]byte // of the secrets
	ticketKey []byte
	now       func() time.Time
}

func newGate(a Access, now func() time.Time) gate {
	g := gate{access: a, now: now}
	derive := hmac.New(sha256.New, []byte(ticketPurpose))
	add := func(secret string) {
		sum := sha256.Sum256([]byte(secret)) // all of one length, so that two secrets cannot be split in another place
		derive.Write(sum[:])
	}
	for _, secret := range a.Secrets {
		add(secret)
	}
	for _, key := range a.Keys {
		g.sums = append(g.sums, sha256.Sum256([]byte(key.Secret)))
		add(key.Secret)
	}
	g.ticketKey = derive.Sum(nil)
	return g
}

// isOpen reports whether no request needs a login.
func (g *gate) isOpen() bool { return len(g.access.Keys) == 0 && !g.access.Login }

// streamsClosed reports whether event streams need a login.
func (g *gate) streamsClosed() bool {
	return len(g.access.Keys) > 0 || g.access.Login && !g.access.OpenStreams
}

// admit checks a request. The scope is the scope of the API key, if one was used; with a ticket,
// the query has it.
func (g *gate) admit(rw http.ResponseWriter, r *http.Request, tickets bool) (tags []string, byTicket bool, refused *problem) {
	if g.isOpen() {
		return nil, false, nil
	}
	caller, _ := r.Context().Value(callerKey{}).(*Caller)
	if caller == nil {
		caller = new(Caller)
	}
	if key := g.key(r); key != nil {
		caller.Key = key.Name
		return key.Tags, false, nil
	}
	challenge := keyChallenge
	if g.access.Login && caller.Login != nil {
		login, ok := caller.Login()
		if ok {
			return nil, false, nil
		}
		challenge = login
	}
	if tickets && g.validTicket(r.URL.Query().Get(ticketName), g.now()) {
		return nil, true, nil
	}
	rw.Header().Set("Www-Authenticate", challenge)
	return nil, false, &problem{http.StatusUnauthorized, codeGeneral, "a valid login is needed"}
}

// key returns the API key of a request. It compares all keys, in constant time.
func (g *gate) key(r *http.Request) *APIKey {
	if len(g.access.Keys) == 0 {
		return nil
	}
	secret := r.Header.Get(APIKeyHeader)
	if secret == "" {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil
		}
		secret = strings.TrimSpace(token)
	}
	sum := sha256.Sum256([]byte(secret))
	var found *APIKey
	for i := range g.sums {
		if subtle.ConstantTimeCompare(sum[:], g.sums[i][:]) == 1 {
			found = &g.access.Keys[i]
		}
	}
	return found
}

// ticket admits streams of clients that cannot send headers. It is valid on the UTC day of now and
// on the next day.
func (g *gate) ticket(now time.Time) string {
	day := now.UTC().Format(ticketDay)
	mac := hmac.New(sha256.New, g.ticketKey)
	mac.Write([]byte(day))
	return day + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (g *gate) validTicket(ticket string, now time.Time) bool {
	if ticket == "" {
		return false
	}
	today, yesterday := g.ticket(now), g.ticket(now.AddDate(0, 0, -1))
	return hmac.Equal([]byte(ticket), []byte(today)) || hmac.Equal([]byte(ticket), []byte(yesterday))
}

// streamQuery returns the query of the stream's URL: the scope, and a ticket if a login is needed.
func (g *gate) streamQuery(s *scope) string {
	query := s.query()
	if !g.streamsClosed() {
		return query
	}
	if query != "" {
		query += "&"
	}
	return query + ticketName + "=" + url.QueryEscape(g.ticket(g.now()))
}
