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

// TestFirstSteps runs docs/first-steps.sh, which `make run` prints for pasting, against a server with the settings of
// `make run`.
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
	env["PORT"] = "0" // the usual one may be taken
	s := startIn(t, t.TempDir(), env)

	script, err := filepath.Abs(filepath.Join("..", "docs", "first-steps.sh"))
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

	// It prints ten evaluations and both answers of Datar, one after the other.
	var answers []json.RawMessage
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var a json.RawMessage
		err := decoder.Decode(&a)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, output)
		}
		answers = append(answers, a)
	}
	if len(answers) != 12 {
		t.Fatalf("got %d answers, want 12:\n%s", len(answers), output)
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
