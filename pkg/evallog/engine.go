// Package evallog counts flag evaluations in the process where they happen, and sends the counts to
// a server in batches. It can be embedded in any program, and depends only on the standard library.
//
// Every evaluation given to Record is delivered once, or is pending, or is counted as dropped with
// a reason. Stats returns these numbers at any moment.
package evallog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// DefaultFlushInterval is the default of Options.FlushInterval.
	DefaultFlushInterval = 10 * time.Second
	// MinFlushInterval is the lower bound of Options.FlushInterval.
	MinFlushInterval = time.Second
	// MaxFlushInterval is the upper bound of Options.FlushInterval.
	MaxFlushInterval = time.Minute
	// flushKeys is the number of keys that triggers an early flush.
	flushKeys = maxRows
	// maxKeys is the maximum number of keys that are counted in full between two flushes.
	maxKeys = 131_072
	// maxKeysPerFlag is the maximum number of keys of one flag among them.
	maxKeysPerFlag = 10_000
	// maxDegradedKeys is the maximum number of further keys that are counted without their
	// targeting key.
	maxDegradedKeys = 32_768
	// maxPending is the maximum number of undelivered flushes. It counts flushes, not rows and not
	// Batches, of which a flush has one for each 1,000 rows. A flush usually has few rows, but
	// during an outage it has all keys of an hour: up to maxKeys + maxDegradedKeys, and twice as
	// many if an hour ended in it.
	maxPending = 16

	// maxText limits the length of each part of a key, in bytes, and so the size of a row.
	maxText = 4096
	// maxMessage is the length to which error messages are cut, in bytes.
	maxMessage = 512
	// maxReasons limits the reasons that receivers can add to Stats.Dropped.
	maxReasons = 64
)

// DropReason is why an evaluation will not be delivered. Writers add their own reasons, such as
// http_400.
type DropReason string

// The reasons of the engine itself.
const (
	// DropInvalid: the evaluation had no flag, a missing part of its key, a part of more than 4,096
	// bytes, an invalid outcome, version or asked, or a time outside the years 1970 to 9999.
	DropInvalid DropReason = "invalid"
	// DropCapacity: there were too many keys, even without targeting keys.
	DropCapacity DropReason = "capacity"
	// DropClosed: the evaluation was recorded after Close had begun.
	DropClosed DropReason = "closed"
	// DropPending: more than 16 flushes were waiting, and the evaluation was in the oldest one.
	DropPending DropReason = "pending_limit"
	// DropUndelivered: Close could not deliver the evaluation in time, and there was no spool.
	DropUndelivered DropReason = "undelivered"
	// DropPanic: the Writer panicked.
	DropPanic DropReason = "panic"
	// DropOther replaces further reasons of Writers if there are too many.
	DropOther DropReason = "other"
)

// ErrClosed is the error of Flush after Close.
var ErrClosed = errors.New("evaluation log is closed")

// TargetingKeys is how targeting keys are sent.
type TargetingKeys uint8

// The values of TargetingKeys.
const (
	// TargetingKeysOff omits them. It is the default, because they are personal data, and each one
	// adds a key.
	TargetingKeysOff TargetingKeys = iota
	// TargetingKeysHashed sends sha256_ and the 64 hexadecimal digits of the hash. The string
	// itself stays in memory.
	TargetingKeysHashed
	// TargetingKeysClear sends them unchanged.
	TargetingKeysClear
)

// Options configure an Engine. Writer is required; the zero value of the others is a good default.
type Options struct {
	Writer Writer
	// FlushInterval is the maximum time until a flush, MinFlushInterval to MaxFlushInterval. 0
	// means DefaultFlushInterval.
	FlushInterval time.Duration
	TargetingKeys TargetingKeys
	Context       Context
	// SpoolDir is a directory on a local disk for undelivered batches. They survive the process,
	// and the next engine with this directory delivers them. One engine at a time can use it. Empty
	// means no spool.
	SpoolDir string
	// Logger receives a line when deliveries start to fail, when they work again, and when
	// evaluations are dropped. Nil means slog.Default(). To turn logging off, use
	// slog.New(slog.DiscardHandler).
	Logger *slog.Logger
}

