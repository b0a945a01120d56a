package integration_tests

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testdb"
)

// hostModule has servers of another domain that mount Datar.
const hostModule = "hostserver"

// goIn runs the go command in a folder. Builds with -trimpath find most of it compiled already: make build does the same.
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

// host is a server of the shop that answers.
type host struct {
	*process
	url    string
	client *http.Client
}

var hostServing = regexp.MustCompile(`Serving shop at (http://[0-9.:]+)`)

func startHost(t *testing.T, binary, dir string, env environ) *host {
	t.Helper()
	h := &host{process: launchBinary(t, binary, dir, env), client: newClient()}
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

// get asks the shop, and decodes the answer.
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

// serve asks for recommendations, from several customers at once, and counts the answers by their kind.
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

// expectCounts compares what Datar says with what customers saw.
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
		t.Errorf("%s: counts differ from what customers saw (-seen +counted):\n%s", when, diff)
	}
}

// TestHostsCountExactly mounts Datar in servers that are not ours, and kills them.
func TestHostsCountExactly(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	goIn(t, hostModule, "build", "-trimpath", "-o", bin+string(filepath.Separator), "./cmd/shop-server", "./plain")
	for name, binary := range map[string]string{"go-swagger": "shop-server", "net/http": "plain"} {
		for _, kind := range testdb.Kinds() {
			if kind.Name != "sqlite" && kind.Name != "postgres15" {
				continue
			}
			t.Run(name+" on "+kind.Name, func(t *testing.T) {
				t.Parallel()
				env := environ{"HOST": "127.0.0.1", "PORT": "0"}
				env[map[string]string{"sqlite3": "SHOP_SQLITE", "postgres": "SHOP_POSTGRES"}[kind.Driver]] = kind.Fresh(t)
				dir := t.TempDir()
				seen := map[string]int64{}
				add := func(more map[string]int64) {
					for kind, n := range more {
						seen[kind] += n
					}
				}

				h := startHost(t, filepath.Join(bin, binary), dir, env)
				for round := range 3 { // nothing is flushed before each kill, or some of it
					add(h.serve(t, 500))
					if round == 1 {
						h.expectCounts(t, "before a kill", maps.Clone(seen))
						add(h.serve(t, 100))
					}
					if err := h.cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
					<-h.done
					h = startHost(t, filepath.Join(bin, binary), dir, env)
				}
				h.expectCounts(t, "after three kills", seen)

				add(h.serve(t, 50))
				if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if code := h.wait(t); code != 0 {
					t.Errorf("the exit code is %d:\n%s", code, h.log)
				}
				h = startHost(t, filepath.Join(bin, binary), t.TempDir(), env) // without the journal
				h.expectCounts(t, "after a stop, from the database alone", seen)
			})
		}
	}
}

// TestFifteenLinesMountDatar counts the lines of the go-swagger server that are there because of Datar.
func TestFifteenLinesMountDatar(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(hostModule, "restapi", "configure_shop.go"))
	if err != nil {
		t.Fatal(err)
	}
	lines, inside := 0, false
	for line := range strings.Lines(string(source)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "// Datar:"):
			inside = true
		case line == "":
			inside = false
		case inside && line != "}":
			lines++
		}
	}
	if lines < 8 || lines > 15 {
		t.Errorf("%d lines mount Datar, want at most 15, and 8 or the test looks at something else", lines)
	}
	// The generated part is what the description generates.
	target := filepath.Join(t.TempDir(), hostModule)
	if err := os.CopyFS(target, os.DirFS(hostModule)); err != nil {
		t.Fatal(err)
	}
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
