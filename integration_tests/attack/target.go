package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/apicall"
)

const (
	// startDeadline is far longer than a server needs, even on a busy machine.
	startDeadline = 60 * time.Second

	databaseName = "flagr.sqlite"
	logName      = "log"
)

// target is the server under attack.
type target struct {
	options Options
	webhook string // URL of a receiver that never responds

	cmd     *exec.Cmd
	done    chan struct{} // closed when the process ends
	api     string        // including /api/v1
	address string        // host:port

	honestFlag flag
	client     *client // nil between cases
	statuses   statuses
	peak       atomic.Int64 // bytes of resident memory since the start of the case, over all its processes
	note       string
	began      time.Time // the case

	serverCPU  time.Duration // since the start of the case, over all its processes
	countedCPU time.Duration // of the current process, in serverCPU or before the case
}

// flag is a flag of the server.
type flag struct {
	ID  int64
	Key string
}

var serving = regexp.MustCompile(`Serving flagr at (http://([0-9.:]+))`)

// start starts the server on the database in the folder, and waits until it responds.
func (t *target) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(t.options.Dir, logName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()    // the server has its own copy
	cmd := exec.Command(t.options.Server) //nolint:noctx // kill ends it; the path is the caller's choice
	cmd.Dir = t.options.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownSession()
	cmd.Env = []string{
		"HOST=127.0.0.1", "PORT=0",
		"TMPDIR=" + t.options.Dir,
		"FLAGR_DB_DBDRIVER=sqlite3", "FLAGR_DB_DBCONNECTIONSTR=" + databaseName,
		"FLAGR_DB_DBCONNECTION_DEBUG=false",
		"FLAGR_EVALCACHE_REFRESHINTERVAL=200ms",
		"FLAGR_RECORDER_ENABLED=true", "FLAGR_RECORDER_TYPE=datar",
		"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL=1s",
		"FLAGR_RECORDER_DATAR_INGEST_ENABLED=true",
		"FLAGR_NOTIFICATION_DETAILED_DIFF_ENABLED=true",
		"FLAGR_NOTIFICATION_WEBHOOK_ENABLED=true", "FLAGR_NOTIFICATION_WEBHOOK_URL=" + t.webhook,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // only the end matters, not the exit code
	}()
	t.cmd, t.done, t.countedCPU = cmd, done, 0
	return t.poll(ctx, "the server to answer", func() bool {
		text, err := os.ReadFile(filepath.Join(t.options.Dir, logName))
		match := serving.FindSubmatch(text)
		if err != nil || match == nil {
			return false
		}
		t.api, t.address = string(match[1])+"/api/v1", string(match[2])
		if _, err = t.call(ctx, http.MethodGet, "/health", nil); err != nil {
			return false
		}
		return t.client == nil || t.client.follow(t.api) == nil
	})
}

// restart kills the server and starts it again on the same database.
func (t *target) restart(ctx context.Context) error {
	t.kill()
	return t.start(ctx)
}

// restartWith is restart, and saves the database, or restores the one that the last call saved.
func (t *target) restartWith(ctx context.Context, restore bool) error {
	t.kill()
	saved := filepath.Join(t.options.Dir, "saved")
	from, to := t.options.Dir, saved
	if restore {
		from, to = to, from
	}
	err := os.MkdirAll(saved, 0o700)
	for _, name := range []string{databaseName, databaseName + "-wal"} {
		err = errors.Join(err, replace(filepath.Join(to, name), filepath.Join(from, name)))
	}
	return errors.Join(err, t.start(ctx))
}

// replace makes a file a copy of another, or removes it if there is no other.
func replace(file, other string) error {
	content, err := os.ReadFile(other)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(file)
	}
	return errors.Join(err, os.WriteFile(file, content, 0o600))
}

// kill kills the server.
func (t *target) kill() {
	_ = t.notePeak()         // fails only if the server has ended
	_ = t.cmd.Process.Kill() // fails only if the server has ended
	<-t.done
}

// ended reports whether the process has ended.
func (t *target) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// poll waits until done returns true. It returns an error after startDeadline, or if the server
// ends.
func (t *target) poll(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-t.done:
			return fmt.Errorf("the server ended while waiting for %s: see its log", what)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// resetPeak resets the kernel's measurement of peak resident memory, and excludes the CPU time so
// far.
func (t *target) resetPeak() error {
	cpu, err := t.cpu()
	if err != nil {
		return err
	}
	t.countedCPU = cpu
	return os.WriteFile(t.proc("clear_refs"), []byte("5"), 0o200)
}

// clockTick is the unit of CPU times that Linux reports.
const clockTick = 10 * time.Millisecond

// cpu returns the CPU time of the current process.
func (t *target) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(t.proc("stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name of the program comes before it
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(userErr, systemErr)
}

// machineCPU returns the CPU time that all programs have used since the machine started, and the
// time that its host withheld.
func machineCPU() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var user, nice, system, idle, wait, irq, softirq, steal int64
	_, err = fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq, &steal)
	return time.Duration(user+nice+system+steal) * clockTick, err
}

