package datar

import "time"

// flushReport has the flush statistics of Stats.
type flushReport struct {
	last     time.Time
	duration time.Duration
	count    int64
	total    time.Duration
	err      error
}

// Stats is the state of an engine. Recorded = Stored + Pending + the sum of Dropped, always.
type Stats struct {
	// Recorded is the number of evaluations of all returned calls of Record, plus Adopted.
	Recorded int64
	// Adopted is the number of evaluations that earlier processes recorded, and that this engine
	// found in their journals.
	Adopted int64
	// Stored counts evaluations that the store has confirmed, and Pending those that are not stored
	// yet.
	Stored, Pending int64
	// Dropped counts evaluations that were not counted. An engine's Dropped has all reasons,
	// including those with 0.
	Dropped map[DropReason]int64
	// Unknown counts requests for flags that do not exist, which are not in the other numbers.
	Unknown UnknownStats
	// Keys is the number of keys in memory.
	Keys int
	// Writer is the newest identity under which this engine's batches are stored.
	Writer string
	// FlushInterval is Options.FlushInterval, or its default.
	FlushInterval time.Duration
	// Journal is the directory of the journals; empty if counts are in memory only.
	Journal string
	// InMemory is true if a journal is on, but could not be written when it was last needed.
	InMemory bool
	// LostJournals is the number of journals that were truncated or deleted while in use. If a
	// journal was truncated, counts since the last flush are lost, and missing in Recorded.
	LostJournals int
	// OldestPending is a time before which nothing is pending; zero if nothing is pending.
	OldestPending time.Time
	// LastFlush is the start of the last flush that the store confirmed, and LastFlushDuration its
	// duration. Zero means none.
	LastFlush         time.Time
	LastFlushDuration time.Duration
	// Flushes is the number of flushes that the store confirmed, and FlushDuration the sum of their
	// durations.
	Flushes       int64
	FlushDuration time.Duration
	// LastError is the error of the last flush attempt, or nil if it succeeded.
	LastError error
	// Rollups is the store's progress in adding up old counts. It is zero if the store is not a
	// RollupStore.
	Rollups RollupProgress
	// StoreClockOffset is how far the clock of the store is ahead of the clock of this process,
	// negative if it is behind. It is 0 if the store is not a ClockReporter.
	StoreClockOffset time.Duration
}

// Stats returns the current state. It may be called at any time, even while the store hangs.
func (e *Engine) Stats() Stats {
	var rollups RollupProgress
	if store, ok := capability[RollupStore](e.options.Store); ok {
		rollups = store.Rollups()
	}
	offset := e.clockOffset()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Stats{
		Rollups:           rollups,
		StoreClockOffset:  offset,
		Adopted:           e.mu.adopted,
		Stored:            e.mu.stored,
		Pending:           e.mu.kept,
		Dropped:           make(map[DropReason]int64, len(dropReasons)),
		Unknown:           e.unknown.stats(),
		Keys:              e.mu.keys,
		FlushInterval:     e.options.FlushInterval,
		Journal:           e.options.Journal.Dir,
		InMemory:          e.mu.inMemory,
		LostJournals:      e.mu.lostJournals,
		LastFlush:         e.mu.flushes.last,
		LastFlushDuration: e.mu.flushes.duration,
		Flushes:           e.mu.flushes.count,
		FlushDuration:     e.mu.flushes.total,
		LastError:         e.mu.flushes.err,
	}
	for _, a := range e.mu.arenas {
		s.Pending += a.leftLocked()
		s.Writer = a.flushing.writer.id
	}
	if s.Pending > 0 {
		s.OldestPending = e.mu.since
	}
	s.Recorded = s.Stored + s.Pending
	for i, reason := range dropReasons {
		s.Dropped[reason] = e.drops.counts[i].Load()
		s.Recorded += s.Dropped[reason]
	}
	return s
}

func (e *Engine) clockOffset() time.Duration {
	if store, ok := capability[ClockReporter](e.options.Store); ok {
		return store.ClockOffset()
	}
	return 0
}
