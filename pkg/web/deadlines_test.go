package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// connected returns two ends of a connection. The first one has lazy deadlines.
func connected(t *testing.T) (*lazyConn, *net.TCPConn) {
	t.Helper()
	l := listen(t)
	defer func() { _ = l.Close() }()
	other, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), other.Close() })
	return lazy(c), other.(*net.TCPConn)
}

func lazy(c net.Conn) *lazyConn {
	l := newLazyConn(c.(*net.TCPConn))
	return &l
}

// TestLazyConnIsAConnection runs the tests of golang.org/x/net for implementations of net.Conn.
func TestLazyConnIsAConnection(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, other := connected(t)
		return c, lazy(other), func() { _, _ = c.Close(), other.Close() }, nil
	})
}

// wantTimer waits until the timer of a call in progress is at a deadline.
func wantTimer(t *testing.T, d *lazyDeadline, want time.Time) {
	t.Helper()
	poll(t, "the timer is not "+want.String(), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.mu.calls > 0 && d.mu.timer.Equal(want)
	})
}

// wantCalls waits until this many calls are in progress.
func wantCalls(t *testing.T, d *lazyDeadline, want int) {
	t.Helper()
	poll(t, fmt.Sprintf("no %d calls begin", want), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.mu.calls == want
	})
}

// expire does what a timer does at its time.
func expire(t *testing.T, set func(time.Time) error) {
	t.Helper()
	if err := set(time.Now()); err != nil {
		t.Fatal(err)
	}
}

type outcome struct {
	n   int
	err error
}

func TestReadsGoOnUntilTheLastDeadline(t *testing.T) {
	t.Parallel()
	c, other := connected(t)
	read := make(chan outcome)
	begin := func() {
		go func() {
			n, err := c.Read(make([]byte, 8))
			read <- outcome{n, err}
		}()
	}
	set := func(d time.Time) {
		t.Helper()
		if err := c.SetReadDeadline(d); err != nil {
			t.Fatal(err)
		}
	}
	hour, day := time.Now().Add(time.Hour), time.Now().Add(24*time.Hour)

	set(hour)
	begin()
	wantTimer(t, &c.reads, hour)
	set(day)
	wantTimer(t, &c.reads, hour)
	expire(t, c.tcp.SetReadDeadline)
	wantTimer(t, &c.reads, day)
	set(time.Time{})
	expire(t, c.tcp.SetReadDeadline)
	wantTimer(t, &c.reads, time.Time{})
	earlier := time.Now().Add(20 * time.Millisecond)
	set(earlier)
	if got := <-read; got.n != 0 || !errors.Is(got.err, os.ErrDeadlineExceeded) || time.Now().Before(earlier) {
		t.Errorf("a read returned %v %v before an earlier deadline", got, time.Now())
	}
	begin()
	if got := <-read; !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline returned %v", got)
	}

	set(time.Time{})
	begin()
	wantTimer(t, &c.reads, time.Time{})
	if _, err := other.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != (outcome{3, nil}) {
		t.Errorf("a read without a deadline returned %v", got)
	}
}

// TestReadsAtTheSameTime has two reads that one timer interrupts too early.
func TestReadsAtTheSameTime(t *testing.T) {
	t.Parallel()
	c, other := connected(t)
	for range 100 {
		if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		read := make(chan outcome)
		for range 2 {
			go func() {
				n, err := c.Read(make([]byte, 1))
				read <- outcome{n, err}
			}()
		}
		wantCalls(t, &c.reads, 2)
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Hour)); err != nil {
			t.Fatal(err)
		}
		expire(t, c.tcp.SetReadDeadline)
		if _, err := other.Write([]byte("ab")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := <-read; got != (outcome{1, nil}) {
				t.Fatalf("one of two reads returned %v", got)
			}
		}
	}
}

// lazyListener accepts connections whose changes of timers are counted.
type lazyListener struct {
	net.Listener
	changes atomic.Int64
}

func (l *lazyListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := lazy(accepted)
	for _, d := range []*lazyDeadline{&c.reads, &c.writes} {
		set := d.setTimer
		d.setTimer = func(t time.Time) error {
			l.changes.Add(1)
			return set(t)
		}
	}
	return c, nil
}

