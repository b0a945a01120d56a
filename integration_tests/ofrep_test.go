package integration_tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
)

const ofrepFlags = `{"Flags":[
	{"ID":42,"Key":"checkout","Enabled":true,"SnapshotID":117,"Variants":[{"ID":61,"Key":"green","Attachment":{"color":"#1a7f37"}},{"ID":62,"Key":"blue"}],
	 "Segments":[{"ID":23,"RolloutPercent":100,"Distributions":[{"VariantKey":"green","Percent":50},{"VariantKey":"blue","Percent":50}]}]},
	{"ID":7,"Key":"new-search","Enabled":true,"SnapshotID":98,"Variants":[{"ID":12,"Key":"on"}],
	 "Segments":[{"ID":9,"RolloutPercent":100,"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"FR\""}],"Distributions":[{"VariantKey":"on","Percent":100}]}]},
	{"ID":3,"Key":"old","Enabled":false,"SnapshotID":12,"Variants":[{"ID":1,"Key":"on"}],"Segments":[{"ID":1,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]}]},
	{"ID":9,"Key":"a/b","Enabled":true,"SnapshotID":13,"Variants":[{"ID":2,"Key":"x"}],"Segments":[{"ID":2,"RolloutPercent":100,"Distributions":[{"VariantKey":"x","Percent":100}]}]},
	{"ID":8,"Key":"page-size","Enabled":true,"SnapshotID":101,"Variants":[{"ID":15,"Key":"small","Attachment":{"value":10,"unit":"rows"}},{"ID":16,"Key":"large","Attachment":{"value":12.5}}],
	 "Segments":[{"ID":11,"RolloutPercent":100,"Distributions":[{"VariantKey":"small","Percent":100}]}]}
]}`

// ofrepServer starts a server with these flags, and returns the file that has them.
func ofrepServer(t *testing.T, env environ) (p *process, address, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "flags.json")
	writeFile(t, file, ofrepFlags)
	p, address = launchAt(t, environ{"FLAGR_OFREP_API_KEYS": "shop=s3cret"}.with(env).with(environ{
		"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": file, "FLAGR_EVALCACHE_REFRESHINTERVAL": "100ms",
	}))
	return p, address, file
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// ofrepResult is the evaluation of a flag by an OpenFeature client.
type ofrepResult struct {
	Value           any
	Reason, Variant string
	ErrorCode       string
}

type ofrepResults map[string]ofrepResult

func frenchResults() ofrepResults {
	return ofrepResults{
		"checkout":   {map[string]any{}, "SPLIT", "blue", ""},
		"new-search": {true, "TARGETING_MATCH", "on", ""},
		"page-size":  {10.0, "STATIC", "small", ""},
		"old":        {true, "DISABLED", "", ""}, // the default of the application
		"nobody":     {"default", "ERROR", "", "FLAG_NOT_FOUND"},
	}
}

// pythonOpenFeature installs the OpenFeature SDK and OFREP provider for Python, and returns the
// Python interpreter that has them.
func pythonOpenFeature(t *testing.T) string {
	t.Helper()
	return pythonTools(t, filepath.Join("clients", "openfeature-python", "requirements.txt"))
}

// TestPythonProvider evaluates with the official OFREP provider for Python.
func TestPythonProvider(t *testing.T) {
	t.Parallel()
	python := pythonOpenFeature(t)
	p, address, _ := ofrepServer(t, nil)
	cmd := clientCommand(t, python, filepath.Join("clients", "openfeature-python", "main.py"), address, "s3cret")
	log := &testlog.Buffer{}
	cmd.Stderr = log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\nthe log of the server:\n%s", err, log, p.log)
	}
	var got struct{ French, Nobody ofrepResults }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	french, nobody := frenchResults(), frenchResults()
	french["a/b"] = ofrepResult{"x", "STATIC", "x", ""}
	nobody["a/b"] = french["a/b"]
	nobody["checkout"] = ofrepResult{map[string]any{"color": "default"}, "ERROR", "", "TARGETING_KEY_MISSING"}
	nobody["new-search"] = ofrepResult{false, "DEFAULT", "", ""}
	if diff := cmp.Diff(french, got.French); diff != "" {
		t.Errorf("in France (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(nobody, got.Nobody); diff != "" {
		t.Errorf("without a context (-want +got):\n%s", diff)
	}
	// Lines of the access log are written in batches.
	poll(t, "the key in the access log", func() bool { return strings.Contains(p.log.String(), "api_key=shop") })
}

