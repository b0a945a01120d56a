package integration_tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// hostModule has servers of another domain that mount Datar.
const hostModule = "hostserver"

// goIn runs the go command in a folder. With -trimpath, builds use the packages that make build has
// compiled.
func goIn(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// host is a running server of the shop.
type host struct {
	*process
	url    string
	client *http.Client
}

var hostServing = regexp.MustCompile(`Serving shop at (http://[0-9.:]+)`)

// shopToken gives access to the shop.
const shopToken = "open-sesame"

// shopEnvironment returns the environment of a shop on a free port.
var shopEnvironment = environ{"HOST": "127.0.0.1", "PORT": "0", "SHOP_TOKEN": shopToken}

// bearer adds a token to each request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// buildHosts builds both shops, and returns their paths by the name of their framework.
func buildHosts(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"go-swagger": buildHost(t, "./cmd/shop-server"), "net/http": buildHost(t, "./plain")}
}

// buildHost builds a program of the module of hosts, and returns its path.
func buildHost(t *testing.T, folder string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(folder))
	goIn(t, hostModule, "build", "-trimpath", "-o", binary, folder)
	return binary
}

// onEachHost runs a test with each host on SQLite and PostgreSQL, in parallel. env is the
// environment of the host.
func onEachHost(t *testing.T, test func(t *testing.T, binary string, env environ)) {
	t.Helper()
	for name, binary := range buildHosts(t) {
		for _, kind := range testdb.Kinds() {
			if kind.Name != "sqlite" && kind.Name != "postgres15" {
				continue
			}
			t.Run(name+" on "+kind.Name, func(t *testing.T) {
				t.Parallel()
				variable := map[string]string{"sqlite3": "SHOP_SQLITE", "postgres": "SHOP_POSTGRES"}[kind.Driver]
				test(t, binary, shopEnvironment.with(environ{variable: kind.Fresh(t)}))
			})
		}
	}
}

func startHost(t *testing.T, binary, dir string, env environ, args ...string) *host {
	t.Helper()
	h := &host{process: launchBinary(t, binary, dir, env, args...), client: newClient()}
	h.client.Transport = bearer{shopToken, h.client.Transport}
	poll(t, "the shop to listen", func() bool {
		match := hostServing.FindStringSubmatch(h.log.String())
		if match != nil {
			h.url = match[1]
			return true
		}
		select {
		case <-h.done:
			t.Fatalf("the shop ended:\n%s", h.log)
		default:
		}
		return false
	})
	return h
}