func (o *Options) validate() error {
	switch {
	case o.Writer == nil:
		return errors.New("evallog: Options.Writer is missing")
	case isNil(o.Writer):
		return fmt.Errorf("evallog: Options.Writer is a nil %T", o.Writer)
	case o.FlushInterval != 0 && (o.FlushInterval < MinFlushInterval || o.FlushInterval > MaxFlushInterval):
		return fmt.Errorf("evallog: Options.FlushInterval is %v, want %v to %v", o.FlushInterval, MinFlushInterval, MaxFlushInterval)
	case o.TargetingKeys > TargetingKeysClear:
		return fmt.Errorf("evallog: Options.TargetingKeys is %d, want one of the constants", o.TargetingKeys)
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = DefaultFlushInterval
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// isNil reports whether v has a nil pointer or is a nil function.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// Engine counts evaluations and sends them. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	seed    uint64 // of the hashes
	clock   clock

	// mu protects its fields, and what is named engineMu in clock. Lookup, counting, the check of
	// the size and the swap of the tables all require it, so that no count can reach a table that
	// was already taken. Nothing else runs under it: no I/O and no encoding.
	mu struct {
		sync.Mutex
		// keys counts evaluations in full, degraded counts them without their targeting key.
		keys, degraded *table
		// hourEnd is the end of the UTC hour in which the first of them was recorded, in Unix
		// milliseconds.
		hourEnd int64
		// past has the counts of an hour that ended since the last flush, or is nil.
		past       *past
		closing    bool
		statistics statistics
		// invalid is the first invalid evaluation, or nil.
		invalid *invalid
	}

	// full has an element from the time at which a table reaches flushKeys until that table is
	// taken.
	full     chan struct{}
	requests chan chan error // of Flush
	start    sync.Once
	close    sync.Once
	stop     chan struct{} // closed when Close begins
	stopped  chan error    // result of run
	closed   chan struct{} // closed when the first Close is done
	closeErr error         // result of Close, written before closed is closed

	// lifetime is the context of all deliveries. It ends at the deadline of Close. It does not
	// depend on the context of a caller, because an evaluation counts even if its request was
	// canceled.
	lifetime context.Context
	end      context.CancelFunc
	deadline time.Time // of Close, written before stop is closed

	outbox outbox // owned by run
}

// past has the tables of an hour that has ended.
type past struct{ keys, degraded *table }

// statistics are the counts of Stats. Full and degraded evaluations move to dropped if they are
// lost later.
type statistics struct {
	full, degraded, adopted int64
	delivered               int64 // of full and degraded
	dropped                 map[DropReason]int64
	batches                 int
	lastFlush               time.Time
	lastError               error
}

// New returns an engine that counts at once. Start starts to send; Close ends the engine. New reads
// the batches in the spool, which are sent after Start.
func New(options Options) (*Engine, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		options:  options,
		seed:     mathrand.Uint64(),
		full:     make(chan struct{}, 1),
		requests: make(chan chan error),
		stop:     make(chan struct{}),
		stopped:  make(chan error, 1),
		closed:   make(chan struct{}),
		outbox:   outbox{writer: newWriterID()},
	}
	e.mu.keys, e.mu.degraded = newTable(e.seed), newTable(e.seed)
	e.mu.statistics.dropped = map[DropReason]int64{}
	e.lifetime, e.end = context.WithCancel(context.Background())
	if options.SpoolDir != "" {
		if err := e.openSpool(); err != nil {
			return nil, fmt.Errorf("evallog: Options.SpoolDir: %w", err)
		}
	}
	return e, nil
}

// newWriterID returns a random UUID (RFC 9562, version 4).
func newWriterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // documented never to fail
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// lastMilli is the end of the year 9999.
const lastMilli = 253_402_300_799_999