// TestJavaScriptWebProvider runs the official OFREP provider for browsers. It must fetch all flags,
// change its context, and get a change from the event stream.
func TestJavaScriptWebProvider(t *testing.T) {
	t.Parallel()
	node, npm := lookUp(t, "node"), lookUp(t, "npm")
	dir := installClient(t, filepath.Join("clients", "openfeature-javascript", "package.json"), func(dir string) [][]string {
		return [][]string{{npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"}}
	})
	program, err := os.ReadFile(filepath.Join("clients", "openfeature-javascript", "main.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(dir, "main.mjs") // Node.js looks for modules from the folder of the program
	writeFile(t, main, string(program))
	p, address, file := ofrepServer(t, environ{"FLAGR_OFREP_EVENTS_SPREAD": "100ms"})
	cmd := clientCommand(t, node, main, address, "s3cret")
	log := &testlog.Buffer{}
	cmd.Stderr = log
	lines, wait := startLines(t, cmd)
	first := nextLine(t, lines, log, p)
	var got struct {
		French, Same, German ofrepResults
		Requests             []struct {
			Tag    bool
			Status int
		}
	}
	if err := json.Unmarshal([]byte(first), &got); err != nil {
		t.Fatalf("%v: %s", err, first)
	}
	if diff := cmp.Diff(frenchResults(), got.French); diff != "" {
		t.Errorf("in France (-want +got):\n%s", diff)
	}
	same, german := got.Same["new-search"], got.German["new-search"]
	if same.Value != true || german.Value != false {
		t.Errorf("with another property %+v, in Germany %+v", same, german)
	}
	statuses := map[int]int{} // of requests with a tag
	for _, r := range got.Requests {
		if r.Tag {
			statuses[r.Status]++
		}
	}
	if len(got.Requests) < 3 || got.Requests[0].Status != 200 || statuses[304] == 0 || statuses[200] == 0 {
		t.Errorf("requests: %+v", got.Requests)
	}
	writeFile(t, file, strings.Replace(ofrepFlags, `"Enabled":false,"SnapshotID":12`, `"Enabled":true,"SnapshotID":14`, 1))
	second := nextLine(t, lines, log, p)
	var after ofrepResults
	if err := json.Unmarshal([]byte(second), &after); err != nil {
		t.Fatalf("%v: %s", err, second)
	}
	if old := after["old"]; old.Value != true || old.Reason != "STATIC" {
		t.Errorf("after the change: %+v", old)
	}
	if err := wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// startLines starts a program, and returns the lines that it writes.
func startLines(t *testing.T, cmd *exec.Cmd) (lines <-chan string, wait func() error) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := make(chan string, 10)
	go func() {
		defer close(all)
		scanner := bufio.NewScanner(stdout)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			all <- scanner.Text()
		}
	}()
	return all, cmd.Wait
}

func nextLine(t *testing.T, lines <-chan string, log *testlog.Buffer, p *process) string {
	t.Helper()
	select {
	case line, ok := <-lines:
		if ok {
			return line
		}
	case <-time.After(clientDeadline):
	}
	t.Fatalf("the program has written no further line:\n%s\nthe log of the server:\n%s", log, p.log)
	return ""
}

// TestStopEndsEventStreams stops a server while an event stream is open.
func TestStopEndsEventStreams(t *testing.T) {
	t.Parallel()
	p, address, _ := ofrepServer(t, environ{"FLAGR_OFREP_API_KEYS": ""})
	response, err := http.Get(address + "/ofrep/v1/events") // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	select {
	case <-p.done:
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("the server took %s to stop", took)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the server does not stop:\n%s", p.log)
	}
}

// TestEventReadAtAnotherServer changes a flag, waits for the event of one server, and evaluates at
// another server on the same database.
func TestEventReadAtAnotherServer(t *testing.T) {
	t.Parallel()
	db := databases[0]
	dsn := db.fresh(t)
	fast := start(t, db, dsn, environ{"FLAGR_EVALCACHE_REFRESHINTERVAL": "50ms", "FLAGR_OFREP_EVENTS_SPREAD": "0s"})
	slow := start(t, db, dsn, environ{"FLAGR_EVALCACHE_REFRESHINTERVAL": "1h"})
	created := send[flagAnswer](t, fast, "POST", "/flags", object{"key": "twin", "description": "d", "template": "simple_boolean_flag"})
	path := fmt.Sprintf("/flags/%d", created.ID)
	fast.call(t, "PUT", path+"/enabled", object{"enabled": true})
	const all, body = "/ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"u"}}`
	origin := strings.TrimSuffix(fast.url, "/api/v1")
	poll(t, "the flag", func() bool {
		_, answer := ask(t, "POST", origin+all, body)
		return strings.Contains(answer, `"key":"twin","value":true`)
	})
	events, err := http.Get(origin + "/ofrep/v1/events") // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = events.Body.Close() }()
	scanner := bufio.NewScanner(events.Body)
	revision := func() string {
		for scanner.Scan() {
			if data, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
				var event struct{ Etag string }
				if err := json.Unmarshal([]byte(data), &event); err != nil {
					t.Fatal(err)
				}
				return event.Etag
			}
		}
		t.Fatal("the stream ended")
		return ""
	}
	before := revision() // a stream of new flags begins with an event
	for _, enabled := range []bool{false, true, false} {
		fast.call(t, "PUT", path+"/enabled", object{"enabled": enabled})
		now := revision()
		if now == before {
			t.Fatal("an event without a change")
		}
		before = now
		want := map[bool]string{true: `"value":true`, false: `"reason":"DISABLED"`}[enabled]
		status, answer := ask(t, "POST", strings.TrimSuffix(slow.url, "/api/v1")+all+"?flagConfigEtag="+now, body)
		if status != 200 || !strings.Contains(answer, `"key":"twin",`+want) {
			t.Errorf("enabled %t: %d %s", enabled, status, answer)
		}
	}
}

// TestOFREPWhileTheSourceIsDown removes the flags from the source of a server. The server must
// continue with the flags in memory, keep streams open, and send a change once the source works
// again.
func TestOFREPWhileTheSourceIsDown(t *testing.T) {
	t.Parallel()
	p, address, file := ofrepServer(t, environ{"FLAGR_OFREP_API_KEYS": "", "FLAGR_OFREP_EVENTS_SPREAD": "0s"})
	const one, body = "/ofrep/v1/evaluate/flags/old", `{"context":{"targetingKey":"u"}}`
	status, before := ask(t, "POST", address+one, body)
	if status != 200 || !strings.Contains(before, `"reason":"DISABLED"`) {
		t.Fatalf("%d %s", status, before)
	}
	events, err := http.Get(address + "/ofrep/v1/events") // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = events.Body.Close() }()
	heard := make(chan string, 10)
	go func() {
		defer close(heard)
		for scanner := bufio.NewScanner(events.Body); scanner.Scan(); {
			if data, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
				heard <- data
			}
		}
	}()
	select {
	case <-heard: // a stream of new flags begins with an event
	case <-time.After(clientDeadline):
		t.Fatalf("no event:\n%s", p.log)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	poll(t, "the server to notice", func() bool {
		return strings.Contains(p.log.String(), "flags.json") && strings.Contains(p.log.String(), "no such file")
	})
	for range 5 {
		if status, answer := ask(t, "POST", address+one, body); status != 200 || answer != before {
			t.Errorf("while the source is down: %d %s, want what it was before: %s", status, answer, before)
		}
	}
	writeFile(t, file, strings.Replace(ofrepFlags, `"Enabled":false,"SnapshotID":12`, `"Enabled":true,"SnapshotID":14`, 1))
	select {
	case _, ok := <-heard:
		if !ok {
			t.Fatalf("the stream ended:\n%s", p.log)
		}
	case <-time.After(clientDeadline):
		t.Fatalf("no event after the source works again:\n%s", p.log)
	}
	if status, answer := ask(t, "POST", address+one, body); status != 200 || !strings.Contains(answer, `"value":true,"reason":"STATIC"`) {
		t.Errorf("after the change: %d %s", status, answer)
	}
}
