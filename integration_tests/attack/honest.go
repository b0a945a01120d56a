package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	honestInterval = 10 * time.Millisecond
	honestAtOnce   = 64
	honestTimeout  = 10 * time.Second // of a request
)

// Latency is what the honest client measured.
type Latency struct {
	// Answered counts requests with status 200, Failed all others.
	Answered, Failed int
	// P50 and P99 are percentiles of the latency of answered requests.
	P50, P99 time.Duration
}

// Honest evaluates the flag at a steady rate. Requests start by the clock, whether or not earlier
// ones have been answered. Each line of in is the base URL of the API from then on, or empty if
// what was measured so far does not count. At the end of in, it waits for the last responses and
// writes a Latency as JSON to out.
func Honest(in io.Reader, out io.Writer, flagKey string) error {
	h := &honest{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: honestAtOnce}, Timeout: honestTimeout},
		body:   fmt.Appendf(nil, `{"flagKey":%q,"entityID":"honest","entityContext":{"country":"DE"}}`, flagKey),
		slots:  make(chan struct{}, honestAtOnce),
	}
	apis := make(chan string)
	scanner := bufio.NewScanner(in)
	go func() {
		defer close(apis)
		for scanner.Scan() {
			apis <- scanner.Text()
		}
	}()
	h.run(apis)
	if err := scanner.Err(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(h.latency())
}

// honest is the state of Honest.
type honest struct {
	client *http.Client
	body   []byte
	slots  chan struct{} // of requests that run

	group sync.WaitGroup
	mu    struct {
		sync.Mutex
		latencies []time.Duration
		failed    int
	}
}

// run evaluates until apis is closed, and waits for the last responses.
func (h *honest) run(apis <-chan string) {
	defer h.group.Wait()
	tick := time.NewTicker(honestInterval)
	defer tick.Stop()
	api, more := <-apis
	for more {
		select {
		case next, ok := <-apis:
			if more = ok; next != "" {
				api = next
			} else if ok {
				h.forget()
			}
		case <-tick.C:
			h.begin(api)
		}
	}
}

// begin begins a request, unless so many are running that the percentiles show it.
func (h *honest) begin(api string) {
	select {
	case h.slots <- struct{}{}:
		h.group.Go(func() {
			defer func() { <-h.slots }()
			h.evaluate(api)
		})
	default:
	}
}

func (h *honest) evaluate(api string) {
	began := time.Now()
	response, err := h.client.Post(api+"/evaluation", "application/json", bytes.NewReader(h.body)) //nolint:noctx // the client has a timeout
	ok := err == nil && response.StatusCode == http.StatusOK
	if err == nil {
		_, readErr := io.Copy(io.Discard, response.Body)
		ok = errors.Join(readErr, response.Body.Close()) == nil && ok
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ok {
		h.mu.failed++
		return
	}
	h.mu.latencies = append(h.mu.latencies, time.Since(began))
}

// forget forgets what was measured.
func (h *honest) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.latencies, h.mu.failed = nil, 0
}

func (h *honest) latency() Latency {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, n := h.mu.latencies, len(h.mu.latencies)
	if n == 0 {
		return Latency{Failed: h.mu.failed}
	}
	slices.Sort(l)
	return Latency{Answered: n, Failed: h.mu.failed, P50: l[n/2], P99: l[n*99/100]}
}

// client is a running Honest.
type client struct {
	in   io.WriteCloser
	out  bytes.Buffer
	wait func() error
	cmd  *exec.Cmd // nil if it runs in this process
}

// cpu returns the CPU time of a client that has stopped, if it had a process of its own.
func (c *client) cpu() time.Duration {
	if c.cmd == nil {
		return 0
	}
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}

// startHonest runs Honest until stop is called: as the command, or in this process if there is
// none.
func startHonest(ctx context.Context, command []string, flagKey string) (*client, error) {
	c := &client{}
	if len(command) == 0 {
		in, writer := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- Honest(in, &c.out, flagKey) }()
		c.in, c.wait = writer, func() error { return <-done }
		return c, nil
	}
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), flagKey)...)
	cmd.Stdout, cmd.SysProcAttr = &c.out, ownSession()
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	c.wait, c.cmd = cmd.Wait, cmd
	return c, cmd.Start()
}

// follow makes the client use the API at this base URL, or forget what it measured if it is empty.
func (c *client) follow(api string) error {
	_, err := io.WriteString(c.in, api+"\n")
	return err
}

// stop waits for the last responses.
func (c *client) stop() (l Latency, err error) {
	if err := errors.Join(c.in.Close(), c.wait()); err != nil {
		return l, fmt.Errorf("honest client: %w", err)
	}
	return l, json.Unmarshal(c.out.Bytes(), &l)
}

// ownSession gives a process a session of its own. Where Linux schedules by session (autogroup),
// the process then gets its share of the processors however many threads the attackers have, as if
// the attackers had their own machines.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
