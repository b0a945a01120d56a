package integration_tests

import (
	"encoding/json"
	"errors"
	"go/format"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// blocks returns the pieces of docs/plugin.md that are in a language, as in ```go.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	return blocksOf(t, "plugin.md", language)
}

// blocksOf returns the pieces of a page of docs/ that are in a language.
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
		t.Fatalf("docs/%s shows nothing in %s", page, language)
	}
	return found
}

// commands returns the lines of the shell that docs/plugin.md shows and that begin so, without their comments.
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

// TestPluginProgramOfTheDocs goes a newcomer's way: an empty module, the program of docs/plugin.md, and the counts.
func TestPluginProgramOfTheDocs(t *testing.T) {
	t.Parallel()
	program := blocks(t, "go")[0]
	if formatted, err := format.Source([]byte(program)); err != nil || string(formatted) != program {
		t.Errorf("the program is not as gofmt writes it (%v)", err)
	}
	// The folder is empty, and beside a clone of this repository.
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

	ask := func(path string) string {
		t.Helper()
		response, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response.Status, err)
		}
		return string(body)
	}

	run()
	for _, command := range commands(t, "curl ") {
		path, ok := strings.CutPrefix(command[1], "localhost:8080")
		if !ok {
			t.Fatalf("%q asks another server", command)
		}
		answer := ask(path)
		// After # is a part of what the newcomer sees.
		shown := regexp.MustCompile(regexp.QuoteMeta(command[1]) + ` +# \{\.\.\.(.*)\.\.\.`).FindStringSubmatch(strings.Join(blocks(t, "sh"), ""))
		if shown != nil && !strings.Contains(answer, shown[1]) {
			t.Errorf("%s answers %s, and the page shows %s", path, answer, shown[1])
		}
	}
	expect(1)
	for range 10 {
		ask("/hello")
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
	run()
	expect(11)
}

// TestPluginLinesOfTheDocs checks that the lines for go-swagger servers are those of the host that the tests run, all of
// them and no others.
func TestPluginLinesOfTheDocs(t *testing.T) {
	t.Parallel()
	var shown []string
	for line := range strings.Lines(blocks(t, "diff")[0]) {
		if added, ok := strings.CutPrefix(line, "+"); ok {
			shown = append(shown, added)
		}
	}
	if diff := cmp.Diff(linesForDatar(t), shown); diff != "" {
		t.Errorf("docs/plugin.md shows other lines than the host has (-host +docs):\n%s", diff)
	}
}
