package integration_tests

import (
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
)

// blocks returns the code blocks of docs/plugin.md in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	return blocksOf(t, "plugin.md", language)
}

// blocksOf returns the code blocks of a page of docs/ in a language.
func blocksOf(t *testing.T, page, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, match[1])
	}
	if len(found) == 0 {
		t.Fatalf("docs/%s has no code block in %s", page, language)
	}
	return found
}

// commands returns the shell commands of docs/plugin.md that begin with begin, without their
// comments.
func commands(t *testing.T, begin string) (found [][]string) {
	t.Helper()
	for line := range strings.Lines(strings.Join(blocks(t, "sh"), "")) {
		command, _, _ := strings.Cut(line, " #")
		if strings.HasPrefix(command, begin) {
			found = append(found, strings.Fields(command))
		}
	}
	if len(found) == 0 {
		t.Fatalf("docs/plugin.md has no command that begins with %q", begin)
	}
	return found
}

// TestPluginProgramOfTheDocs follows docs/plugin.md: an empty module, the program, and its counts.
func TestPluginProgramOfTheDocs(t *testing.T) {
	t.Parallel()
	program := blocks(t, "go")[0]
	if formatted, err := format.Source([]byte(program)); err != nil || string(formatted) != program {
		t.Errorf("the program is not as gofmt writes it (%v)", err)
	}
	// An empty folder next to a clone of this repository.
	parent := t.TempDir()
	dir := filepath.Join(parent, "shop")
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink(top, filepath.Join(parent, "flagr-datar")),
		os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands(t, "go mod ") {
		goIn(t, dir, command[1:]...)
	}
	goIn(t, dir, "vet", "-trimpath", ".")
	goIn(t, dir, "build", "-trimpath", "-o", "shop", ".")

	p := newDocsProgram(t, filepath.Join(dir, "shop"), dir, environ{})
	expect := func(want int64) {
		t.Helper()
		all := p.summary(t, "/api/datar/summary")
		if len(all.Flags) != 1 || all.Flags[0].FlagKey != "greeting" || all.sum() != want {
			t.Errorf("the summary is %+v, want %d of the greeting", all, want)
		}
	}

	p.run(t)
	for _, command := range commands(t, "curl ") {
		path, ok := strings.CutPrefix(command[1], "localhost:8080")
		if !ok {
			t.Fatalf("%q is a request to another server", command)
		}
		answer := p.ask(t, path)
		// The comment has a part of the response.
		shown := regexp.MustCompile(regexp.QuoteMeta(command[1]) + ` +# \{\.\.\.(.*)\.\.\.`).FindStringSubmatch(strings.Join(blocks(t, "sh"), ""))
		if shown != nil && !strings.Contains(answer, shown[1]) {
			t.Errorf("%s returns %s; the page shows %s", path, answer, shown[1])
		}
	}
	expect(1)
	for range 10 {
		p.ask(t, "/hello")
	}
	p.kill(t)
	p.run(t)
	expect(11)
}

// docsProgram is a server program of docs/plugin.md, at its own address.
type docsProgram struct {
	*process
	binary, dir string
	env         environ
	client      *http.Client
}

// newDocsProgram prepares a program that keeps its files in dir.
func newDocsProgram(t *testing.T, binary, dir string, env environ) *docsProgram {
	t.Helper()
	return &docsProgram{binary: binary, dir: dir, env: env.with(environ{"ADDR": testaddress.Unused(t)}), client: newClient()}
}

// run starts the program and waits until it serves.
func (p *docsProgram) run(t *testing.T) {
	t.Helper()
	p.process = launchBinary(t, p.binary, p.dir, p.env)
	poll(t, "the program to answer", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the program ended:\n%s", p.log)
		default:
		}
		response, err := p.client.Get("http://" + p.env["ADDR"] + "/")
		return err == nil && response.Body.Close() == nil
	})
}

// ask returns the body of a response, which must have status 200.
func (p *docsProgram) ask(t *testing.T, path string) string {
	t.Helper()
	response, err := p.client.Get("http://" + p.env["ADDR"] + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(path, response.Status, err)
	}
	return string(body)
}

func (p *docsProgram) summary(t *testing.T, path string) (all summary) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.ask(t, path)), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// kill kills the program. stop stops it with a signal.
func (p *docsProgram) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
}

