package datar

import (
	"fmt"
	"slices"
	"time"
)

// Record uses an existing journal, or counts in memory until there is one. Files are created here,
// in the background and at the end of flushes.

// keepJournals creates a spare arena each time the newest one fills up, retries each minute to
// create a journal after a failure, and adopts the journals of ended processes, until Close.
func (e *Engine) keepJournals() {
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-e.wantSpare:
		case <-ticker.C:
			e.adopt()
		}
		e.prepareSpare()
	}
}

// needsSpareLocked reports whether a spare arena is needed soon.
func (e *Engine) needsSpareLocked() bool {
	if e.options.Journal.Dir == "" || e.mu.spare != nil || e.mu.closed {
		return false
	}
	newest := e.newestLocked()
	return newest == nil || newest.journal == nil || newest.engineMu.taken >= len(newest.slots)/4
}

// prepareSpare creates a spare arena if one is needed, at most once a minute after a failure. Keys
// that were counted in memory for lack of it are then counted in it.
func (e *Engine) prepareSpare() {
	now := e.options.Now()
	e.mu.Lock()
	age := now.Sub(e.mu.spareFailed)
	if !e.needsSpareLocked() || e.mu.makingSpare || age >= 0 && age < maintenanceInterval {
		e.mu.Unlock()
		return
	}
	e.mu.makingSpare = true
	w := e.newWriterLocked()
	e.mu.Unlock()

	spare, err := createJournal(e.options.Journal.Dir, e.options.Store.Identity(), e.flushing.reporter.run, w, e.arenaSlots())
	if err != nil {
		e.noteSpareFailure(now, w, err)
		return
	}
	spare.counters = e.abilities.counters
	e.mu.Lock()
	e.mu.makingSpare = false
	unwanted, recovered := e.mu.closed, false
	if !unwanted {
		e.mu.spare, e.mu.spareFailed = spare, time.Time{}
		if newest := e.newestLocked(); newest != nil && newest.journal == nil {
			e.detachLocked(newest)
		}
		if e.mu.inMemory {
			e.mu.inMemory = false
			recovered, e.mu.warned = e.mu.warned, false
		}
	}
	e.mu.Unlock()
	if unwanted {
		e.giveUp(spare)
	}
	if recovered {
		e.options.Logger.Info("datar: a journal can be written again", "directory", e.options.Journal.Dir)
	}
}

// noteSpareFailure keeps the writer for the next attempt, and logs once that counts are in memory.
func (e *Engine) noteSpareFailure(now time.Time, w writer, err error) {
	if e.keepCounting(now, w) {
		e.options.Logger.Warn("datar: counting in memory until a journal can be written again; a killed process loses counts", "error", err)
	}
}

// keepCounting keeps the writer of a spare that failed. It returns true at the first failure that
// makes the engine count in memory. Logging waits until mu is free, because Record needs it for new
// keys.
func (e *Engine) keepCounting(now time.Time, w writer) (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.makingSpare, e.mu.spareFailed = false, now
	e.mu.writers = append(e.mu.writers, w)
	if newest := e.newestLocked(); newest != nil && newest.journal != nil && newest.engineMu.taken < len(newest.slots) {
		return false // the current journal still has room
	}
	first = !e.mu.warned
	e.mu.inMemory, e.mu.warned = true, true
	return first
}

// openJournals creates the first journal, and adopts those of ended processes.
func (e *Engine) openJournals() error {
	dir := e.options.Journal.Dir
	first, err := createJournal(dir, e.options.Store.Identity(), e.flushing.reporter.run, writer{id: newWriterID()}, e.arenaSlots())
	if err != nil {
		err = fmt.Errorf("datar: Options.Journal.Dir: the directory %q cannot be used for journals: %w: %w", dir, ErrJournal, err)
		if e.options.Journal.Required {
			return err
		}
		e.options.Logger.Warn("datar: counting in memory; a killed process loses counts; make the directory writable or choose another",
			"error", err)
		e.mu.Lock()
		e.mu.inMemory, e.mu.warned, e.mu.spareFailed = true, true, e.options.Now()
		e.mu.Unlock()
		return nil
	}
	first.counters = e.abilities.counters
	e.mu.Lock()
	e.mu.spare = first
	e.mu.Unlock()
	e.adopt()
	return nil
}

// adopt adopts the journals of ended processes, and triggers a flush of their counts.
func (e *Engine) adopt() {
	if e.options.Journal.Dir == "" {
		return
	}
	adopted, err := adoptJournals(e.options.Journal.Dir, e.options.Store.Identity(), e.abilities, e.options.Logger)
	left, failing := e.takeOver(adopted, err != nil)
	if failing {
		e.options.Logger.Error("datar: counts of ended processes wait until their journals can be read", "error", err)
	}
	for path, evaluations := range left {
		e.options.Logger.Info("datar: adopted the counts of a process that ended before it stored them",
			"journal", path, "evaluations", evaluations)
	}
}

// takeOver adds the arenas of ended processes, and returns how many evaluations are left to store,
// by the path of the journal. failing is true if adoption now fails for a reason that is not logged
// yet.
func (e *Engine) takeOver(adopted []*arena, failed bool) (left map[string]int64, failing bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if failed != e.mu.adoptionFails {
		e.mu.adoptionFails = failed
		failing = failed && !e.mu.warned // otherwise the problem of the directory is already logged
	}
	left = map[string]int64{}
	for _, a := range adopted {
		if n := a.leftLocked(); n > 0 {
			left[a.journal.path] = n
			e.mu.adopted += n
		}
		if run := a.journal.run; run != "" && !slices.Contains(e.mu.adoptedRuns, run) {
			e.mu.adoptedRuns = append(e.mu.adoptedRuns, run)
		}
		if first := a.earliestLocked(); first.Before(e.mu.since) {
			e.mu.since = first
		}
	}
	if more := len(e.mu.adoptedRuns) - MaxAdoptedRuns; more > 0 {
		e.mu.adoptedRuns = slices.Delete(e.mu.adoptedRuns, 0, more)
	}
	if len(adopted) > 0 {
		e.mu.arenas = append(adopted, e.mu.arenas...) // the last one takes new keys
		signal(e.early)
	}
	return left, failing
}
