package datar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Flush sends what was recorded before the call to the store. It returns nil when all of it is stored; on an error
// everything is kept for the next flush: a batch that was sent and not confirmed is sent again exactly as it was.
func (e *Engine) Flush(ctx context.Context) error {
	if err := e.lockFlushing(ctx); err != nil {
		return err
	}
	defer e.unlockFlushing()
	ctx, cancel := e.untilClosed(ctx)
	defer cancel()
	return e.flush(ctx)
}

// untilClosed returns a context that also ends when Close runs out of time.
func (e *Engine) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.lifetime, cancel)
	return ctx, func() { stop(); cancel() }
}

func (e *Engine) lockFlushing(ctx context.Context) error {
	select {
	case e.flushing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the running flush: %w", ctx.Err())
	}
}

func (e *Engine) unlockFlushing() { <-e.flushing }

// flush runs under the flushing lock.
func (e *Engine) flush(ctx context.Context) error {
	started := e.options.Now()
	e.marked.Store(0)
	e.mu.Lock()
	e.attempted = started
	arenas := slices.Clone(e.arenas)
	e.mu.Unlock()

	var err error
	lost := map[*arena]bool{}
	for _, a := range arenas {
		if err == nil { // after an error the others would fail alike
			err = e.flushArena(ctx, a)
		}
		lost[a] = a.lost()
	}
	e.finish(started, lost, err)
	return err
}

// finish keeps the result of a flush, and gives up what it made superfluous.
func (e *Engine) finish(started time.Time, lost map[*arena]bool, err error) {
	e.mu.Lock()
	e.abandon(lost)
	var done []*arena
	switch {
	case err == nil:
		e.flushes.last, e.flushes.duration, e.since = started, e.options.Now().Sub(started), started
		e.flushes.count++
		e.flushes.total += e.flushes.duration
		e.flushes.err = nil
		done = e.retire(HourOf(started))
	case !errors.Is(err, context.Canceled): // a caller that leaves says nothing about the store
		e.flushes.err = err
	}
	e.mu.Unlock()
	for _, a := range done {
		e.giveUp(a)
	}
}

// flushArena sends what one arena has: the batch of an earlier flush as it was, and then what is there now, each cell
// once: what more of it is counted meanwhile waits for the next flush, or this one might never end.
func (e *Engine) flushArena(ctx context.Context, a *arena) error {
	e.mu.Lock()
	cells := a.cells
	e.mu.Unlock()
	sent := map[*cell]bool{}
	limit := e.maxRows
	begun := false // the pending batch, by this flush
	for more := true; more || a.pending != nil; {
		if a.pending == nil {
			begun = true
			if more = a.begin(cells, sent, limit); a.pending == nil {
				continue
			}
		} else {
			more = true
		}
		refused, err := e.apply(ctx, a.pending.batch)
		p := a.pending
		rows := len(p.batch.Rows)
		switch {
		case err == nil:
			e.settle(a, func(evaluations int64) {
				e.stored += evaluations - refused
				e.dropped[DropRefused].Add(refused)
			})
			limit = min(2*limit, e.maxRows)
		case !errors.Is(err, ErrRefused):
			return fmt.Errorf("store %d counts: %w", rows, err)
		case rows == 1:
			e.logRefused(p.batch.Rows[0], err)
			e.settle(a, func(evaluations int64) { e.dropped[DropRefused].Add(evaluations) })
			limit, more = min(2, e.maxRows), true // if all are refused, larger batches would be tried for each of them
		default: // one of the rows, or more: half of them, until it is alone
			a.abort()
			limit, more = rows/2, true
			continue
		}
		if begun {
			for _, r := range p.readings {
				sent[r.cell] = true
			}
		}
	}
	return nil
}

// apply has the store add a batch, and says how many of its evaluations the store left out.
func (e *Engine) apply(ctx context.Context, batch Batch) (refused int64, err error) {
	if s, ok := e.options.Store.(Selective); ok {
		return s.ApplySome(ctx, batch)
	}
	return 0, e.options.Store.Apply(ctx, batch)
}

// logRefused says once of each flag, variant and segment that the store refuses it.
func (e *Engine) logRefused(row Row, err error) {
	const most = 1000
	key := row.Key
	key.Hour = 0
	if len(e.refused) < most && !e.refused[key] {
		e.refused[key] = true
		e.options.Logger.Error("datar: the store refuses a count, it is dropped; later ones of the same flag, variant and segment are not logged",
			"flag", key.FlagID, "variant", key.VariantID, "segment", key.SegmentID, "hour", row.Hour.Time(), "evaluations", row.Count, "error", err)
	}
}

// settle ends the pending batch of the arena, and books its evaluations.
func (e *Engine) settle(a *arena, book func(evaluations int64)) {
	e.mu.Lock() // Stats must not see one without the other
	defer e.mu.Unlock()
	book(a.settle())
}

// abandon ends counting in journals that somebody has touched, which lost says, so that another one is begun: also while
// the store is away, since a kill would take what is counted in the old one. It runs under mu.
func (e *Engine) abandon(lost map[*arena]bool) {
	for _, a := range e.arenas {
		if !a.abandoned && (lost[a] || a.missing.Load()) {
			e.options.Logger.Warn("datar: a journal was deleted or cut while in use, another one is begun; if it was cut, counts since the last flush are lost",
				"journal", a.journal.path)
			e.lostJournals++
			a.abandoned = true
			e.detach(a)
		}
	}
}

