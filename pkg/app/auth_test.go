package app_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
)

const secret = "a shared secret of the tests"

// listen starts a server behind a real listener and returns its address.
func listen(t *testing.T, environ map[string]string) (address string) {
	t.Helper()
	a, _, _ := setup(t, environ)
	server := httptest.NewServer(started(t, a))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// answer is what raw gets.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// raw sends a request exactly as it is written: Go's client would clean some of the paths.
func raw(t *testing.T, address, method, target string, header ...string) answer {
	t.Helper()
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	body := ""
	if method == http.MethodPost || method == http.MethodPut {
		body = "{}"
	}
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: flagr", "Connection: close", "Content-Type: application/json",
		fmt.Sprintf("Content-Length: %d", len(body))}, header...)
	if _, err := fmt.Fprintf(connection, "%s\r\n\r\n%s", strings.Join(lines, "\r\n"), body); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer{response.StatusCode, response.Header, content}
}

// hostilePaths lead to closed paths through open ones. Without a login, none of them may get a
// response of the API.
var hostilePaths = []string{
	"/api/v1/health/../export/sqlite",
	"/api/v1/health/%2e%2e/export/sqlite",
	"/api/v1/health/.%2e/export/sqlite",
	"/api/v1/health%2f..%2fexport%2fsqlite",
	"/api/v1/health%2F..%2Fexport/sqlite",
	"/api/v1/health/..%2fexport/sqlite",
	"/api/v1/health%2f../export/sqlite",
	"/api/v1/health/%252e%252e/export/sqlite",
	"/api/v1/health/..;/export/sqlite",
	`/api/v1/health\..\export\sqlite`,
	"/api/v1/health/%5c..%5cexport%5csqlite",
	"//api/v1/health//../export/sqlite",
	"/api/v1/health/./../export//sqlite",
	"/static/../api/v1/export/sqlite",
	"/static/%2e%2e/api/v1/export/sqlite",
	"/static%2f..%2fapi%2fv1%2fexport%2fsqlite",
	"/api/v1/evaluation/../tags",
	"/api/v1/evaluation%2f..%2ftags",
	"/api/v1//tags",
	"/./api/v1/tags",
	"/api/v1/tags/",
	"/api/v1/tags/.",
	"/api/v1/%74ags",
	"/api/v1/tags%2f",
	"/%61pi/v1/tags",
	"/x/../api/v1/tags",
	"/../api/v1/tags",
	"/%2e%2e/api/v1/tags",
	"/api/v1/health/../docs",
	"/api/v1/health%2f..%2fdocs",
	"/api/v1/health/%2e%2e/docs",
	"/api/v1/health/../../../swagger.json",
	"/api/v1/health%2f..%2f..%2f..%2fswagger.json",
	"/swagger.json",
	"/api/v1/docs",
	"/debug/pprof/cmdline",
	"/debug/pprof/",
	"/api/v1/health/..%2f..%2f..%2fdebug/pprof/cmdline",
	"/static/../debug/pprof/cmdline",
	"//debug/pprof/cmdline",
	"http://flagr/api/v1/tags",
	"http://flagr/api/v1/health/../tags",
	"/api/v1/tags?x=/api/v1/health",
	"/api/v1/tags;/api/v1/health",
	"/api/v1/flags/..%2f..%2fv1%2fevaluation",
}

func TestNoPathAvoidsTheLogin(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]map[string]string{
		"token":    {"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401"},
		"password": {"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p"},
		"below a prefix": {"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401",
			"FLAGR_WEB_PREFIX": "/static"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := listen(t, environ)
			prefix := environ["FLAGR_WEB_PREFIX"]
			for _, target := range append([]string{prefix + "/api/v1/tags", prefix + "/api/v1/flags/1/../../tags"}, hostilePaths...) {
				targets := []string{target}
				if prefix != "" && strings.HasPrefix(target, "/") {
					targets = append(targets, prefix+target, strings.ToUpper(prefix)+target, prefix+"%2f"+target, prefix+"/.."+target)
				}
				for _, target := range targets {
					if status := raw(t, address, http.MethodGet, target).status; status < 400 {
						t.Errorf("GET %s without a login: %d", target, status)
					}
				}
			}
			for _, target := range []string{"/api/v1/health", "//api/v1//health/", "/api/v1/evaluation/../health"} {
				if status := raw(t, address, http.MethodGet, prefix+target).status; status != http.StatusOK {
					t.Errorf("GET %s: %d, want 200", prefix+target, status)
				}
			}
		})
	}
}

