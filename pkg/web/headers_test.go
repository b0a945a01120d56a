package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

// listen returns a listener on loopback.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveLimited runs a server that answers with the number of bytes of the body.
func serveLimited(t *testing.T, memory *budget.Memory) (address string) {
	t.Helper()
	l := listen(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(rw, n, err, r.Header.Get("Last"))
	})}
	LimitHeaders(server, memory)
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(t.Context()); t.Context().Err() == nil && err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

func answer(t *testing.T, r *bufio.Reader) (status int, body string) {
	t.Helper()
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	return response.StatusCode, string(text)
}

func TestLinesOfHeaders(t *testing.T) {
	t.Parallel()
	address := serveLimited(t, budget.NewMemory(budget.HeaderBytes))
	lines := func(n int, end string) string { return strings.Repeat("x: y"+end, n) }
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"the most":             {"GET / HTTP/1.1\r\nHost: a\r\n" + lines(MaxHeaderLines-2, "\r\n") + "\r\n", 200},
		"one more":             {"GET / HTTP/1.1\r\nHost: a\r\n" + lines(MaxHeaderLines-1, "\r\n") + "\r\n", 431},
		"the most, LF only":    {"GET / HTTP/1.1\nHost: a\n" + lines(MaxHeaderLines-2, "\n") + "\n", 200},
		"one more, LF only":    {"GET / HTTP/1.1\nHost: a\n" + lines(MaxHeaderLines-1, "\n") + "\n", 431},
		"no end":               {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("1:\r\n", 30_000), 431},
		"long lines":           {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x: "+strings.Repeat("y", 900)+"\r\n", 100) + "\r\n", 200},
		"many lines in a body": {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("\n", 100_000), 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{len(c.request), 1000, 7} {
				conn, r := dial(t, address)
				go func() {
					for rest := c.request; rest != ""; {
						n := min(size, len(rest))
						if _, err := io.WriteString(conn, rest[:n]); err != nil {
							return // it is refused
						}
						rest = rest[n:]
					}
				}()
				status, body := answer(t, r)
				if status != c.status || status == 431 && body != `{"message":"the request has more than 255 headers"}`+"\n" {
					t.Errorf("in pieces of %d: answer is %d %s, want %d", size, status, body, c.status)
				}
			}
		})
	}
}

// TestRequestsOnOneConnection sends bodies of many lines, read and unread, and headers after them.
func TestRequestsOnOneConnection(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(64 << 10)
	conn, r := dial(t, serveLimited(t, memory))
	long := "Long: " + strings.Repeat("y", 40_000) + "\r\n"
	for range 5 { // together, their headers are beyond the memory
		if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: 5000\r\n\r\n%s", long, strings.Repeat("\n", 5000)); err != nil {
			t.Fatal(err)
		}
		if status, body := answer(t, r); status != 200 || !strings.HasPrefix(body, "5000") {
			t.Fatalf("answer is %d %s", status, body)
		}
	}
}

func TestMemoryOfHeaders(t *testing.T) {
	t.Parallel()
	memory := budget.NewMemory(64 << 10)
	address := serveLimited(t, memory)
	request := "GET / HTTP/1.1\r\nHost: a\r\nLong: " + strings.Repeat("y", 50_000) + "\r\n"
	first, _ := dial(t, address)
	if _, err := io.WriteString(first, request); err != nil {
		t.Fatal(err)
	}
	poll(t, "headers take no memory", func() bool {
		if memory.Take(30<<10) != nil {
			return true
		}
		memory.Release(30 << 10)
		return false
	})
	ask := func() (int, string) {
		c, r := dial(t, address)
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, request+"\r\n"); err != nil {
			t.Fatal(err)
		}
		return answer(t, r)
	}
	if status, body := ask(); status != http.StatusServiceUnavailable {
		t.Errorf("answer is %d %s", status, body)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	poll(t, "memory of a closed connection is not returned", func() bool {
		status, _ := ask()
		return status == http.StatusOK
	})
}

// poll waits until something is true.
func poll(t *testing.T, otherwise string, isTrue func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !isTrue(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

// BenchmarkHeaders counts the lines of a usual request, read at once.
func BenchmarkHeaders(b *testing.B) {
	request := []byte("POST /api/v1/evaluation HTTP/1.1\r\nHost: flagr.example.com:18000\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 86\r\n" +
		"Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n" + `{"entityID":"a1234","entityType":"user","entityContext":{"country":"DE"},"flagKey":"k"}`)
	c := &headerConn{memory: budget.NewMemory(budget.HeaderBytes)}
	for b.Loop() {
		if c.count(request) != nil || !c.complete {
			b.Fatal("the headers are not complete")
		}
		c.next()
	}
}
