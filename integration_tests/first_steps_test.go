package integration_tests

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFirstSteps runs docs/first-steps.sh, which `make run` prints for pasting, against a server
// with the settings of `make run`.
func TestFirstSteps(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the first steps need curl:", err)
	}
	makefile, err := os.ReadFile(filepath.Join("..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	env := environ{}
	for _, match := range regexp.MustCompile(`(?m)^run: export (\w+) \?= (\S+)$`).FindAllStringSubmatch(string(makefile), -1) {
		env[match[1]] = match[2]
	}
	if env["FLAGR_RECORDER_TYPE"] == "" {
		t.Fatalf("no settings found in the Makefile: %v", env)
	}
	env["PORT"] = "0" // the default port may be taken
	s := startIn(t, t.TempDir(), env)

	// It prints ten evaluations and both responses of Datar.
	answers := runScript(t, s, "first-steps.sh")
	if len(answers) != 12 {
		t.Fatalf("got %d responses, want 12:\n%s", len(answers), answers)
	}
	for _, a := range answers[:10] {
		var e evaluation
		decode(t, a, &e)
		if e.VariantID == 0 {
			t.Errorf("no variant in %s", a)
		}
	}
	var all summary
	decode(t, answers[10], &all)
	var one breakdown
	decode(t, answers[11], &one)
	if all.sum() != 10 || len(one.TrafficByVariant) != 1 || one.TrafficByVariant[0].Count != 10 {
		t.Errorf("Datar does not count the ten evaluations: %s %s", answers[10], answers[11])
	}
}

// TestABTest runs docs/ab-test.sh.
func TestABTest(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the A/B test needs curl:", err)
	}
	answers := runScript(t, startIn(t, t.TempDir(), quick), "ab-test.sh")
	if len(answers) != 2 {
		t.Fatalf("got %d responses, want 2:\n%s", len(answers), answers)
	}
	var b breakdown
	decode(t, answers[0], &b)
	var total int64
	for _, v := range b.TrafficByVariant {
		total += v.Count
		if v.Count < 60 || v.Count > 140 {
			t.Errorf("variant %d has %d of 200 evaluations, want about 100", v.VariantID, v.Count)
		}
	}
	if total != 200 || len(b.TrafficByVariant) != 2 {
		t.Errorf("Datar does not count 200 evaluations of two variants: %s", answers[0])
	}
}

// TestCommandsOfTheGuides runs the blocks with curl of README.md and of the guides that have no
// test of their own, one after the other. What Getting started and Evaluation logging say of the
// responses must be in them.
func TestCommandsOfTheGuides(t *testing.T) {
	t.Parallel()
	lookUp(t, "curl")
	dir := t.TempDir()
	s := startIn(t, dir, quick.with(environ{"FLAGR_RECORDER_DATAR_INGEST_ENABLED": "true"}))
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	parts := regexp.MustCompile("`(\"[^`]+)`")
	for _, page := range []string{"docs/getting-started.md", "README.md", "docs/datar.md", "docs/upgrade.md", "docs/evaluation-logging.md"} {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		if page == "docs/evaluation-logging.md" { // has a flag of its own
			newFlag(t, s, "checkout-button")
			awaitChanges(t, s)
		}
		var printed strings.Builder
		ran := 0
		for _, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(block[1], "curl ") {
				continue
			}
			ran++
			commands := strings.ReplaceAll(block[1], "http://localhost:18000/api/v1", s.url)
			run := exec.CommandContext(t.Context(), "sh", "-ec", "curl() { command curl -sSf \"$@\"; }\n"+commands)
			run.Dir = dir
			run.Env = append(os.Environ(), "PATH="+filepath.Dir(*serverBinary)+string(os.PathListSeparator)+os.Getenv("PATH"))
			output, err := run.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v in\n%s\n%s", page, err, commands, output)
			}
			printed.Write(output)
			awaitChanges(t, s)
		}
		if ran == 0 {
			t.Errorf("%s has no block with curl", page)
		}
		if page != "docs/getting-started.md" && page != "docs/evaluation-logging.md" {
			continue
		}
		for _, part := range parts.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(printed.String(), part[1]) {
				t.Errorf("%s: no response has %s:\n%s", page, part[1], printed.String())
			}
		}
	}
}

// runScript runs a script of docs against a server, and returns the JSON values that it prints.
func runScript(t *testing.T, s *server, name string) []json.RawMessage {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	steps := exec.Command("sh", script)
	steps.Env = append(os.Environ(), "FLAGR_URL="+s.url)
	steps.Dir = t.TempDir()
	output, err := steps.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	var answers []json.RawMessage
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var a json.RawMessage
		err := decoder.Decode(&a)
		if errors.Is(err, io.EOF) {
			return answers
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, output)
		}
		answers = append(answers, a)
	}
}
