package datar

import "time"

// tallySlots is the number of different events that a Tally can hold.
const tallySlots = 32

// Tally records events as Engine.Record does, but adds up equal events first. This costs less if
// many are equal, as those of a batch of evaluations. Events are equal if their times are in the
// same millisecond, and everything else but Count is the same. Each event is pending until Flush at
// the latest. A Tally is for one goroutine.
type Tally struct {
	engine *Engine
	// pending are the events whose Count is not 0.
	pending [tallySlots]Event
	time    time.Time // of the pending events
}

// NewTally returns a Tally that records in the engine.
func (e *Engine) NewTally() *Tally { return &Tally{engine: e} }

// Record adds an event. It takes a pointer, because a copy would cost as much as the addition.
func (t *Tally) Record(event *Event) {
	if event.Time != t.time {
		t.setTime(event.Time)
	}
	n := event.Count
	if n == 0 {
		n = 1
	}
	if n < 0 || n > maxEventCount { // invalid
		t.engine.Record(*event)
		return
	}
	p := &t.pending[uint64(event.FlagID*5+event.SegmentID*4+event.VariantID)%tallySlots]
	if p.FlagID == event.FlagID && p.VariantID == event.VariantID && p.SegmentID == event.SegmentID &&
		p.Outcome == event.Outcome && p.Asked == event.Asked && p.Version == event.Version && p.Count+n <= maxEventCount {
		p.Count += n
		return
	}
	t.record(p)
	*p = *event
	p.Count = n
}

func (t *Tally) setTime(to time.Time) {
	if to.UnixMilli() != t.time.UnixMilli() {
		t.Flush()
	}
	t.time = to
}

// record records a pending event.
func (t *Tally) record(p *Event) {
	if p.Count != 0 {
		p.Time = t.time
		t.engine.Record(*p)
		p.Count = 0
	}
}

// Flush records all pending events.
func (t *Tally) Flush() {
	for i := range t.pending {
		t.record(&t.pending[i])
	}
}
