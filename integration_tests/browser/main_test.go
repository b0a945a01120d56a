package browser

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
)

// Options. TestMain sets the other variables before the tests run. They do not change later.
var (
	serverBinary = flag.String("server", "", "path of the flagr-server to test; built from this checkout if empty")
	chromium     string
)

// patience is how long a page may take on a busy machine.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		if os.Getenv("FLAGR_TEST_REQUIRE_SERVERS") != "" {
			fmt.Fprintln(os.Stderr, "no Chromium found: install it, for instance with apt-get install chromium")
			return 1
		}
		fmt.Println("browser tests are skipped: no Chromium found")
		return 0
	}
	if *serverBinary == "" {
		dir, err := os.MkdirTemp("", "flagr-server")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		*serverBinary = filepath.Join(dir, "flagr-server")
		build := exec.Command("go", "build", "-trimpath", "-o", *serverBinary, "./swagger_gen/cmd/flagr-server")
		build.Dir = "../.."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the server: %v\n%s", err, output)
			return 1
		}
	}
	return m.Run()
}

// server is a running server.
type server struct {
	url, database string
	file          string // the SQLite file, without options
	address       string // host:port; empty until it is started
	by            string // the user who makes changes
	folder        string // in which it runs; that of the tests if empty
	env           []string
	command       *exec.Cmd
	out           *output
}

// output is the output of a server. It may be read while the server runs.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a server on an empty SQLite file, with additional variables such as NAME=value.
func start(t *testing.T, env ...string) *server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "flagr.sqlite")
	s := &server{database: file, file: file, by: "ada@example.com", env: env}
	s.startOn(t)
	return s
}

func (s *server) startOn(t *testing.T) {
	t.Helper()
	if s.address == "" {
		s.address = testaddress.Unused(t)
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(context.WithoutCancel(t.Context()), *serverBinary)
	command.Env = []string{
		"HOST=" + host, "PORT=" + port, "FLAGR_DB_DBCONNECTIONSTR=" + s.database, "FLAGR_DB_DBCONNECTION_DEBUG=false", "FLAGR_RECORDER_ENABLED=true", "FLAGR_RECORDER_TYPE=datar",
		"FLAGR_RECORDER_DATAR_JOURNAL_DIR=" + filepath.Dir(s.file), "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL=1s", "FLAGR_HEADER_AUTH_ENABLED=true", "FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED=false",
		"FLAGR_EVAL_LOGGING_ENABLED=false",
	}
	command.Env = append(command.Env, s.env...)
	command.Dir = s.folder
	out := &output{}
	s.out = out
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s.command = command
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("server:\n%s", out)
		}
	})
	s.url = "http://" + s.address
	deadline := time.Now().Add(patience)
	for {
		response, err := http.Get(s.url + "/api/v1/health")
		if err == nil {
			_ = response.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not start: %v\n%s", err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop stops the server and waits until it has ended. It may be called again.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if s.command == nil {
		return
	}
	_ = s.command.Process.Signal(os.Interrupt)
	_ = s.command.Wait() // a stopped server may exit with any code
	s.command = nil
}

// api sends a request to the API and decodes the response.
func (s *server) api(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+"/api/v1"+path, strings.NewReader(string(encoded)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Email", s.by)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, path, response.StatusCode, raw, err)
	}
	var answer map[string]any
	_ = json.Unmarshal(raw, &answer) // a list stays nil
	return answer
}

type object = map[string]any

// abFlag creates flag 1 with two variants and two segments.
func (s *server) abFlag(t *testing.T) {
	t.Helper()
	s.api(t, http.MethodPost, "/flags", object{"key": "checkout-button", "description": "Colour of the checkout button"})
	d := s.api(t, http.MethodGet, "/flags/1/definition", nil)
	s.api(t, http.MethodPut, "/flags/1/definition", object{
		"snapshotID": d["snapshotID"], "enabled": true, "dataRecordsEnabled": true, "tags": []string{"web", "ios"},
		"variants": []object{{"key": "blue", "attachment": object{"color": "#2f74c9"}}, {"key": "green"}},
		"segments": []object{
			{
				"description": "Adults in France", "rolloutPercent": 50,
				"constraints":   []object{{"property": "country", "operator": "EQ", "value": `"FR"`}, {"property": "age", "operator": "GTE", "value": "18"}},
				"distributions": []object{{"variantKey": "blue", "percent": 50}, {"variantKey": "green", "percent": 50}},
			},
			{"description": "Beta testers", "rolloutPercent": 100, "constraints": []object{{"property": "beta", "operator": "EQ", "value": `"true"`}}, "distributions": []object{{"variantKey": "green", "percent": 100}}},
		},
	})
}

func (s *server) definition(t *testing.T, id int) map[string]any {
	t.Helper()
	return s.api(t, http.MethodGet, fmt.Sprintf("/flags/%d/definition", id), nil)
}

// until waits until evaluations, and so the list, have a flag.
func (s *server) until(t *testing.T, key string) {
	t.Helper()
	poll(t, key+" in the evaluation cache", func() bool {
		flags, _ := s.api(t, http.MethodGet, "/export/eval_cache/json?keys="+key, nil)["Flags"].([]any)
		return len(flags) == 1
	})
}

