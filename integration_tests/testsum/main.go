// Command testsum runs go test. It prints a line for each package, the slowest tests of a package
// that takes a minute or longer, and the output of failed tests only. The last line counts tests
// and their subtests:
//
//	go run ./integration_tests/testsum go test ./pkg/...
//	...
//	812 passed, 0 failed, 3 skipped
//
// If FLAGR_TEST_COUNTS names a file, testsum also appends the counts to it. Without arguments,
// testsum prints the sum of all counts in the file. If FLAGR_TEST_RERUN is a number and at most
// that many tests failed, testsum runs these tests once more, and prints a line for each test that
// passed then. The exit code is that of the last go test.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// longPackage is the duration from which the slowest tests of a package are listed.
	longPackage = time.Minute
	// slowest is the number of tests in that list.
	slowest = 8
)

// progressInterval is the time between two lines that list the packages being tested.
const progressInterval = 20 * time.Second

func main() {
	rerun, _ := strconv.Atoi(os.Getenv("FLAGR_TEST_RERUN"))
	code, err := run(os.Args[1:], os.Getenv("FLAGR_TEST_COUNTS"), rerun, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(command []string, file string, rerun int, out io.Writer) (int, error) {
	if len(command) == 0 {
		return total(file, out)
	}
	if len(command) < 2 || command[1] != "test" {
		return 2, fmt.Errorf("%q is not a go test command", command)
	}
	flags := 2
	if len(command) > 4 && command[2] == "-C" { // it must stay the first flag
		flags = 4
	}
	command = slices.Insert(slices.Clone(command), flags, "-json")
	report := newReport(out)
	code, err := execute(command, report)
	if failed := report.failed(); code != 0 && err == nil && len(failed) <= rerun && !report.cutShort {
		code, err = again(command, failed, report, out)
	}
	if err != nil {
		return code, err
	}
	sum := report.sum()
	if sum == (counts{}) && code == 0 {
		return 1, errors.New("no test ran")
	}
	_, err = fmt.Fprintln(out, sum)
	return code, errors.Join(err, sum.appendTo(file))
}

// again reruns the failed tests once, and replaces their counts in the report.
func again(command []string, failed []testID, report *report, out io.Writer) (int, error) {
	var names []string
	for _, id := range failed {
		names = append(names, regexp.QuoteMeta(id.test))
	}
	pattern := "^(" + strings.Join(names, "|") + ")$"
	_, _ = fmt.Fprintln(out, "...  once more:", pattern)
	second := newReport(out)
	code, err := execute(append(command, "-run", pattern), second)
	if err != nil {
		return code, err
	}
	for _, id := range failed {
		report.counts[id] = second.counts[id]
		if c := second.counts[id]; c.Failed == 0 && c.Passed > 0 {
			_, _ = fmt.Fprintf(out, "%s %s failed at first, and passed when it ran again\n", id.pkg, id.test)
		} else {
			code = max(code, 1) // even if it did not run
		}
	}
	return code, nil
}

// execute runs the command and passes its output to the report.
func execute(command []string, report *report) (code int, err error) {
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	done := make(chan struct{})
	var progress sync.WaitGroup
	progress.Go(func() { report.progress(done) })
	err = report.read(stdout)
	close(done)
	progress.Wait()
	var failed *exec.ExitError
	switch waited := cmd.Wait(); {
	case errors.As(waited, &failed):
		return max(failed.ExitCode(), 1), err
	case waited != nil:
		return 1, errors.Join(err, waited)
	}
	return 0, err
}

// counts are numbers of tests, including subtests.
type counts struct{ Passed, Failed, Skipped int }

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
}

func (c counts) add(d counts) counts {
	return counts{c.Passed + d.Passed, c.Failed + d.Failed, c.Skipped + d.Skipped}
}

func (c counts) appendTo(file string) (err error) {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return json.NewEncoder(f).Encode(c)
}

// total prints the sum of the counts in a file.
func total(file string, out io.Writer) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 1, err
	}
	defer func() { _ = f.Close() }()
	var sum counts
	for decoder := json.NewDecoder(f); ; {
		var c counts
		switch err := decoder.Decode(&c); {
		case errors.Is(err, io.EOF):
			_, err = fmt.Fprintln(out, sum)
			return 0, err
		case err != nil:
			return 1, err
		}
		sum = sum.add(c)
	}
}

// event is a line of go test -json. See go doc test2json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// report collects the events of one go test.
type report struct {
	mu struct {
		sync.Mutex
		out     io.Writer
		running map[string]time.Time // packages, by the start of their tests
	}
	output   map[string]map[string]*strings.Builder // of running tests, by package and test; "" is the package itself
	counts   map[testID]counts
	elapsed  map[testID]time.Duration
	cutShort bool // a package failed before all of its tests ran
}

// testID names a test that is not a subtest. The counts of a test include its subtests.
type testID struct{ pkg, test string }

