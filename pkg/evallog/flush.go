package evallog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// writeTimeout limits one call of Writer.Write.
	writeTimeout = 30 * time.Second
	// closeTimeout limits a Close whose context has no deadline, and lastChance limits one whose
	// deadline has passed.
	closeTimeout = 10 * time.Second
	lastChance   = time.Second
	// The delay after the first failed attempt, doubled after each further one.
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
	// maxRetryAfter is the maximum delay that a receiver can request.
	maxRetryAfter = time.Hour
)

// flushed is what one flush took from the tables, and the part of it that is not delivered.
type flushed struct {
	batches []Batch
	file    string // in the spool; empty if it is not there
}

func (f *flushed) evaluations() int64 {
	var sum int64
	for _, b := range f.batches {
		sum += b.Evaluations()
	}
	return sum
}

// outbox has the undelivered flushes, oldest first.
type outbox struct {
	writer   string
	sequence int64 // of the newest batch
	waiting  []*flushed
	failures int       // since the last success
	next     time.Time // time of the next attempt
	asked    time.Time // time requested by the receiver; if it equals next, Flush also waits for it
	spool    *spool    // nil if there is none
}

// Start starts to send in the background. Further calls do nothing.
func (e *Engine) Start() { e.start.Do(func() { go e.run() }) }

// Flush sends the evaluations recorded before the call, and retries pending batches. It starts the
// engine if necessary. It returns nil if everything is delivered or dropped. On an error,
// everything is kept and retried later. When ctx ends, Flush returns, but the flush continues. The
// error is ErrClosed after Close.
func (e *Engine) Flush(ctx context.Context) error {
	e.Start()
	result := make(chan error, 1)
	select {
	case e.requests <- result:
	case <-e.stop:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("wait for the running flush: %w", ctx.Err())
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the flush: %w", ctx.Err())
	}
}

// Close sends the remaining evaluations and ends the engine. Evaluations recorded afterward are
// dropped. Only the deadline of ctx is used, because programs often close with a context that has
// already ended. Without a deadline, Close takes up to 10 s; if the deadline has passed, 1 s.
// Undelivered evaluations stay in the spool, or are dropped if there is none, and Close returns the
// reason. Further calls wait for the first one, until their own deadline, and return its result.
func (e *Engine) Close(ctx context.Context) error {
	e.Start()
	deadline := time.Now().Add(closeTimeout)
	if d, ok := ctx.Deadline(); ok {
		deadline = d
		if time.Until(d) < lastChance {
			deadline = time.Now().Add(lastChance)
		}
	}
	e.close.Do(func() {
		e.deadline = deadline
		timer := time.AfterFunc(time.Until(deadline), e.end)
		e.mu.Lock()
		e.mu.closing = true
		e.mu.Unlock()
		close(e.stop)
		go func() {
			defer close(e.closed)
			e.closeErr = <-e.stopped
			timer.Stop()
			e.end()
		}()
	})
	patience := time.NewTimer(time.Until(deadline) + lastChance)
	defer patience.Stop()
	select {
	case <-e.closed:
		return e.closeErr
	case <-patience.C:
		return fmt.Errorf("evallog: close: the Writer has not returned %v after the deadline", lastChance)
	}
}

// run owns the ticker, every flush, and the outbox.
func (e *Engine) run() {
	ticker := time.NewTicker(e.options.FlushInterval)
	defer ticker.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	if len(e.outbox.waiting) == 0 { // the spool was empty
		retry.Stop()
	}
	for {
		select {
		case <-e.stop:
			e.stopped <- e.finish()
			return
		case result := <-e.requests:
			result <- e.flush(true)
		case <-ticker.C:
			_ = e.flush(false) // the error is in the statistics and in the log
		case <-e.full:
			_ = e.flush(false)
		case <-retry.C:
			_ = e.flush(false)
		}
		// A flush by size has just sent what the ticker would have flushed.
		ticker.Reset(e.options.FlushInterval)
		if e.outbox.failures > 0 {
			retry.Reset(time.Until(e.outbox.next))
		} else {
			retry.Stop()
		}
	}
}

