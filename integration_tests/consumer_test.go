package integration_tests

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

// consumers matches the programs in docs/recorders.md.
var consumers = regexp.MustCompile("(?s)```(go|python)\n(.*?)\n```")

// TestConsumersOfTheDocumentation runs the consumers in docs/recorders.md on the records of a
// server.
func TestConsumersOfTheDocumentation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/recorders.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{}
	var open string // the function that decrypts payloads
	for _, match := range consumers.FindAllStringSubmatch(string(text), -1) {
		if match[1] == "go" && !strings.HasPrefix(match[2], "package main") {
			open = match[2]
			continue
		}
		programs[match[1]] = match[2]
	}
	programs["go, encrypted"] = decrypting(t, programs["go"], open)
	db := databases[0] // the kind of database makes no difference to streams
	const key = "a key of the documentation"
	brokers := map[bool][]string{}
	for _, encrypted := range []bool{false, true} {
		broker := newKafka(t)
		brokers[encrypted] = broker.ListenAddrs()
		s := start(t, db, db.fresh(t), environ{
			"FLAGR_RECORDER_TYPE":                 "kafka",
			"FLAGR_RECORDER_KAFKA_BROKERS":        strings.Join(broker.ListenAddrs(), ","),
			"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY": "10ms",
			"FLAGR_RECORDER_KAFKA_ENCRYPTED":      fmt.Sprint(encrypted),
			"FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY": key,
		})
		f := newFlag(t, s, "consumed")
		awaitChanges(t, s)
		evaluate(t, s, f, "anna", nil)
		evaluate(t, s, f, "bert", nil)
		expose(t, s, f, 0, 100)
		poll(t, "the records to be delivered", func() bool { return recorders(t, s)["kafka"].Delivered == 102 })
	}

	for _, tc := range []struct {
		name, extension string
		encrypted       bool
		command         func(t *testing.T) []string
	}{
		{"go", "go", false, goConsumer},
		{"go, encrypted", "go", true, goConsumer},
		{"python", "py", false, pythonConsumer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "main."+tc.extension)
			if err := os.WriteFile(file, []byte(programs[tc.name]), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := runConsumer(t, append(tc.command(t), file), 102, environ{
				"BROKERS":                             strings.Join(brokers[tc.encrypted], ","),
				"FLAGR_RECORDER_KAFKA_ENCRYPTION_KEY": key,
			})
			if n := len(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "exposure consumed on exposed-") })); n != 100 {
				t.Errorf("%d exposures", n)
			}
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "exposure") })
			slices.Sort(lines)
			if diff := cmp.Diff([]string{"evaluation consumed on anna", "evaluation consumed on bert"}, lines); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// decrypting makes the changes to the Go program that the page describes for encrypted payloads.
func decrypting(t *testing.T, program, open string) string {
	t.Helper()
	for _, change := range [][2]string{
		{"import (\n", "import (\n\t\"encoding/base64\"\n\t\"golang.org/x/crypto/nacl/secretbox\"\n"},
		{"frame.Encrypted ", "!frame.Encrypted "},
		{"[]byte(frame.Payload)", "open(frame.Payload)"},
	} {
		if strings.Count(program, change[0]) != 1 {
			t.Fatalf("the Go program must contain %q once", change[0])
		}
		program = strings.Replace(program, change[0], change[1], 1)
	}
	return program + "\n" + open
}

// goConsumer returns the command that runs a Go file with the modules of this repository.
func goConsumer(t *testing.T) []string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		missing(t, "there is no go to run the program with")
	}
	return []string{path, "run"}
}

// pythonConsumer installs the client that the page names, once, in FLAGR_TEST_CACHE, and returns
// the command that runs a Python file with it.
func pythonConsumer(t *testing.T) []string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		missing(t, "there is no python3: install it, with its module venv")
	}
	venv := filepath.Join(testCache(t), "python-kafka")
	program := filepath.Join(venv, "bin", "python")
	if exec.Command(program, "-c", "import kafka").Run() != nil {
		for _, command := range [][]string{{python, "-m", "venv", venv}, {program, "-m", "pip", "install", "-q", "kafka-python==2.2.15"}} {
			if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				missing(t, fmt.Sprintf("%s: %v: it needs python3-venv and a package index\n%s", command, err, output))
			}
		}
	}
	return []string{program}
}

// testCache returns the folder for packages that tests install: FLAGR_TEST_CACHE, or a default.
func testCache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("FLAGR_TEST_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		missing(t, err.Error())
	}
	return filepath.Join(dir, "flagr-test")
}

// missing skips a test, or fails it if FLAGR_TEST_REQUIRE_SERVERS is set.
func missing(t *testing.T, message string) {
	t.Helper()
	if os.Getenv("FLAGR_TEST_REQUIRE_SERVERS") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// runConsumer runs a program until it has written n lines.
func runConsumer(t *testing.T, command []string, n int, env environ) []string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = ".."
	cmd.Env = os.Environ()
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	log := &testlog.Buffer{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	inGroup(cmd) // go run starts a child process, which must end, too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killGroup(cmd)
		_ = cmd.Wait() // always fails: the program was killed
	}()
	found := make(chan string)
	go func() {
		defer close(found)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			found <- scanner.Text()
		}
	}()
	var lines []string
	deadline := time.After(2 * time.Minute)
	for len(lines) < n {
		select {
		case line, ok := <-found:
			if !ok {
				t.Fatalf("the program ended after %d lines:\n%s", len(lines), log)
			}
			lines = append(lines, line)
		case <-deadline:
			t.Fatalf("%d lines of %d:\n%s", len(lines), n, log)
		}
	}
	go func() { // drain further output, so that the program is not blocked
		for range found {
		}
	}()
	return lines
}
