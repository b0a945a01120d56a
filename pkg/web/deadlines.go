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
// net/http sets eight deadlines for each request. With one of them, it interrupts the read that
// detects whether the client disconnects. Each would change a timer of the runtime. Here a deadline
// is only stored, unless it is earlier than the timer of a call in progress. If a timer interrupts
// a call too early, it is set to the deadline, and the call goes on.
type lazyConn struct {
	tcp           *net.TCPConn // not embedded: its other methods would use the timer, not the deadline
	reads, writes lazyDeadline
}

func newLazyConn(tcp *net.TCPConn) lazyConn {
	return lazyConn{tcp: tcp, reads: lazyDeadline{setTimer: tcp.SetReadDeadline}, writes: lazyDeadline{setTimer: tcp.SetWriteDeadline}}
}

// Read implements net.Conn.
func (c *lazyConn) Read(p []byte) (int, error) {
	if !c.reads.begin() {
		return 0, os.ErrDeadlineExceeded
	}
	defer c.reads.end()
	for {
		n, err := c.tcp.Read(p)
		if err == nil || n > 0 || !c.reads.goesOn(err) {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *lazyConn) Write(p []byte) (written int, err error) {
	if !c.writes.begin() {
		return 0, os.ErrDeadlineExceeded
	}
	defer c.writes.end()
	for {
		n, err := c.tcp.Write(p[written:])
		written += n
		if err == nil || !c.writes.goesOn(err) {
			return written, err
		}
	}
}

// SetReadDeadline implements net.Conn.
func (c *lazyConn) SetReadDeadline(t time.Time) error { return c.reads.set(t) }

// SetWriteDeadline implements net.Conn.
func (c *lazyConn) SetWriteDeadline(t time.Time) error { return c.writes.set(t) }

// SetDeadline implements net.Conn.
func (c *lazyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.reads.set(t), c.writes.set(t))
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
	setTimer func(time.Time) error // sets the deadline of the TCPConn; fails if it is closed

	mu struct {
		sync.Mutex
		deadline time.Time // zero without one
		timer    time.Time // deadline of the TCPConn, zero without one
		calls    int       // in progress
	}
}

// set stores a deadline, and sets the timer if a call in progress would end later.
func (d *lazyDeadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.deadline = t
	if d.mu.calls == 0 {
		return nil
	}
	return d.advance()
}

// begin reports whether a call may begin, which end must follow.
func (d *lazyDeadline) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if isInterruption(d.mu.deadline) {
		return false
	}
	if isInterruption(d.mu.timer) {
		_ = d.apply() // an error is that of the call, too
	}
	_ = d.advance()
	d.mu.calls++
	return true
}

func (d *lazyDeadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.calls--
}

// advance sets the timer if it is later than the deadline. The caller holds the lock, here and in
// apply.
func (d *lazyDeadline) advance() error {
	if d.mu.deadline.IsZero() || !d.mu.timer.IsZero() && !d.mu.deadline.Before(d.mu.timer) {
		return nil
	}
	return d.apply()
}

// apply sets the timer to the deadline.
func (d *lazyDeadline) apply() error {
	d.mu.timer = d.mu.deadline
	return d.setTimer(d.mu.deadline)
}

// goesOn reports whether a call goes on after an error: that of a timer which was earlier than the
// deadline, to which it is set then.
func (d *lazyDeadline) goesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.deadline.IsZero() && time.Until(d.mu.deadline) <= 0 {
		return false
	}
	return d.apply() == nil
}

// isInterruption reports whether a deadline is the one with which net/http interrupts a read: one
// second after 1970 began.
func isInterruption(t time.Time) bool { return t.Unix() == 1 }
