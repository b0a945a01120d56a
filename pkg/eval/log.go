package eval

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
)

// maxLinesPerSecond limits the lines per second over all flags: a batch of 2,000 flags may write one line for each.
const maxLinesPerSecond = 2000

// Log logs evaluations at level info, up to a limit for each flag and second, so that a busy flag neither fills the
// log nor slows down. Exposures are not logged.
type Log struct {
	logger  *slog.Logger
	limiter Limiter
	all     window // of all lines
}

// Limiter allows a number of evaluations for each flag and second.
type Limiter struct {
	perSecond uint64
	flags     sync.Map // by ID of existing flags, so it stays small
	unknown   window   // for all unknown flags
	// recent has the windows of some flags at their id modulo its length, because it is faster than flags.
	recent [256]atomic.Pointer[window]
}

// NewLog returns a Log of at most perSecond lines for each flag and second.
func NewLog(logger *slog.Logger, perSecond int) *Log {
	return &Log{logger: logger, limiter: Limiter{perSecond: boundPerSecond(perSecond)}}
}

// NewLimiter returns a Limiter of perSecond evaluations.
func NewLimiter(perSecond int) *Limiter { return &Limiter{perSecond: boundPerSecond(perSecond)} }

func boundPerSecond(n int) uint64 { return uint64(min(max(n, 0), maxPerSecond)) }

// Allow reports whether an evaluation is within the limit. Unknown flags share one limit.
func (l *Limiter) Allow(r *Result) bool {
	return l.windowOf(r).take(uint64(r.Timestamp.Unix()), l.perSecond)
}

// Observe logs an evaluation, unless its flag has reached the limit of this second.
func (l *Log) Observe(r *Result) {
	if !l.limiter.Allow(r) || !l.all.take(uint64(r.Timestamp.Unix()), maxLinesPerSecond) {
		return
	}
	attributes := []slog.Attr{
		slog.Int64("flag_id", r.FlagID),
		slog.String("flag_key", r.FlagKey),
		slog.Int64("flag_snapshot_id", r.FlagSnapshotID),
		slog.String("entity_id", r.Request.EntityID),
		slog.String("entity_type", r.Request.EntityType),
		slog.Int64("segment_id", r.SegmentID),
		slog.Int64("variant_id", r.VariantID),
		slog.String("variant_key", r.VariantKey),
	}
	if r.Message != "" {
		attributes = append(attributes, slog.String("message", r.Message))
	}
	l.logger.LogAttrs(context.Background(), slog.LevelInfo, "evaluation", attributes...)
}

func (l *Limiter) windowOf(r *Result) *window {
	if r.Reason == FlagNotFound {
		return &l.unknown
	}
	recent := &l.recent[uint64(r.FlagID)%uint64(len(l.recent))]
	if w := recent.Load(); w != nil && w.flagID == r.FlagID {
		return w
	}
	found, ok := l.flags.Load(r.FlagID)
	if !ok {
		found, _ = l.flags.LoadOrStore(r.FlagID, &window{flagID: r.FlagID})
	}
	w := found.(*window)
	recent.CompareAndSwap(nil, w) // the first one stays, so that two busy flags do not alternate
	return w
}

// window counts what happens within one second.
type window struct {
	flagID int64
	state  atomic.Uint64 // the second modulo 2^32 in the upper half, the count in the lower one
}

const (
	windowBits   = 32
	maxPerSecond = 1<<windowBits - 2
)

// take counts an event in the given second, and reports whether it is within the limit. Events beyond the limit
// only read, so that goroutines do not contend for the memory. A past second does not change the count of the
// current one.
func (w *window) take(second, limit uint64) bool {
	second <<= windowBits // the upper half distinguishes seconds
	for {
		state := w.state.Load()
		current, count := state>>windowBits<<windowBits, state&(1<<windowBits-1)
		if current != second {
			if int64(second-current) < 0 { // late: its second is gone
				return false
			}
			count = 0
		}
		if count >= limit {
			return false
		}
		if w.state.CompareAndSwap(state, second|(count+1)) {
			return true
		}
	}
}
