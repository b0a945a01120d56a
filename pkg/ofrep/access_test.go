package ofrep_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// behindLogin is a handler behind the access control of a server.
type behindLogin struct {
	*fixture
	open   bool // paths with a query ?open need no login
	caller ofrep.Caller
	logins int // checks of logins
}

func (b *behindLogin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b.caller = ofrep.Caller{Login: func() (challenge string, ok bool) {
		b.logins++
		return `Bearer realm="flagr"`, b.open && r.URL.Query().Has("open") || r.Header.Get("Authorization") == "Bearer token"
	}}
	b.fixture.ServeHTTP(rw, ofrep.WithCaller(r, &b.caller))
}

func TestAccess(t *testing.T) {
	t.Parallel()
	keys := []ofrep.APIKey{{Name: "web", Secret: "secret", Tags: []string{"web", "x"}}, {Name: "jobs", Secret: "other"}}
	h := &behindLogin{fixture: setup(t, "", 0, ofrep.Options{Access: ofrep.Access{Keys: keys}})}
	both := &behindLogin{fixture: setup(t, "", 0, ofrep.Options{Access: ofrep.Access{Keys: keys, Login: true}})}
	tokens := &behindLogin{fixture: setup(t, "", 0, ofrep.Options{Access: ofrep.Access{Login: true}}), open: true}
	alone := tokens.fixture // without what decides about logins
	for name, tc := range map[string]struct {
		handler       http.Handler
		header, value string
		query         string
		status        int
	}{
		"no key":                          {h, "X", "", "", 401},
		"a wrong key":                     {h, "X-API-Key", "secre", "", 401},
		"a password":                      {h, "Authorization", "Basic secret", "", 401},
		"a key":                           {h, "X-API-Key", "other", "", 200},
		"a key as a bearer token":         {h, "Authorization", "bearer other", "", 200},
		"keys, and a login":               {both, "Authorization", "Bearer token", "", 200},
		"keys, and an open path":          {both, "X", "", "?open", 401},
		"tokens, and none":                {tokens, "X", "", "", 401},
		"tokens, and an open path":        {tokens, "X", "", "?open", 200},
		"a token":                         {tokens, "Authorization", "Bearer token", "", 200},
		"a token, without a decision":     {alone, "Authorization", "Bearer token", "", 401},
		"keys only, and a token":          {h, "Authorization", "Bearer token", "", 401},
		"a ticket is for streams only":    {tokens, "X", "", "?ticket=2026-01-01.x", 401},
		"a scope that the key has not":    {h, "X-API-Key", "secret", "?keyTags=checkout&flagKeys=checkout", 200},
		"the empty secret of a wrong key": {h, "X-API-Key", "", "", 401},
	} {
		for _, path := range []string{flagsPath, flagPath + "page-size"} {
			if tc.value == "secret" && path != flagsPath {
				continue
			}
			rw := call(tc.handler, http.MethodPost, path+tc.query, "", tc.header, tc.value)
			if rw.Code != tc.status || (rw.Code == 401) != (rw.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("%s: %d %v, want %d", name, rw.Code, rw.Header(), tc.status)
			}
			checkShape(t, rw.Code, rw.Body.Bytes())
			if strings.Contains(tc.query, "keyTags") && strings.Contains(rw.Body.String(), `"key"`) {
				t.Errorf("a key sees flags of another scope: %s", rw.Body)
			}
		}
	}

	both.logins = 0
	for _, key := range []string{"other", "wrong"} {
		call(both, http.MethodPost, flagsPath, "", "X-API-Key", key)
	}
	if both.logins != 1 {
		t.Errorf("%d logins were checked for a request with a key and one with a wrong key, want 1", both.logins)
	}

	rw := call(h, http.MethodPost, flagsPath, french, "X-API-Key", "secret")
	if got := rw.Body.String(); !strings.HasPrefix(got, `{"flags":[`+newSearch+`],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"/ofrep/v1/events?keyTags=web%2Cx&ticket=`) {
		t.Errorf("in scope: %s", got)
	}
	if h.caller.Key != "web" {
		t.Errorf("key %q was used", h.caller.Key)
	}
	if status, got := post(h, flagPath+"page-size", "", "X-API-Key", "secret"); status != 404 || !strings.Contains(got, "FLAG_NOT_FOUND") {
		t.Errorf("out of scope: %d %s", status, got)
	}
	if got := h.records.all(); got != "page-size=small page-size=small" { // of the key without a scope
		t.Errorf("recorded %s", got)
	}
}

func TestTickets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := func(secrets ...string) *behindLogin {
			return &behindLogin{fixture: setup(t, "", time.Hour, ofrep.Options{Access: ofrep.Access{Login: true, Secrets: secrets}})}
		}
		h, twin, other := server("a", "b"), server("a", "b"), server("ab", "")
		answer := call(h, http.MethodPost, flagsPath, "", "Authorization", "Bearer token").Body.String()
		address := decode[struct {
			EventStreams []struct{ Endpoint struct{ RequestURI string } }
		}](t, answer).EventStreams[0].Endpoint.RequestURI
		day := time.Now().UTC().Format(time.DateOnly)
		if !strings.HasPrefix(address, ofrep.EventsPath+"?ticket="+day+".") {
			t.Fatal(address)
		}
		open := func(h http.Handler, address string) int {
			rw, _ := streamFor(h, address, time.Millisecond)
			return rw.Code
		}
		if got := open(twin, address); got != 200 {
			t.Errorf("%d on another server", got)
		}
		if got := open(other, address); got != 401 {
			t.Errorf("%d on a server with other secrets", got)
		}
		if got := open(h, strings.Replace(address, day, url.QueryEscape("2027-01-01"), 1)); got != 401 {
			t.Errorf("%d with another day", got)
		}
		if got := open(h, ofrep.EventsPath); got != 401 {
			t.Errorf("%d without a ticket", got)
		}
		if got := h.Stats().RefusedByTicket; got != 2 {
			t.Errorf("%d refused", got)
		}
		time.Sleep(24 * time.Hour)
		if got := open(h, address); got != 200 {
			t.Errorf("%d on the next day", got)
		}
		time.Sleep(24 * time.Hour)
		if got := open(h, address); got != 401 {
			t.Errorf("%d two days later", got)
		}
		if rw, _ := streamFor(h, ofrep.EventsPath, time.Millisecond, "Authorization", "Bearer token"); rw.Code != 200 {
			t.Errorf("%d with a token", rw.Code)
		}
	})
}
