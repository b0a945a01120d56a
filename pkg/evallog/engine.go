// Package evallog counts flag evaluations in the process where they happen, and sends the counts home in batches. It is
// made to be embedded in any program, and depends on the standard library only.
//
// Every evaluation given to Record is delivered once, or waits as pending, or is counted as dropped under a named
// reason. Stats shows all of that at any moment.
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
	// DefaultFlushInterval is the flush interval of an engine whose Options leave it out.
	DefaultFlushInterval = 10 * time.Second
	// MinFlushInterval is the lower bound of Options.FlushInterval.
	MinFlushInterval = time.Second
	// MaxFlushInterval is its upper bound.
	MaxFlushInterval = time.Minute
	// flushKeys is the number of keys that starts a flush before its time.
	flushKeys = maxRows
	// maxKeys is the most keys that are counted in full between two flushes.
	maxKeys = 131_072
	// maxKeysPerFlag is the most keys of one flag among them.
	maxKeysPerFlag = 10_000
	// maxDegradedKeys is the most keys that are counted without their targeting key beyond those.
	maxDegradedKeys = 32_768
	// maxPending is the most flushes that wait to be delivered. It counts flushes, not rows and not Batches, of which a
	// flush makes one for each 1,000 rows. A flush usually has few rows, but it has all keys of an hour in which nothing
	// could be delivered: up to maxKeys + maxDegradedKeys, and twice as many where an hour ended in it.
	maxPending = 16

	// maxText bounds the length of each part of a key, in bytes, and with it the size of a row.
	maxText = 4096
	// maxMessage is where error messages are cut, in bytes.
	maxMessage = 512
	// maxReasons bounds the reasons that receivers can bring into Stats.Dropped.
	maxReasons = 64
)

// DropReason says why an evaluation will not be delivered. Writers add their own, such as http_400.
type DropReason string

// The reasons of the engine itself.
const (
	// DropInvalid: the evaluation had no flag, left out a part of its key, had a part of more than 4,096 bytes, an outcome,
	// version or asked that is not one, or a time outside the years 1970 to 9999.
	DropInvalid DropReason = "invalid"
	// DropCapacity: there were too many keys, also of those without targeting key.
	DropCapacity DropReason = "capacity"
	// DropClosed: it was recorded after Close had begun.
	DropClosed DropReason = "closed"
	// DropPending: more than 16 flushes waited, and it was in the oldest.
	DropPending DropReason = "pending_limit"
	// DropUndelivered: Close could not deliver it in time, and there was no spool to keep it.
	DropUndelivered DropReason = "undelivered"
	// DropPanic: the Writer panicked.
	DropPanic DropReason = "panic"
	// DropOther stands for further reasons of Writers when there are too many of them.
	DropOther DropReason = "other"
)

// ErrClosed is the error of Flush after Close.
var ErrClosed = errors.New("evaluation log is closed")

// TargetingKeys says what becomes of targeting keys.
type TargetingKeys uint8

// What can become of them.
const (
	// TargetingKeysOff leaves them out of everything. It is the default: they are personal data, and each makes a key.
	TargetingKeysOff TargetingKeys = iota
	// TargetingKeysHashed sends sha256_ and the 64 hexadecimal digits of the hash. The text itself stays in memory.
	TargetingKeysHashed
	// TargetingKeysClear sends them as they are.
	TargetingKeysClear
)

