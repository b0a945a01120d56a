package datar

import (
	"fmt"
	"sync/atomic"
	"time"
)

// DropReason says why an evaluation was not counted.
type DropReason uint8

// The reasons.
const (
	// DropCapacity: Options.MaxKeys were in use, and folding did not help.
	DropCapacity DropReason = iota
	// DropClosed: Record was called after Close.
	DropClosed
	// DropInvalid: the event had no flag, a negative id, an outcome that does not fit its variant, or a time before 1970, or of
	// an hour that begins more than MaxAhead from now.
	DropInvalid
	// DropUnsaved: Close could not reach the store before its deadline, and there was no journal to keep them in.
	DropUnsaved
	// DropRefused: the store refused the row, and will refuse it for ever.
	DropRefused
	dropReasons
)

// String returns the reason in lower case, as it appears in metrics.
func (r DropReason) String() string {
	if r >= dropReasons {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return [dropReasons]string{"capacity", "closed", "invalid", "unsaved", "refused"}[r]
}

// drops counts what was dropped, and when that was first and last, in Unix milliseconds.
type drops struct {
	counts      [dropReasons]atomic.Int64
	first, last atomic.Int64
}

func (d *drops) add(reason DropReason, evaluations int64, now time.Time) {
	if evaluations == 0 {
		return
	}
	d.counts[reason].Add(evaluations)
	d.first.CompareAndSwap(0, now.UnixMilli())
	raise(&d.last, now.UnixMilli())
}