// flush takes the counts and delivers them. While deliveries fail, counts stay in the tables, where
// they add up. Two cases are excepted: an hour that has ended is taken, so that its counts stay
// separate, and so are the counts for a call of Flush, unless the oldest flush would have to be
// dropped.
func (e *Engine) flush(now bool) error {
	e.logInvalid()
	failing := e.outbox.failures > 0
	if !failing || now && len(e.outbox.waiting) < maxPending || e.hourEnded() {
		e.take()
	}
	if next := e.outbox.next; failing && time.Now().Before(next) && (!now || next.Equal(e.outbox.asked)) {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.mu.statistics.lastError
	}
	return e.deliver()
}

// hourEnded reports whether there are counts of a UTC hour that is over.
func (e *Engine) hourEnded() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.past != nil || e.mu.keys.keys > 0 && time.Now().UnixMilli() >= e.mu.hourEnd
}

// take converts the counts to batches, at the end of the outbox.
func (e *Engine) take() {
	e.mu.Lock()
	all := []past{{e.mu.keys, e.mu.degraded}}
	if e.mu.past != nil {
		all = []past{*e.mu.past, all[0]}
	}
	if e.mu.keys.keys > 0 { // otherwise degraded is also empty
		e.mu.keys, e.mu.degraded = newTable(e.seed), newTable(e.seed)
	}
	e.mu.past, e.mu.hourEnd = nil, 0
	select {
	case <-e.full: // it was for these tables
	default:
	}
	e.mu.Unlock()

	var rows []Row
	for _, t := range all {
		rows = slices.Grow(rows, t.keys.keys+t.degraded.keys)
		rows = t.degraded.rows(t.keys.rows(rows, false), true)
	}
	if len(rows) == 0 {
		return
	}
	if e.options.TargetingKeys == TargetingKeysHashed {
		for i := range rows {
			rows[i].Key.TargetingKey = hashed(rows[i].Key.TargetingKey)
		}
	}
	f := &flushed{}
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		e.outbox.sequence++
		f.batches = append(f.batches, Batch{
			Writer: e.outbox.writer, Sequence: e.outbox.sequence, Context: e.options.Context, Rows: rows[:n:n],
		})
		rows = rows[n:]
	}
	e.enqueue(f)
}

func hashed(targetingKey Text) Text {
	text, ok := targetingKey.Get()
	if !ok {
		return targetingKey
	}
	sum := sha256.Sum256([]byte(text))
	return Some("sha256_" + hex.EncodeToString(sum[:]))
}

// enqueue adds to the outbox. If the outbox is full, its oldest flush is dropped.
func (e *Engine) enqueue(f *flushed) {
	e.outbox.waiting = append(e.outbox.waiting, f)
	if len(e.outbox.waiting) > maxPending {
		oldest := e.outbox.waiting[0]
		e.options.Logger.Warn("evallog: too many flushes wait, the oldest is dropped", "evaluations", oldest.evaluations())
		for _, b := range oldest.batches {
			e.settle(b, RefuseAll(b, DropPending, nil))
		}
		e.shift()
	}
	e.count()
	if e.outbox.failures > 0 {
		e.save()
	}
}

// shift removes the oldest flush from the outbox.
func (e *Engine) shift() {
	if file := e.outbox.waiting[0].file; file != "" {
		if err := e.outbox.spool.remove(file); err != nil {
			e.options.Logger.Warn("evallog: a delivered batch cannot be removed from the spool; it is harmless", "error", err)
		}
	}
	e.outbox.waiting[0] = nil
	e.outbox.waiting = e.outbox.waiting[1:]
	e.count()
}

func (e *Engine) count() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.statistics.batches = len(e.outbox.waiting)
}