// With a login, the same paths are served as without access control at all: it neither opens nor
// closes more.
func TestAccessControlLeavesRoutingAlone(t *testing.T) {
	t.Parallel()
	open := listen(t, nil)
	guarded := listen(t, map[string]string{"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "u", "FLAGR_BASIC_AUTH_PASSWORD": "p"})
	for _, target := range append([]string{"/api/v1/flags", "/api/v1/nothing", "/"}, hostilePaths...) {
		want := raw(t, open, http.MethodGet, target).status
		got := raw(t, guarded, http.MethodGet, target, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("u:p"))).status
		if got != want {
			t.Errorf("GET %s: %d with access control, %d without", target, got, want)
		}
	}
}

func TestMethodsNeedTheLoginToo(t *testing.T) {
	t.Parallel()
	address := listen(t, map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret,
		"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401", "FLAGR_CORS_ENABLED": "false"})
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"} {
		if status := raw(t, address, method, "/api/v1/flags").status; status != http.StatusUnauthorized {
			t.Errorf("%s /api/v1/flags without a token: %d, want 401", method, status)
		}
	}
}

// OFREP accepts the server's login, also in the header of its API keys. Its keys close paths that
// are open otherwise.
func TestLoginsOfOFREP(t *testing.T) {
	t.Parallel()
	token := signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "ann"})
	server := func(more ...string) string {
		environ := map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401"}
		for i := 0; i < len(more); i += 2 {
			environ[more[i]] = more[i+1]
		}
		return listen(t, environ)
	}
	tokens := server()
	open := server("FLAGR_JWT_AUTH_WHITELIST_PATHS", "/ofrep/")
	keys := server("FLAGR_JWT_AUTH_WHITELIST_PATHS", "/ofrep/", "FLAGR_OFREP_API_KEYS", "shop=of the shop")
	for name, tc := range map[string]struct {
		address, header string
		status          int
		ticket          bool
	}{
		"no token":                   {tokens, "X: y", 401, false},
		"a token":                    {tokens, "Authorization: Bearer " + token, 200, true},
		"a token as an API key":      {tokens, "X-API-Key: " + token, 200, true},
		"not a token":                {tokens, "X-API-Key: y", 401, false},
		"an open path":               {open, "X: y", 200, false},
		"an open path, with keys":    {keys, "X: y", 401, false},
		"a token, with keys":         {keys, "X-API-Key: " + token, 200, true},
		"a key":                      {keys, "X-API-Key: of the shop", 200, true},
		"a token beside a false key": {keys, "X-API-Key: y\r\nAuthorization: Bearer " + token, 200, true},
	} {
		got := raw(t, tc.address, http.MethodPost, "/ofrep/v1/evaluate/flags", tc.header)
		if got.status != tc.status || strings.Contains(string(got.body), "ticket=") != tc.ticket {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (tc.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", name, challenge)
		}
	}
}

