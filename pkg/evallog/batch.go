package evallog

import (
	"context"
	"fmt"
	"time"
)

// Row is the count of one key in a batch.
type Row struct {
	// Key has its targeting key as it may leave the process: hashed, unchanged, or None.
	Key Key
	// Count is the number of evaluations, 1 to 10,000,000. More evaluations are in further rows
	// with the same Key.
	Count int64
	// First and Last are the times of the earliest and the latest evaluation, in Unix milliseconds.
	First, Last int64
	// ErrorMessage is the last error message; empty if there was none.
	ErrorMessage string
	// Degraded marks evaluations that were counted without their targeting key because there were
	// too many keys. A batch may also have a row with the same Key that is not degraded.
	Degraded bool
}

// Context describes where evaluations happened. It is the same for all rows of a batch. All fields
// are optional.
type Context struct {
	Service string `json:"service,omitempty"`
	Version string `json:"version,omitempty"`
	Env     string `json:"env,omitempty"`
}

// Batch is what a Writer delivers. It never changes: a retried batch, also one retried by a later
// process, has the same rows and the same identity, so that the receiver can recognize it.
type Batch struct {
	// Writer is a UUID in lower case, new for each Engine.
	Writer string
	// Sequence counts the batches of one Writer from 1. A batch is written after all batches before
	// it were delivered or dropped.
	Sequence int64
	Context  Context
	// Rows are 1 to 1,000.
	Rows []Row
}

const (
	// maxRows is the maximum number of rows of a batch, which is also the limit of Datar's
	// endpoint.
	maxRows = 1000
	// partsPerBatch is enough to halve maxRows rows until each part has one row.
	partsPerBatch = 2048
)

// PartSequence numbers the parts of a batch, 0 to 2047, for a Writer that must send it in parts.
// The numbers of a batch's parts are above those of the previous batch and below those of the next
// one. Parts must be sent in order, and be the same at each retry.
func (b Batch) PartSequence(part int) int64 { return b.Sequence*partsPerBatch + int64(part) }

// Evaluations returns the sum of the rows' counts.
func (b Batch) Evaluations() int64 {
	var sum int64
	for _, r := range b.Rows {
		sum += r.Count
	}
	return sum
}

// Writer delivers batches. It must be safe for concurrent use, and must not change the batch.
type Writer interface {
	// Write returns nil if the batch is delivered. A *RefusedError means that the batch is done,
	// but some of its rows will never be accepted. After any other error the same batch is retried
	// after a delay, which a
	// *RetryError can extend. Write must return soon after ctx ends.
	Write(ctx context.Context, batch Batch) error
}

// RefusedRow is a row that a Writer cannot deliver.
type RefusedRow struct {
	// Index is the row's index in Batch.Rows.
	Index int
	// Reason is the reason in Stats.Dropped. Use few different reasons.
	Reason DropReason
}

// RefusedError means that rows of a batch are lost. All other rows were delivered.
type RefusedError struct {
	Rows []RefusedRow
	// Err is the cause, for the log; it may be nil.
	Err error
}

// RefuseAll returns the error for a batch none of whose rows will ever be accepted.
func RefuseAll(batch Batch, reason DropReason, err error) *RefusedError {
	rows := make([]RefusedRow, len(batch.Rows))
	for i := range rows {
		rows[i] = RefusedRow{Index: i, Reason: reason}
	}
	return &RefusedError{Rows: rows, Err: err}
}

// Error returns the number of rows, the first reason and the cause.
func (e *RefusedError) Error() string {
	if len(e.Rows) == 0 {
		return "no rows refused"
	}
	text := fmt.Sprintf("%d rows refused, the first as %s", len(e.Rows), e.Rows[0].Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *RefusedError) Unwrap() error { return e.Err }

// RetryError means that a batch must be retried, after a minimum delay.
type RetryError struct {
	// After is the minimum delay. It has no effect if it is shorter than the usual delay, and is
	// limited to an hour.
	After time.Duration
	Err   error
}

// Error returns the error string of Err.
func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *RetryError) Unwrap() error { return e.Err }
