package insight

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// TailListeners is how many may listen to a Tail at once, and TailDuration for how long.
	TailListeners = 20
	// TailDuration is for how long one listens.
	TailDuration = 15 * time.Minute
	// tailPerSecond is how many events a listener gets in a second.
	tailPerSecond = 20
	// tailQueue is how many events wait for a listener that is slow.
	tailQueue = 64
	// maxTailEntity is the longest entity id that waits as it is.
	maxTailEntity = 256
)

// ErrTailFull tells that there are TailListeners already.
var ErrTailFull = errors.New("the live tail has as many listeners as it can have: try again later")

// Tail hands the evaluations of this server to listeners. It keeps nothing.
type Tail struct {
	listeners atomic.Int32 // so that Observe costs next to nothing while there are none
	mu        sync.RWMutex
	byFlag    map[int64]map[*Listener]struct{}
}

// NewTail returns a Tail without listeners.
func NewTail() *Tail { return &Tail{byFlag: map[int64]map[*Listener]struct{}{}} }

// Listener gets the evaluations of one flag.
type Listener struct {
	tail   *Tail
	flagID int64
	key    []byte // of the hashes of entities
	events chan rawEvent
	// rate is a second since 1970 and the number of events in it.
	rate    atomic.Uint64
	skipped atomic.Int64
}

// rawEvent is what is taken of a result by the goroutine of the request.
type rawEvent struct {
	TailEvent
	flagID         int64
	entityID       string
	rolloutPercent int
}

// TailEvent is one evaluation.
type TailEvent struct {
	At      time.Time
	Outcome datar.Outcome
	// SegmentID is that of the segment that matched, if one did.
	SegmentID, VariantID int64
	VariantKey           string
	SnapshotID           int64
	// Entity is a hash of the entity id, under a key that each Listener has for itself.
	Entity string
	Text   string
}

// Listen begins to hand over evaluations of a flag. The caller must Close the Listener. The error is ErrTailFull.
func (t *Tail) Listen(flagID int64) (*Listener, error) {
	l := &Listener{tail: t, flagID: flagID, key: make([]byte, sha256.Size), events: make(chan rawEvent, tailQueue)}
	_, _ = rand.Read(l.key) // documented never to fail
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners.Load() >= TailListeners {
		return nil, ErrTailFull
	}
	t.listeners.Add(1)
	if t.byFlag[flagID] == nil {
		t.byFlag[flagID] = map[*Listener]struct{}{}
	}
	t.byFlag[flagID][l] = struct{}{}
	return l, nil
}

// Close ends the Listener. It can be called again.
func (l *Listener) Close() {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	if _, ok := l.tail.byFlag[l.flagID][l]; !ok {
		return
	}
	delete(l.tail.byFlag[l.flagID], l)
	if len(l.tail.byFlag[l.flagID]) == 0 {
		delete(l.tail.byFlag, l.flagID)
	}
	l.tail.listeners.Add(-1)
}

// Observe hands an evaluation to those who listen to its flag. It never waits: what a listener does not get is counted as
// skipped.
func (t *Tail) Observe(r *eval.Result) {
	if t.listeners.Load() == 0 || r.RecordSource != eval.SourceEvaluation {
		return
	}
	outcome, segmentID, ok := OutcomeOf(r)
	if !ok {
		return
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	listeners := t.byFlag[r.FlagID]
	if len(listeners) == 0 {
		return
	}
	event := rawEvent{flagID: r.FlagID, entityID: waitingEntity(r.Request.EntityID), TailEvent: TailEvent{
		At: r.Timestamp, Outcome: outcome, SegmentID: segmentID, VariantID: r.VariantID, VariantKey: r.VariantKey, SnapshotID: r.FlagSnapshotID}}
	event.rolloutPercent, _ = r.RolloutPercent()
	for l := range listeners {
		if !l.take(r.Timestamp.Unix()) {
			l.skipped.Add(1)
			continue
		}
		select {
		case l.events <- event:
		default:
			l.skipped.Add(1)
		}
	}
}

// waitingEntity copies an entity id, which may be a part of the body of a request, for an event that waits. A long one becomes its
// hash: events are bounded in bytes, and equal ids stay equal.
func waitingEntity(id string) string {
	if len(id) <= maxTailEntity {
		return strings.Clone(id)
	}
	sum := sha256.Sum256([]byte(id))
	return string(sum[:])
}

// take counts one more event of a second, unless there were enough.
func (l *Listener) take(second int64) bool {
	const countBits = 8
	for {
		rate := l.rate.Load()
		next := uint64(second)<<countBits + 1
		if rate>>countBits == uint64(second) {
			if rate&(1<<countBits-1) >= tailPerSecond {
				return false
			}
			next = rate + 1
		}
		if l.rate.CompareAndSwap(rate, next) {
			return true
		}
	}
}

// Next waits for an event until one of the channels is ready. It is nil when that was not an event.
func (l *Listener) Next(stop <-chan struct{}, tick <-chan time.Time) *TailEvent {
	select {
	case <-stop:
		return nil
	case <-tick:
		return nil
	case raw := <-l.events:
		return l.event(&raw)
	}
}

// Skipped returns how many events were left out since it was called last.
func (l *Listener) Skipped() int64 { return l.skipped.Swap(0) }

func (l *Listener) event(raw *rawEvent) *TailEvent {
	e := raw.TailEvent
	e.Entity = l.hash(raw.entityID)
	switch e.Outcome {
	case datar.Disabled:
		e.Text = "the flag is off"
	case datar.NoSegments:
		e.Text = "the flag has no segments"
	case datar.NoMatch:
		e.Text = "no segment matched"
	default:
		e.Text = fmt.Sprintf("bucket %d of %d, rollout %d%%", eval.BucketOf(raw.flagID, raw.entityID), eval.Buckets, raw.rolloutPercent)
	}
	return &e
}

// hash hides an entity id. Of one connection, equal ids have equal hashes.
func (l *Listener) hash(entityID string) string {
	const shown = 3 // bytes
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte(entityID))
	return hex.EncodeToString(mac.Sum(nil)[:shown])
}
