package datar

import (
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// arena is a fixed number of slots that are taken one after the other and never reused. It is one
// writer of the store: its batches have their own sequence. So any process that finds the journal
// file of an arena can send it.
//
// A delayed Record can still add to a slot of an arena that was given up. The slot is sealed, so
// nothing is counted there. If the arena was in a journal, the addition faults, and addMapped
// recovers. The addresses stay reserved as long as the Record holds the cell, because the cell
// refers to the arena, and the addresses are freed when the garbage collector finds the arena
// unreachable.
type arena struct {
	slots []slot
	// journal is the file of slots, or nil for an arena in memory.
	journal *journal
	// counters reports whether batches have Batch.Counters.
	counters bool
	// missing is set when memory of slots is gone, because the file was truncated.
	missing atomic.Bool

	// engineMu has what Engine.mu protects. Methods whose names end in Locked require it.
	engineMu struct {
		taken int
		// cells are the cells that are not retired. The slice is appended to or replaced as a
		// whole.
		cells []*cell
		// detached: the cells are no longer in a table; they are sent, and then the arena is given
		// up.
		detached bool
		// abandoned: the journal was deleted or truncated while in use.
		abandoned bool
	}
	// flushing has what the flushing lock protects.
	flushing struct {
		writer  writer
		pending *pending
	}
}

// writer is an identity under which batches are stored, and the sequence of the newest batch.
type writer struct {
	id       string
	sequence int64
}

// pending is a batch, and the readings that its rows are computed from.
type pending struct {
	batch    Batch
	readings []reading // in the order of batch.Rows; a row of a key with stripes has several
}

// evaluations is the number of evaluations in the batch.
func (p *pending) evaluations() (n int64) {
	for _, row := range p.batch.Rows {
		n += row.Count
	}
	return n
}

// reading is the count of a cell once the batch is stored.
type reading struct {
	cell  *cell
	count int64
}

// guard runs f on the arena's slots. If the file of mapped memory was truncated, reading it faults;
// guard then sets missing and returns false.
func (a *arena) guard(f func()) (ok bool) {
	if a.journal == nil {
		f()
		return true
	}
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if isFault(recover()) {
			a.missing.Store(true)
			ok = false
		}
	}()
	f()
	return true
}

// each runs f on each cell whose memory is not missing.
func (a *arena) each(cells []*cell, f func(*cell)) {
	for len(cells) > 0 {
		next := 0
		a.guard(func() {
			for _, c := range cells {
				next++
				f(c)
			}
		})
		cells = cells[next:]
	}
}

// isFault reports whether a panic is a memory fault. It panics again with any other value.
func isFault(cause any) bool {
	if cause == nil {
		return false
	}
	if _, ok := cause.(interface{ Addr() uintptr }); !ok {
		panic(cause)
	}
	return true
}

// takeLocked returns a slot for the key, or nil if none is left.
func (a *arena) takeLocked(key Key, ms int64) *cell {
	if a.engineMu.taken == len(a.slots) || a.missing.Load() {
		return nil
	}
	s := &a.slots[a.engineMu.taken]
	var c *cell
	if !a.guard(func() { s.take(key, ms); c = newCell(key, a, a.engineMu.taken) }) {
		return nil
	}
	a.engineMu.taken++
	a.engineMu.cells = append(a.engineMu.cells, c)
	return c
}

// begin builds the next batch, from the first limit changed cells that are not in except, and
// reports whether there are more. If there is nothing to send, pending stays nil.
func (a *arena) begin(cells []*cell, except map[*cell]bool, limit int) (more bool) {
	var due []*cell
	for _, c := range cells {
		if c.flags.Load()&changed != 0 && !except[c] {
			due = append(due, c)
		}
	}
	sortCells(due)
	if len(due) > limit {
		due, more = due[:limit], true
	}
	// Before the counts are read: a later Record finds the flag cleared and sets it again.
	for _, c := range due {
		c.flags.And(^uint32(changed))
	}
	a.freeze(due, func(c *cell) (count, stored int64) {
		stored = c.base() // before the count, which truncation can only decrease
		return c.counted(), stored
	})
	return more
}

