package integration_tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

// generatedOutput is the output of the programs in clients/generated.
type generatedOutput struct {
	Created, Off  string
	OffAttachment any
	On            string
	Logs          int
	Counted       bool
	Status        int
	Message       string
}

// TestGeneratedClients generates clients from swagger.yaml with common generators, checks their
// types, and runs the main job with each.
func TestGeneratedClients(t *testing.T) {
	t.Parallel()
	nodeTools(t) // installed once, before the parallel subtests
	for name, prepare := range map[string]func(t *testing.T, description, work string) *exec.Cmd{
		"typescript": generatedTypeScript, "python": generatedPython,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			description, err := filepath.Abs(filepath.Join("..", "swagger.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			cmd := prepare(t, description, t.TempDir())
			db := databases[0]
			s := start(t, db, db.fresh(t), nil)
			cmd.Args = append(cmd.Args, s.url, "generated-"+name)
			log := &testlog.Buffer{}
			cmd.Stderr = log
			stdout, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s\nthe log of the server:\n%s", cmd, err, log, s.log)
			}
			var got generatedOutput
			decode(t, stdout, &got)
			want := generatedOutput{
				Created: "generated-" + name, On: "on", Logs: 1, Counted: true, Status: 404,
				Message: "unable to find flag 999999 in the database",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what the client returned (-want +got):\n%s", diff)
			}
		})
	}
}

// nodeTools installs the generators from npm and returns the folder of their programs.
func nodeTools(t *testing.T) string {
	t.Helper()
	npm := lookUp(t, "npm")
	dir := installClient(t, filepath.Join("clients", "generated", "package.json"), func(dir string) [][]string {
		return [][]string{{npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"}}
	})
	return filepath.Join(dir, "node_modules", ".bin")
}

// generatedTypeScript compiles main.ts with a generated client. The compilation fails if a type
// does not match.
func generatedTypeScript(t *testing.T, description, work string) *exec.Cmd {
	t.Helper()
	node, tools := lookUp(t, "node"), nodeTools(t)
	for _, name := range []string{"main.ts", "package.json"} {
		copyFile(t, filepath.Join("clients", "generated", name), filepath.Join(work, name))
	}
	runIn(t, work, filepath.Join(tools, "swagger-typescript-api"), "generate", "--silent", "-p", description, "-o", work, "-n", "api.ts")
	runIn(t, work, filepath.Join(tools, "tsc"), "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "main.ts")
	return clientCommand(t, node, filepath.Join(work, "main.js"))
}

// generatedPython converts the description to OpenAPI 3, which the generator reads, and generates a
// client from it.
func generatedPython(t *testing.T, description, work string) *exec.Cmd {
	t.Helper()
	tools, python := nodeTools(t), pythonTools(t, filepath.Join("clients", "generated-python", "requirements.txt"))
	copyFile(t, filepath.Join("clients", "generated-python", "main.py"), filepath.Join(work, "main.py"))
	runIn(t, work, filepath.Join(tools, "swagger2openapi"), description, "-o", "openapi.json")
	runIn(t, work, python, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none", "--output-path", "client")
	return clientCommand(t, python, filepath.Join(work, "main.py"))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func runIn(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := clientCommand(t, name, args...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, output)
	}
}
