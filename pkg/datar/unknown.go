package datar

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// unknownPerHour is the number of keys of one hour that are counted separately.
	unknownPerHour = 1000
	// maxUnknown limits the keys of all hours in memory, for example during a long outage of the
	// store. A key takes about 200 bytes, so this is about 2 MB. As many hours may also have an
	// OtherUnknown.
	maxUnknown = 10_000
	// unknownPerBatch is the maximum number of rows of a batch.
	unknownPerBatch = 1000
)

// UnknownStats counts requests for flags that do not exist. Recorded = Stored + Pending + Dropped,
// always.
type UnknownStats struct {
	// Recorded is the number of calls of RecordUnknown that have returned.
	Recorded int64
	// Stored counts requests that the store has confirmed, and Pending those that are not stored
	// yet. Pending requests are in memory: a killed process loses them, even with a journal.
	Stored, Pending int64
	// Dropped counts requests that were not counted: after Close, with an invalid time, of too many
	// hours at once, refused by the store, or not stored by Close.
	Dropped int64
}

// unknownCounter counts requests for flags that do not exist, with a limited number of keys.
type unknownCounter struct {
	mu struct {
		sync.Mutex
		counts map[unknownKey]*unknownCount
		// texts is the number of counts of each hour, without OtherUnknown, and all is their sum.
		texts  map[Hour]int
		all    int
		stats  UnknownStats // without Pending
		closed bool
		// stored has the keys that the store had of the hour storedHour when the engine started,
		// without those in counts. limited is true once they are read, or never can be.
		stored     map[string]struct{}
		storedHour Hour
		limited    bool
	}
}

type unknownKey struct {
	asked string
	hour  Hour
}

type unknownCount struct {
	count, sent int64
	first, last int64
	refused     bool // counted as OtherUnknown instead: the store refuses the key, or has too many
}

// unknownReading is a count once the batch is stored.
type unknownReading struct {
	key   unknownKey
	count int64
}

// RecordUnknown counts a request for a flag that does not exist, under the requested key or ID.
// 1,000 keys of an hour are counted separately, and all others together as OtherUnknown. A key is
// cut to MaxAsked bytes and converted to valid UTF-8 without zero bytes. A zero time means now. It
// does no I/O, and does nothing if the Store is not a DetailStore.
func (e *Engine) RecordUnknown(asked string, at time.Time) {
	if e.details == nil {
		return
	}
	if at.IsZero() {
		at = e.options.Now()
	}
	e.unknown.add(CleanAsked(asked), at.UnixMilli())
}

// CleanAsked returns the key that is counted for a string from a caller: cut to MaxAsked bytes,
// valid UTF-8 without zero bytes.
func CleanAsked(text string) string {
	if len(text) > MaxAsked {
		end := MaxAsked
		for end > MaxAsked-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	text = strings.ToValidUTF8(text, "?")
	return strings.ReplaceAll(text, "\x00", "?") // PostgreSQL cannot store it
}

func (u *unknownCounter) add(asked string, ms int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.stats.Recorded++
	if u.mu.closed || ms < 0 || ms > maxMilli {
		u.mu.stats.Dropped++
		return
	}
	c := u.countForLocked(unknownKey{asked, hourOfMilli(ms)})
	if c == nil {
		u.mu.stats.Dropped++
		return
	}
	if c.count == 0 {
		c.first, c.last = ms, ms
	}
	c.count++
	c.first, c.last = min(c.first, ms), max(c.last, ms)
}

// countForLocked returns the count of the key, or of OtherUnknown when keys run short, or nil.
func (u *unknownCounter) countForLocked(key unknownKey) *unknownCount {
	if c := u.mu.counts[key]; c != nil && !c.refused {
		return c
	} else if c != nil || u.isFullLocked(key) {
		key.asked = OtherUnknown
		if c := u.mu.counts[key]; c != nil {
			return c
		}
	}
	if u.mu.counts == nil {
		u.mu.counts, u.mu.texts = map[unknownKey]*unknownCount{}, map[Hour]int{}
	}
	switch {
	case key.asked != OtherUnknown:
		// The map's key keeps its string in memory, so it must not be part of a large request.
		key.asked = strings.Clone(key.asked)
		u.mu.texts[key.hour]++
		u.mu.all++
		if key.hour == u.mu.storedHour {
			delete(u.mu.stored, key.asked)
		}
	case len(u.mu.counts)-u.mu.all >= maxUnknown:
		return nil
	}
	c := &unknownCount{}
	u.mu.counts[key] = c
	return c
}

// isFullLocked reports whether a key that is not in counts must be counted as OtherUnknown.
func (u *unknownCounter) isFullLocked(key unknownKey) bool {
	texts := u.mu.texts[key.hour]
	if key.hour == u.mu.storedHour {
		if _, isStored := u.mu.stored[key.asked]; isStored {
			return u.mu.all >= maxUnknown // it adds no row to the store
		}
		texts += len(u.mu.stored)
	}
	return texts >= unknownPerHour || u.mu.all >= maxUnknown
}

// limitUnknown makes the limit of an hour apply across restarts: keys beyond it are counted as
// OtherUnknown if the store already has the keys of earlier runs, or of other servers, for the hour
// in which this run started. It does so before this run sends its first keys. If the store cannot
// tell, it tries again before the next ones, unless the store never can.
func (e *Engine) limitUnknown(ctx context.Context) {
	hour := HourOf(e.flushing.reporter.start)
	if !e.unknown.isUnlimited() {
		return
	}
	rows, err := e.storeUnknown(ctx, UnknownQuery{From: hour, To: hour + 1, Limit: unknownPerHour + 1})
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		e.unknown.limit(hour, rows)
	}
}

