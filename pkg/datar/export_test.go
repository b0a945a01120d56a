package datar

// Crash leaves the engine as a killed process would: what is in the journals stays there, unlocked; what is in memory
// is gone.
func (e *Engine) Crash() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.arenas {
		if a.journal != nil {
			_ = a.journal.leave()
		}
	}
	if e.spare != nil {
		_ = e.spare.journal.leave()
		e.spare = nil
	}
	e.closed = true
	e.arenas = nil
	e.keys = 0
	e.table.Store(newTable(0))
}

// ArenaSlots is the number of keys that one journal takes.
const ArenaSlots = arenaSlots
