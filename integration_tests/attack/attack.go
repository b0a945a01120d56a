// Package attack sends requests that are meant to exhaust a server, one kind after the other, while
// an honest client evaluates at the same time. It measures the server's peak memory and the latency
// of the honest client. The server and all clients run on this machine: the attackers in this
// process, the honest client in one of its own.
//
// Peak memory is read from /proc, so the package works on Linux only.
package attack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// Limits for the result of a run.
const (
	// MaxPeakBytes is the limit of the server's resident memory in every case.
	MaxPeakBytes = 400 << 20
	// MaxP99 is the limit of the latency of 99 % of honest requests.
	MaxP99 = 50 * time.Millisecond
	// headStart is the time from the first honest request to the attack.
	headStart = 200 * time.Millisecond
	// runs is how often a case runs whose p99 is above MaxP99.
	runs = 3
)

// Options configures what to attack and for how long.
type Options struct {
	// Server is the path of the flagr-server to start.
	Server string
	// Dir is an empty folder for the database and the log.
	Dir string
	// Quick uses fewer connections and repetitions, for a test of a few seconds.
	Quick bool
	// CaseTimeout is the time limit of a case. 0 means 30 s.
	CaseTimeout time.Duration
	// Client is a command that calls Honest with its standard input and output, and with its last
	// argument as the flag's key. Without it, the honest client shares a process with the
	// attackers, and waits for them too.
	Client []string
	// Only is the name of the only case to run. Empty means all cases.
	Only string
}

// Result is the result of one case.
type Result struct {
	Name string
	// PeakBytes is the largest resident memory of the server during the case.
	PeakBytes int64
	// Latency is of the honest client.
	Latency
	// ServerCPU and AttackerCPU are the CPU times of the server and of this process during the
	// case. They share the machine: if attackers use more CPU, the latency says little about the
	// server.
	ServerCPU, AttackerCPU time.Duration
	// OthersCPU is the share of the machine's CPU time that other programs used during the case,
	// from 0 to 1.
	OthersCPU float64
	// Statuses counts the responses to the attack by status. "cut" counts requests without a
	// response.
	Statuses map[string]int
	// Restarted is true if the server ended during the case.
	Restarted bool
	// Runs is how often the case ran: once, or more often if P99 was above MaxP99. The result is
	// that of the run with the median P99, with the largest PeakBytes. Note has the P99 of each.
	Runs int
	// Note contains other measurements of the case.
	Note string
	// Err is the reason why the case could not run, or a fault that it found.
	Err error
}

// Fault returns why the result is not acceptable, or nil. Latency counts only if strict is true.
func (r Result) Fault(strict bool) error {
	switch {
	case r.Err != nil:
		return fmt.Errorf("%s: %w", r.Name, r.Err)
	case r.Restarted:
		return fmt.Errorf("%s: the server ended", r.Name)
	case r.PeakBytes >= MaxPeakBytes:
		return fmt.Errorf("%s: peak memory is %d MB, want below %d MB", r.Name, r.PeakBytes>>20, MaxPeakBytes>>20)
	case r.Answered == 0:
		return fmt.Errorf("%s: no honest request was answered", r.Name)
	case strict && r.P99 > MaxP99:
		return fmt.Errorf("%s: p99 of honest requests is %s, want at most %s", r.Name, r.P99, MaxP99)
	}
	return nil
}

// Run starts the server, runs the cases and returns their results. Its error is about the setup
// only. See Result.Fault for the results. Each case has a new process on the database of the
// previous cases.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	if o.CaseTimeout == 0 {
		o.CaseTimeout = 30 * time.Second
	}
	if o.Server, err = filepath.Abs(o.Server); err != nil {
		return nil, err
	}
	hanging, err := hang(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hanging.Close()) }()
	t := &target{options: o, webhook: "http://" + hanging.Addr().String() + "/"}
	if err := t.start(ctx); err != nil {
		return nil, err
	}
	defer t.kill()
	if t.honestFlag, err = t.createFlag(ctx, "honest"); err != nil {
		return nil, err
	}
	for _, c := range cases() {
		if o.Only != "" && o.Only != c.name {
			continue
		}
		result, err := t.runCase(ctx, c)
		if err != nil {
			return results, fmt.Errorf("start the server for %q: %w", c.name, err)
		}
		results = append(results, result)
	}
	return results, ctx.Err()
}

