package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

const (
	// MaxHeaderLines is the maximum number of lines of a request before its body. net/http keeps
	// some 130 bytes for each line, however short it is.
	MaxHeaderLines = 256
	// FreeHeaderBytes is how much of the lines before its body a request has for free. What is
	// beyond takes memory that all requests share.
	FreeHeaderBytes = 8 << 10

	// refusalTime is how long the rest of refused headers is read and discarded, so that the client
	// gets the response. A connection that is closed with unread bytes is reset.
	refusalTime = 500 * time.Millisecond
	// resetInTurn is the number of reset connections that are closed in a row, in a millisecond or
	// so.
	resetInTurn = 64
)

// LimitHeaders makes a server limit the lines before the body of a request while they arrive. It
// must be called before Serve, and uses BaseContext and ConnState. It has no effect on connections
// other than plain TCP.
//
// net/http limits only their bytes, but 128 KiB of short lines take 2 MB. The generated server does
// not let its listener be wrapped. So Serve, when it asks for its base context, runs itself again
// on the wrapped listener. Both end when the server is shut down.
func LimitHeaders(server *http.Server, memory *budget.Memory) {
	server.BaseContext = func(l net.Listener) context.Context {
		if _, ok := l.(*headerListener); !ok {
			_ = server.Serve(&headerListener{l, memory}) // with an error, the outer Serve returns one, too
		}
		return context.Background()
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if h, ok := c.(*headerConn); ok && state == http.StateIdle {
			h.next()
		}
	}
}

type headerListener struct {
	net.Listener
	memory *budget.Memory
}

// Accept implements net.Listener. It closes connections that their clients have already reset:
// clients that leave after a millisecond fill the kernel's queue of 4,096, and a new one waits
// until all of these are served. After every resetInTurn of them, other goroutines run.
func (l *headerListener) Accept() (net.Conn, error) {
	for reset := 1; ; reset++ {
		c, err := l.Listener.Accept()
		tcp, ok := c.(*net.TCPConn)
		if err != nil || !ok {
			return c, err
		}
		if !isReset(tcp) {
			limitUnsent(tcp)
			return &headerConn{lazyConn: newLazyConn(tcp), memory: l.memory}, nil
		}
		_ = tcp.Close() // nothing can be sent
		if reset%resetInTurn == 0 {
			runtime.Gosched()
		}
	}
}

// Close does nothing: the outer Serve closes its listener.
func (l *headerListener) Close() error { return nil }

// headerConn counts the lines and bytes that are read until an empty line.
type headerConn struct {
	lazyConn
	memory *budget.Memory

	// These are for the goroutine that reads. net/http has one at a time.
	complete     bool // the empty line was read
	bytes, lines int
	line         int  // bytes of the current line
	onlyCR       bool // which are a carriage return

	mu struct {
		sync.Mutex
		held   int64 // of memory
		closed bool
	}
}

// Read implements net.Conn.
func (c *headerConn) Read(p []byte) (int, error) {
	n, err := c.lazyConn.Read(p)
	if c.complete || n <= 0 {
		return n, err
	}
	if refusal := c.count(p[:n]); refusal != nil {
		return 0, refusal
	}
	return n, err
}

// next begins with another request.
func (c *headerConn) next() {
	if c.bytes > FreeHeaderBytes {
		c.release(false)
	}
	c.complete, c.bytes, c.lines, c.line, c.onlyCR = false, 0, 0, 0, false
}

// Close implements net.Conn.
func (c *headerConn) Close() error {
	c.release(true)
	return c.lazyConn.Close()
}

// count counts bytes of which the first ones are before the empty line.
func (c *headerConn) count(p []byte) error {
	c.bytes += len(p)
	for rest := p; len(rest) > 0 && !c.complete; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			c.onlyCR = c.line == 0 && len(rest) == 1 && rest[0] == '\r'
			c.line += len(rest)
			break
		}
		length := c.line + end
		isEmpty := length == 0 || length == 1 && (c.onlyCR || rest[0] == '\r')
		rest, c.line, c.onlyCR = rest[end+1:], 0, false
		if c.complete = isEmpty && c.lines > 0; !c.complete {
			c.lines++
		}
	}
	if c.lines > MaxHeaderLines {
		return c.refuse(http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the request has more than %d headers", MaxHeaderLines-1))
	}
	if c.bytes > FreeHeaderBytes && !c.take(int64(len(p))) {
		return c.refuse(http.StatusServiceUnavailable, budget.ErrExhausted.Error())
	}
	return nil
}

// take takes memory until the next request or Close.
func (c *headerConn) take(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.memory.Take(n) != nil {
		return false
	}
	c.mu.held += n
	return true
}

func (c *headerConn) release(closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.Release(c.mu.held)
	c.mu.held, c.mu.closed = 0, c.mu.closed || closed
}

var errHeaders = errors.New("the headers of the request are beyond a limit")

// refuse responds and returns an error that makes net/http close the connection without another
// response.
func (c *headerConn) refuse(status int, message string) error {
	_ = c.SetDeadline(time.Now().Add(refusalTime))
	retry := ""
	if status == http.StatusServiceUnavailable {
		retry = "Retry-After: 1\r\n"
	}
	_, err := fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n{\"message\":%q}\n",
		status, http.StatusText(status), retry, message)
	if err == nil && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, &c.lazyConn, MaxHeaderBytes)
	}
	return &net.OpError{Op: "read", Net: "tcp", Err: errHeaders}
}
