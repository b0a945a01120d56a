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
	// TailListeners is the maximum number of listeners of a Tail.
	TailListeners = 20
	// TailDuration is the maximum time of a listener.
	TailDuration = 15 * time.Minute
	// tailPerSecond is the maximum number of events that a listener gets per second.
	tailPerSecond = 20
	// tailQueue is the number of events that wait for a slow listener.
	tailQueue = 64
	// maxTailEntity is the length in bytes above which a waiting entity ID is hashed.
	maxTailEntity = 256
)

// ErrTailFull is returned if there are TailListeners already.
var ErrTailFull = errors.New("the live tail has as many listeners as it can have: try again later")

// Tail sends the evaluations of this server to listeners. It does not store them.
type Tail struct {
	listeners atomic.Int32 // makes Observe cheap while there are no listeners
	mu        struct {
		sync.RWMutex
		byFlag map[int64]map[*Listener]struct{}
	}
}

// NewTail returns a Tail without listeners.
func NewTail() *Tail {
	t := &Tail{}
	t.mu.byFlag = map[int64]map[*Listener]struct{}{}
	return t
}

// Listener receives the evaluations of one flag.
type Listener struct {
	tail    *Tail
	flagID  int64
	key     []byte // for hashes of entity IDs
	events  chan rawEvent
	sent    eval.Window
	skipped atomic.Int64
}

// rawEvent is the part of a result that the request's goroutine copies.
type rawEvent struct {
	TailEvent
	entityID string
}

// TailEvent is one evaluation.
type TailEvent struct {
	At      time.Time
	Outcome datar.Outcome
	// SegmentID is the ID of the segment that matched, or 0.
	SegmentID, VariantID int64
	VariantKey           string
	SnapshotID           int64
	// Bucket is the bucket of the entity, 0 to eval.Buckets-1, and RolloutPercent the rollout of
	// the segment that matched. They are 0 if none matched.
	Bucket, RolloutPercent int
	// Entity is a hash of the entity ID. Each Listener uses its own key.
	Entity string
	Text   string
}

// Listen starts to send evaluations of a flag to the returned Listener. The caller must call Close.
// The error is ErrTailFull.
func (t *Tail) Listen(flagID int64) (*Listener, error) {
	l := &Listener{tail: t, flagID: flagID, key: make([]byte, sha256.Size), events: make(chan rawEvent, tailQueue)}
	_, _ = rand.Read(l.key) // documented never to fail
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners.Load() >= TailListeners {
		return nil, ErrTailFull
	}
	t.listeners.Add(1)
	if t.mu.byFlag[flagID] == nil {
		t.mu.byFlag[flagID] = map[*Listener]struct{}{}
	}
	t.mu.byFlag[flagID][l] = struct{}{}
	return l, nil
}

// Close stops the Listener. It can be called more than once.
func (l *Listener) Close() {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	if _, ok := l.tail.mu.byFlag[l.flagID][l]; !ok {
		return
	}
	delete(l.tail.mu.byFlag[l.flagID], l)
	if len(l.tail.mu.byFlag[l.flagID]) == 0 {
		delete(l.tail.mu.byFlag, l.flagID)
	}
	l.tail.listeners.Add(-1)
}

// Observe sends an evaluation to the listeners of its flag. It never blocks. Events that a listener
// misses are counted as skipped.
func (t *Tail) Observe(r *eval.Result) {
	if t.listeners.Load() == 0 || r.RecordSource != eval.SourceEvaluation {
		return
	}
	outcome, segmentID := r.Outcome()
	if outcome == eval.OutcomeNone {
		return
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	listeners := t.mu.byFlag[r.FlagID]
	if len(listeners) == 0 {
		return
	}
	event := rawEvent{entityID: waitingEntity(r.Request.EntityID), TailEvent: TailEvent{
		At: r.Timestamp, Outcome: datar.Outcome(outcome), SegmentID: segmentID, VariantID: r.VariantID, VariantKey: r.VariantKey, SnapshotID: r.FlagSnapshotID}}
	if segmentID != 0 {
		event.Bucket = eval.BucketOf(r.FlagID, r.Request.EntityID)
		event.RolloutPercent, _ = r.RolloutPercent()
	}
	for l := range listeners {
		if !l.sent.Take(r.Timestamp.Unix(), tailPerSecond) {
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

// waitingEntity copies an entity ID, which may be part of a request body, for a waiting event. It
// replaces a long ID by its hash, so that events are bounded in size and equal IDs stay equal.
func waitingEntity(id string) string {
	if len(id) <= maxTailEntity {
		return strings.Clone(id)
	}
	sum := sha256.Sum256([]byte(id))
	return string(sum[:])
}

// Next waits for an event until one of the channels is ready. It returns nil if a channel was ready
// first.
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

// Skipped returns the number of skipped events since its last call.
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
		e.Text = fmt.Sprintf("bucket %d of %d, rollout %d%%", e.Bucket, eval.Buckets, e.RolloutPercent)
	}
	return &e
}

// hash hides an entity ID. On one connection, equal IDs have equal hashes.
func (l *Listener) hash(entityID string) string {
	const shown = 3 // bytes
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte(entityID))
	return hex.EncodeToString(mac.Sum(nil)[:shown])
}
