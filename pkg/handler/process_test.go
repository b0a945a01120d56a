package handler_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-openapi/loads"

	"github.com/flagr-datar/flagr-datar/pkg/app"
	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
)

// processVariable has the processOptions of a server that runs as a process of its own.
const processVariable = "FLAGR_TEST_PROCESS"

// processOptions are the options of a server process: its environment, and the file with its clock.
type processOptions struct {
	Environ map[string]string
	Clock   string
}

// TestMain runs the tests, or a server process for one of them.
func TestMain(m *testing.M) {
	options := os.Getenv(processVariable)
	if options == "" {
		os.Exit(m.Run())
	}
	if err := serveProcess(options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveProcess serves until its standard input has a line, and then stops cleanly. It exits at once
// if the input ends, so that it does not outlive the test.
func serveProcess(text string) error {
	var options processOptions
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		return err
	}
	c, err := config.Load(options.Environ)
	if err != nil {
		return err
	}
	ctx := context.Background()
	a, err := app.New(ctx, c, app.Options{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return readClock(options.Clock) }})
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	spec, err := loads.Embedded(restapi.SwaggerJSON, restapi.FlatSwaggerJSON)
	if err != nil {
		return err
	}
	api := operations.NewFlagrAPI(spec)
	a.Register(api)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a.Handler(api.Serve(nil)), ReadHeaderTimeout: time.Minute}
	go func() {
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			os.Exit(1)
		}
		a.BeginStop()
		_ = server.Shutdown(ctx)
	}()
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return a.Stop(ctx)
}

// process is a server in a process of its own.
type process struct {
	http.Handler // sends requests to the process
	name         string
	cmd          *exec.Cmd
	stdin        io.WriteCloser
}

// startProcess starts a server, and returns when it serves.
func startProcess(t *testing.T, name string, o processOptions) *process {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, cmd: exec.CommandContext(context.Background(), executable)}
	p.cmd.Env = append(os.Environ(), processVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("server %s does not start: %v", name, err)
	}
	p.Handler = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: strings.TrimSpace(address)})
	return p
}

// kill ends the process without a chance to store anything.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// stop ends the process cleanly.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, "stop\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("server %s does not stop: %v", p.name, err)
	}
}

// writeClock sets the clock of all processes that read the file.
func writeClock(t *testing.T, file string, now time.Time) {
	t.Helper()
	next := filepath.Join(filepath.Dir(file), "next")
	if err := os.WriteFile(next, []byte(strconv.FormatInt(now.UnixMilli(), 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

func readClock(file string) time.Time {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	ms, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		panic(err)
	}
	return time.UnixMilli(ms)
}
