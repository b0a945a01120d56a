package datar

import (
	"slices"
	"sync/atomic"
	"time"
)

// DropReason says why an evaluation was not counted. It is the name that metrics and records have.
type DropReason string

// The reasons.
const (
	// DropCapacity: Options.MaxKeys were in use, and folding did not help.
	DropCapacity DropReason = "capacity"
	// DropClosed: Record was called after Close.
	DropClosed DropReason = "closed"
	// DropInvalid: the event had no flag, a negative id, an outcome that does not fit its variant, a time before 1970, or of
	// an hour that begins more than MaxAhead from now, or a Count out of range, which counts as one evaluation. The first such
	// event is logged.
	DropInvalid DropReason = "invalid"
	// DropUnsaved: Close could not reach the store before its deadline, and there was no journal to keep them in.
	DropUnsaved DropReason = "unsaved"
	// DropRefused: the store refused the row, and will refuse it for ever.
	DropRefused DropReason = "refused"
)

// dropReasons are all of them.
var dropReasons = [...]DropReason{DropCapacity, DropClosed, DropInvalid, DropUnsaved, DropRefused}

// String returns the reason's name.
func (r DropReason) String() string { return string(r) }

// drops counts what was dropped, and when that was first and last, in Unix milliseconds.
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