func (e *Engine) storeUnknown(ctx context.Context, query UnknownQuery) (rows []UnknownRow, err error) {
	defer e.recoverStore(&err)
	return e.details.Unknown(ctx, query)
}

// isUnlimited reports whether keys are pending and limit was not called.
func (u *unknownCounter) isUnlimited() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.mu.limited && len(u.mu.counts) > 0
}

// limit counts keys of an hour as OtherUnknown beyond unknownPerHour, together with those that the
// store has. Nothing of this run is stored yet.
func (u *unknownCounter) limit(hour Hour, rows []UnknownRow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.limited = true
	stored := make(map[string]struct{}, len(rows))
	for _, r := range rows {
		if r.Asked != OtherUnknown {
			stored[r.Asked] = struct{}{}
		}
	}
	left := unknownPerHour - len(stored)
	var more []unknownKey
	for key := range u.mu.counts {
		if key.hour != hour || key.asked == OtherUnknown {
			continue
		}
		if _, isStored := stored[key.asked]; isStored {
			delete(stored, key.asked)
			continue
		}
		more = append(more, key)
	}
	u.mu.stored, u.mu.storedHour = stored, hour
	if len(more) <= left {
		return
	}
	slices.SortFunc(more, func(a, b unknownKey) int { return strings.Compare(a.asked, b.asked) })
	for _, key := range more[max(0, left):] {
		u.mergeLocked(key)
	}
}

// begin returns the rows of the next batch, at most limit, sorted by hour and key.
func (u *unknownCounter) begin(limit int) (rows []UnknownRow, readings []unknownReading) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, c := range u.mu.counts {
		if c.count > c.sent {
			readings = append(readings, unknownReading{key, c.count})
		}
	}
	slices.SortFunc(readings, func(a, b unknownReading) int {
		return cmp.Or(cmp.Compare(a.key.hour, b.key.hour), strings.Compare(a.key.asked, b.key.asked))
	})
	readings = readings[:min(limit, len(readings))]
	rows = make([]UnknownRow, len(readings))
	for i, r := range readings {
		c := u.mu.counts[r.key]
		rows[i] = UnknownRow{Asked: r.key.asked, Hour: r.key.hour, Count: c.count - c.sent, First: c.first, Last: c.last}
	}
	return rows, readings
}

// settle marks the readings as stored.
func (u *unknownCounter) settle(readings []unknownReading) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range readings {
		c := u.mu.counts[r.key]
		u.mu.stats.Stored += r.count - c.sent
		c.sent = r.count
	}
}

// refuse records that the store refuses the key of a reading. It is then counted as OtherUnknown,
// which is dropped if it is also refused.
func (u *unknownCounter) refuse(r unknownReading) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mergeLocked(r.key)
}

// mergeLocked counts what is not stored of a key, and all that follows, as OtherUnknown.
func (u *unknownCounter) mergeLocked(key unknownKey) {
	c := u.mu.counts[key]
	left := c.count - c.sent
	c.sent = c.count
	other := (*unknownCount)(nil)
	if key.asked != OtherUnknown {
		c.refused = true
		other = u.countForLocked(key)
	}
	if other == nil {
		u.mu.stats.Dropped += left
		return
	}
	if other.count == 0 {
		other.first, other.last = c.first, c.last
	}
	other.count += left
	other.first, other.last = min(other.first, c.first), max(other.last, c.last)
}

// retire removes stored counts of other hours.
func (u *unknownCounter) retire(now Hour) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mu.storedHour != now {
		u.mu.stored = nil
	}
	for key, c := range u.mu.counts {
		if key.hour == now || c.count > c.sent {
			continue
		}
		delete(u.mu.counts, key)
		if key.asked == OtherUnknown {
			continue
		}
		u.mu.all--
		if u.mu.texts[key.hour]--; u.mu.texts[key.hour] == 0 {
			delete(u.mu.texts, key.hour)
		}
	}
}

// isPending reports whether a count is not stored yet.
func (u *unknownCounter) isPending() bool { return u.stats().Pending > 0 }

func (u *unknownCounter) stats() UnknownStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.mu.stats
	s.Pending = s.Recorded - s.Stored - s.Dropped
	return s
}

// close ends counting.
func (u *unknownCounter) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.closed = true
}

// drop counts everything that is not stored as dropped, after close.
func (u *unknownCounter) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.stats.Dropped = u.mu.stats.Recorded - u.mu.stats.Stored
	u.mu.counts = nil
}