// signed makes a token.
func signed(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}

	var (
		claims  = jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
		expired = jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(-time.Minute).Unix()}
		early   = jwt.MapClaims{"sub": "ann", "nbf": time.Now().Add(time.Hour).Unix()}
		hs256   = signed(t, jwt.SigningMethodHS256, []byte(secret), claims)
		hs512   = signed(t, jwt.SigningMethodHS512, []byte(secret), claims)
		rs256   = signed(t, jwt.SigningMethodRS256, private, claims)
		none    = signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims)
	)
	part := func(token string, i int) string { return strings.Split(token, ".")[i] }
	header := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	type attempt struct {
		name    string
		headers []string
		pass    bool
	}
	common := []attempt{
		{"nothing", nil, false},
		{"none", []string{"Authorization: Bearer " + none}, false},
		{"none in capitals", []string{"Authorization: Bearer " + header(`{"alg":"NONE","typ":"JWT"}`) + "." + part(none, 1) + "."}, false},
		{"no algorithm", []string{"Authorization: Bearer " + header(`{"typ":"JWT"}`) + "." + part(none, 1) + "." + part(hs256, 2)}, false},
		{"not a token", []string{"Authorization: Bearer x.y.z"}, false},
		{"empty", []string{"Authorization: Bearer "}, false},
		{"a huge one", []string{"Authorization: Bearer " + strings.Repeat("A", 100_000)}, false},
	}
	for _, server := range []struct {
		method, key string
		attempts    []attempt
	}{
		{"HS256", secret, []attempt{
			{"right", []string{"Authorization: Bearer " + hs256}, true},
			{"scheme in small letters", []string{"Authorization: bearer " + hs256}, true},
			{"in the cookie", []string{"Cookie: access_token=" + hs256}, true},
			{"in the cookie beside another scheme", []string{"Authorization: Basic dTpw", "Cookie: access_token=" + hs256}, true},
			{"wrong in the header, right in the cookie", []string{"Authorization: Bearer " + none, "Cookie: access_token=" + hs256}, false},
			{"in another cookie", []string{"Cookie: token=" + hs256}, false},
			{"without the scheme", []string{"Authorization: " + hs256}, false},
			{"expired", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte(secret), expired)}, false},
			{"not valid yet", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte(secret), early)}, false},
			{"another key", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte("guess"), claims)}, false},
			{"an empty key", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte(""), claims)}, false},
			{"another method with the right key", []string{"Authorization: Bearer " + hs512}, false},
			{"signature cut off", []string{"Authorization: Bearer " + part(hs256, 0) + "." + part(hs256, 1) + "."}, false},
			{"claims exchanged", []string{"Authorization: Bearer " + part(hs256, 0) + "." + header(`{"sub":"root"}`) + "." + part(hs256, 2)}, false},
			{"another algorithm named", []string{"Authorization: Bearer " + header(`{"alg":"HS512","typ":"JWT"}`) + "." + part(hs256, 1) + "." + part(hs256, 2)}, false},
		}},
		{"HS512", secret, []attempt{
			{"right", []string{"Authorization: Bearer " + hs512}, true},
			{"the weaker method", []string{"Authorization: Bearer " + hs256}, false},
		}},
		{"RS256", public, []attempt{
			{"right", []string{"Authorization: Bearer " + rs256}, true},
			{"the public key as a shared one", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte(public), claims)}, false},
			{"the same without white space", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodHS256, []byte(strings.TrimSpace(public)), claims)}, false},
			{"another key", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodRS256, stranger, claims)}, false},
			{"another RSA method", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodRS512, private, claims)}, false},
			{"PSS", []string{"Authorization: Bearer " + signed(t, jwt.SigningMethodPS256, private, claims)}, false},
		}},
		{"RS256", strings.ReplaceAll(public, "\n", `\n`), []attempt{{"right, with the key on one line", []string{"Authorization: Bearer " + rs256}, true}}},
	} {
		t.Run(server.method, func(t *testing.T) {
			t.Parallel()
			address := listen(t, map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": server.key,
				"FLAGR_JWT_AUTH_SIGNING_METHOD": server.method, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401"})
			for _, a := range append(server.attempts, common...) {
				want := http.StatusUnauthorized
				if a.pass {
					want = http.StatusOK
				}
				if status := raw(t, address, http.MethodGet, "/api/v1/flags", a.headers...).status; status != want {
					t.Errorf("%s: %d, want %d", a.name, status, want)
				}
			}
		})
	}
}

func TestRequestsWithoutAToken(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, status, url   string
		want                int
		location, challenge string
	}{
		{"redirected", "307", "https://login.example.com/?to=flags", 307, "https://login.example.com/?to=flags", ""},
		{"redirected by another status", "302", "https://login.example.com/", 302, "https://login.example.com/", ""},
		{"nowhere to go", "307", "", 307, "", ""},
		{"refused", "401", "https://login.example.com/", 401, "", `Bearer realm="flagr"`},
		{"refused otherwise", "403", "", 403, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			address := listen(t, map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret,
				"FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": tc.status, "FLAGR_JWT_AUTH_NO_TOKEN_REDIRECT_URL": tc.url})
			response := raw(t, address, http.MethodGet, "/api/v1/flags", "Origin: https://ui.example.com")
			if response.status != tc.want || response.header.Get("Location") != tc.location || response.header.Get("WWW-Authenticate") != tc.challenge {
				t.Errorf("answer is %d to %q with %q", response.status, response.header.Get("Location"), response.header.Get("WWW-Authenticate"))
			}
			if response.header.Get("Access-Control-Allow-Origin") == "" {
				t.Error("a page of another origin cannot see the refusal")
			}
		})
	}
}

