// Command bench measures the CPU time of the server per evaluation request. It compares it with a
// bare net/http server that reads the body and writes a constant of the same size. The servers take
// turns in short rounds under the same load, so that other work on the machine affects all of them.
// docs/benchmarks.md explains the results.
//
// It reads CPU times and memory of other processes from Linux, so it runs on Linux only.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The limits in the last column of the report.
const (
	wantRatio        = 1.2
	wantPerEvalMicro = 0.35
	// referenceMicro is the CPU time of a request of the bare server on the machine to which other
	// CPU times are converted.
	referenceMicro = 17.6
)

// batchSize is the number of entities in a batch.
const batchSize = 500

type options struct {
	server      string
	rounds      int
	requests    int
	batches     int
	connections int
	refresh     bool
	ofrep       bool
	light       bool
	pages       bool
	month       bool
	postgres    string
	evaluations bool
	peer        string
	profile     string
	env         []string
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "bin/flagr-server", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 300, "rounds; figures are medians over them")
	flag.IntVar(&o.requests, "requests", 1_000, "single evaluations of one server in one round")
	flag.IntVar(&o.batches, "batches", 60, "batches of one server in one round")
	flag.IntVar(&o.connections, "connections", 8, "connections, each with one request at a time")
	flag.BoolVar(&o.refresh, "refresh", true, "measure also how evaluation fares while one of 10,000 flags changes each second")
	flag.BoolVar(&o.ofrep, "ofrep", true, "measure also OFREP: one flag, all of 1,000, and what open event streams take")
	flag.BoolVar(&o.light, "light", true, "measure also memory and lists")
	flag.BoolVar(&o.pages, "pages", true, "measure also pages of the list of 10,000 flags")
	flag.BoolVar(&o.month, "month", true, "measure also memory after the counts of a month are read")
	flag.StringVar(&o.postgres, "postgres", "", "address of a PostgreSQL server, as postgres://..., on which pages and the month are measured, too")
	flag.BoolVar(&o.evaluations, "evaluations", true, "measure evaluations beside the bare server")
	flag.StringVar(&o.peer, "peer", "", "another server with Flagr's API, such as Flagr, whose memory and lists are measured, too")
	flag.StringVar(&o.profile, "profile", "", "a file for a CPU profile of what is measured of evaluations with recording on and of OFREP, for profile-guided optimization")
	flag.Func("env", "a variable for the measured server, as NAME=VALUE; may be given more than once", func(v string) error {
		o.env = append(o.env, v)
		return nil
	})
	bare := flag.Int("bare", -1, "be the bare server, with answers of this many bytes (used by the command itself)")
	flag.Parse()

	var err error
	if *bare >= 0 {
		err = serveBare(*bare)
	} else {
		err = run(o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// target is one server under one kind of request.
type target struct {
	name    string
	process *process
	load    *load
	// perRequest is the number of evaluations per request.
	perRequest int
	requests   int
	micros     []float64 // CPU time per request of each round
}

// run runs the measurements that the options select.
func run(o options, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "flagr-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, part := range []struct {
		wanted  bool
		measure func(o options, dir string, out io.Writer) error
	}{{o.evaluations, measureEvaluations}, {o.light, measureLight}, {o.pages, measurePages}, {o.month, measureMonth}, {o.ofrep, measureOFREP}, {o.refresh, measureRefresh}} {
		if part.wanted {
			if err := part.measure(o, dir, out); err != nil {
				return err
			}
		}
	}
	return mergeProfiles(o.profile, dir)
}

// measureEvaluations measures evaluations, compared with the bare server.
func measureEvaluations(o options, dir string, out io.Writer) (err error) {
	var running fleet
	defer func() { running.stop() }()

	var singles, batches []*target
	defer func() {
		for _, t := range slices.Concat(singles, batches) {
			err = errors.Join(err, t.load.close())
		}
	}()
	size := 0 // of one response
	for _, kind := range []struct {
		name string
		env  []string
	}{
		{"recording off", []string{"FLAGR_RECORDER_ENABLED=false"}},
		{"recording on", nil},
		{"recording on, access log off", []string{"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED=false"}},
	} {
		p, err := running.startFlagr(o.server, dir, slices.Concat(kind.env, o.env)...)
		if err != nil {
			return err
		}
		if err := createFlag(p.url); err != nil {
			return err
		}
		single, err := newLoad(p.url+"/evaluation", singleBody(), o.connections)
		if err != nil {
			return err
		}
		size = single.size
		singles = append(singles, &target{name: kind.name, process: p, load: single, perRequest: 1, requests: o.requests})
		batch, err := newLoad(p.url+"/evaluation/batch", batchBody(batchSize), o.connections)
		if err != nil {
			return err
		}
		batches = append(batches, &target{name: kind.name, process: p, load: batch, perRequest: batchSize, requests: o.batches})
	}
	bareProcess, err := running.startBare(size)
	if err != nil {
		return err
	}
	bareLoad, err := newLoad(bareProcess.url, singleBody(), o.connections)
	if err != nil {
		return err
	}
	bare := &target{name: "bare server", process: bareProcess, load: bareLoad, perRequest: 1, requests: o.requests}
	singles = slices.Insert(singles, 0, bare)

	taken := beginProfile(singles[2].process, o.profilePart(dir, "evaluations"), evaluationSeconds)
	if err := measure(slices.Concat(singles, batches), o.rounds); err != nil {
		return err
	}

	if err := <-taken; err != nil {
		return fmt.Errorf("take the profile: %w", err)
	}
	_, _ = fmt.Fprintf(out, "%d rounds, %d connections, %s, %d CPUs, %s/%s, %s\n\n", o.rounds, o.connections, runtime.Version(), runtime.NumCPU(),
		runtime.GOOS, runtime.GOARCH, time.Now().UTC().Format(time.DateOnly))
	return report(out, bare, singles, batches)
}

// profilePart returns the path of the profile of a part of the measurements, or "" if no profile is
// requested.
func (o *options) profilePart(dir, name string) string {
	if o.profile == "" {
		return ""
	}
	return filepath.Join(dir, name+profileExtension)
}

// mergeProfiles merges the profiles in dir into one, unless the path is empty.
func mergeProfiles(path, dir string) error {
	if path == "" {
		return nil
	}
	parts, err := filepath.Glob(filepath.Join(dir, "*"+profileExtension))
	if err != nil || len(parts) == 0 {
		return fmt.Errorf("nothing was profiled: %w", errors.Join(err, errors.ErrUnsupported))
	}
	command := exec.Command("go", append([]string{"tool", "pprof", "-proto", "-output", path}, parts...)...) //nolint:noctx // it ends by itself
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("merge the profiles: %w: %s", err, output)
	}
	return nil
}

