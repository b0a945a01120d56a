package datar

import (
	"slices"
	"sync/atomic"
	"time"
)

// DropReason is why an evaluation was not counted. Its string is the name in metrics and records.
type DropReason string

// The reasons.
const (
	// DropCapacity: Options.MaxKeys were in use, even after folding.
	DropCapacity DropReason = "capacity"
	// DropClosed: Record was called after Close.
	DropClosed DropReason = "closed"
	// DropInvalid: the event had no flag, a negative ID, an outcome that does not match its
	// variant, a time before 1970, or of an hour that begins more than MaxAhead from now, or a
	// Count out of range, which counts as one evaluation. The first such event is logged.
	DropInvalid DropReason = "invalid"
	// DropUnsaved: Close could not reach the store before its deadline, and there was no journal.
	DropUnsaved DropReason = "unsaved"
	// DropRefused: the store refused the row, and will always refuse it.
	DropRefused DropReason = "refused"
)

// dropReasons are all reasons.
var dropReasons = [...]DropReason{DropCapacity, DropClosed, DropInvalid, DropUnsaved, DropRefused}

// String returns the reason's name.
func (r DropReason) String() string { return string(r) }

// drops counts dropped evaluations, and has the first and the last time, in Unix milliseconds.
type drops struct {
	counts      [len(dropReasons)]atomic.Int64 // in the order of dropReasons
	first, last atomic.Int64
}

func (d *drops) add(reason DropReason, evaluations int64, now time.Time) {
	if evaluations == 0 {
		return
	}
	d.counts[slices.Index(dropReasons[:], reason)].Add(evaluations)
	d.first.CompareAndSwap(0, now.UnixMilli())
	raise(&d.last, now.UnixMilli())
}