// ownCPU returns the CPU time of this process, which runs all clients.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// notePeak adds the peak of resident memory and the CPU time since resetPeak to the measurements.
func (t *target) notePeak() error {
	cpu, err := t.cpu()
	if err != nil {
		return err
	}
	t.serverCPU, t.countedCPU = t.serverCPU+cpu-t.countedCPU, cpu
	status, err := os.ReadFile(t.proc("status"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return errors.New("/proc/PID/status has no VmHWM")
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return err
	}
	t.peak.Store(max(t.peak.Load(), kib<<10))
	return nil
}

func (t *target) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(t.cmd.Process.Pid), name)
}

// call calls the API with JSON, below its base path, and again while the server is busy. It is for
// setups, and its status is not counted.
func (t *target) call(ctx context.Context, method, path string, body any) (answer map[string]any, err error) {
	busy := t.poll(ctx, method+" "+path, func() bool {
		answer, err = apicall.JSON(ctx, method, t.api+path, body)
		return !errors.Is(err, apicall.ErrBusy)
	})
	return answer, errors.Join(busy, err)
}

// attack sends a request, reads the response to its end and counts its status. It returns the
// status, or 0 without a response.
func (t *target) attack(ctx context.Context, method, path string, body []byte, header ...string) int {
	return t.attackURL(ctx, method, t.api+path, body, header...)
}

// attackOFREP is attack for evaluations by OFREP. The path is that after the path of all flags.
func (t *target) attackOFREP(ctx context.Context, path, body string) {
	t.attackURL(ctx, http.MethodPost, "http://"+t.address+"/ofrep/v1/evaluate/flags"+path, []byte(body))
}

func (t *target) attackURL(ctx context.Context, method, url string, body []byte, header ...string) int {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.statuses.add("invalid request")
		return 0
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.statuses.add("cut")
		return 0
	}
	_, err = io.Copy(io.Discard, response.Body)
	if errors.Join(err, response.Body.Close()) != nil {
		t.statuses.add("cut")
		return 0
	}
	t.statuses.add(strconv.Itoa(response.StatusCode))
	return response.StatusCode
}

// statuses counts responses.
type statuses struct {
	mu    sync.Mutex
	count map[string]int
}

func (s *statuses) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count = map[string]int{}
}

func (s *statuses) add(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[status]++
}

func (s *statuses) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.count)
}

// createFlag creates an enabled flag that gives the variants "on" and "off" to all entities, and
// waits until the server evaluates it.
func (t *target) createFlag(ctx context.Context, key string) (flag, error) {
	created, err := t.call(ctx, http.MethodPost, "/flags", map[string]any{"key": key, "description": key, "template": "simple_boolean_flag"})
	if err != nil {
		return flag{}, err
	}
	id, _ := created["id"].(float64)
	f := flag{ID: int64(id), Key: key}
	if _, err := t.call(ctx, http.MethodPut, fmt.Sprintf("/flags/%d", f.ID), map[string]any{"dataRecordsEnabled": true}); err != nil {
		return f, err
	}
	if _, err := t.call(ctx, http.MethodPut, fmt.Sprintf("/flags/%d/enabled", f.ID), map[string]any{"enabled": true}); err != nil {
		return f, err
	}
	return f, t.awaitEvaluation(ctx, key)
}

// awaitEvaluation waits until the server evaluates a flag to a variant.
func (t *target) awaitEvaluation(ctx context.Context, key string) error {
	return t.poll(ctx, "the flag "+key+" to be evaluated", func() bool {
		answer, err := t.call(ctx, http.MethodPost, "/evaluation", map[string]any{"flagKey": key, "entityID": "1", "entityContext": map[string]any{"x": "v0"}})
		variant, _ := answer["variantKey"].(string)
		return err == nil && variant != ""
	})
}

// hang listens on loopback, accepts connections and never responds.
func hang(ctx context.Context) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		var kept []net.Conn // a garbage-collected connection is closed
		for {
			c, err := listener.Accept()
			if err != nil {
				for _, c := range kept {
					_ = c.Close()
				}
				return
			}
			kept = append(kept, c)
		}
	}()
	return listener, nil
}
