package integration_tests

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// launchAt starts a server that may have a web prefix, waits until it serves, and returns its
// address.
func launchAt(t *testing.T, env environ) (p *process, address string) {
	t.Helper()
	dir := t.TempDir()
	p = launch(t, dir, quick.with(environ{"FLAGR_DB_DBCONNECTIONSTR": dir + "/flagr.sqlite"}).with(env))
	poll(t, "the server to listen", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the server ended:\n%s", p.log)
		default:
		}
		match := serving.FindStringSubmatch(p.log.String())
		if match != nil {
			address = match[1]
		}
		return match != nil
	})
	return p, address
}

// ask sends a request and returns the status and the body. It does not follow redirects.
func ask(t *testing.T, method, url, body string, headers ...string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Set(name, value)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// token returns a signed token. It does not use the code of the server.
func token(t *testing.T, key string, claims object) string {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(text)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// TestTokensBelowAPrefix uses a protected installation: tokens, a web prefix, metrics, and the
// names of users.
func TestTokensBelowAPrefix(t *testing.T) {
	t.Parallel()
	p, address := launchAt(t, environ{
		"FLAGR_WEB_PREFIX":                             "/shop",
		"FLAGR_JWT_AUTH_ENABLED":                       "true",
		"FLAGR_JWT_AUTH_SECRET":                        "shared",
		"FLAGR_JWT_AUTH_USER_CLAIM":                    "email",
		"FLAGR_JWT_AUTH_NO_TOKEN_REDIRECT_URL":         "https://login.example.com/",
		"FLAGR_PROMETHEUS_ENABLED":                     "true",
		"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED":      "true",
		"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_EXCLUDE_URLS": "/metrics",
	})
	api := address + "/shop/api/v1"
	if status, body := ask(t, "GET", api+"/health", ""); status != 200 {
		t.Errorf("health: %d %s", status, body)
	}
	if status, _ := ask(t, "GET", api+"/flags", ""); status != http.StatusTemporaryRedirect {
		t.Errorf("flags without a token: %d, want 307", status)
	}
	if status, _ := ask(t, "GET", address+"/api/v1/health", ""); status != 404 {
		t.Errorf("health without the prefix: %d, want 404", status)
	}
	if status, _ := ask(t, "GET", api+"/health/..%2fflags", ""); status != http.StatusTemporaryRedirect {
		t.Errorf("flags with a path that begins like health: %d, want 307", status)
	}
	ann := "Authorization: Bearer " + token(t, "shared", object{"email": "ann@example.com"})
	if status, body := ask(t, "POST", api+"/flags", `{"description":"d","key":"k","template":"simple_boolean_flag"}`, ann); status != 200 ||
		!strings.Contains(body, `"createdBy":"ann@example.com"`) {
		t.Errorf("create a flag: %d %s", status, body)
	}
	if status, body := ask(t, "PUT", api+"/flags/1/enabled", `{"enabled":true}`, "Cookie: access_token="+strings.TrimPrefix(ann, "Authorization: Bearer ")); status != 200 {
		t.Errorf("enable the flag: %d %s", status, body)
	}
	if status, _ := ask(t, "POST", api+"/flags", `{"description":"d"}`, "Authorization: Bearer "+token(t, "guessed", object{"email": "ann@example.com"})); status != http.StatusTemporaryRedirect {
		t.Errorf("create a flag with a forged token: %d, want 307", status)
	}
	poll(t, "the flag", func() bool {
		_, body := ask(t, "POST", api+"/evaluation", `{"flagKey":"k","entityID":"e","entityType":"user"}`)
		return strings.Contains(body, `"variantKey":"on"`)
	})
	_, metrics := ask(t, "GET", address+"/metrics", "")
	for _, want := range []string{
		`(?m)^flagr_evaluations_total\{flag_key="k",reason="matched",variant_key="on"\} 1$`,
		`(?m)^flagr_eval_results\{EntityType="user",FlagID="1",FlagKey="k",VariantID="1",VariantKey="on"\} 1$`,
		`(?m)^flagr_requests_total\{method="PUT",path="/api/v1/flags/\{flagID\}/enabled",status="200"\} 1$`,
		`(?m)^flagr_requests_total\{method="POST",path="/api/v1/evaluation",status="200"\} \d+$`,
	} {
		if !regexp.MustCompile(want).MatchString(metrics) {
			t.Errorf("metrics lack %s:\n%s", want, regexp.MustCompile(`(?m)^flagr_.*$`).FindAllString(metrics, -1))
		}
	}
	poll(t, "the access log", func() bool {
		return strings.Contains(p.log.String(), "path=/shop/api/v1/flags/1/enabled status=200")
	})
	if log := p.log.String(); strings.Contains(log, "path=/metrics") || strings.Contains(log, ann) {
		t.Errorf("the access log is wrong:\n%s", log)
	}
}

func TestReadyWhileItDrains(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		s := start(t, db, db.fresh(t), nil)
		var body struct {
			Status   string
			Database struct{ Status string }
		}
		a := s.call(t, http.MethodGet, "/ready", nil)
		if decode(t, a.body, &body); a.status != 200 || body.Status != "OK" || body.Database.Status != "OK" {
			t.Errorf("ready: %s", a)
		}
		s.stop(t, syscall.SIGTERM)
	})
}