// freeze builds the next batch from the difference of count and stored for the sorted cells; read
// returns both for a cell. If there is nothing to send, pending stays nil.
func (a *arena) freeze(cells []*cell, read func(*cell) (count, stored int64)) {
	p := &pending{batch: Batch{Writer: a.flushing.writer.id, Sequence: a.flushing.writer.sequence + 1}}
	a.each(cells, func(c *cell) {
		count, stored := read(c)
		if count <= stored {
			return
		}
		p.readings = append(p.readings, reading{c, count})
		row := Row{Key: c.key.unpack(), Count: count - stored, First: c.first.Load(), Last: c.last.Load()}
		if a.counters {
			p.batch.Counters = append(p.batch.Counters, Counter{Key: row.Key, Number: int64(c.index), Total: count, First: row.First, Last: row.Last})
		}
		if last := len(p.batch.Rows) - 1; last >= 0 && p.batch.Rows[last].Key == row.Key { // stripes
			p.batch.Rows[last].add(row)
			return
		}
		p.batch.Rows = append(p.batch.Rows, row)
	})
	if len(p.readings) == 0 {
		return
	}
	if a.journal != nil {
		a.guard(func() { a.journal.begin(p) })
	}
	a.flushing.writer.sequence++
	a.flushing.pending = p
}

func sortCells(cells []*cell) {
	slices.SortFunc(cells, func(a, b *cell) int { return a.key.unpack().Compare(b.key.unpack()) })
}

// settle marks the pending batch as done, and returns the number of evaluations in it.
func (a *arena) settle() (evaluations int64) {
	p := a.flushing.pending
	a.flushing.pending = nil
	for _, r := range p.readings {
		r.cell.bothLocks.settled = r.count
	}
	a.guard(func() { // a truncated journal is given up, so it does not matter how far this gets
		for _, r := range p.readings {
			r.cell.slot.stored.Store(r.count)
		}
	})
	return p.evaluations()
}

// abort takes back the pending batch, which the store refused as a whole. Its number is used again.
func (a *arena) abort() {
	p := a.flushing.pending
	a.flushing.pending = nil
	a.flushing.writer.sequence--
	if a.journal != nil {
		a.guard(func() { a.journal.abort(p) })
	}
	for _, r := range p.readings {
		r.cell.flags.Or(changed)
	}
}

// keysLocked returns the number of cells in the table.
func (a *arena) keysLocked() (n int) {
	for _, c := range a.engineMu.cells {
		if !c.isStripe {
			n++
		}
	}
	return n
}

// stripeLocked adds stripes to a cell of the arena, if there is room.
func (a *arena) stripeLocked(c *cell) {
	if c.flags.Load()&striped != 0 || a.engineMu.taken+stripes > len(a.slots)/2 {
		return
	}
	var s [stripes]*cell
	for i := range s {
		if s[i] = a.takeLocked(c.key.unpack(), c.last.Load()); s[i] == nil {
			return
		}
		s[i].isStripe = true
	}
	c.stripes = &s
	c.flags.Or(striped)
}

// leftLocked returns the number of evaluations in the arena that are not settled.
func (a *arena) leftLocked() (evaluations int64) {
	a.each(a.engineMu.cells, func(c *cell) { evaluations += c.left() })
	return evaluations
}

// lost reports whether the journal was deleted or truncated.
func (a *arena) lost() bool { return a.journal != nil && (a.missing.Load() || !a.journal.intact()) }

// earliestLocked returns the time of the first evaluation in the arena's cells, or a time far in
// the future if there are none.
func (a *arena) earliestLocked() time.Time {
	first := int64(maxMilli)
	for _, c := range a.engineMu.cells {
		first = min(first, c.first.Load())
	}
	return time.UnixMilli(first)
}

// retireLocked removes the cells of other hours than now, or of any hour in a detached arena, that
// have nothing left to send.
func (a *arena) retireLocked(now Hour) {
	if a.missing.Load() {
		a.engineMu.cells = nil // everything that could be read was sent
		return
	}
	kept := make([]*cell, 0, len(a.engineMu.cells))
	a.each(a.engineMu.cells, func(c *cell) {
		if (!a.engineMu.detached && c.key.hour() == now) || (!c.slot.retire(c.bothLocks.settled) && c.left() > 0) {
			kept = append(kept, c)
		}
	})
	a.engineMu.cells = kept
}

// sealLocked ends counting in the arena. It requires the flushing lock, too.
func (a *arena) sealLocked() {
	a.engineMu.detached = true
	a.each(a.engineMu.cells, func(c *cell) {
		c.bothLocks.final = c.slot.seal()
		c.bothLocks.sealed = true
		c.flags.Or(changed)
	})
}