func TestOpenPathsAreConfigurable(t *testing.T) {
	t.Parallel()
	address := listen(t, map[string]string{
		"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401",
		"FLAGR_WEB_PREFIX":                     "/shop/flagr",
		"FLAGR_JWT_AUTH_WHITELIST_PATHS":       "/shop/flagr/api/v1/health,/api/v1/flags/entity_types,/debug/pprof/cmd",
		"FLAGR_JWT_AUTH_EXACT_WHITELIST_PATHS": "/shop/flagr/api/v1/tags,/api/v1/flags",
	})
	for target, want := range map[string]int{
		"/shop/flagr/api/v1/health":               200,
		"/shop/flagr/api/v1/flags/entity_types":   200,
		"/shop/flagr/api/v1/tags":                 200,
		"/shop/flagr/api/v1/tags/":                200,
		"/shop/flagr/api/v1/tags/x":               401,
		"/shop/flagr/api/v1/flags":                200,
		"/shop/flagr/api/v1/flags/1":              401,
		"/shop/flagr/api/v1/evaluation":           401,
		"/shop/flagr/":                            401,
		"/shop/flagr":                             401,
		"/shop/flagr2/api/v1/health":              404,
		"/api/v1/health":                          404,
		"/api/v1/flags":                           404,
		"/":                                       404,
		"/debug/pprof/cmdline":                    200,
		"/debug/pprof/goroutine":                  401,
		"/shop/flagr/debug/pprof/cmdline":         404,
		"/shop/flagr/..%2fflagr/api/v1/flags/1":   401,
		"/shop/flagr/api/v1/flags/1/../../health": 200,
		"/shop%2fflagr/api/v1/flags":              404,
	} {
		if status := raw(t, address, http.MethodGet, target).status; status != want {
			t.Errorf("GET %s: %d, want %d", target, status, want)
		}
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	address := listen(t, map[string]string{"FLAGR_BASIC_AUTH_ENABLED": "true", "FLAGR_BASIC_AUTH_USERNAME": "ann", "FLAGR_BASIC_AUTH_PASSWORD": "p:ä"})
	for credentials, want := range map[string]int{
		"ann:p:ä": 200, "ann:p": 401, "ann:": 401, ":p:ä": 401, "Ann:p:ä": 401, "ann:p:ä ": 401, ":": 401, "ann": 401, "annp:ä:": 401,
	} {
		authorization := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
		if status := raw(t, address, http.MethodGet, "/api/v1/tags", authorization).status; status != want {
			t.Errorf("%q: %d, want %d", credentials, status, want)
		}
	}
	response := raw(t, address, http.MethodGet, "/api/v1/tags")
	if challenge := response.header.Get("WWW-Authenticate"); response.status != http.StatusUnauthorized || !strings.HasPrefix(challenge, "Basic ") {
		t.Errorf("without a password: %d, %q", response.status, challenge)
	}
	if status := raw(t, address, http.MethodGet, "/api/v1/flags").status; status != 200 {
		t.Errorf("GET /api/v1/flags, open by default: %d", status)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	for _, environ := range []map[string]string{
		{"FLAGR_JWT_AUTH_SIGNING_METHOD": "RS256", "FLAGR_JWT_AUTH_SECRET": "s3cret"},
		{"FLAGR_JWT_AUTH_SIGNING_METHOD": "RS256", "FLAGR_JWT_AUTH_SECRET": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
		{"FLAGR_JWT_AUTH_SIGNING_METHOD": "HS256", "FLAGR_JWT_AUTH_SECRET": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
	} {
		environ["FLAGR_JWT_AUTH_ENABLED"] = "true"
		c, err := config.Load(environ)
		if err != nil {
			t.Fatal(err)
		}
		_, err = app.New(t.Context(), c, app.Options{Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.HasPrefix(err.Error(), "FLAGR_JWT_AUTH_SECRET: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: error is %v", environ, err)
		}
	}
}

func TestWhoMadeAChange(t *testing.T) {
	t.Parallel()
	token := signed(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "ann", "email": "ann@example.com", "number": 7})
	foreign := signed(t, jwt.SigningMethodHS256, []byte("the proxy's own key"), jwt.MapClaims{"email": "cy@example.com"})
	jwtOn := func(more ...string) map[string]string {
		environ := map[string]string{"FLAGR_JWT_AUTH_ENABLED": "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_HEADER_AUTH_ENABLED": "true"}
		for i := 0; i < len(more); i += 2 {
			environ[more[i]] = more[i+1]
		}
		return environ
	}
	for _, tc := range []struct {
		name    string
		environ map[string]string
		headers map[string]string
		want    string
	}{
		{"nobody", nil, map[string]string{"X-Email": "bob@example.com"}, ""},
		{"token", jwtOn(), map[string]string{"Authorization": "Bearer " + token, "X-Email": "bob@example.com"}, "ann"},
		{"another claim", jwtOn("FLAGR_JWT_AUTH_USER_CLAIM", "email"), map[string]string{"Cookie": "access_token=" + token}, "ann@example.com"},
		{"a claim that is not there", jwtOn("FLAGR_JWT_AUTH_USER_CLAIM", "name"), map[string]string{"Authorization": "Bearer " + token}, ""},
		{"a claim that is no text", jwtOn("FLAGR_JWT_AUTH_USER_CLAIM", "number"), map[string]string{"Authorization": "Bearer " + token}, ""},
		{"token on an open path", jwtOn("FLAGR_JWT_AUTH_WHITELIST_PATHS", "/api/v1/flags"), map[string]string{"Authorization": "Bearer " + token}, "ann"},
		{"false token on an open path", jwtOn("FLAGR_JWT_AUTH_WHITELIST_PATHS", "/api/v1/flags"), map[string]string{"Authorization": "Bearer " + foreign}, ""},
		{"header", map[string]string{"FLAGR_HEADER_AUTH_ENABLED": "true"}, map[string]string{"X-Email": " bob@example.com"}, "bob@example.com"},
		{"another header", map[string]string{"FLAGR_HEADER_AUTH_ENABLED": "true", "FLAGR_HEADER_AUTH_USER_FIELD": "X-User"}, map[string]string{"x-user": "bob"}, "bob"},
		{"header before cookie", map[string]string{"FLAGR_HEADER_AUTH_ENABLED": "true", "FLAGR_COOKIE_AUTH_ENABLED": "true"},
			map[string]string{"X-Email": "bob", "Cookie": "CF_Authorization=" + foreign}, "bob"},
		{"a header that no database would take", map[string]string{"FLAGR_HEADER_AUTH_ENABLED": "true"},
			map[string]string{"X-Email": "b\xffo\tb" + strings.Repeat("ä", 500)}, "bob" + strings.Repeat("ä", 125)},
		{"cookie", map[string]string{"FLAGR_COOKIE_AUTH_ENABLED": "true"}, map[string]string{"Cookie": "CF_Authorization=" + foreign}, "cy@example.com"},
		{"cookie that is no token", map[string]string{"FLAGR_COOKIE_AUTH_ENABLED": "true"}, map[string]string{"Cookie": "CF_Authorization=cy"}, ""},
		{"plain cookie", map[string]string{"FLAGR_COOKIE_AUTH_ENABLED": "true", "FLAGR_COOKIE_AUTH_USER_FIELD": "user", "FLAGR_COOKIE_AUTH_USER_FIELD_JWT_CLAIM": ""},
			map[string]string{"Cookie": "user=cy"}, "cy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, _, _ := setup(t, tc.environ)
			send := serve(t, a, tc.headers)
			for what, body := range map[string]string{
				"createdBy": send("POST", "/flags", `{"description":"d","key":"k"}`),
				"updatedBy": send("PUT", "/flags/1", `{"notes":"n"}`),
			} {
				if field := fmt.Sprintf(`"%s":"%s"`, what, tc.want); tc.want != "" && !strings.Contains(body, field) || tc.want == "" && strings.Contains(body, what) {
					t.Errorf("want %s in %s", field, body)
				}
			}
		})
	}
}

// FuzzNoPathAvoidsTheLogin searches for spellings of closed paths that get a response without a
// login.
func FuzzNoPathAvoidsTheLogin(f *testing.F) {
	for _, target := range hostilePaths {
		f.Add(target)
	}
	c, err := config.Load(map[string]string{
		"FLAGR_DB_DBCONNECTIONSTR":         filepath.Join(f.TempDir(), "flagr.sqlite"),
		"FLAGR_RECORDER_DATAR_JOURNAL_DIR": "off",
		"FLAGR_JWT_AUTH_ENABLED":           "true", "FLAGR_JWT_AUTH_SECRET": secret, "FLAGR_JWT_AUTH_NO_TOKEN_STATUS_CODE": "401",
		"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false",
	})
	if err != nil {
		f.Fatal(err)
	}
	a, err := app.New(f.Context(), c, app.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = a.Stop(context.Background()) })
	h := started(f, a)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // net/http answers 400
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL = u
		rw := httptest.NewRecorder()
		h.ServeHTTP(rw, r)
		cleaned := path.Clean(u.Path)
		if rw.Code < 400 && cleaned != "/api/v1/health" && !strings.HasPrefix(cleaned, "/api/v1/evaluation") &&
			cleaned != "/" && !strings.HasPrefix(cleaned, "/static/ui/") { // neither has data
			t.Errorf("GET %q without a login: %d %s", target, rw.Code, rw.Body)
		}
	})
}
