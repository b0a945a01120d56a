package evallog

import (
	"context"
	"fmt"
	"time"
)

// Row is what a batch says of one key.
type Row struct {
	// Key has its targeting key as it may leave the process: hashed, in clear text, or None.
	Key Key
	// Count is how often the flag was evaluated, 1 to 10,000,000. What is beyond is in further rows with the same Key.
	Count int64
	// First and Last are the times of the earliest and the latest evaluation, in Unix milliseconds.
	First, Last int64
	// ErrorMessage is the last one, empty if there was none.
	ErrorMessage string
	// Degraded marks evaluations that were counted without their targeting key because there were too many keys. A
	// batch may have a row with the same Key that is not degraded.
	Degraded bool
}

// Context tells where evaluations happened. It is the same for all rows of a batch. All of it is optional.
type Context struct {
	Service string `json:"service,omitempty"`
	Version string `json:"version,omitempty"`
	Env     string `json:"env,omitempty"`
}

// Batch is what a Writer is given. It never changes: a batch that is tried again, also by a later process, has the same
// rows and the same identity, so that the receiver can tell that it has it.
type Batch struct {
	// Writer is a UUID in lower case, new for each Engine.
	Writer string
	// Sequence counts the batches of one Writer up from 1. Batches are written in this order, and none before those
	// before it were delivered or given up.
	Sequence int64
	Context  Context
	// Rows are 1 to 1,000.
	Rows []Row
}

const (
	// maxRows is the most rows of a batch, which is also what Datar's endpoint takes at once.
	maxRows = 1000
	// partsPerBatch is enough for every way of halving maxRows rows until each is alone.
	partsPerBatch = 2048
)

// PartSequence numbers the parts of a batch, 0 to 2047, for a Writer that has to send it in several: the numbers of all
// parts of a batch are above those of the batch before it and below those of the one after it. Parts must be sent in
// order, and be the same whenever the batch is.
func (b Batch) PartSequence(part int) int64 { return b.Sequence*partsPerBatch + int64(part) }

// Evaluations is the sum of the rows' counts.
func (b Batch) Evaluations() int64 {
	var sum int64
	for _, r := range b.Rows {
		sum += r.Count
	}
	return sum
}

// Writer brings batches to where they are stored. It must be safe for concurrent use, and leave the batch as it is.
type Writer interface {
	// Write returns nil when the batch is delivered. A *RefusedError says that it is done with, but that rows of it
	// will never be taken. After any other error the same batch is written again: after a delay, which a *RetryError can
	// make longer. Write returns soon after ctx has ended.
	Write(ctx context.Context, batch Batch) error
}

// RefusedRow is a row that a Writer could not deliver, and never will.
type RefusedRow struct {
	// Index is that of the row in Batch.Rows.
	Index int
	// Reason becomes the reason in Stats.Dropped. There should be few.
	Reason DropReason
}

// RefusedError says that rows of a batch are lost. Those that it does not list were delivered.
type RefusedError struct {
	Rows []RefusedRow
	// Err is the cause, for the log; it may be nil.
	Err error
}

// RefuseAll is the error for a batch of which no row will ever be taken.
func RefuseAll(batch Batch, reason DropReason, err error) *RefusedError {
	rows := make([]RefusedRow, len(batch.Rows))
	for i := range rows {
		rows[i] = RefusedRow{Index: i, Reason: reason}
	}
	return &RefusedError{Rows: rows, Err: err}
}

// Error names the number of rows, the first reason and the cause.
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

// RetryError says that a batch is to be tried again, not before some time has passed.
type RetryError struct {
	// After is that time. Less than the usual delay changes nothing; more than an hour is taken as an hour.
	After time.Duration
	Err   error
}

// Error is that of Err.
func (e *RetryError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *RetryError) Unwrap() error { return e.Err }