// get sends a request to the shop, and decodes the response.
func (h *host) get(t *testing.T, path string, into any) {
	t.Helper()
	response, err := h.client.Get(h.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// serve requests recommendations for several customers at the same time, and counts the responses
// by their kind.
func (h *host) serve(t *testing.T, customers int) map[string]int64 {
	t.Helper()
	const at = 8
	var mu sync.Mutex
	seen := map[string]int64{}
	var group sync.WaitGroup
	for worker := range at {
		group.Go(func() {
			for c := worker; c < customers; c += at {
				response, err := h.client.Get(fmt.Sprintf("%s/shop/recommendations?customer=c%d", h.url, c))
				if err != nil {
					t.Error(err)
					return
				}
				var answer struct{ Kind string }
				err = json.NewDecoder(response.Body).Decode(&answer)
				_ = response.Body.Close()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				seen[answer.Kind]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return seen
}

// expectCounts compares the counts of Datar with what customers got.
func (h *host) expectCounts(t *testing.T, when string, seen map[string]int64) {
	t.Helper()
	var all summary
	h.get(t, "/shop/datar/summary", &all)
	if want := seen["bestsellers"] + seen["similar"]; len(all.Flags) != 1 || all.sum() != want {
		t.Errorf("%s: the summary is %+v, want %d of one flag", when, all, want)
	}
	var one breakdown
	h.get(t, "/shop/datar/flags/7/summary", &one)
	got := map[string]int64{}
	for _, v := range one.TrafficByVariant {
		got[map[int64]string{1: "bestsellers", 2: "similar"}[v.VariantID]] = v.Count
	}
	if diff := cmp.Diff(seen, got); diff != "" {
		t.Errorf("%s: counts differ from what customers got (-got +counted):\n%s", when, diff)
	}
}

// kill kills the shop.
func (h *host) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-h.done
}

// stop stops the shop with a signal.
func (h *host) stop(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := h.wait(t); code != 0 {
		t.Errorf("the exit code is %d:\n%s", code, h.log)
	}
}

// TestHostsCountExactly mounts Datar in other servers, and kills them.
func TestHostsCountExactly(t *testing.T) {
	t.Parallel()
	onEachHost(t, func(t *testing.T, binary string, env environ) {
		dir := t.TempDir()
		seen := map[string]int64{}
		add := func(more map[string]int64) {
			for kind, n := range more {
				seen[kind] += n
			}
		}

		h := startHost(t, binary, dir, env)
		for round := range 3 { // before each kill, nothing or a part is flushed
			add(h.serve(t, 500))
			if round == 1 {
				h.expectCounts(t, "before a kill", maps.Clone(seen))
				add(h.serve(t, 100))
			}
			h.kill(t)
			h = startHost(t, binary, dir, env)
		}
		h.expectCounts(t, "after three kills", seen)

		add(h.serve(t, 50))
		h.stop(t)
		h = startHost(t, binary, t.TempDir(), env) // without the journal
		h.expectCounts(t, "after a stop, from the database alone", seen)
	})
}

// TestHostsAreKilledUnderLoad kills hosts while they serve customers and store counts.
func TestHostsAreKilledUnderLoad(t *testing.T) {
	t.Parallel()
	onEachHost(t, func(t *testing.T, binary string, env environ) {
		const customers, rounds = 8, 4
		env["SHOP_INTERVAL"] = "50ms"
		dir := t.TempDir()
		var answered, unanswered atomic.Int64
		h := startHost(t, binary, dir, env)
		for round := range rounds {
			var group sync.WaitGroup
			for range customers {
				group.Go(func() {
					for h.recommend() == nil {
						answered.Add(1)
					}
					unanswered.Add(1) // the shop was killed, and may have counted the request
				})
			}
			enough := answered.Load() + 500 + rand.Int64N(1500)
			poll(t, "customers to be served", func() bool { return answered.Load() >= enough })
			h.kill(t)
			group.Wait()

			h = startHost(t, binary, dir, env)
			var all summary
			h.get(t, "/shop/datar/summary", &all)
			if low, high := answered.Load(), answered.Load()+unanswered.Load(); all.sum() < low || all.sum() > high {
				t.Fatalf("kill %d: %d are counted, want from %d responses to %d requests", round+1, all.sum(), low, high)
			}
		}

		var before, after summary
		h.get(t, "/shop/datar/summary", &before)
		h.stop(t)
		h = startHost(t, binary, t.TempDir(), env) // without the journal
		if h.get(t, "/shop/datar/summary", &after); after.sum() != before.sum() {
			t.Errorf("the database has %d after a stop, want %d", after.sum(), before.sum())
		}
	})
}

// recommend requests recommendations, and returns an error unless the complete response arrives.
func (h *host) recommend() error {
	response, err := h.client.Get(h.url + "/shop/recommendations?customer=c1")
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// TestHostsProtectCounts checks that a host's own access control covers the endpoints of Datar.
func TestHostsProtectCounts(t *testing.T) {
	t.Parallel()
	for name, binary := range buildHosts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t, binary, t.TempDir(), shopEnvironment)
			thief := newClient()
			thief.Transport = bearer{"crowbar", thief.Transport}
			for who, want := range map[string]struct {
				client *http.Client
				status int
			}{
				"nobody":     {newClient(), http.StatusUnauthorized},
				"a thief":    {thief, http.StatusUnauthorized},
				"a customer": {h.client, http.StatusOK},
			} {
				for _, path := range []string{
					"/shop/datar/summary", "/shop/datar/flags/7/summary", "/shop/datar/status", "/shop/recommendations?customer=c1",
				} {
					response, err := want.client.Get(h.url + path)
					if err != nil {
						t.Fatal(err)
					}
					if err := response.Body.Close(); err != nil || response.StatusCode != want.status {
						t.Errorf("%s gets %s from %s, want %d (%v)", who, response.Status, path, want.status, err)
					}
				}
			}
		})
	}
}

// TestHostThatCannotDrainKeepsItsCounts stops a go-swagger server while a request hangs. The server
// then does not call ServerShutdown, and so not Close.
func TestHostThatCannotDrainKeepsItsCounts(t *testing.T) {
	t.Parallel()
	binary, dir, env := buildHosts(t)["go-swagger"], t.TempDir(), shopEnvironment
	h := startHost(t, binary, dir, env, "--graceful-timeout=100ms")
	seen := h.serve(t, 20)
	var answer struct{ Kind string }
	h.get(t, "/shop/recommendations?customer=c1", &answer)
	hanging, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hanging.Close() }()
	// The server counts the decision, and then waits for the body before it responds.
	request := "GET /shop/recommendations?customer=c1 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer " + shopToken +
		"\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
	if _, err := io.WriteString(hanging, request); err != nil {
		t.Fatal(err)
	}
	seen[answer.Kind] += 2
	poll(t, "the request that hangs to be counted", func() bool {
		var status struct{ Recorded int64 }
		h.get(t, "/shop/datar/status", &status)
		return status.Recorded == seen["bestsellers"]+seen["similar"]
	})
	h.stop(t)
	if journals, err := filepath.Glob(filepath.Join(dir, "*.journal")); err != nil || len(journals) == 0 {
		t.Errorf("there is no journal (%v): has the server closed the engine?\n%s", err, h.log)
	}
	h = startHost(t, binary, dir, env)
	h.expectCounts(t, "after the next start", seen)
}

// hostFile is the hand-written file of a go-swagger server. hostFileBefore is the same without
// Datar.
const (
	hostFile       = "restapi/configure_shop.go"
	hostFileBefore = "restapi/testdata/configure_shop.go.txt"
)

// linesForDatar returns the lines that mount Datar in the go-swagger server: all lines that a diff
// adds.
func linesForDatar(t *testing.T) []string {
	t.Helper()
	read := func(name string) []string {
		text, err := os.ReadFile(filepath.Join(hostModule, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.SplitAfter(string(text), "\n")
	}
	before, after := read(hostFileBefore), read(hostFile)
	// common[i][j] is the length of the longest common subsequence of before[i:] and after[j:].
	common := make([][]int, len(before)+1)
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i, b := range slices.Backward(before) {
		for j := len(after) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if b == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	var added []string
	for i, j := 0, 0; j < len(after); {
		switch {
		case i < len(before) && before[i] == after[j]:
			i, j = i+1, j+1
		case i < len(before) && common[i+1][j] > common[i][j+1]:
			i++
		default:
			added, j = append(added, after[j]), j+1
		}
	}
	return added
}

// TestFifteenLinesMountDatar counts the lines that Datar adds to a go-swagger server, including
// imports and braces.
func TestFifteenLinesMountDatar(t *testing.T) {
	t.Parallel()
	added := linesForDatar(t)
	if len(added) == 0 || len(added) > 15 {
		t.Errorf("%d lines mount Datar, want at most 15:\n%s", len(added), strings.Join(added, ""))
	}
	// Both versions must be formatted and must compile.
	target := copyOfHost(t)
	for _, name := range []string{hostFile, hostFileBefore} {
		text, err := os.ReadFile(filepath.Join(target, name))
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(text); err != nil || string(formatted) != string(text) {
			t.Errorf("%s is not as gofmt writes it (%v)", name, err)
		}
		if err := os.WriteFile(filepath.Join(target, hostFile), text, 0o600); err != nil { // the last one stays
			t.Fatal(err)
		}
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"/pkg/datar", "/pkg/datar/gormstore"} {
		goIn(t, target, "mod", "edit", "-replace", "github.com/flagr-datar/flagr-datar"+module+"="+top+module)
	}
	goIn(t, target, "build", "-trimpath", "./restapi")
}

// copyOfHost copies the module of the hosts to a folder where the test can change it.
func copyOfHost(t *testing.T) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), hostModule)
	if err := os.CopyFS(target, os.DirFS(hostModule)); err != nil {
		t.Fatal(err)
	}
	return target
}

// TestHostIsWhatItsDescriptionGenerates generates the host again.
func TestHostIsWhatItsDescriptionGenerates(t *testing.T) {
	t.Parallel()
	target := copyOfHost(t)
	spec := filepath.Join(target, "swagger.yaml")
	goIn(t, ".", "tool", "swagger", "generate", "server", "-q", "-t", target, "-f", spec)
	for _, name := range []string{"restapi/operations/shop_api.go", "restapi/embedded_spec.go", "models/recommendation.go"} {
		want, err := os.ReadFile(filepath.Join(target, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(hostModule, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what swagger.yaml generates (-want +got):\n%s", name, diff)
		}
	}
}