// beginProfile takes a CPU profile in the background, unless the path is empty. The channel returns
// the result.
func beginProfile(p *process, path string, seconds int) <-chan error {
	taken := make(chan error, 1)
	if path == "" {
		taken <- nil
	} else {
		go func() { taken <- takeProfile(p, path, seconds) }()
	}
	return taken
}

// warmUp is the number of rounds before the measured ones.
const warmUp = 20

// The durations of profiles, which fit into the default number of rounds. Evaluations share the
// machine with more servers.
const (
	evaluationSeconds = 40
	ofrepSeconds      = 15
	profileExtension  = ".pprof"
)

// takeProfile writes a CPU profile of the process to a file.
func takeProfile(p *process, path string, seconds int) error {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", strings.TrimSuffix(p.url, "/api/v1"), seconds)
	response, err := http.Get(url) //nolint:noctx // the server answers after these seconds, or ends
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // the body has been read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, profile, 0o644) // for all users of the repository
}

// measure measures all rounds. The order of the servers changes with each round, so that no server
// always follows the same one.
func measure(targets []*target, rounds int) error {
	for round := range warmUp + rounds {
		for _, i := range rand.Perm(len(targets)) {
			t := targets[i]
			micros, err := t.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if round >= warmUp {
				t.micros = append(t.micros, micros)
			}
		}
	}
	return nil
}

// measure sends one round of requests and returns the server's CPU time per request, in
// microseconds.
func (t *target) measure() (float64, error) {
	before, err := t.process.cpu()
	if err != nil {
		return 0, err
	}
	if err := t.load.run(t.requests); err != nil {
		return 0, err
	}
	after, err := t.process.cpu()
	if err != nil {
		return 0, err
	}
	return float64(after-before) / float64(time.Microsecond) / float64(t.requests), nil
}

func report(out io.Writer, bare *target, singles, batches []*target) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "POST /evaluation\tCPU µs/request\tlowest\thighest\tratio to bare\twanted\t")
	for _, t := range singles {
		ratios := make([]float64, len(t.micros))
		for i := range ratios {
			ratios[i] = t.micros[i] / bare.micros[i]
		}
		_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.2f\t%s\t\n", t.name, median(t.micros), slices.Min(t.micros), slices.Max(t.micros),
			median(ratios), verdict(median(ratios), wantRatio))
	}
	_, _ = fmt.Fprintf(w, "\t\t\t\t\t\t\nbatch of %d\tCPU µs/evaluation\tlowest\thighest\tif bare took %.1f\twanted\t\n", batchSize, referenceMicro)
	for _, t := range batches {
		per, scaled := make([]float64, len(t.micros)), make([]float64, len(t.micros))
		for i := range per {
			per[i] = t.micros[i] / float64(t.perRequest)
			scaled[i] = per[i] * referenceMicro / bare.micros[i]
		}
		_, _ = fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t\n", t.name, median(per), slices.Min(per), slices.Max(per), median(scaled),
			verdict(median(per), wantPerEvalMicro))
	}
	return w.Flush()
}

func verdict(got, want float64) string {
	if got <= want {
		return fmt.Sprintf("at most %.2f: yes", want)
	}
	return fmt.Sprintf("at most %.2f: NO", want)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
