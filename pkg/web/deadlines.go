package web

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lazyConn is a TCP connection whose deadlines cost little as long as they are not reached.
//
// net/http sets eight deadlines for each request, and with one of them interrupts the read with
// which it watches for a client that disconnects. Each would change a timer of the runtime. Here a
// deadline is only stored, unless it is earlier than the timer of a call that is in progress. A
// timer that interrupts a call too early is set to the deadline, and the call goes on.
type lazyConn struct {
	tcp           *net.TCPConn // not embedded: its other methods would know only the timer
	reads, writes lazyDeadline
}

// Read implements net.Conn.
func (c *lazyConn) Read(p []byte) (int, error) {
	if !c.reads.begin(c.tcp, (*net.TCPConn).SetReadDeadline) {
		return 0, os.ErrDeadlineExceeded
	}
	defer c.reads.end()
	for {
		n, err := c.tcp.Read(p)
		if err == nil || n > 0 || !c.reads.isEarly(err, c.tcp, (*net.TCPConn).SetReadDeadline) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *lazyConn) Write(p []byte) (written int, err error) {
	if !c.writes.begin(c.tcp, (*net.TCPConn).SetWriteDeadline) {
		return 0, os.ErrDeadlineExceeded
	}
	defer c.writes.end()
	for {
		n, err := c.tcp.Write(p[written:])
		written += n
		if err == nil || !c.writes.isEarly(err, c.tcp, (*net.TCPConn).SetWriteDeadline) {
			return written, err
		}
	}
}

// SetReadDeadline implements net.Conn.
func (c *lazyConn) SetReadDeadline(t time.Time) error {
	return c.reads.ask(t, c.tcp, (*net.TCPConn).SetReadDeadline)
}

// SetWriteDeadline implements net.Conn.
func (c *lazyConn) SetWriteDeadline(t time.Time) error {
	return c.writes.ask(t, c.tcp, (*net.TCPConn).SetWriteDeadline)
}

// SetDeadline implements net.Conn.
func (c *lazyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close implements net.Conn.
func (c *lazyConn) Close() error { return c.tcp.Close() }

// CloseWrite closes the side of the connection that is written to. net/http uses it.
func (c *lazyConn) CloseWrite() error { return c.tcp.CloseWrite() }

// LocalAddr implements net.Conn.
func (c *lazyConn) LocalAddr() net.Addr { return c.tcp.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *lazyConn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// lazyDeadline is the deadline of reads, or of writes.
type lazyDeadline struct {
	mu struct {
		sync.Mutex
		asked time.Time // zero is none
		timer time.Time // that of the TCPConn
		calls int       // in progress
	}
}

// setter sets a deadline of a TCPConn.
type setter func(*net.TCPConn, time.Time) error

// ask stores a deadline, and sets it if a call in progress would end later.
func (d *lazyDeadline) ask(t time.Time, c *net.TCPConn, set setter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.asked = t
	if d.mu.calls == 0 {
		return nil
	}
	return d.advance(c, set)
}

// begin reports whether a call may begin, which end must follow.
func (d *lazyDeadline) begin(c *net.TCPConn, set setter) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if isInterruption(d.mu.asked) {
		return false
	}
	if isInterruption(d.mu.timer) {
		d.mu.timer = d.mu.asked
		_ = set(c, d.mu.timer) // fails if the connection is closed, as the call will
	}
	_ = d.advance(c, set)
	d.mu.calls++
	return true
}

func (d *lazyDeadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.calls--
}

// advance sets the timer if it is later than the deadline. The caller holds the lock.
func (d *lazyDeadline) advance(c *net.TCPConn, set setter) error {
	if d.mu.asked.IsZero() || !d.mu.timer.IsZero() && !d.mu.asked.Before(d.mu.timer) {
		return nil
	}
	d.mu.timer = d.mu.asked
	return set(c, d.mu.timer)
}

// isEarly reports whether an error is that of a timer which is earlier than the deadline. It sets
// the deadline then.
func (d *lazyDeadline) isEarly(err error, c *net.TCPConn, set setter) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.asked.Equal(d.mu.timer) {
		return false
	}
	d.mu.timer = d.mu.asked
	return set(c, d.mu.timer) == nil
}

// isInterruption reports whether a deadline is the one with which net/http interrupts a read: one
// second after 1970 began.
func isInterruption(t time.Time) bool { return t.Unix() == 1 }
