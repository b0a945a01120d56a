package integration_tests

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goBlocks returns the Go code that docs/plugin.md shows.
func goBlocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "plugin.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, match[1])
	}
	if len(blocks) < 2 {
		t.Fatalf("docs/plugin.md shows %d pieces of code, want a program and the lines for go-swagger", len(blocks))
	}
	return blocks
}

// TestPluginProgramOfTheDocs goes a newcomer's way: an empty module, the program of docs/plugin.md, and the counts.
func TestPluginProgramOfTheDocs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(goBlocks(t)[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	goIn(t, dir, "mod", "init", "example.com/shop")
	goIn(t, dir, "mod", "edit", "-replace", "github.com/flagr-datar/flagr-datar="+top) // this version, not a published one
	goIn(t, dir, "mod", "tidy")
	goIn(t, dir, "vet", "-trimpath", ".")
	goIn(t, dir, "build", "-trimpath", "-o", "shop", ".")

	// The program takes a fixed address, so one is chosen that is free now.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	client := newClient()
	var p *process
	run := func() {
		p = launchBinary(t, filepath.Join(dir, "shop"), dir, environ{"ADDR": address})
		poll(t, "the program to answer", func() bool {
			select {
			case <-p.done:
				t.Fatalf("the program ended:\n%s", p.log)
			default:
			}
			response, err := client.Get("http://" + address + "/api/datar/status")
			return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
		})
	}
	expect := func(want int64) {
		t.Helper()
		response, err := client.Get("http://" + address + "/api/datar/summary")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		var all summary
		if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
			t.Fatal(err)
		}
		if len(all.Flags) != 1 || all.Flags[0].FlagKey != "greeting" || all.sum() != want {
			t.Errorf("the summary is %+v, want %d of the greeting", all, want)
		}
	}

	run()
	hello := func() {
		t.Helper()
		response, err := client.Get("http://" + address + "/hello")
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response.Status, err)
		}
	}
	for range 10 {
		hello()
	}
	expect(10)
	hello()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
	run()
	expect(11)
}

// TestPluginLinesOfTheDocs checks that the lines for go-swagger servers are those of the host that the tests run.
func TestPluginLinesOfTheDocs(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(hostModule, "restapi", "configure_shop.go"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(goBlocks(t)[1]) {
		if strings.HasPrefix(strings.TrimSpace(line), "//") {
			continue
		}
		if !strings.Contains(fmt.Sprint("\n", string(source)), "\n"+line) {
			t.Errorf("docs/plugin.md has a line that the host does not have: %s", line)
		}
	}
}