// poll waits until done returns true.
func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("timed out waiting for " + what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// tab is a page of a browser, and its requests.
type tab struct {
	t      *testing.T
	ctx    context.Context
	server *server

	mu       sync.Mutex
	requests []string // method and path
	broken   []string // requests to other hosts, violations of the policy, exceptions
}

// open starts a browser. A request to another host, or a violation of the policy, fails the test.
func open(t *testing.T, s *server) *tab {
	t.Helper()
	all := append(append([]chromedp.ExecAllocatorOption{}, chromedp.DefaultExecAllocatorOptions[:]...), chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(patience), chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), all...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx, server: s}
	p.run() // starts the browser, which runs until this context ends
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, runtime.Enable, cdp.Empty{})
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, what := range p.broken {
			t.Error(what)
		}
	})
	return p
}

// call sends a command of the protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	result, err := chromedp.Call(p.ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme == "data" || u.Scheme == "about" || u.Scheme == "chrome" {
			return
		}
		if !strings.HasPrefix(e.Request.URL, p.server.url) {
			p.broken = append(p.broken, "request to another host: "+e.Request.URL)
		}
		p.requests = append(p.requests, e.Request.Method+" "+u.Path)
	case *log.EventEntryAdded:
		if strings.Contains(e.Entry.Text, "Content Security Policy") {
			p.broken = append(p.broken, "violation of the policy: "+e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.broken = append(p.broken, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.URL)
	}
}

// sent counts the requests of a method since the last call.
func (p *tab) sent(method string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if strings.HasPrefix(r, method+" ") {
			n++
		}
	}
	p.requests = nil
	return n
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if len(actions) == 0 { // the first call: the browser runs until its context ends
		ctx = p.ctx
	}
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%v at %s", err, p.where())
	}
}

// where returns the address and the text of the page.
func (p *tab) where() string {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location + "\n" + document.body.innerText`))
	return text
}

func (p *tab) visit(path string) {
	p.t.Helper()
	p.run(chromedp.Navigate(p.server.url + path))
}

// until waits until a JavaScript expression is true on a completely loaded page. A form that is
// sent earlier lacks the fields that have not been parsed.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("(() => { try { return document.readyState === 'complete' && Boolean("+expression+") } catch { return false } })()"))
		cancel()
		if ok && err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("timed out waiting for %s (%v) at %s", what, err, p.where())
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// has waits for a text on the page, ignoring white space.
func (p *tab) has(text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("the text %q", text), fmt.Sprintf(`document.body.innerText.replace(/\s+/g, " ").includes(%q)`, text))
}

// reloadUntil is an expression for until that reloads the page until it has a text, because counts
// appear within a second.
func reloadUntil(text string) string {
	return fmt.Sprintf(`document.readyState === "complete" && (document.body.innerText.includes(%q) || (location.reload(), false))`, text)
}

func (p *tab) value(expression string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[any](expression))
	if err != nil {
		p.t.Fatalf("%s: %v at %s", expression, err, p.where())
	}
	return fmt.Sprint(v)
}

// press clicks the first visible button, link or summary with a name, and waits for it. If it leads
// to another page that has the same names, use follow.
func (p *tab) press(name string) {
	p.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll("dialog[open] button, dialog[open] a")].concat(document.querySelector("dialog[open]") ? [] : [...document.querySelectorAll("button, a, summary")])
		.find((e) => e.checkVisibility() && e.innerText.replace(/\s+/g, " ").trim() === %q)`, name)
	p.until(fmt.Sprintf("the button %q", name), `(() => {
		const e = document.readyState === "complete" && `+find+`;
		e?.click?.();
		return e;
	})()`)
}

// follow clicks a link and waits for the page with its path.
func (p *tab) follow(link, path string) {
	p.t.Helper()
	p.press(link)
	p.until("the page "+path, fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, path))
}

// fill replaces the content of the field with a name, once the page and its scripts are loaded.
func (p *tab) fill(name, text string) {
	p.t.Helper()
	p.until("the field "+name, fmt.Sprintf(`(() => {
		const e = document.querySelector('[name=%q]');
		if (!e || document.readyState !== "complete") return false;
		e.focus();
		e.value = %q;
		for (const type of ["input", "change"]) e.dispatchEvent(new Event(type, {bubbles: true}));
		return true;
	})()`, name, text))
}

// save reviews and saves, and waits for the confirmation.
func (p *tab) save() {
	p.t.Helper()
	p.value(`document.querySelector(".notice")?.remove(), 1`) // of an earlier save
	p.press("Review and save")
	p.press("Save new version")
	p.has("Saved. Servers follow within")
}

// reviewRollout sets the rollout of the A/B flag's first segment to 80 percent and opens the
// review.
func reviewRollout(t *testing.T) (*server, *tab) {
	t.Helper()
	s := start(t)
	s.abFlag(t)
	p := open(t, s)
	p.visit("/ui/flags/1/targeting")
	p.fill("s.0.rollout", "80")
	p.has("1 change not saved.")
	p.press("Review and save")
	p.has("Save 1 change as a new version?")
	return s, p
}
