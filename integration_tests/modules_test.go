package integration_tests

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// libraries are the folders of the modules that other programs import.
var libraries = []string{"pkg/datar", "pkg/datar/datarprom", "pkg/datar/gormstore", "pkg/evallog", "pkg/evallog/evallogof"}

// mostModuleLines is the maximum number of lines that may change in a host's go.mod.
const mostModuleLines = 3

// TestHostsSeeFewLinesOfChange adds packages to an empty module, and to one that already requires
// older versions of gRPC, OpenTelemetry, Prometheus, AWS and PostgreSQL (testdata has its tidy
// go.mod). It counts the lines that go.mod gets, except the replacements for published versions.
func TestHostsSeeFewLinesOfChange(t *testing.T) {
	t.Parallel()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for host, before := range map[string]string{
		"empty": "module example.com/empty\n\ngo 1.26.0\n",
		"busy":  read(t, filepath.Join("testdata", "modules", "busy.mod")),
	} {
		for added, module := range map[string]string{"pkg/datar": "pkg/datar", "pkg/datar/datarhttp": "pkg/datar", "pkg/evallog": "pkg/evallog"} {
			t.Run(added+" in the "+host+" host", func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				path := filepath.Join(dir, "go.mod")
				source := "package main\n\nimport _ \"github.com/flagr-datar/flagr-datar/" + added + "\"\n\nfunc main() {}\n"
				write(t, path, before)
				write(t, filepath.Join(dir, "main.go"), source)
				known := requirements(before)
				for _, library := range libraries {
					goIn(t, dir, "mod", "edit", "-replace", "github.com/flagr-datar/flagr-datar/"+library+"="+filepath.Join(top, library))
				}
				goIn(t, dir, "mod", "edit", "-require", "github.com/flagr-datar/flagr-datar/"+module+"@v0.0.0")
				goIn(t, dir, "get", ".")
				goIn(t, dir, "build", "-trimpath", "-o", os.DevNull, ".")
				after := requirements(read(t, path))
				maps.DeleteFunc(after, func(line string, _ bool) bool { return known[line] })
				if n := len(after); n == 0 || n > mostModuleLines {
					t.Errorf("%d lines, want 1 to %d:\n%s", n, mostModuleLines, strings.Join(slices.Sorted(maps.Keys(after)), "\n"))
				}
			})
		}
	}
}

// requirements returns the modules and versions of a go.mod, one per line.
func requirements(text string) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.TrimPrefix(line, "require"))
		if len(fields) >= 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") {
			found[fields[0]+" "+fields[1]] = true
		}
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
