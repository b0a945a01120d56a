package datar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"
)

// Flush sends the evaluations recorded before the call to the store. It returns nil if all of them
// are stored. On an error everything is kept for the next flush: a batch that was sent and not
// confirmed is sent again unchanged.
func (e *Engine) Flush(ctx context.Context) error {
	if err := e.lockFlushing(ctx); err != nil {
		return err
	}
	defer e.unlockFlushing()
	ctx, cancel := e.untilClosed(ctx)
	defer cancel()
	return e.flush(ctx)
}

// untilClosed returns a context that also ends when the time of Close is up.
func (e *Engine) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.lifetime, cancel)
	return ctx, func() { stop(); cancel() }
}

func (e *Engine) lockFlushing(ctx context.Context) error {
	select {
	case e.flushing.token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the running flush: %w", ctx.Err())
	}
}

func (e *Engine) unlockFlushing() { <-e.flushing.token }

// flush sends all counts. It requires the flushing lock.
func (e *Engine) flush(ctx context.Context) error {
	started := e.options.Now()
	e.marked.Store(0)
	e.mu.Lock()
	arenas := slices.Clone(e.mu.arenas)
	e.mu.Unlock()
	e.flushing.reporter.begin(e.Stats())
	e.logInvalid()

	var err error
	lost := map[*arena]bool{}
	for i, a := range arenas {
		if err == nil { // after an error the others would also fail
			err = e.flushArena(ctx, a, started, arenas[i+1:])
		}
		lost[a] = a.lost()
	}
	if err == nil {
		err = e.report(ctx, started)
	}
	e.finish(started, lost, err)
	return err
}

// flushCounts is flush for an engine that ends. If the store has all counts but not the end of the
// engine, it does not wait for the store.
func (e *Engine) flushCounts(ctx context.Context) error {
	err := e.flush(ctx)
	if untold, ok := errors.AsType[*recordError](err); ok {
		e.options.Logger.Info("datar: the end of this server was not recorded in the store", "error", untold)
		return nil
	}
	return err
}

// finish records the result of a flush, and gives up what is no longer needed.
func (e *Engine) finish(started time.Time, lost map[*arena]bool, err error) {
	e.mu.Lock()
	abandoned := e.abandonLocked(lost)
	var done []*arena
	f := &e.mu.flushes
	switch {
	case err == nil:
		f.last, f.duration, e.mu.since = started, e.options.Now().Sub(started), started
		f.count++
		f.total += f.duration
		f.err = nil
		done = e.retireLocked(HourOf(started))
		e.unknown.retire(HourOf(started))
	case !errors.Is(err, context.Canceled): // a caller that stops waiting does not show a failure of the store
		f.err = err
	}
	e.mu.Unlock()
	for _, path := range abandoned {
		e.options.Logger.Warn("datar: a journal was deleted or truncated while in use, a new one is created; if it was truncated, counts since the last flush are lost",
			"journal", path)
	}
	for _, a := range done {
		e.giveUp(a)
	}
	e.prepareSpare()
	e.logClock()
}

// logClock logs when the clocks of this process and of the store begin to differ by MaxAhead. It
// requires the flushing lock.
func (e *Engine) logClock() {
	offset := e.clockOffset()
	differ := offset.Abs() >= MaxAhead
	if differ && !e.flushing.clocksDiffer {
		e.options.Logger.Error("datar: the clock of the database differs from the clock of this server; "+
			"if this server's clock is wrong, evaluations are counted in wrong hours", "database_ahead_seconds", offset.Seconds())
	}
	e.flushing.clocksDiffer = differ
}

// isDue reports whether an arena has something to send.
func (e *Engine) isDue(a *arena) bool {
	if a.flushing.pending != nil {
		return true
	}
	e.mu.Lock()
	cells := a.engineMu.cells
	e.mu.Unlock()
	return slices.ContainsFunc(cells, func(c *cell) bool { return c.flags.Load()&changed != 0 })
}