func idOf(e event) testID {
	test, _, _ := strings.Cut(e.Test, "/")
	return testID{e.Package, test}
}

// sum returns the counts of all packages.
func (r *report) sum() (sum counts) {
	for _, c := range r.counts {
		sum = sum.add(c)
	}
	return sum
}

// failed returns the tests that failed, sorted.
func (r *report) failed() (failed []testID) {
	for id, c := range r.counts {
		if c.Failed > 0 {
			failed = append(failed, id)
		}
	}
	slices.SortFunc(failed, func(a, b testID) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test)) })
	return failed
}

// of returns the number of tests of a package.
func (r *report) of(pkg string) (tests int) {
	for id, c := range r.counts {
		if id.pkg == pkg {
			tests += c.Passed + c.Failed + c.Skipped
		}
	}
	return tests
}

func newReport(out io.Writer) *report {
	r := &report{output: map[string]map[string]*strings.Builder{}, counts: map[testID]counts{}, elapsed: map[testID]time.Duration{}}
	r.mu.out, r.mu.running = out, map[string]time.Time{}
	return r
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "build-output", Output: string(line)}
			}
			r.take(e)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Action {
	case "start":
		r.mu.running[e.Package] = time.Now()
	case "build-output":
		r.printLocked(e.Output)
	case "output":
		r.keep(e)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEndedLocked(e)
		} else {
			r.testEndedLocked(e)
		}
	}
}

// printLocked ignores errors, because without an output there is nowhere to report them.
func (r *report) printLocked(text string) { _, _ = io.WriteString(r.mu.out, text) }

func (r *report) keep(e event) {
	tests := r.output[e.Package]
	if tests == nil {
		tests = map[string]*strings.Builder{}
		r.output[e.Package] = tests
	}
	if tests[e.Test] == nil {
		tests[e.Test] = &strings.Builder{}
	}
	tests[e.Test].WriteString(e.Output)
}

func (r *report) testEndedLocked(e event) {
	var one counts
	switch e.Action {
	case "pass":
		one.Passed = 1
	case "skip":
		one.Skipped = 1
	case "fail":
		one.Failed = 1
		if b := r.output[e.Package][e.Test]; b != nil {
			r.printLocked(b.String())
		}
	}
	r.counts[idOf(e)] = r.counts[idOf(e)].add(one)
	if id := idOf(e); id.test == e.Test {
		r.elapsed[id] = secondsOf(e)
	}
	delete(r.output[e.Package], e.Test)
}

func (r *report) packageEndedLocked(e event) {
	tests := r.of(e.Package)
	if e.Action == "fail" { // the output of an unfinished test contains the reason, such as a panic
		for _, test := range slices.Sorted(maps.Keys(r.output[e.Package])) {
			r.printLocked(r.output[e.Package][test].String())
		}
		if tests == 0 {
			r.counts[idOf(e)] = counts{Failed: 1} // it did not build, or ended before its first test
		}
		// A test binary prints this line itself after all of its tests have run.
		if last := r.output[e.Package][""]; last == nil || !strings.Contains("\n"+last.String(), "\nFAIL\n") {
			r.cutShort = true
		}
	}
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "-"}[e.Action]
	r.printLocked(fmt.Sprintf("%-4s %s\t%.1fs\t%d tests\n", word, e.Package, e.Elapsed, tests))
	if secondsOf(e) >= longPackage {
		r.printLocked("     slowest: " + r.slowestOf(e.Package) + "\n")
	}
	delete(r.output, e.Package)
	delete(r.mu.running, e.Package)
}

func secondsOf(e event) time.Duration { return time.Duration(e.Elapsed * float64(time.Second)) }

// slowestOf returns the names and durations of the slowest tests of a package. The duration of a
// parallel test includes the time that it waits for other tests within the test, but not before it.
func (r *report) slowestOf(pkg string) string {
	var tests []testID
	for id := range r.elapsed {
		if id.pkg == pkg {
			tests = append(tests, id)
		}
	}
	slices.SortFunc(tests, func(a, b testID) int {
		return cmp.Or(cmp.Compare(r.elapsed[b], r.elapsed[a]), cmp.Compare(a.test, b.test))
	})
	var list []string
	for _, id := range tests[:min(slowest, len(tests))] {
		list = append(list, fmt.Sprintf("%s %.1fs", id.test, r.elapsed[id].Seconds()))
	}
	return strings.Join(list, ", ")
}

// progress prints the packages being tested at intervals, so that a long run shows progress.
func (r *report) progress(done <-chan struct{}) {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			r.printProgress()
		}
	}
}

func (r *report) printProgress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.running) == 0 {
		r.printLocked("...  compiling\n")
		return
	}
	var names []string
	for name, since := range r.mu.running {
		names = append(names, fmt.Sprintf("%s (%s)", name, time.Since(since).Round(time.Second)))
	}
	slices.Sort(names)
	r.printLocked("...  testing " + strings.Join(names, ", ") + "\n")
}
