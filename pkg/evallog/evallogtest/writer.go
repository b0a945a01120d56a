// Package evallogtest has a Writer for the tests of programs that use evallog.
package evallogtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// Writer keeps the batches that it receives. The zero value accepts all of them at once. Its
// methods are safe for concurrent use, even while an engine writes.
type Writer struct {
	mu struct {
		sync.Mutex
		delay     time.Duration
		fail      func(attempt int, batch evallog.Batch) error
		attempts  []evallog.Batch
		delivered []evallog.Batch
	}
}

var _ evallog.Writer = (*Writer)(nil)

// Delay makes each call of Write take this long, or until its context ends, which is an error.
func (w *Writer) Delay(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.delay = d
}

// Fail makes Write return the result of the function. Its arguments are the number of the attempt,
// from 1 over all batches, and the batch. A batch with an error is not delivered, unless the error
// is, or wraps, a
// *evallog.RefusedError. Nil removes the function.
// that.
func (w *Writer) Fail(fail func(attempt int, batch evallog.Batch) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.fail = fail
}

// Write implements evallog.Writer.
func (w *Writer) Write(ctx context.Context, batch evallog.Batch) error {
	w.mu.Lock()
	batch.Rows = slices.Clone(batch.Rows)
	w.mu.attempts = append(w.mu.attempts, batch)
	attempt, delay, fail := len(w.mu.attempts), w.mu.delay, w.mu.fail
	w.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if fail != nil {
		err = fail(attempt, batch)
	}
	var refused *evallog.RefusedError
	partly := errors.As(err, &refused)
	if err != nil && !partly {
		return err
	}
	if partly {
		lost := map[int]bool{}
		for _, r := range refused.Rows {
			lost[r.Index] = true
		}
		var rows []evallog.Row
		for i, r := range batch.Rows {
			if !lost[i] {
				rows = append(rows, r)
			}
		}
		batch.Rows = rows
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.delivered = append(w.mu.delivered, batch)
	return err
}

// Attempts returns the batches of all calls of Write so far, including failed ones.
func (w *Writer) Attempts() []evallog.Batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.attempts)
}

// Delivered returns the accepted batches, without refused rows.
func (w *Writer) Delivered() []evallog.Batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.delivered)
}

// Counts adds up the delivered batches.
func (w *Writer) Counts() map[evallog.Key]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[evallog.Key]int64{}
	for _, b := range w.mu.delivered {
		for _, r := range b.Rows {
			counts[r.Key] += r.Count
		}
	}
	return counts
}

// Total returns the number of delivered evaluations.
func (w *Writer) Total() int64 {
	var total int64
	for _, n := range w.Counts() {
		total += n
	}
	return total
}
