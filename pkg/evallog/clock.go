package evallog

import (
	"sync/atomic"
	"time"
)

// clock is the wall clock in Unix milliseconds. Reading it takes longer than counting. So if it is
// read denseReads times in one millisecond, the reading is shared for the next millisecond, and
// recording then only loads it from memory.
//
// As a result, an evaluation may be dated up to a millisecond too early, which is the unit of what
// is sent, plus the delay of the runtime's timer. A process that is suspended between reading its
// clock and counting has the same error. The first evaluation of a key always reads the clock, so a
// key that occurs once is dated exactly. An older reading is never used: a step of the wall clock
// shows at once, or in the next millisecond.
//
// A clock that is always shared would have to tick in idle programs.
type clock struct {
	shared atomic.Int64 // 0: read the clock

	// engineMu has what Engine.mu protects.
	engineMu struct {
		millisecond int64 // of the last reading
		reads       int   // in that millisecond
		expiry      *time.Timer
	}
}

// denseReads is large, so that the timer, which takes a microsecond or two, is cheap compared with
// that many readings.
const denseReads = 64

// source is the source of a time.
type source uint8

const (
	callerTime source = iota
	clockRead
	clockShared
)

// now returns the time. If the source is clockRead, call wasReadLocked.
func (c *clock) now() (int64, source) {
	if ms := c.shared.Load(); ms != 0 {
		return ms, clockShared
	}
	return time.Now().UnixMilli(), clockRead
}

// wasReadLocked counts readings, and starts to share a reading if they are dense. It requires
// Engine.mu.
func (c *clock) wasReadLocked(ms int64) {
	if ms != c.engineMu.millisecond {
		c.engineMu.millisecond, c.engineMu.reads = ms, 0
	}
	if c.engineMu.reads++; c.engineMu.reads != denseReads {
		return
	}
	c.shared.Store(time.Now().UnixMilli())
	if c.engineMu.expiry == nil {
		c.engineMu.expiry = time.AfterFunc(time.Millisecond, func() { c.shared.Store(0) })
	} else {
		c.engineMu.expiry.Reset(time.Millisecond)
	}
}