// flushArena sends the counts of one arena: the batch of an earlier flush unchanged, and then the
// current counts, each cell once. Later counts wait for the next flush, because otherwise this one
// might never end. Later arenas are flushed afterward.
func (e *Engine) flushArena(ctx context.Context, a *arena, started time.Time, after []*arena) error {
	e.mu.Lock()
	cells := a.engineMu.cells
	e.mu.Unlock()
	sent := map[*cell]bool{}
	limit := e.maxRows
	begun := false // this flush began the pending batch
	for more := true; more || a.flushing.pending != nil; {
		if a.flushing.pending == nil {
			begun = true
			if more = a.begin(cells, sent, limit); a.flushing.pending == nil {
				continue
			}
			if e.details != nil {
				all := !more && !slices.ContainsFunc(after, e.isDue)
				a.flushing.pending.batch.Server = e.record(started, a.flushing.pending.evaluations(), all)
			}
		} else {
			more = true
			if e.details != nil && a.flushing.pending.batch.Server == nil {
				// It was adopted, and a journal has no records. If this process is killed before
				// the next batch, the statistics include what this one stored.
				a.flushing.pending.batch.Server = e.record(started, a.flushing.pending.evaluations(), false)
			}
		}
		refused, err := e.apply(ctx, a.flushing.pending.batch)
		p := a.flushing.pending
		rows := len(p.batch.Rows)
		switch {
		case err == nil:
			e.settle(a, func(evaluations int64) {
				e.mu.stored += evaluations - refused
				e.drops.add(DropRefused, refused, started)
			})
			e.reportedBy(p.batch, started)
			limit = min(2*limit, e.maxRows)
		case !errors.Is(err, ErrRefused):
			return fmt.Errorf("store %d counts: %w", rows, err)
		case rows == 1:
			e.logRefused(p.batch.Rows[0], err)
			e.settle(a, func(evaluations int64) { e.drops.add(DropRefused, evaluations, started) })
			limit, more = min(2, e.maxRows), true // if all rows are refused, larger batches would be tried for each of them
		default: // one or more rows: try half of them, until one is left
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

// apply calls the store to add a batch, and returns how many of its evaluations the store omitted.
// A panic of the store is an error.
func (e *Engine) apply(ctx context.Context, batch Batch) (refused int64, err error) {
	defer e.recoverStore(&err)
	if s, ok := e.options.Store.(PartialApplier); ok {
		return s.ApplySome(ctx, batch)
	}
	return 0, e.options.Store.Apply(ctx, batch)
}

// recoverStore converts a panic of the store to an error. Callers of the store defer it.
func (e *Engine) recoverStore(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("%w: %v", errPanicked, cause)
		e.options.Logger.Error("datar: the store panicked; the batch is kept", "panic", cause, "stack", string(debug.Stack()))
	}
}

// logRefused logs once for each flag, variant and segment that the store refuses it.
func (e *Engine) logRefused(row Row, err error) {
	const most = 1000
	key := row.Key
	key.Hour = 0
	if len(e.flushing.refused) < most && !e.flushing.refused[key] {
		e.flushing.refused[key] = true
		e.options.Logger.Error("datar: the store refused a count, which is dropped; further ones of the same flag, variant and segment are not logged",
			"flag", key.FlagID, "variant", key.VariantID, "segment", key.SegmentID, "hour", row.Hour.Time(), "evaluations", row.Count, "error", err)
	}
}

// settle marks the pending batch of the arena as done, and updates the statistics.
func (e *Engine) settle(a *arena, count func(evaluations int64)) {
	e.mu.Lock() // Stats must be consistent
	defer e.mu.Unlock()
	count(a.settle())
}

// abandonLocked ends counting in journals that were changed from outside, as lost reports, so that
// a new one is created. It also does so while the store is unavailable, because a kill would lose
// the counts of the old one. It returns the paths of these journals.
func (e *Engine) abandonLocked(lost map[*arena]bool) (paths []string) {
	for _, a := range e.mu.arenas {
		if !a.engineMu.abandoned && (lost[a] || a.missing.Load()) {
			paths = append(paths, a.journal.path)
			e.mu.lostJournals++
			a.engineMu.abandoned = true
			e.detachLocked(a)
		}
	}
	return paths
}

// retireLocked removes the cells of other hours than the current one, and removes and returns the
// arenas with nothing left to send. A late or early evaluation gets a new cell. It requires the
// flushing lock, too, after all changes were sent.
func (e *Engine) retireLocked(now Hour) (done []*arena) {
	newest := e.newestLocked()
	var arenas []*arena
	keys := 0
	oldest, latest := endOfTime, Hour(0)
	for _, a := range e.mu.arenas {
		if a.engineMu.detached || e.mu.oldest < now || e.mu.latest > now {
			a.retireLocked(now)
		}
		if !a.engineMu.detached {
			keys += a.keysLocked()
			for _, c := range a.engineMu.cells {
				oldest, latest = min(oldest, c.key.hour()), max(latest, c.key.hour())
			}
		}
		if len(a.engineMu.cells) > 0 || (a == newest && !a.engineMu.detached) {
			arenas = append(arenas, a)
		} else {
			done = append(done, a)
		}
	}
	e.mu.arenas, e.mu.oldest, e.mu.latest = arenas, oldest, latest
	if keys < e.mu.keys {
		e.mu.keys = keys
		e.rebuildTableLocked()
	}
	return done
}

// giveUp ends an arena that has nothing left to send. Its identity is reused, so that the ledger of
// the store does not grow with every hour. It is not reused with a CounterStore, which has no
// ledger, or if the journal was changed from outside or cannot be removed, because it may come
// back.
func (e *Engine) giveUp(a *arena) {
	if a.journal != nil {
		if err := a.journal.remove(); err != nil {
			e.options.Logger.Warn("datar: a journal whose counts are stored cannot be removed; it is harmless", "journal", a.journal.path, "error", err)
			return
		}
		if a.engineMu.abandoned {
			return
		}
	}
	if a.counters { // the store has the numbers of these
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.writers = append(e.mu.writers, a.flushing.writer)
}

// finalFlush stores the last counts and ends counting, so that each evaluation recorded meanwhile
// is stored, or kept in the journal, or dropped and counted.
func (e *Engine) finalFlush(ctx context.Context) error {
	e.flushing.token <- struct{}{} // a flush that holds it ends with the engine's lifetime
	defer e.unlockFlushing()

	err := retry(ctx, e.flushCounts)
	e.stopCounting()
	e.mu.Lock()
	for _, a := range e.mu.arenas {
		a.sealLocked()
	}
	var done []*arena
	if e.mu.spare != nil {
		done = append(done, e.mu.spare)
		e.mu.spare = nil
	}
	e.mu.Unlock()
	if err == nil {
		e.flushing.reporter.ended = true
		err = retry(ctx, e.flushCounts)
	}
	e.unknown.drop()

	e.mu.Lock()
	for _, a := range e.mu.arenas {
		left := a.leftLocked()
		switch {
		case left == 0:
			done = append(done, a)
			continue
		case a.journal == nil || a.lost():
			e.drops.add(DropUnsaved, left, e.options.Now())
		default:
			e.mu.kept += left
		}
		if a.journal != nil {
			err = errors.Join(err, a.journal.leave())
		}
	}
	e.mu.arenas = nil
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
			e.options.Logger.Error("datar: flush failed, the counts are kept and retried", "error", err)
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

// retryDelay doubles from firstRetry to lastRetry, and is shortened at random by up to half, so
// that servers do not retry at the same moment.
func retryDelay(failures int) time.Duration {
	delay := lastRetry
	if doublings := failures - 1; doublings < 10 {
		delay = min(firstRetry<<doublings, lastRetry)
	}
	return delay/2 + rand.N(delay/2)
}

// maintain maintains the store until Close.
func (e *Engine) maintain(store Maintainer) {
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	failing := false
	ctx, cancel := context.WithCancel(e.lifetime)
	defer cancel()
	go func() {
		<-e.stop // the next process completes unfinished work
		cancel()
	}()
	for {
		err := e.maintainOnce(ctx, store)
		if err != nil && !failing && ctx.Err() == nil {
			e.options.Logger.Warn("datar: maintenance of the store failed; queries stay correct, but may be slow", "error", err)
		}
		failing = err != nil
		select {
		case <-e.stop:
			return
		case <-ticker.C:
		}
	}
}

func (e *Engine) maintainOnce(ctx context.Context, store Maintainer) (err error) {
	defer e.recoverStore(&err)
	return store.Maintain(ctx, e.options.Now(), e.options.Retention)
}