// Options configure an Engine. Writer is mandatory; the zero value of the others is a good default.
type Options struct {
	Writer Writer
	// FlushInterval is the longest time until a flush, MinFlushInterval to MaxFlushInterval. 0: DefaultFlushInterval.
	FlushInterval time.Duration
	TargetingKeys TargetingKeys
	Context       Context
	// SpoolDir is a directory of a local disk for batches that could not be delivered. They survive the process, and
	// the next engine with this directory delivers them. One engine at a time can use it. Empty: no spool.
	SpoolDir string
	// Logger gets a line when deliveries begin to fail, when they work again, and when evaluations are dropped. Nil:
	// slog.Default(). Use slog.New(slog.DiscardHandler) for no log.
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

// isNil reports whether a method of v would find a nil pointer, or v is a nil function.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// Engine counts evaluations and sends them. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	seed    uint64 // of the hashes
	clock   clock

	// mu guards what follows. Looking up, counting, the check of the size and the swap of the tables are all done while
	// it is held, so that no count can reach a table that was taken away. Nothing else is: no I/O, no row of a batch.
	mu sync.Mutex
	// keys are counted in full, degraded without their targeting key.
	keys, degraded *table
	// hourEnd is the end of the hour of UTC in which the first of them was recorded, in Unix milliseconds.
	hourEnd int64
	// past is what was counted in an hour that ended since the last flush, nil if none did.
	past    *past
	closing bool
	books   books
	// invalid is the first evaluation that was invalid, nil if none was.
	invalid *invalid

	// full has one place, which is taken when a table reaches flushKeys, and emptied together with that table.
	full     chan struct{}
	requests chan chan error // of Flush
	start    sync.Once
	close    sync.Once
	stop     chan struct{} // closed when Close begins
	stopped  chan error    // result of run
	closed   chan struct{} // closed when the first Close has done everything
	closeErr error         // result of Close, written before closed is closed

	// lifetime is the context of all deliveries. It ends with the deadline of Close, and with no context of a caller:
	// a request that was cancelled was evaluated all the same.
	lifetime context.Context
	end      context.CancelFunc
	deadline time.Time // of Close, written before stop is closed

	outbox outbox // owned by run
}

// past has the tables of an hour that has ended.
type past struct{ keys, degraded *table }

// books count evaluations. Full and degraded ones move to dropped if they are lost later.
type books struct {
	full, degraded, adopted int64
	delivered               int64 // of full and degraded
	dropped                 map[DropReason]int64
	batches                 int
	lastFlush               time.Time
	lastError               error
}

// New returns an engine that counts at once. Start makes it send by itself; Close ends it. What a spool holds is taken
// over here, and sent after Start.
func New(options Options) (*Engine, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		options:  options,
		seed:     mathrand.Uint64(),
		books:    books{dropped: map[DropReason]int64{}},
		full:     make(chan struct{}, 1),
		requests: make(chan chan error),
		stop:     make(chan struct{}),
		stopped:  make(chan error, 1),
		closed:   make(chan struct{}),
		outbox:   outbox{writer: newWriterID()},
	}
	e.keys, e.degraded = newTable(e.seed), newTable(e.seed)
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

// Record counts one evaluation. It never blocks on I/O, never fails the caller, and allocates nothing for a key that
// was seen since the last flush. The strings of a new key are kept until the next flush.
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
		e.clock.wasRead(ms)
	}
	if number := e.keys.find(hash, &key, p); number != 0 && stated && ms >= 0 && ms < e.hourEnd && !e.closing {
		e.keys.add(number, ms, message)
		e.books.full++
	} else {
		if from == clockShared {
			ms = time.Now().UnixMilli() // so that a key that comes once is dated exactly
		}
		e.recordSlowly(hash, &key, p, stated, ms, message)
	}
	e.mu.Unlock()
}

// identify fills in the key as it is counted. It returns false if the caller left a part of it out.
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

// recordSlowly counts an evaluation whose key has no bucket, or after the end of the hour, or which is not to be
// counted. It runs under mu.
func (e *Engine) recordSlowly(hash uint32, key *texts, p parts, stated bool, ms int64, message string) {
	longest := max(len(key.flag), len(key.variant), len(key.allocation), len(key.targeting), len(key.errorCode))
	switch {
	case e.closing:
		e.books.dropped[DropClosed]++
		return
	case !stated, longest > maxText, ms < 0, ms > lastMilli:
		e.books.dropped[DropInvalid]++
		if e.invalid == nil {
			e.invalid = &invalid{flag: strings.Clone(key.flag[:min(len(key.flag), maxMessage)]), stated: stated, longest: longest, ms: ms}
		}
		return
	}
	if ms >= e.hourEnd {
		e.endHour()
	}
	number := e.keys.find(hash, key, p)
	switch {
	case number != 0:
	case e.keys.keys < maxKeys && (e.keys.keys < maxKeysPerFlag || e.keys.keysOf(key.flag) < maxKeysPerFlag):
		number = e.keys.insert(hash, key, p, ms)
		if e.keys.keys == flushKeys {
			// One record of each table comes here, and it is in the table when that is taken.
			select {
			case e.full <- struct{}{}:
			default:
			}
		}
	default:
		e.degrade(key, p, ms, message)
		return
	}
	e.keys.add(number, ms, message)
	e.books.full++
}