// TestTimersHardlyChange counts changes of timers, which would be 8 for each request.
func TestTimersHardlyChange(t *testing.T) {
	t.Parallel()
	l := &lazyListener{Listener: listen(t)}
	server := &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute, Handler: http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	c, r := dial(t, l.Addr().String())
	const requests = 200
	for range requests {
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		if status, _ := answer(t, r); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
	// A read that began before the handler returned is interrupted, which is two changes. Few do.
	if got := l.changes.Load(); got > requests*3/2 {
		t.Errorf("%d requests changed timers %d times", requests, got)
	}
}

// TestInterruptedReads interrupts reads as net/http does, which then sets another deadline and
// reads again.
func TestInterruptedReads(t *testing.T) {
	t.Parallel()
	interruption := time.Unix(1, 0)
	c, other := connected(t)
	if _, err := other.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 8)
	if err := c.SetReadDeadline(interruption); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buffer); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that was interrupted before it began returned %d %v", n, err)
	}
	for _, next := range []time.Time{{}, time.Now().Add(time.Hour), time.Now().Add(2 * time.Hour)} {
		if err := c.SetReadDeadline(next); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buffer); err != nil || string(buffer[:n]) != "abc" {
			t.Errorf("the read after an interruption returned %q %v", buffer[:n], err)
		}
		read := make(chan outcome)
		go func() {
			n, err := c.Read(make([]byte, 1))
			read <- outcome{n, err}
		}()
		wantCalls(t, &c.reads, 1)
		if err := c.SetReadDeadline(interruption); err != nil {
			t.Fatal(err)
		}
		if got := <-read; got.n != 0 || !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("an interrupted read returned %v", got)
		}
		if _, err := other.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWritesGoOnUntilTheLastDeadline(t *testing.T) {
	t.Parallel()
	c, other := connected(t)
	sent := make([]byte, 32<<20) // more than the buffers of the system
	for i := range sent {
		sent[i] = byte(i ^ i>>8 ^ i>>16)
	}
	hour, day := time.Now().Add(time.Hour), time.Now().Add(24*time.Hour)
	if err := c.SetWriteDeadline(hour); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan outcome)
	go func() {
		n, err := c.Write(sent)
		wrote <- outcome{n, err}
	}()
	wantTimer(t, &c.writes, hour)
	if err := c.SetWriteDeadline(day); err != nil {
		t.Fatal(err)
	}
	expire(t, c.tcp.SetWriteDeadline)
	wantTimer(t, &c.writes, day)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(other, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("what was written over an early timer differs: %v", err)
	}
	if o := <-wrote; o != (outcome{len(sent), nil}) {
		t.Errorf("the write returned %v", o)
	}

	if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Write(sent)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(sent) {
		t.Errorf("a write that is not read returned %d %v", n, err)
	}
	if n, err := io.ReadFull(other, got[:n]); err != nil {
		t.Errorf("%d bytes were read of those that a write returned: %v", n, err)
	}
}

// serveLazily runs a server until the test ends. It returns its address.
func serveLazily(t *testing.T, server *http.Server) string {
	t.Helper()
	l := listen(t)
	LimitHeaders(server, budget.NewMemory(budget.HeaderBytes))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestDisconnectsAreDetected closes the connection of a request that is being served, after others
// on the same connection, which interrupted reads.
func TestDisconnectsAreDetected(t *testing.T) {
	t.Parallel()
	waits, left := make(chan bool), make(chan bool)
	address := serveLazily(t, &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute, Handler: http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.URL.Path == "/waits" {
				waits <- true
				<-r.Context().Done()
				left <- true
			}
		})})
	for _, request := range []string{"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n", "POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"} {
		c, r := dial(t, address)
		for range 3 {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if status, _ := answer(t, r); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		<-waits
		_ = c.Close()
		select {
		case <-left:
		case <-time.After(20 * time.Second):
			t.Fatalf("the server does not detect that the client of %q disconnected", request)
		}
	}
}

// TestTimeoutsOfAServer checks that a server closes connections whose clients are too slow.
func TestTimeoutsOfAServer(t *testing.T) {
	t.Parallel()
	wrote := make(chan error, 1)
	address := serveLazily(t, &http.Server{
		ReadTimeout: 300 * time.Millisecond, WriteTimeout: 600 * time.Millisecond, IdleTimeout: 200 * time.Millisecond,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				rw.WriteHeader(http.StatusRequestTimeout)
				return
			}
			if r.URL.Path == "/long" {
				_, err := io.Copy(rw, io.LimitReader(zeros{}, 64<<20))
				wrote <- err
			}
		}),
	})
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, c := range map[string]struct {
		send  string
		reads bool
		want  []int // statuses before the connection is closed
	}{
		"nothing":              {send: "", reads: true},
		"part of headers":      {send: "GET / HTTP/1.1\r\nHo", reads: true, want: []int{400}},
		"idle after a request": {send: get, reads: true, want: []int{200}},
		"part of a second one": {send: get + "GE", reads: true, want: []int{200}},
		"part of a body":       {send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", reads: true, want: []int{408}},
		"reads nothing":        {send: "GET /long HTTP/1.1\r\nHost: a\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, r := dial(t, address)
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			if !c.reads {
				if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a response that is not read: %v", err)
				}
				return
			}
			for _, want := range c.want {
				if status, _ := answer(t, r); status != want {
					t.Errorf("status %d, want %d", status, want)
				}
			}
			if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v, want the connection to be closed", err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