func (p *docsProgram) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("the exit code is %d:\n%s", code, p.log)
	}
}

// TestPluginFilesOfTheDocs checks that docs/plugin.md shows the programs of hostserver unchanged.
func TestPluginFilesOfTheDocs(t *testing.T) {
	t.Parallel()
	shown := blocks(t, "go")
	for _, file := range []string{"tenants/main.go", "ownstore/store.go", "ownstore/main.go", "ownstore/store_test.go"} {
		if text := read(t, filepath.Join(hostModule, file)); !slices.Contains(shown, text) {
			t.Errorf("docs/plugin.md does not show %s/%s as it is", hostModule, file)
		}
	}
}

// TestTenantsOfTheDocs runs the program with chi and several tenants. Their counts must be
// separate, also after kills, and without the journals.
func TestTenantsOfTheDocs(t *testing.T) {
	t.Parallel()
	binary := buildHost(t, "./tenants")
	for _, kind := range testdb.Kinds() {
		if kind.Name != "sqlite" && kind.Name != "postgres15" {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			t.Parallel()
			env := environ{"TENANTS": "red,green,blue"}
			if kind.Driver == "postgres" {
				env["DATABASE_URL"] = kind.Fresh(t)
			}
			p := newDocsProgram(t, binary, t.TempDir(), env)
			asked := map[string]int64{}
			ask := func(tenant string, times int) {
				for range times {
					p.ask(t, "/"+tenant+"/checkout")
				}
				asked[tenant] += int64(times)
			}
			expect := func(when string) {
				t.Helper()
				for tenant, want := range asked {
					if all := p.summary(t, "/"+tenant+"/datar/summary"); all.sum() != want || want > 0 && all.Flags[0].FlagKey != "checkout" {
						t.Errorf("%s: %s has %+v, want %d of checkout", when, tenant, all, want)
					}
				}
			}
			p.run(t)
			ask("red", 20)
			ask("green", 1)
			ask("blue", 0)
			expect("at first")
			ask("red", 3)
			p.kill(t)
			p.run(t)
			expect("after a kill")
			if one := p.ask(t, "/red/datar/flags/1/summary"); !strings.Contains(one, "one page") && !strings.Contains(one, "three steps") {
				t.Errorf("variants have no names: %s", one)
			}
			response, err := p.client.Get("http://" + p.env["ADDR"] + "/black/datar/summary")
			if err != nil {
				t.Fatal(err)
			}
			if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusNotFound {
				t.Errorf("the summary of an unknown tenant: %s, %v", response.Status, err)
			}
			ask("green", 7)
			p.stop(t)
			if kind.Driver == "postgres" { // a SQLite file would be in the folder, too
				p.dir = t.TempDir() // without the journals
			}
			p.run(t)
			expect("after a stop")
		})
	}
}

// TestOwnStoreOfTheDocs runs the program with its own Store, and the tests that a Store must pass.
func TestOwnStoreOfTheDocs(t *testing.T) {
	t.Parallel()
	p := newDocsProgram(t, buildHost(t, "./ownstore"), t.TempDir(), environ{})
	asked := int64(0)
	for _, end := range []func(*testing.T){p.kill, p.stop} {
		p.run(t)
		for range 20 {
			p.ask(t, "/hello")
		}
		asked += 20
		if got := p.summary(t, "/api/datar/summary").sum(); got != asked {
			t.Errorf("%d are counted, want %d", got, asked)
		}
		p.ask(t, "/hello")
		asked++
		end(t)
	}
	p.run(t)
	if got := p.summary(t, "/api/datar/summary").sum(); got != asked {
		t.Errorf("%d are counted after a kill and a stop, want %d", got, asked)
	}
	goIn(t, hostModule, "test", "-trimpath", "./ownstore")
}

// TestPluginLinesOfTheDocs checks that docs/plugin.md shows exactly the lines that mount Datar in
// the go-swagger host.
func TestPluginLinesOfTheDocs(t *testing.T) {
	t.Parallel()
	var shown []string
	for line := range strings.Lines(blocks(t, "diff")[0]) {
		if added, ok := strings.CutPrefix(line, "+"); ok {
			shown = append(shown, added)
		}
	}
	if diff := cmp.Diff(linesForDatar(t), shown); diff != "" {
		t.Errorf("docs/plugin.md differs from the host (-host +docs):\n%s", diff)
	}
}
