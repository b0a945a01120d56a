package app

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
)

// TestEveryLoginProtectsEveryPath turns on each kind of access control alone. A new variable
// FLAGR_..._AUTH_ENABLED needs a row.
func TestEveryLoginProtectsEveryPath(t *testing.T) {
	t.Parallel()
	settings := map[string]map[string]string{
		"FLAGR_JWT_AUTH_ENABLED": {
			"FLAGR_JWT_AUTH_SECRET": "secret of FLAGR_JWT_AUTH_SECRET", "FLAGR_JWT_AUTH_WHITELIST_PATHS": "/none",
			"FLAGR_JWT_AUTH_EXACT_WHITELIST_PATHS": "/none", "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401",
		},
		"FLAGR_BASIC_AUTH_ENABLED": {
			"FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "secret of FLAGR_BASIC_AUTH_PASSWORD",
			"FLAGR_BASIC_AUTH_WHITELIST_PATHS": "/none", "FLAGR_BASIC_AUTH_EXACT_WHITELIST_PATHS": "/none",
		},
		"FLAGR_HEADER_AUTH_ENABLED": nil, // names the user, and protects nothing
		"FLAGR_COOKIE_AUTH_ENABLED": nil,
	}
	for _, v := range config.Variables() {
		if !strings.HasSuffix(v.Name, "_AUTH_ENABLED") {
			continue
		}
		own, ok := settings[v.Name]
		if !ok {
			t.Errorf("%s has no row in this test", v.Name)
		}
		if own != nil {
			t.Run(v.Name, func(t *testing.T) {
				t.Parallel()
				testLogin(t, v.Name, own)
			})
		}
	}
}

func testLogin(t *testing.T, variable string, settings map[string]string) {
	environ := map[string]string{variable: "true", "FLAGR_RECORDER_ENABLED": "false"}
	maps.Copy(environ, settings)
	a, _, err := newFor(t, environ)
	if err != nil {
		t.Fatal(err)
	}
	if !a.edge.access.on() || a.edge.access.String() == "none" {
		t.Errorf("the access control is %s", a.edge.access)
	}
	access := a.edge.accessOFREP()
	if !access.Login || access.OpenStreams {
		t.Errorf("OFREP: a login is needed: %t, streams are open: %t", access.Login, access.OpenStreams)
	}
	prefix := strings.TrimSuffix(variable, "ENABLED")
	for _, v := range config.Variables() {
		if strings.HasPrefix(v.Name, prefix) && v.Secret && !slices.Contains(access.Secrets, "secret of "+v.Name) {
			t.Errorf("tickets of OFREP do not depend on %s", v.Name)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that a stream without a login ends
	h := a.edge.handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, request := range []string{
		"POST /api/v1/evaluation", "GET /api/v1/flags", "GET /ui/flags", "GET /swagger.json", "GET /debug/pprof/cmdline",
		"POST " + ofrep.Root + "v1/evaluate/flags", "POST " + ofrep.Root + "v1/evaluate/flags/k", "GET " + ofrep.EventsPath,
	} {
		method, path, _ := strings.Cut(request, " ")
		rw := httptest.NewRecorder()
		if h.ServeHTTP(rw, httptest.NewRequestWithContext(ended, method, path, strings.NewReader("{}"))); rw.Code != http.StatusUnauthorized {
			t.Errorf("%s without a login: %d %s", request, rw.Code, rw.Body)
		}
	}
}
