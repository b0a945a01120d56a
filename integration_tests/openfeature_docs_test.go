package integration_tests

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

// docsHost is the server in the snippets of docs/openfeature.md.
const docsHost = "https://flagr.example.com"

// snippet returns the code block of docs/openfeature.md in a language that contains has. It
// replaces the address of the server, and the comment or the dots in the place of what the program
// does for the user.
func snippet(t *testing.T, language, has, address, todo, does string) string {
	t.Helper()
	for _, block := range blocksOf(t, "openfeature.md", language) {
		if !strings.Contains(block, has) {
			continue
		}
		if strings.Count(block, docsHost) != 1 || strings.Count(block, todo) != 1 {
			t.Fatalf("want %s and %s once in\n%s", docsHost, todo, block)
		}
		return strings.NewReplacer(docsHost, address, todo, does).Replace(block)
	}
	t.Fatalf("docs/openfeature.md has no %s with %s", language, has)
	return ""
}

// runSnippet runs a program, which must write that the user gets the flag.
func runSnippet(t *testing.T, p *process, cmd *exec.Cmd) {
	t.Helper()
	log := &testlog.Buffer{}
	cmd.Stderr = log
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != "the new search" {
		t.Errorf("%v, %q\n%s\nthe log of the server:\n%s", err, out, log, p.log)
	}
}

// javaOpenFeature installs the OpenFeature SDK and OFREP provider for Java, with the jars in lib in
// dir. Without Maven or a JDK it skips the test, even if FLAGR_TEST_REQUIRE_SERVERS is set, because
// no other test needs them.
func javaOpenFeature(t *testing.T) (java, dir string) {
	t.Helper()
	maven, err := exec.LookPath("mvn")
	if err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("javac"); err != nil {
		t.Skip(err)
	}
	dir = installClient(t, filepath.Join("clients", "openfeature-java", "pom.xml"), func(dir string) [][]string {
		return [][]string{{maven, "-q", "-B", "-f", filepath.Join(dir, "pom.xml"), "dependency:copy-dependencies", "-DoutputDirectory=" + filepath.Join(dir, "lib")}}
	})
	return lookUp(t, "java"), dir
}

// TestSnippetsOfOpenFeature runs the programs that docs/openfeature.md shows, with the official
// SDKs and providers.
func TestSnippetsOfOpenFeature(t *testing.T) {
	t.Parallel()
	p, address, _ := ofrepServer(t, environ{"FLAGR_OFREP_API_KEYS": ""})
	javascript := func(t *testing.T, client, has, prelude string) {
		t.Helper()
		node, npm := lookUp(t, "node"), lookUp(t, "npm")
		dir := installClient(t, filepath.Join("clients", client, "package.json"), func(dir string) [][]string {
			return [][]string{{npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"}}
		})
		program := prelude + snippet(t, "js", has, address, "// ...", "console.log('the new search');") + "process.exit();\n"
		main := filepath.Join(dir, "snippet.mjs") // Node.js looks for modules from the folder of the program
		writeFile(t, main, program)
		runSnippet(t, p, clientCommand(t, node, main))
	}
	t.Run("browser", func(t *testing.T) {
		t.Parallel()
		javascript(t, "openfeature-javascript", "web-sdk", `// Objects of browsers that Node.js lacks.
globalThis.localStorage = { getItem: () => null, setItem() {}, removeItem() {} };
globalThis.EventSource = class { addEventListener() {} removeEventListener() {} close() {} };
`)
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		javascript(t, "openfeature-server", "server-sdk", "")
	})
	t.Run("python", func(t *testing.T) {
		t.Parallel()
		python := pythonOpenFeature(t)
		main := filepath.Join(t.TempDir(), "snippet.py")
		writeFile(t, main, snippet(t, "python", "OFREPProvider", address, "    ...", "    print('the new search')")+"\napi.shutdown()\n")
		runSnippet(t, p, clientCommand(t, python, main))
	})
	t.Run("java", func(t *testing.T) {
		t.Parallel()
		java, dir := javaOpenFeature(t)
		main := filepath.Join(t.TempDir(), "Main.java")
		writeFile(t, main, `import dev.openfeature.contrib.providers.ofrep.OfrepProvider;
import dev.openfeature.contrib.providers.ofrep.OfrepProviderOptions;
import dev.openfeature.sdk.*;
import java.util.Map;

class Main {
    public static void main(String[] args) {
`+snippet(t, "java", "OfrepProvider", address, "// ...", `System.out.println("the new search");`)+`
        System.exit(0);
    }
}
`)
		runSnippet(t, p, clientCommand(t, java, "-cp", filepath.Join(dir, "lib", "*"), main))
	})
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		body := snippet(t, "go", "provider.New", address, "// ...", `fmt.Println("the new search")`)
		main := filepath.Join(t.TempDir(), "main.go")
		writeFile(t, main, `package main

import (
	"context"
	"fmt"
	"log"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

func main() {
	ctx := context.Background()
`+body+"\topenfeature.Shutdown()\n}\n")
		cmd := clientCommand(t, "go", "run", "-trimpath", main)
		cmd.Dir = ".."
		runSnippet(t, p, cmd)
	})
}
