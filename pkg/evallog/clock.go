package evallog

import (
	"sync/atomic"
	"time"
)

// clock is the wall clock in Unix milliseconds. Reading it takes longer than counting. So when it was read denseReads
// times in one millisecond, a reading is shared for the next one: whoever records then pays for a load from memory.
//
// The price is that an evaluation may be dated up to a millisecond too early, which is the unit of what is sent, and as
// much more as the runtime is late with a timer. A process that is stopped between reading its clock and counting dates
// no better. The first evaluation of a key always reads the clock, so a key that comes once is dated exactly. Nothing is
// derived from an older reading: a step of the wall clock shows at once, or in the next millisecond.
//
// A clock that is shared all the time would have to tick in programs that evaluate nothing.
type clock struct {
	shared atomic.Int64 // 0: the clock is to be read

	// What follows is guarded by Engine.mu.
	millisecond int64 // of the last reading
	reads       int   // in that millisecond
	expiry      *time.Timer
}

// denseReads is so large that the timer, which takes a microsecond or two, is small beside as many readings.
const denseReads = 64

// source says where a time comes from.
type source uint8

const (
	callerTime source = iota
	clockRead
	clockShared
)

// now returns the time. If the source is clockRead, wasRead is to be called.
func (c *clock) now() (int64, source) {
	if ms := c.shared.Load(); ms != 0 {
		return ms, clockShared
	}
	return time.Now().UnixMilli(), clockRead
}

// wasRead counts readings, and begins to share one when they are dense. It runs under Engine.mu.
func (c *clock) wasRead(ms int64) {
	if ms != c.millisecond {
		c.millisecond, c.reads = ms, 0
	}
	if c.reads++; c.reads != denseReads {
		return
	}
	c.shared.Store(time.Now().UnixMilli())
	if c.expiry == nil {
		c.expiry = time.AfterFunc(time.Millisecond, func() { c.shared.Store(0) })
	} else {
		c.expiry.Reset(time.Millisecond)
	}
}
