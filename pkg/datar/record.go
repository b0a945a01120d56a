package datar

import (
	"time"
)

// maxEventCount is the maximum of Event.Count.
const maxEventCount = 1_000_000_000

// Event is one evaluation of a flag, or several equal ones.
type Event struct {
	// FlagID is at least 1.
	FlagID int64
	// VariantID is 0 if no variant was assigned, and SegmentID if no segment matched.
	VariantID, SegmentID int64
	// Time is the time of the evaluation, in any time zone. It determines the hour. Zero means now.
	Time time.Time
	// Outcome is the result of the evaluation. If it is 0, it is Matched if there is a variant,
	// else Unattributed. Only Matched has a variant, and HeldOut, NoMatch, NoSegments and Disabled
	// do not allow one. NotFound is invalid.
	Outcome Outcome
	// Asked is how the flag was asked for. Asked and Version are not kept for Unattributed
	// evaluations.
	Asked Asked
	// Version is the ID of the flag's snapshot modulo 65,536, or 0.
	Version uint16
	// Count is the number of evaluations, all at Time: 0 to 1,000,000,000. 0 means 1.
	Count int64
}

// Record counts an event. It never does I/O, never returns an error, and does not allocate for a
// key that was seen in the same hour. An invalid event is dropped as DropInvalid.
func (e *Engine) Record(event Event) {
	// An Event and the receiver need more registers than a call has, so they would go over the
	// stack. This function is inlined into callers, and the functions that it calls need fewer.
	e.count(event.FlagID, event.VariantID, event.SegmentID, event.Time, event.Outcome, uint32(event.Version)<<16|uint32(event.Asked), event.Count)
}

// count is Record, with version and asked as the bits of packedKey.
func (e *Engine) count(flagID, variantID, segmentID int64, at time.Time, outcome Outcome, parts uint32, n int64) {
	ms := at.UnixMilli()
	if n == 0 {
		n = 1
	}
	if outcome == Unattributed && variantID != 0 {
		outcome = Matched
	}
	key := packedKey{flagID: flagID, variantID: variantID, segmentID: segmentID, rest: packRest(hourOfMilli(ms), 0, 0, 0)}
	switch {
	case e.details != nil:
		if outcome != Unattributed {
			key.rest |= uint64(parts) | uint64(outcome)<<8
		}
	case outcome >= NotFound: // invalid in recordSlow
		key.rest |= uint64(outcome) << 8
	case !outcome.IsEvent():
		return
	}
	var a addition
	f := e.table.Load().get(key)
	if f.cell != nil && n > 0 && n <= maxEventCount {
		g := f.ofGoroutine()
		var count int64
		if g.cell.mapped {
			count = g.addMapped(ms, n)
		} else {
			count = g.addWithin(ms, n)
		}
		if g.cell.isFinished(count, n) { // nearly always
			return
		}
		if a = g.finish(count, ms, n); a == counted {
			return
		}
	}
	e.recordRest(f.cell, key, ms, n, at.IsZero(), a)
}

// recordRest does the rare parts of a Record, depending on the result of its addition to the cell.
func (e *Engine) recordRest(c *cell, key packedKey, ms, n int64, timeless bool, a addition) {
	switch {
	case a == 0:
		full := key.unpack()
		if timeless {
			ms = e.options.Now().UnixMilli()
			full.Hour = hourOfMilli(ms)
		}
		a = e.recordSlow(full, ms, n)
	case a&busy != 0:
		e.stripe(c)
	}
	if a&first != 0 && e.marked.Add(1) == earlyFlushKeys {
		signal(e.early)
	}
}

// stripe spreads a busy key over several slots, if it is counted in the newest arena. It ignores a
// cell that was removed from the table after it counted.
func (e *Engine) stripe(c *cell) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.table.Load(); c.arena == e.newestLocked() && t.get(c.key).cell == c {
		c.arena.stripeLocked(c)
		t.noteStripes(c)
	}
}

// signal wakes the goroutine that waits on c, now or later. It never blocks.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Databases support no year after 9999. endOfTime is its last hour, as the end of a window.
const (
	maxMilli  = 253_402_300_799_999
	endOfTime = Hour(maxMilli / (3600 * 1000))
)

// valid reports whether an evaluation of the key may be counted now.
func (k Key) valid(ms int64, now time.Time) bool {
	return k.FlagID >= 1 && k.VariantID >= 0 && k.SegmentID >= 0 && ms >= 0 && ms <= maxMilli &&
		k.Hour <= HourOf(now.Add(MaxAhead)) && k.Outcome.Fits(k.VariantID) && k.Asked < askedEnd
}

// recordSlow counts or drops evaluations whose key has no cell, or one that has just been sealed,
// or whose count is invalid.
func (e *Engine) recordSlow(key Key, ms, n int64) addition {
	now := e.options.Now()
	if inRange := n > 0 && n <= maxEventCount; !inRange || !key.valid(ms, now) {
		e.invalid.CompareAndSwap(nil, &invalidEvent{key: key, ms: ms, count: n})
		if !inRange {
			n = 1
		}
		e.drops.add(DropInvalid, n, now)
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		e.drops.add(DropClosed, n, now)
		return 0
	}
	for {
		c := e.cellForLocked(key, ms)
		if c == nil {
			e.drops.add(DropCapacity, n, now)
			return 0
		}
		// Cells in the table are sealed only under mu, so this fails only if memory is gone.
		if a := (found{c, c.slot}).add(ms, n); a != 0 {
			return a
		}
		e.detachLocked(c.arena)
	}
}

