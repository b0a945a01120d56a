package datar

import "time"

// flushReport is what Stats says about flushes.
type flushReport struct {
	last     time.Time
	duration time.Duration
	count    int64
	total    time.Duration
	err      error
}

// Stats is the state of an engine. Recorded = Stored + Pending + the sum of Dropped, always.
type Stats struct {
	// Recorded is the number of evaluations that calls of Record which have returned were about, and Adopted.
	Recorded int64
	// Adopted are evaluations that earlier processes recorded, and that this engine found in their journals.
	Adopted int64
	// Stored are evaluations that the store has confirmed, Pending those that wait for it.
	Stored, Pending int64
	// Dropped are evaluations that were not counted. Of an engine it has all reasons, also those with 0.
	Dropped map[DropReason]int64
	// Unknown is about requests for flags that do not exist, which are not in the numbers before.
	Unknown UnknownStats
	// Keys is the number of keys that are being counted.
	Keys int
	// Writer is the newest identity under which this engine's batches are stored.
	Writer string
	// FlushInterval is that of the Options.
	FlushInterval time.Duration
	// Journal is the directory of the journals, empty if counts are in memory only.
	Journal string
	// InMemory is true if a journal is wanted, but could not be written when it was needed last.
	InMemory bool
	// LostJournals is the number of journals that were cut or deleted while they were in use. Of a journal that was
	// cut, counts since the last flush are lost, and missing in Recorded.
	LostJournals int
	// OldestPending is a time before which nothing is pending; zero if nothing is pending at all.
	OldestPending time.Time
	// LastFlush is the start of the last flush that the store confirmed, and LastFlushDuration the time it took. Zero: none.
	LastFlush         time.Time
	LastFlushDuration time.Duration
	// Flushes is the number of flushes that the store confirmed, and FlushDuration the time they took together.
	Flushes       int64
	FlushDuration time.Duration
	// LastError is the reason of the last flush attempt's failure, nil if it succeeded.
	LastError error
}

// Stats returns the present state. It may be called at any time, also while the store hangs.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Stats{
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
		s.Writer = a.writer.id
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
