package datar

import "slices"

// Crash leaves the engine as a killed process would: what is in the journals stays there, unlocked;
// what is in memory is gone.
func (e *Engine) Crash() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.mu.arenas {
		if a.journal != nil {
			_ = a.journal.leave()
		}
	}
	if e.mu.spare != nil {
		_ = e.mu.spare.journal.leave()
		e.mu.spare = nil
	}
	e.mu.closed = true
	e.mu.arenas = nil
	e.mu.keys = 0
	e.table.Store(newTable(0))
}

// EarlyFlushKeys is the number of keys with new counts that starts a flush before its time.
const EarlyFlushKeys = earlyFlushKeys

// ArenaSlots is the number of keys that one journal takes.
const ArenaSlots = arenaSlots

// CrashInBegin leaves the engine as a process that was killed while it noted the next batch in its
// journal, after it had written so many readings, and, if begun, also the number of the batch.
func (e *Engine) CrashInBegin(written int, begun bool) {
	e.mu.Lock()
	a := e.newestLocked()
	cells := a.engineMu.cells
	e.mu.Unlock()
	sequence := a.flushing.writer.sequence + 1
	for i, c := range cells {
		if i == written {
			break
		}
		a.journal.sent[sequence%readings][c.index].Store(c.counted())
	}
	if begun {
		a.journal.header.begun.Store(sequence)
	}
	e.Crash()
}

// LateAdd counts in a slot of the engine as a Record does that was held up before its addition, and
// calls f between the addition and its taking back. It reports whether the evaluation must be
// counted elsewhere.
func (e *Engine) LateAdd(f func()) (elsewhere bool) {
	c := e.mu.arenas[len(e.mu.arenas)-1].engineMu.cells[0]
	count := c.slot.count.Add(1)
	f()
	return !c.isFinished(count, 1) && found{c, c.slot}.finish(count, c.last.Load(), 1) == 0
}

// CrashWhileNoting leaves the engine as a process that was killed while it noted batches in its
// journals: pick says which readings it had written. The number of no batch is written yet.
func (e *Engine) CrashWhileNoting(pick func() bool) {
	e.mu.Lock()
	for _, a := range e.mu.arenas {
		if a.journal == nil || a.flushing.pending != nil {
			continue
		}
		for _, c := range a.engineMu.cells {
			if pick() {
				a.journal.sent[(a.flushing.writer.sequence+1)%readings][c.index].Store(c.counted())
			}
		}
	}
	e.mu.Unlock()
	e.Crash()
}

// StripeAll treats all keys of the newest arena as busy ones, as far as there is room.
func (e *Engine) StripeAll() { e.StripeLater()() }

// StripeLater returns a function that does what StripeAll does now, as Records do that were delayed
// after they counted.
func (e *Engine) StripeLater() func() {
	e.mu.Lock()
	var cells []*cell
	if a := e.newestLocked(); a != nil {
		cells = slices.Clone(a.engineMu.cells)
	}
	e.mu.Unlock()
	return func() {
		for _, c := range cells {
			if !c.isStripe {
				e.stripe(c)
			}
		}
	}
}

// Stripes is the number of stripes that have counted something.
func (e *Engine) Stripes() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.mu.arenas {
		for _, c := range a.engineMu.cells {
			if c.isStripe && c.counted() > 0 {
				n++
			}
		}
	}
	return n
}

// AwaitClosed returns when Close has done everything, also what it did not wait for.
func (e *Engine) AwaitClosed() { <-e.closed }

// PrepareSpare does what Start has done in the background when a journal fills up.
func (e *Engine) PrepareSpare() { e.prepareSpare() }

// Adopt does what Start has done in the background each minute.
func (e *Engine) Adopt() { e.adopt() }

// PendingInMemory is what a kill would lose.
func (e *Engine) PendingInMemory() (evaluations int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.mu.arenas {
		if a.journal == nil {
			evaluations += a.leftLocked()
		}
	}
	return evaluations
}

// UnknownTexts is how many texts of unknown flags are in memory.
func (e *Engine) UnknownTexts() int {
	e.unknown.mu.Lock()
	defer e.unknown.mu.Unlock()
	return len(e.unknown.mu.counts)
}