// Record counts one evaluation. It never blocks on I/O, never returns an error, and does not
// allocate for a key that was seen since the last flush. It keeps the strings of a new key until
// the next flush.
func (e *Engine) Record(evaluation Evaluation) {
	var ms int64
	var from source
	if evaluation.Time.IsZero() {
		ms, from = e.clock.now()
	} else {
		ms = evaluation.Time.UnixMilli()
	}
	message := evaluation.ErrorMessage
	if len(message) > maxMessage {
		message = cut(message)
	}
	var key texts
	p, stated := e.identify(&evaluation.Key, &key)
	hash := hashKey(e.seed, &key, p)

	e.mu.Lock()
	if from == clockRead {
		e.clock.wasReadLocked(ms)
	}
	if number := e.mu.keys.find(hash, &key, p); number != 0 && stated && ms >= 0 && ms < e.mu.hourEnd && !e.mu.closing {
		e.mu.keys.add(number, ms, message)
		e.mu.statistics.full++
	} else {
		if from == clockShared {
			ms = time.Now().UnixMilli() // so that a key that occurs once is dated exactly
		}
		e.recordSlowlyLocked(hash, &key, p, stated, ms, message)
	}
	e.mu.Unlock()
}

// identify sets the key as it is counted. It returns false if a part of the key is missing.
func (e *Engine) identify(k *Key, key *texts) (parts, bool) {
	key.flag, key.variant, key.allocation, key.errorCode = k.Flag, k.Variant.text, k.Allocation.text, k.ErrorCode.text
	key.version = k.Version
	p := parts(k.Outcome)<<outcomeShift | parts(k.Asked)<<askedShift
	if k.Variant.state == present {
		p |= hasVariant
	}
	if k.Allocation.state == present {
		p |= hasAllocation
	}
	if k.ErrorCode.state == present {
		p |= hasErrorCode
	}
	if e.options.TargetingKeys != TargetingKeysOff && k.TargetingKey.text != "" {
		key.targeting = k.TargetingKey.text
		p |= hasTargeting
	}
	return p, k.stated()
}

// recordSlowlyLocked counts an evaluation whose key has no bucket, or after the end of the hour, or
// which must not be counted.
func (e *Engine) recordSlowlyLocked(hash uint32, key *texts, p parts, stated bool, ms int64, message string) {
	longest := max(len(key.flag), len(key.variant), len(key.allocation), len(key.targeting), len(key.errorCode))
	switch {
	case e.mu.closing:
		e.mu.statistics.dropped[DropClosed]++
		return
	case !stated, longest > maxText, ms < 0, ms > lastMilli:
		e.mu.statistics.dropped[DropInvalid]++
		if e.mu.invalid == nil {
			e.mu.invalid = &invalid{flag: strings.Clone(key.flag[:min(len(key.flag), maxMessage)]), stated: stated, longest: longest, ms: ms}
		}
		return
	}
	if ms >= e.mu.hourEnd {
		e.endHourLocked()
	}
	number := e.mu.keys.find(hash, key, p)
	switch {
	case number != 0:
	case e.mu.keys.keys < maxKeys && (e.mu.keys.keys < maxKeysPerFlag || e.mu.keys.keysOf(key.flag) < maxKeysPerFlag):
		number = e.mu.keys.insert(hash, key, p, ms)
		if e.mu.keys.keys == flushKeys {
			// One call for each table gets here, and its evaluation is in the table when the table
			// is taken.
			select {
			case e.full <- struct{}{}:
			default:
			}
		}
	default:
		e.degradeLocked(key, p, ms, message)
		return
	}
	e.mu.keys.add(number, ms, message)
	e.mu.statistics.full++
}

// invalid describes an invalid evaluation. A flush logs it, because Record does no I/O.
type invalid struct {
	flag    string // the first 512 bytes
	stated  bool
	longest int // length of the longest part of the key, in bytes
	ms      int64
	logged  bool
}

// logInvalid runs in the goroutine of run.
func (e *Engine) logInvalid() {
	e.mu.Lock()
	i := e.mu.invalid
	if i == nil || i.logged {
		e.mu.Unlock()
		return
	}
	i.logged = true
	e.mu.Unlock()
	var wrong string
	switch {
	case i.flag == "":
		wrong = "the flag is empty"
	case !i.stated:
		wrong = "a part of the key is neither None nor Some"
	case i.longest > maxText:
		wrong = fmt.Sprintf("a part of the key has %d bytes, want at most %d", i.longest, maxText)
	default:
		wrong = fmt.Sprintf("the time is %s, want the years 1970 to 9999", time.UnixMilli(i.ms).UTC())
	}
	e.options.Logger.Warn("evallog: an evaluation is invalid and was dropped, further ones are only counted", "flag", i.flag, "wrong", wrong)
}

