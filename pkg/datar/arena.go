package datar

import (
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
)

// arena is a fixed number of slots that are taken one after the other and never reused, and one writer of the store: its
// batches have a sequence of their own. An arena in a journal file can therefore be sent by whoever finds the file.
//
// A Record that was held up can still add to a slot whose arena was given up. The slot is sealed, so nothing is counted
// there. If the arena was in a journal, the addition faults, which addMapped recovers from: the addresses stay taken, by
// nothing, as long as the Record holds the cell, since the cell refers to the arena and they become free when the
// garbage collector finds the arena unreachable.
type arena struct {
	slots []slot
	// journal is the file that slots lies in, nil for an arena in memory.
	journal *journal
	// counters: batches have Batch.Counters.
	counters bool
	// missing is set when memory behind slots turned out to be gone, because the file was cut.
	missing atomic.Bool

	// Under Engine.mu, as all methods whose names end in Locked:
	taken int
	// cells are those that are not retired. The slice is appended to or replaced as a whole.
	cells []*cell
	// detached: the cells are in no table any more; they are sent, and then the arena is given up.
	detached bool
	// abandoned: the journal was found to be deleted or cut while in use.
	abandoned bool

	// Of whoever holds the flushing lock:
	writer  writer
	pending *pending
}

// writer is an identity under which batches are stored, and the sequence of the newest.
type writer struct {
	id       string
	sequence int64
}

// pending is a batch, and the readings that it brings to the store.
type pending struct {
	batch    Batch
	readings []reading // in the order of batch.Rows, of a row with stripes several
}

// evaluations is how many the batch brings.
func (p *pending) evaluations() (n int64) {
	for _, row := range p.batch.Rows {
		n += row.Count
	}
	return n
}

// reading is a cell's count as a batch will have brought it to the store.
type reading struct {
	cell  *cell
	count int64
}

// guard runs f on the arena's slots. Reading mapped memory whose file was cut faults; then guard notes that memory is
// missing, and reports false.
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

// each runs f on each of the cells whose memory is not missing.
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

// isFault tells a memory fault from other panics, which it lets go on.
func isFault(cause any) bool {
	if cause == nil {
		return false
	}
	if _, ok := cause.(interface{ Addr() uintptr }); !ok {
		panic(cause)
	}
	return true
}

// takeLocked hands out a slot for the key. It returns nil if none is left.
func (a *arena) takeLocked(key Key, ms int64) *cell {
	if a.taken == len(a.slots) || a.missing.Load() {
		return nil
	}
	s := &a.slots[a.taken]
	var c *cell
	if !a.guard(func() { s.take(key, ms); c = newCell(key, a, a.taken) }) {
		return nil
	}
	a.taken++
	a.cells = append(a.cells, c)
	return c
}

// begin makes the next batch, of those cells that changed and are not in except; of the first limit of them in their
// order, and reports whether there are more. If nothing is to be sent, pending stays nil.
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
	// Before the counts are read: whoever counts later finds the flag gone and sets it again.
	for _, c := range due {
		c.flags.And(^uint32(changed))
	}
	a.freeze(due, func(c *cell) (count, stored int64) {
		stored = c.base() // before the count, which a cut makes less, and never more
		return c.counted(), stored
	})
	return more
}

// freeze makes the next batch, of what the sorted cells have beyond what is stored; read tells both for one cell. If
// nothing is to be sent, pending stays nil.
func (a *arena) freeze(cells []*cell, read func(*cell) (count, stored int64)) {
	p := &pending{batch: Batch{Writer: a.writer.id, Sequence: a.writer.sequence + 1}}
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
	a.writer.sequence++
	a.pending = p
}

func sortCells(cells []*cell) {
	slices.SortFunc(cells, func(a, b *cell) int { return a.key.unpack().Compare(b.key.unpack()) })
}

// settle notes that the pending batch needs not be sent again, and returns the number of evaluations in it.
func (a *arena) settle() (evaluations int64) {
	p := a.pending
	a.pending = nil
	for _, r := range p.readings {
		r.cell.settled = r.count
	}
	a.guard(func() { // a cut journal is given up, so it does not matter how far this comes
		for _, r := range p.readings {
			r.cell.slot.stored.Store(r.count)
		}
	})
	return p.evaluations()
}

// abort takes back the pending batch, which the store has refused as a whole. Its number will be used again.
func (a *arena) abort() {
	p := a.pending
	a.pending = nil
	a.writer.sequence--
	if a.journal != nil {
		a.guard(func() { a.journal.abort(p) })
	}
	for _, r := range p.readings {
		r.cell.flags.Or(changed)
	}
}

// keysLocked is the number of cells that have a place in the table.
func (a *arena) keysLocked() (n int) {
	for _, c := range a.cells {
		if !c.isStripe {
			n++
		}
	}
	return n
}

// stripeLocked gives a cell of the arena its stripes, if there is room.
func (a *arena) stripeLocked(c *cell) {
	if c.flags.Load()&striped != 0 || a.taken+stripes > len(a.slots)/2 {
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

// leftLocked is the number of evaluations in the arena that are not settled.
func (a *arena) leftLocked() (evaluations int64) {
	a.each(a.cells, func(c *cell) { evaluations += c.left() })
	return evaluations
}

// lost reports whether somebody has deleted or cut the journal.
func (a *arena) lost() bool { return a.journal != nil && (a.missing.Load() || !a.journal.intact()) }

// earliestLocked is the time of the first evaluation in the arena's cells, far in the future if there are none.
func (a *arena) earliestLocked() time.Time {
	first := int64(maxMilli)
	for _, c := range a.cells {
		first = min(first, c.first.Load())
	}
	return time.UnixMilli(first)
}

// retireLocked gives up the cells of other hours than now, in a detached arena of any hour, that have nothing left to send.
func (a *arena) retireLocked(now Hour) {
	if a.missing.Load() {
		a.cells = nil // what could be read was sent
		return
	}
	kept := make([]*cell, 0, len(a.cells))
	a.each(a.cells, func(c *cell) {
		if (!a.detached && c.key.hour() == now) || (!c.slot.retire(c.settled) && c.left() > 0) {
			kept = append(kept, c)
		}
	})
	a.cells = kept
}

// sealLocked ends counting in the arena. It also runs under the flushing lock.
func (a *arena) sealLocked() {
	a.detached = true
	a.each(a.cells, func(c *cell) {
		c.final = c.slot.seal()
		c.sealed = true
		c.flags.Or(changed)
	})
}