// invalidEvent is the first invalid event. A flush logs it, because Record does no I/O.
type invalidEvent struct {
	key   Key
	ms    int64
	count int64
	// flushing has what the flushing lock protects.
	flushing struct{ logged bool }
}

// logInvalid requires the flushing lock.
func (e *Engine) logInvalid() {
	i := e.invalid.Load()
	if i == nil || i.flushing.logged {
		return
	}
	i.flushing.logged = true
	e.options.Logger.Warn("datar: an event is not valid and was dropped, further ones are only counted; want a flag of at least 1, no negative id, "+
		"an outcome that fits the variant, a time from 1970 to the next hour, and a count of 0 to 1,000,000,000",
		"flag", i.key.FlagID, "variant", i.key.VariantID, "segment", i.key.SegmentID, "outcome", i.key.Outcome, "time", time.UnixMilli(i.ms).UTC(), "count", i.count)
}

// foldings define which part of new keys is dropped when so many eighths of Options.MaxKeys are in
// use, so that sums stay correct: first the version, then asked, then the segment.
var foldings = [...]struct {
	eighths int
	fold    func(*Key)
}{
	{5, func(k *Key) { k.Version = 0 }},
	{6, func(k *Key) { k.Asked = 0 }},
	{7, func(k *Key) { k.SegmentID = 0 }},
}

// cellForLocked returns the cell of the key, or of the folded key when keys run short, or nil.
func (e *Engine) cellForLocked(key Key, ms int64) *cell {
	t := e.table.Load()
	if c := t.get(key.pack()).cell; c != nil {
		return c
	}
	for _, f := range foldings {
		if e.mu.keys < e.options.MaxKeys-e.options.MaxKeys/8*(8-f.eighths) {
			break
		}
		before := key
		if f.fold(&key); key == before {
			continue
		}
		if c := t.get(key.pack()).cell; c != nil {
			return c
		}
	}
	if e.mu.keys >= e.options.MaxKeys {
		return nil
	}
	c := e.takeSlotLocked(key, ms)
	if e.mu.keys == 0 {
		e.mu.oldest, e.mu.latest = key.Hour, key.Hour
	}
	e.mu.oldest, e.mu.latest = min(e.mu.oldest, key.Hour), max(e.mu.latest, key.Hour)
	e.mu.keys++
	if t.hasRoomLocked() {
		t.putLocked(c)
	} else {
		e.rebuildTableLocked()
	}
	return c
}

// takeSlotLocked returns a new cell: of the newest arena, or of the spare one, or of one in memory
// until there is a journal.
func (e *Engine) takeSlotLocked(key Key, ms int64) *cell {
	for {
		if a := e.newestLocked(); a != nil {
			c := a.takeLocked(key, ms)
			if e.needsSpareLocked() {
				signal(e.wantSpare)
			}
			if c != nil {
				return c
			}
		}
		a := e.mu.spare
		if e.mu.spare = nil; a == nil {
			a = &arena{slots: make([]slot, e.arenaSlots()), counters: e.abilities.counters}
			a.flushing.writer = e.newWriterLocked()
			if e.options.Journal.Dir != "" && !e.mu.inMemory {
				e.mu.inMemory = true
				signal(e.wantSpare)
			}
		}
		e.mu.arenas = append(e.mu.arenas, a)
	}
}

// newestLocked returns the arena that takes new keys, or nil.
func (e *Engine) newestLocked() *arena {
	if n := len(e.mu.arenas); n > 0 && !e.mu.arenas[n-1].engineMu.detached {
		return e.mu.arenas[n-1]
	}
	return nil
}

// newWriterLocked returns an identity for a new arena, which is reused if possible.
func (e *Engine) newWriterLocked() writer {
	if n := len(e.mu.writers); n > 0 {
		w := e.mu.writers[n-1]
		e.mu.writers = e.mu.writers[:n-1]
		return w
	}
	return writer{id: newWriterID()}
}

func (e *Engine) arenaSlots() int { return min(arenaSlots, e.options.MaxKeys) }

// detachLocked removes the cells of the arena from the table. Their counts are still sent.
func (e *Engine) detachLocked(a *arena) {
	if a.engineMu.detached {
		return
	}
	a.engineMu.detached = true
	e.mu.keys -= a.keysLocked()
	e.rebuildTableLocked()
}

// rebuildTableLocked publishes a new table with the cells of all arenas that are not detached.
func (e *Engine) rebuildTableLocked() {
	t := newTable(e.mu.keys)
	for _, a := range e.mu.arenas {
		if a.engineMu.detached {
			continue
		}
		for _, c := range a.engineMu.cells {
			if !c.isStripe {
				t.putLocked(c)
			}
		}
	}
	e.table.Store(t)
}