// endHourLocked begins new tables if the current ones are of an hour that has ended. Otherwise
// these counts would be delivered in the next hour, because a row belongs to the hour of its last
// evaluation. This matters while deliveries fail and tables are old. A caller's clock that is ahead
// does not end an hour, and neither does a second hour before a flush.
func (e *Engine) endHourLocked() {
	now := time.Now()
	if now.UnixMilli() < e.mu.hourEnd {
		return
	}
	if e.mu.keys.keys > 0 {
		if e.mu.past != nil {
			return
		}
		e.mu.past = &past{e.mu.keys, e.mu.degraded}
		e.mu.keys, e.mu.degraded = newTable(e.seed), newTable(e.seed)
	}
	e.mu.hourEnd = now.Truncate(time.Hour).Add(time.Hour).UnixMilli()
}

// cut shortens a message between two characters to a copy that does not keep the whole message in
// memory.
func cut(message string) string {
	end := maxMessage
	for end > maxMessage-utf8.UTFMax && !utf8.RuneStart(message[end]) {
		end--
	}
	return strings.Clone(message[:end])
}

// degradeLocked counts an evaluation without its targeting key, because there is no room for its
// key.
func (e *Engine) degradeLocked(key *texts, p parts, ms int64, message string) {
	key.targeting = ""
	p &^= hasTargeting
	hash := hashKey(e.seed, key, p)
	number := e.mu.degraded.find(hash, key, p)
	if number == 0 {
		if e.mu.degraded.keys >= maxDegradedKeys {
			e.mu.statistics.dropped[DropCapacity]++
			return
		}
		number = e.mu.degraded.insert(hash, key, p, ms)
	}
	e.mu.degraded.add(number, ms, message)
	e.mu.statistics.degraded++
}

// Stats is the state of an engine. Full + Degraded + the sum of Dropped is always the number of
// returned calls of Record plus Adopted.
type Stats struct {
	// Full counts evaluations with their whole key. Degraded counts evaluations without their
	// targeting key, because there were too many keys. Both are delivered or pending.
	Full, Degraded int64
	// Dropped counts evaluations that will not be delivered.
	Dropped map[DropReason]int64
	// Adopted counts evaluations that earlier processes left in the spool.
	Adopted int64
	// Pending counts evaluations of Full and Degraded that are not delivered yet. After Close they
	// are in the spool.
	Pending int64
	// PendingBatches is the number of flushes, each of one or more Batches, that wait for a retry,
	// at most 16.
	PendingBatches int
	// Keys is the number of keys in the tables.
	Keys int
	// LastFlush is the end of the last flush that delivered everything; zero if there was none.
	LastFlush time.Time
	// LastError is the error of the last delivery, or nil if it succeeded.
	LastError error
}

// DroppedTotal returns the sum of Dropped.
func (s Stats) DroppedTotal() int64 {
	var sum int64
	for _, n := range s.Dropped {
		sum += n
	}
	return sum
}

// Stats returns the current state. It may be called at any time, even while the Writer hangs.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := e.mu.keys.keys + e.mu.degraded.keys
	if e.mu.past != nil {
		keys += e.mu.past.keys.keys + e.mu.past.degraded.keys
	}
	return Stats{
		Full:           e.mu.statistics.full,
		Degraded:       e.mu.statistics.degraded,
		Dropped:        maps.Clone(e.mu.statistics.dropped),
		Adopted:        e.mu.statistics.adopted,
		Pending:        e.mu.statistics.full + e.mu.statistics.degraded - e.mu.statistics.delivered,
		PendingBatches: e.mu.statistics.batches,
		Keys:           keys,
		LastFlush:      e.mu.statistics.lastFlush,
		LastError:      e.mu.statistics.lastError,
	}
}