// runCase runs a case, and twice more if its latency is too long. A virtual machine that stands
// still for 100 ms delays ten honest requests, which are more than one percent.
func (t *target) runCase(ctx context.Context, c attackCase) (Result, error) {
	var results []Result
	for {
		// Memory that a case leaves behind must not count for the next case, and a case does not
		// start on its own flags.
		if err := t.restartWith(ctx, len(results) > 0); err != nil {
			return Result{}, err
		}
		result := t.runOnce(ctx, c)
		results = append(results, result)
		switch {
		case result.Fault(false) != nil:
			result.Runs = len(results)
			return result, nil //nolint:nilerr // the caller reports it
		case len(results) == runs || len(results) == 1 && (result.P99 <= MaxP99 || t.options.Quick):
			return median(results), nil
		}
	}
}

// median returns the result with the median latency. It sorts the results.
func median(results []Result) Result {
	slices.SortFunc(results, func(a, b Result) int { return cmp.Compare(a.P99, b.P99) })
	result := results[len(results)/2]
	result.Runs = len(results)
	for _, r := range results {
		result.PeakBytes = max(result.PeakBytes, r.PeakBytes)
		if len(results) > 1 {
			result.Note += fmt.Sprintf(" p99=%s", r.P99.Round(time.Microsecond*10))
		}
	}
	return result
}

// runOnce runs a case while the honest client runs.
func (t *target) runOnce(ctx context.Context, c attackCase) Result {
	result := Result{Name: c.name}
	ctx, cancel := context.WithTimeout(ctx, t.options.CaseTimeout)
	defer cancel()
	t.statuses.reset()
	t.note, t.began = "", time.Now()
	t.peak.Store(0)
	t.serverCPU = 0
	attackersBefore := ownCPU()
	busyBefore, err := machineCPU()
	if result.Err = err; err != nil {
		return result
	}
	if result.Err = t.resetPeak(); result.Err != nil {
		return result
	}
	if result.Err = t.startClient(ctx); result.Err != nil {
		return result
	}
	err = c.run(ctx, t)
	client := t.client
	latency, clientErr := client.stop()
	t.client = nil
	result.Latency, result.Err = latency, errors.Join(err, clientErr)
	if t.ended() {
		result.Restarted = true
	} else if err := t.notePeak(); err != nil {
		result.Err = errors.Join(result.Err, err)
	}
	result.ServerCPU, result.AttackerCPU = t.serverCPU, ownCPU()-attackersBefore
	busy, cpuErr := machineCPU()
	result.Err = errors.Join(result.Err, cpuErr)
	others := busy - busyBefore - result.ServerCPU - result.AttackerCPU - client.cpu()
	result.OthersCPU = max(0, others.Seconds()/time.Since(t.began).Seconds()/float64(runtime.NumCPU()))
	result.PeakBytes, result.Statuses, result.Note = t.peak.Load(), t.statuses.all(), t.note
	return result
}

// startClient starts the honest client, and lets it open connections, which clients keep.
func (t *target) startClient(ctx context.Context) (err error) {
	if t.client, err = startHonest(ctx, t.options.Client, t.honestFlag.Key); err != nil {
		return err
	}
	if err := t.client.follow(t.api); err != nil {
		return err
	}
	pause(ctx, headStart)
	return t.client.follow("") // what it measured does not count
}

// Print writes a table of results.
func Print(out io.Writer, results []Result) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "case\tpeak MB\thonest p50\tp99\tserver CPU\tattackers' CPU\tothers' CPU\truns\tanswered\tfailed\trestarts\tstatuses\tnote")
	for _, r := range results {
		restarts := 0
		if r.Restarted {
			restarts = 1
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%.0f %%\t%d\t%d\t%d\t%d\t%v\t%s\n", r.Name, r.PeakBytes>>20, r.P50.Round(10*time.Microsecond),
			r.P99.Round(10*time.Microsecond), r.ServerCPU.Round(10*time.Millisecond), r.AttackerCPU.Round(10*time.Millisecond), 100*r.OthersCPU, r.Runs, r.Answered, r.Failed, restarts, r.Statuses, r.Note)
	}
	return table.Flush()
}

// size returns the size of a file in the server's folder, or 0 if it cannot be read.
func (t *target) size(name string) int64 {
	info, err := os.Stat(filepath.Join(t.options.Dir, name))
	if err != nil {
		return 0
	}
	return info.Size()
}
