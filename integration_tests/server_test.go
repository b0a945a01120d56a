package integration_tests

import (
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
)

const (
	// startDeadline and stopDeadline are far longer than a server needs, also on a busy machine.
	startDeadline = 30 * time.Second
	stopDeadline  = 40 * time.Second
)

// environ has environment variables by name.
type environ map[string]string

// with returns a copy in which the other variables take precedence.
func (e environ) with(other environ) environ {
	merged := maps.Clone(e)
	maps.Copy(merged, other)
	return merged
}

// quick configures a server on a free port, with Datar, fast refreshes and few log lines.
var quick = environ{
	"HOST":                            "127.0.0.1",
	"PORT":                            "0",
	"FLAGR_DB_DBCONNECTION_DEBUG":     "false",
	"FLAGR_EVALCACHE_REFRESHINTERVAL": "50ms",
	"FLAGR_RECORDER_ENABLED":          "true",
	"FLAGR_RECORDER_TYPE":             "datar",
}

// process is a running server with its log.
type process struct {
	cmd  *exec.Cmd
	log  *testlog.Buffer
	done chan struct{} // closed when the process has ended
}

// launch runs the server in a folder, with only these variables.
func launch(t *testing.T, dir string, env environ, args ...string) *process {
	t.Helper()
	return launchBinary(t, *serverBinary, dir, env, args...)
}

// launchBinary is launch for another program.
func launchBinary(t *testing.T, binary, dir string, env environ, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), log: &testlog.Buffer{}, done: make(chan struct{})}
	p.cmd.Dir = dir
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.cmd.Env = append(p.cmd.Env, name+"="+env[name])
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // ProcessState has the result
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails if it has ended
		<-p.done
	})
	return p
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits until the process ends, and returns its exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(stopDeadline):
		t.Fatalf("the server still runs after %s; its log:\n%s", stopDeadline, p.log)
		return 0
	}
}

// server is a running server that serves requests.
type server struct {
	*process
	url    string // with /api/v1
	client *http.Client

	env  environ
	args []string
}

// start starts a server on this database, with additional or other variables, and waits until it
// serves requests. At the end of the test, the server must stop cleanly, and its log must have no
// errors.
func start(t *testing.T, db database, dsn string, env environ, args ...string) *server {
	t.Helper()
	return startIn(t, t.TempDir(), quick.with(db.environ(dsn)).with(env), args...)
}

// startIn is start for any folder and variables.
func startIn(t *testing.T, dir string, env environ, args ...string) *server {
	t.Helper()
	s := &server{process: launch(t, dir, env, args...), env: env, args: args, client: newClient()}
	t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			s.stop(t, syscall.SIGTERM)
		}
		if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "level=ERROR") {
			t.Errorf("the server logged errors:\n%s", log)
		}
	})
	s.await(t)
	return s
}

// await waits until the server serves requests, and reads its address from the log.
func (s *server) await(t *testing.T) {
	t.Helper()
	poll(t, "the server to answer", func() bool {
		select {
		case <-s.done:
			t.Fatalf("the server ended with code %d:\n%s", s.cmd.ProcessState.ExitCode(), s.log)
		default:
		}
		// The process chooses a free port, so that tests do not compete for one.
		match := serving.FindStringSubmatch(s.log.String())
		if match == nil {
			return false
		}
		s.url = match[1] + "/api/v1"
		response, err := s.client.Get(s.url + "/health")
		if err != nil {
			return false
		}
		return response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
}

// address is the host:port that the server listens on.
func (s *server) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/api/v1")
}

// serving matches the address in the log line of a server that listens.
var serving = regexp.MustCompile(`Serving flagr at (http://[0-9.:\[\]]+)`)

// stop sends a signal to the server. It fails the test unless the server exits in time with code 0.
func (s *server) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("send %s: %v; the log:\n%s", signal, err, s.log)
	}
	if code := s.wait(t); code != 0 {
		t.Errorf("after %s the exit code is %d, want 0; the log:\n%s", signal, code, s.log)
	}
	s.client.CloseIdleConnections()
}

// kill kills the server.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-s.done
	s.client.CloseIdleConnections()
}

// again starts a new server in place of one that has ended, with its settings, folder and database.
func (s *server) again(t *testing.T) *server {
	t.Helper()
	return startIn(t, s.cmd.Dir, s.env, s.args...)
}

func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, ExpectContinueTimeout: startDeadline},
		Timeout:   time.Minute,
	}
}

// poll waits until done returns true, and fails the test after a deadline.
func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	testwait.Within(t, startDeadline, what, done)
}