// invalid says what was wrong with an evaluation. A flush logs it, since Record does no I/O.
type invalid struct {
	flag    string // at most 512 bytes of it
	stated  bool
	longest int // part of the key, in bytes
	ms      int64
	logged  bool
}

// logInvalid runs in the goroutine of run.
func (e *Engine) logInvalid() {
	e.mu.Lock()
	i := e.invalid
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

// endHour begins new tables if those there are of an hour that has ended, so that its counts are not delivered as those
// of the next: a row is booked on the hour of its last evaluation. That matters while deliveries fail, and tables are
// old. A clock of the caller that is ahead ends no hour, and neither does a second hour before a flush. It runs under mu.
func (e *Engine) endHour() {
	now := time.Now()
	if now.UnixMilli() < e.hourEnd {
		return
	}
	if e.keys.keys > 0 {
		if e.past != nil {
			return
		}
		e.past = &past{e.keys, e.degraded}
		e.keys, e.degraded = newTable(e.seed), newTable(e.seed)
	}
	e.hourEnd = now.Truncate(time.Hour).Add(time.Hour).UnixMilli()
}

// cut shortens a message, between two characters, to a copy that does not hold the whole of it in memory.
func cut(message string) string {
	end := maxMessage
	for end > maxMessage-utf8.UTFMax && !utf8.RuneStart(message[end]) {
		end--
	}
	return strings.Clone(message[:end])
}

// degrade counts an evaluation for whose key there is no room. It runs under mu.
func (e *Engine) degrade(key *texts, p parts, ms int64, message string) {
	key.targeting = ""
	p &^= hasTargeting
	hash := hashKey(e.seed, key, p)
	number := e.degraded.find(hash, key, p)
	if number == 0 {
		if e.degraded.keys >= maxDegradedKeys {
			e.books.dropped[DropCapacity]++
			return
		}
		number = e.degraded.insert(hash, key, p, ms)
	}
	e.degraded.add(number, ms, message)
	e.books.degraded++
}

// Stats is the state of an engine. Full + Degraded + the sum of Dropped is the number of calls of Record that have
// returned, and Adopted, always.
type Stats struct {
	// Full are evaluations that were counted under their whole key, Degraded those without their targeting key because
	// there were too many keys. Both are delivered or pending.
	Full, Degraded int64
	// Dropped are evaluations that will not be delivered.
	Dropped map[DropReason]int64
	// Adopted are evaluations that earlier processes left in the spool.
	Adopted int64
	// Pending are those of Full and Degraded that are not delivered yet. After Close they are in the spool.
	Pending int64
	// PendingBatches is the number of flushes, each of one or more Batches, that wait for another attempt, at most
	// 16.
	PendingBatches int
	// Keys is the number of keys that are being counted.
	Keys int
	// LastFlush is the end of the last flush that delivered everything. Zero: none.
	LastFlush time.Time
	// LastError is the reason why the last delivery failed, nil if it succeeded.
	LastError error
}

// DroppedTotal is the sum of Dropped.
func (s Stats) DroppedTotal() int64 {
	var sum int64
	for _, n := range s.Dropped {
		sum += n
	}
	return sum
}

// Stats returns the present state. It may be called at any time, also while the Writer hangs.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := e.keys.keys + e.degraded.keys
	if e.past != nil {
		keys += e.past.keys.keys + e.past.degraded.keys
	}
	return Stats{
		Full:           e.books.full,
		Degraded:       e.books.degraded,
		Dropped:        maps.Clone(e.books.dropped),
		Adopted:        e.books.adopted,
		Pending:        e.books.full + e.books.degraded - e.books.delivered,
		PendingBatches: e.books.batches,
		Keys:           keys,
		LastFlush:      e.books.lastFlush,
		LastError:      e.books.lastError,
	}
}
