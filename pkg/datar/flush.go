package datar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// pending is a batch and what becomes of the cells when it is stored.
type pending struct {
	batch    Batch
	readings []reading // of the cells that the rows came from, in the same order
}

// reading is a cell's count as a batch will have brought it to the store.
type reading struct {
	cell  *cell
	count int64
}

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
	err := e.send(ctx) // what an earlier flush could not
	if err == nil {
		e.pending = e.newBatch(e.readChanged())
		err = e.send(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flushes.err = err
	if err != nil {
		return err
	}
	e.flushes.last, e.flushes.duration = started, e.options.Now().Sub(started)
	e.retire(HourOf(started))
	return nil
}

// readChanged reads the cells that counted since they were read last.
func (e *Engine) readChanged() []reading {
	e.mu.Lock()
	cells := e.cells
	e.mu.Unlock()

	var readings []reading
	for _, c := range cells {
		if c.changed.Load() == 0 {
			continue
		}
		// Before the count is read: whoever counts later finds the mark gone and sets it again.
		c.changed.Store(0)
		e.changed.Add(-1)
		if count := c.count.Load(); count > c.stored.Load() {
			readings = append(readings, reading{c, count})
		}
	}
	return readings
}

// newBatch makes a batch of what the readings have and the store has not; nil if there are none.
func (e *Engine) newBatch(readings []reading) *pending {
	if len(readings) == 0 {
		return nil
	}
	slices.SortFunc(readings, func(a, b reading) int { return a.cell.key().Compare(b.cell.key()) })
	rows := make([]Row, len(readings))
	for i, r := range readings {
		rows[i] = Row{
			Key:   r.cell.key(),
			Count: r.count - r.cell.stored.Load(),
			First: r.cell.first.Load(),
			Last:  r.cell.last.Load(),
		}
	}
	e.sequence++
	return &pending{Batch{Writer: e.writer, Sequence: e.sequence, Rows: rows}, readings}
}

// send brings the pending batch, if any, to the store.
func (e *Engine) send(ctx context.Context) error {
	if e.pending == nil {
		return nil
	}
	if err := e.options.Store.Apply(ctx, e.pending.batch); err != nil {
		return fmt.Errorf("store %d counts: %w", len(e.pending.batch.Rows), err)
	}
	for _, r := range e.pending.readings {
		r.cell.stored.Store(r.count)
	}
	e.pending = nil
	return nil
}

// retire takes out the cells of past hours, all of which is stored. An evaluation that comes late for such an hour
// gets a new cell. It runs under mu.
func (e *Engine) retire(now Hour) {
	if len(e.cells) == 0 || e.oldest >= now {
		return
	}
	var kept []*cell
	e.oldest = now
	for _, c := range e.cells {
		if c.hour < now && c.retire() {
			e.retired += c.stored.Load()
			continue
		}
		kept = append(kept, c)
		e.oldest = min(e.oldest, c.hour)
	}
	if len(kept) < len(e.cells) {
		e.cells = kept
		e.table.Store(newTable(kept))
	}
}

// finalFlush stores the last counts and ends counting, so that each evaluation recorded meanwhile is either stored or
// dropped and counted.
func (e *Engine) finalFlush(ctx context.Context) error {
	e.flushing <- struct{}{} // a flush that holds it ends with the engine's lifetime
	defer e.unlockFlushing()

	err := retry(ctx, e.flush)
	last := e.sealAll()
	if err == nil {
		e.pending = e.newBatch(last)
		err = retry(ctx, e.send)
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	e.flushes.err = err
	if err != nil {
		e.dropped[DropUnsaved].Add(e.sealed)
	} else {
		e.retired += e.sealed
	}
	e.sealed = 0
	return err
}

// sealAll ends counting in all cells, takes them out, and returns their final counts where the store has less.
func (e *Engine) sealAll() []reading {
	e.mu.Lock()
	defer e.mu.Unlock()
	var last []reading
	for _, c := range e.cells {
		count, stored := c.seal(), c.stored.Load()
		e.retired += stored
		e.sealed += count - stored
		if count > stored {
			last = append(last, reading{c, count})
		}
	}
	e.cells = nil
	e.table.Store(newTable(nil))
	return last
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
	defer close(e.stopped)
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