// retire takes out the cells of past hours, and the arenas with nothing left to send, which it returns. An evaluation
// that comes late for a past hour gets a new cell. It runs under mu and the flushing lock, after all that changed was
// sent.
func (e *Engine) retire(now Hour) (done []*arena) {
	newest := e.newest()
	var arenas []*arena
	keys := 0
	oldest := endOfTime
	for _, a := range e.arenas {
		if a.detached || e.oldest < now {
			a.retire(now)
		}
		if !a.detached {
			keys += a.keys()
			for _, c := range a.cells {
				oldest = min(oldest, c.key.Hour)
			}
		}
		if len(a.cells) > 0 || (a == newest && !a.detached) {
			arenas = append(arenas, a)
		} else {
			done = append(done, a)
		}
	}
	e.arenas, e.oldest = arenas, oldest
	if keys < e.keys {
		e.keys = keys
		e.rebuildTable()
	}
	return done
}

// keepSpare makes a spare arena each time that the newest fills up, until Close.
func (e *Engine) keepSpare() {
	for {
		select {
		case <-e.stop:
			return
		case <-e.wantSpare:
		}
		if !e.lacksSpare() { // it was asked for again while it was made
			continue
		}
		spare, err := createJournal(e.options.Journal.Dir, e.options.Store.Identity(), writer{id: newWriterID()}, e.arenaSlots())
		if err != nil {
			continue // it is tried again, and reported, when it is needed
		}
		e.mu.Lock()
		unwanted := e.closed
		if !unwanted {
			e.spare = spare
		}
		e.mu.Unlock()
		if unwanted {
			e.giveUp(spare)
		}
	}
}

func (e *Engine) lacksSpare() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.spare == nil && !e.closed
}

// giveUp ends an arena that has nothing left to send. Its identity is used again, so that the ledger of the store does
// not grow with every hour; but not that of a journal that somebody has touched, or that could not be removed, since
// it may come back.
func (e *Engine) giveUp(a *arena) {
	if a.journal != nil {
		if err := a.journal.remove(); err != nil {
			e.options.Logger.Warn("datar: a journal that is stored cannot be removed; it does no harm", "journal", a.journal.path, "error", err)
			return
		}
		if a.abandoned {
			return
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.writers = append(e.writers, a.writer)
}

// finalFlush stores the last counts and ends counting, so that each evaluation recorded meanwhile is either stored, or
// kept in the journal, or dropped and counted.
func (e *Engine) finalFlush(ctx context.Context) error {
	e.flushing <- struct{}{} // a flush that holds it ends with the engine's lifetime
	defer e.unlockFlushing()

	err := retry(ctx, e.flush)
	e.mu.Lock()
	e.table.Store(newTable(0))
	e.keys = 0
	for _, a := range e.arenas {
		a.seal()
	}
	var done []*arena
	if e.spare != nil {
		done = append(done, e.spare)
		e.spare = nil
	}
	e.mu.Unlock()
	if err == nil {
		err = retry(ctx, e.flush)
	}

	e.mu.Lock()
	for _, a := range e.arenas {
		left := a.left()
		switch {
		case left == 0:
			done = append(done, a)
			continue
		case a.journal == nil || a.lost():
			e.dropped[DropUnsaved].Add(left)
		default:
			e.kept += left
		}
		if a.journal != nil {
			err = errors.Join(err, a.journal.leave())
		}
	}
	e.arenas = nil
	e.mu.Unlock()
	for _, a := range done {
		e.giveUp(a)
	}
	return err
}

// retry calls do until it succeeds or ctx ends.
func retry(ctx context.Context, do func(context.Context) error) error {
	for delay := firstRetry / 4; ; delay *= 2 {
		err := do(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
	}
}

// run flushes in the background until Close.
func (e *Engine) run() {
	timer := time.NewTimer(e.options.FlushInterval)
	defer timer.Stop()
	failures := 0
	for {
		select {
		case <-e.stop:
			return
		case <-timer.C:
		case <-e.early:
		}
		ctx, cancel := context.WithTimeout(e.lifetime, flushTimeout)
		err := e.Flush(ctx)
		cancel()
		switch {
		case err == nil && failures > 0:
			e.options.Logger.Info("datar: flushing works again", "failed_attempts", failures)
			failures = 0
		case err != nil && failures == 0:
			e.options.Logger.Error("datar: flush failed, the counts are kept and sent again", "error", err)
			failures++
		case err != nil:
			failures++
		}
		if failures > 0 {
			timer.Reset(min(retryDelay(failures), e.options.FlushInterval))
		} else {
			timer.Reset(e.options.FlushInterval)
		}
	}
}

// retryDelay doubles from firstRetry to lastRetry, and takes a random half off, so that replicas do not come back
// all at once.
func retryDelay(failures int) time.Duration {
	delay := lastRetry
	if doublings := failures - 1; doublings < 10 {
		delay = min(firstRetry<<doublings, lastRetry)
	}
	return delay/2 + rand.N(delay/2)
}

// maintain has the store maintained until Close.
func (e *Engine) maintain(store Maintainer) {
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	failing := false
	ctx, cancel := context.WithCancel(e.lifetime)
	defer cancel()
	go func() {
		<-e.stop // what is half done is done by the next process
		cancel()
	}()
	for {
		err := store.Maintain(ctx, e.options.Now(), e.options.Retention)
		if err != nil && !failing && ctx.Err() == nil {
			e.options.Logger.Warn("datar: the store could not be maintained; queries stay right, but may be slow", "error", err)
		}
		failing = err != nil
		select {
		case <-e.stop:
			return
		case <-ticker.C:
		}
	}
}