// deliver writes the outbox, in order, until it is empty or an attempt fails.
func (e *Engine) deliver() error {
	for len(e.outbox.waiting) > 0 {
		oldest := e.outbox.waiting[0]
		for len(oldest.batches) > 0 {
			batch := oldest.batches[0]
			err := e.write(batch)
			var refused *RefusedError
			if err != nil && !errors.As(err, &refused) {
				err = fmt.Errorf("deliver %d counts: %w", len(batch.Rows), err)
				e.failed(err)
				return err
			}
			if refused != nil && len(refused.Rows) > 0 {
				e.options.Logger.Warn("evallog: evaluations are dropped", "error", refused)
			}
			e.settle(batch, refused)
			oldest.batches = oldest.batches[1:]
		}
		e.shift()
	}
	if e.outbox.failures > 0 {
		e.options.Logger.Info("evallog: delivery works again", "failed_attempts", e.outbox.failures)
	}
	e.outbox.failures = 0
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.statistics.lastFlush, e.mu.statistics.lastError = time.Now(), nil
	return nil
}

// write tries to deliver one batch. A panic of the Writer drops this batch, but does not end the
// program and does not affect later batches.
func (e *Engine) write(batch Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = RefuseAll(batch, DropPanic, fmt.Errorf("the writer panicked: %v", p))
		}
	}()
	ctx, cancel := context.WithTimeout(e.lifetime, writeTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	return e.options.Writer.Write(ctx, batch)
}

// failed keeps the outbox for a retry.
func (e *Engine) failed(err error) {
	delay := lastRetry
	if e.outbox.failures < 10 {
		delay = min(firstRetry<<e.outbox.failures, lastRetry)
	}
	delay -= rand.N(delay / 4) // so that processes that failed at the same time do not retry at the same time
	e.outbox.failures++
	e.outbox.next = time.Now().Add(delay)
	if retry, ok := errors.AsType[*RetryError](err); ok {
		e.outbox.asked = time.Now().Add(min(retry.After, maxRetryAfter))
		if e.outbox.asked.After(e.outbox.next) {
			e.outbox.next = e.outbox.asked
		}
	}
	if e.outbox.failures == 1 {
		e.options.Logger.Warn("evallog: delivery failed, the counts are kept and retried", "error", err)
	}
	e.mu.Lock()
	e.mu.statistics.lastError = err
	e.mu.Unlock()
	e.save()
}

// settle updates the statistics for a batch that is done.
func (e *Engine) settle(batch Batch, refused *RefusedError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.statistics.delivered += batch.Evaluations()
	if refused == nil {
		return
	}
	dropped := map[int]bool{}
	for _, r := range refused.Rows {
		if r.Index < 0 || r.Index >= len(batch.Rows) || dropped[r.Index] {
			continue // an invalid index must not corrupt the statistics
		}
		dropped[r.Index] = true
		row := batch.Rows[r.Index]
		e.mu.statistics.delivered -= row.Count
		if row.Degraded {
			e.mu.statistics.degraded -= row.Count
		} else {
			e.mu.statistics.full -= row.Count
		}
		reason := r.Reason
		if _, known := e.mu.statistics.dropped[reason]; !known && len(e.mu.statistics.dropped) >= maxReasons {
			reason = DropOther
		}
		e.mu.statistics.dropped[reason] += row.Count
	}
}

// finish takes and delivers the remaining counts, until the deadline of Close.
func (e *Engine) finish() error {
	e.logInvalid()
	if len(e.outbox.waiting) == maxPending {
		_ = e.deliver() // otherwise the oldest flush would be dropped for the newest counts
	}
	e.take()
	err := e.deliver()
	for delay := firstRetry / 4; err != nil; delay *= 2 {
		wait := delay
		if retry := (*RetryError)(nil); errors.As(err, &retry) {
			wait = max(wait, retry.After)
		}
		if time.Now().Add(wait).After(e.deadline) {
			break
		}
		select {
		case <-e.lifetime.Done():
		case <-time.After(wait):
		}
		err = e.deliver()
	}
	for _, f := range e.outbox.waiting {
		if f.file != "" {
			continue // for the next process
		}
		e.options.Logger.Warn("evallog: closed before everything was delivered", "dropped_evaluations", f.evaluations(), "error", err)
		for _, b := range f.batches {
			e.settle(b, RefuseAll(b, DropUndelivered, nil))
		}
	}
	if e.outbox.spool != nil {
		err = errors.Join(err, e.outbox.spool.close())
	}
	return err
}
