package eval

import (
	"sync"
	"sync/atomic"
)

// Limiter allows a number of evaluations for each flag and second.
type Limiter struct {
	perSecond uint64
	flags     sync.Map // by ID of existing flags, so it stays small
	unknown   Window   // for all unknown flags
	// recent has the windows of some flags at their id modulo its length, because it is faster than
	// flags.
	recent [256]atomic.Pointer[flagWindow]
}

type flagWindow struct {
	flagID int64
	Window
}

// NewLimiter returns a Limiter of perSecond evaluations.
func NewLimiter(perSecond int) *Limiter { return &Limiter{perSecond: boundPerSecond(perSecond)} }

func boundPerSecond(n int) uint64 { return uint64(min(max(n, 0), maxPerSecond)) }

// Allow reports whether an evaluation is within the limit. Unknown flags share one limit.
func (l *Limiter) Allow(r *Result) bool {
	return l.windowOf(r).Take(r.Timestamp.Unix(), l.perSecond)
}

func (l *Limiter) windowOf(r *Result) *Window {
	if r.Reason == FlagNotFound {
		return &l.unknown
	}
	recent := &l.recent[uint64(r.FlagID)%uint64(len(l.recent))]
	if w := recent.Load(); w != nil && w.flagID == r.FlagID {
		return &w.Window
	}
	found, ok := l.flags.Load(r.FlagID)
	if !ok {
		found, _ = l.flags.LoadOrStore(r.FlagID, &flagWindow{flagID: r.FlagID})
	}
	w := found.(*flagWindow)
	recent.CompareAndSwap(nil, w) // the first one stays, so that two busy flags do not alternate
	return &w.Window
}

// Window counts what happens within one second. The zero value is ready to use, and all methods are
// safe for concurrent use.
type Window struct {
	state atomic.Uint64 // the second modulo 2^32 in the upper half, the count in the lower one; 0: nothing happened
}

const (
	windowBits   = 32
	maxPerSecond = 1<<windowBits - 2
	// maxLate is the largest number of seconds by which an event is late. If it is earlier, the
	// clock was set back.
	maxLate = 60
)

// Take counts an event in the given second since 1970, and reports whether it is within the limit
// of at most 2^32 - 2 events. Events beyond the limit only read, so that goroutines do not contend
// for the memory. A past second does not change the count of the current one, and its events are
// beyond the limit. A second that is more than 60 s before the current one is a new current one,
// because the clock was set back.
func (w *Window) Take(second int64, limit uint64) bool {
	upper := uint64(second) << windowBits // distinguishes seconds
	for {
		state := w.state.Load()
		current, count := state>>windowBits<<windowBits, state&(1<<windowBits-1)
		if current != upper {
			if late := int64(current - upper); state != 0 && late > 0 && late <= maxLate<<windowBits { // its second is gone
				return false
			}
			count = 0
		}
		if count >= limit {
			return false
		}
		if w.state.CompareAndSwap(state, upper|(count+1)) {
			return true
		}
	}
}