// collector imitates an OpenTelemetry collector and keeps the received bodies by path.
type collector struct {
	mu       sync.Mutex
	received map[string]string
}

func (c *collector) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	content, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received[r.URL.Path] += string(content)
	rw.WriteHeader(http.StatusOK)
}

func (c *collector) has(path string, texts ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range texts {
		if !strings.Contains(c.received[path], text) {
			return false
		}
	}
	return true
}

func TestOpenTelemetry(t *testing.T) {
	t.Parallel()
	received := &collector{received: map[string]string{}}
	endpoint := httptest.NewServer(received)
	t.Cleanup(endpoint.Close)
	_, address := launchAt(t, environ{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.URL, "OTEL_BSP_SCHEDULE_DELAY": "50",
		"OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_SERVICE_NAME": "shop-flags"})
	traceID := strings.Repeat("\xab", 16)
	if status, body := ask(t, "POST", address+"/api/v1/evaluation", `{"flagKey":"k"}`, "traceparent: 00-"+strings.Repeat("ab", 16)+"-1122334455667788-01"); status != 200 {
		t.Fatalf("evaluation: %d %s", status, body)
	}
	ask(t, "GET", address+"/api/v1/flags/7", "")
	poll(t, "the traces", func() bool {
		return received.has("/v1/traces", "shop-flags", "POST /api/v1/evaluation", traceID, "http.route", "GET /api/v1/flags/{flagID}")
	})
	poll(t, "the metrics", func() bool {
		return received.has("/v1/metrics", "http.server.request.duration", "flagr.evaluations", "flag_not_found", "/api/v1/evaluation")
	})
}

// TestUnreachableReceivers sends reports, traces and metrics to closed ports.
func TestUnreachableReceivers(t *testing.T) {
	t.Parallel()
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	p, address := launchAt(t, environ{
		"OTEL_EXPORTER_OTLP_ENDPOINT": nobody.URL, "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "50",
		"FLAGR_SENTRY_ENABLED": "true", "FLAGR_SENTRY_DSN": strings.Replace(nobody.URL, "http://", "http://key@", 1) + "/1",
		"FLAGR_STATSD_ENABLED": "true", "FLAGR_STATSD_PORT": nobody.URL[strings.LastIndex(nobody.URL, ":")+1:],
	})
	for range 20 {
		if status, body := ask(t, "POST", address+"/api/v1/evaluation", `{"flagKey":"k"}`); status != 200 {
			t.Fatalf("evaluation: %d %s", status, body)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("the exit code is %d, want 0:\n%s", code, p.log)
	}
}

// Variables of vendor agents that Flagr supports are logged with an explanation, and do not stop
// the start.
func TestVendorAgentsAreExplained(t *testing.T) {
	t.Parallel()
	p, _ := launchAt(t, environ{"FLAGR_NEWRELIC_ENABLED": "true", "FLAGR_NEWRELIC_KEY": "s3cret", "FLAGR_STATSD_APM_ENABLED": "true"})
	for _, want := range []string{"variable=FLAGR_NEWRELIC_ENABLED", "variable=FLAGR_STATSD_APM_ENABLED", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, p.log)
		}
	}
	if strings.Contains(p.log.String(), "s3cret") {
		t.Error("a key in the log")
	}
}
