package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startDeadline is far longer than a server needs to start.
const startDeadline = 30 * time.Second

// process is a running server.
type process struct {
	cmd *exec.Cmd
	url string // base URL of requests, including /api/v1 except for the bare server
}

// fleet contains all servers of a run.
type fleet []*process

// stop stops all servers and waits for them.
func (f *fleet) stop() {
	for _, p := range *f {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if the process has ended
	}
	for _, p := range *f {
		_ = p.cmd.Wait() // the exit code does not matter
	}
	*f = nil
}

// startFlagr starts a server with default settings, except that Datar is on, and except for env. It
// logs to a file, as in an installation.
func (f *fleet) startFlagr(binary, dir string, env ...string) (*process, error) {
	own, err := os.MkdirTemp(dir, "server")
	if err != nil {
		return nil, err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary) //nolint:noctx // stop ends it
	cmd.Dir = own
	cmd.Env = append([]string{
		"HOST=127.0.0.1", "PORT=0",
		"FLAGR_DB_DBCONNECTION_DEBUG=false",
		"FLAGR_EVALCACHE_REFRESHINTERVAL=500ms",
		"FLAGR_RECORDER_ENABLED=true", "FLAGR_RECORDER_TYPE=datar",
	}, env...)
	logPath := filepath.Join(own, "log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	*f = append(*f, p)
	serving := regexp.MustCompile(`Serving flagr at (http://[0-9.:]+)`)
	err = poll("the server to answer", func() bool {
		text, err := os.ReadFile(logPath)
		match := serving.FindSubmatch(text)
		if err != nil || match == nil {
			return false
		}
		p.url = string(match[1]) + "/api/v1"
		response, err := http.Get(p.url + "/health") //nolint:noctx // poll has a deadline
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	if err != nil {
		text, _ := os.ReadFile(logPath)
		return nil, fmt.Errorf("%w; its log:\n%s", err, text)
	}
	return p, nil
}

// startBare starts this command again as the bare server.
func (f *fleet) startBare(size int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-bare", strconv.Itoa(size)) //nolint:noctx // stop ends it
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	*f = append(*f, p)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the bare server did not say where it listens: %w", err)
	}
	p.url = strings.TrimSpace(line)
	return p, nil
}

// serveBare does the minimum work of an evaluation server: it reads the body and writes a constant.
func serveBare(size int) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it serves until the process ends
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/\n", listener.Addr())
	answer := bytes.Repeat([]byte{'x'}, size)
	return http.Serve(listener, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { // only this command is its client
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write(answer) // fails only if the client has disconnected
	}))
}

// resident returns the current memory of the process, in bytes.
func (p *process) resident() (int64, error) { return p.status("VmRSS") }

// peak returns the peak memory of the process, in bytes.
func (p *process) peak() (int64, error) { return p.status("VmHWM") }

// status returns the value of a line in kB of /proc/PID/status, in bytes.
func (p *process) status(name string) (int64, error) {
	status, err := p.proc("status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(status, name+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, fmt.Errorf("/proc/PID/status has no %s", name)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}

func (p *process) proc(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name))
	return string(text), err
}

// poll waits until done returns true. It returns an error after startDeadline.
func poll(what string, done func() bool) error {
	deadline := time.Now().Add(startDeadline)
	for !done() {
		if time.Now().After(deadline) {
			return fmt.Errorf("timed out waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}
