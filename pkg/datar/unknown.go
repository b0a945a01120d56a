package datar

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// unknownPerHour is how many texts of one hour are counted by themselves.
	unknownPerHour = 1000
	// maxUnknown bounds the texts of all hours that are in memory, as when the store is away for long. A text takes some
	// 200 bytes, so this is about 2 MB. As many hours again may have an OtherUnknown.
	maxUnknown = 10_000
	// unknownPerBatch is the most rows of a batch.
	unknownPerBatch = 1000
)

// UnknownStats is what became of requests for flags that do not exist. Recorded = Stored + Pending + Dropped, always.
type UnknownStats struct {
	// Recorded is the number of calls of RecordUnknown that have returned.
	Recorded int64
	// Stored are those that the store has confirmed, and Pending those that wait for it, in memory: a process that is
	// killed loses them, also with a journal.
	Stored, Pending int64
	// Dropped are those that were not counted: after Close, with an impossible time, of too many hours at once, refused
	// by the store, or not stored by Close.
	Dropped int64
}

// unknownCounter counts requests for flags that do not exist, of a bounded number of texts.
type unknownCounter struct {
	mu struct {
		sync.Mutex
		counts map[unknownKey]*unknownCount
		// texts is how many of counts each hour has, without OtherUnknown, and all is their sum.
		texts  map[Hour]int
		all    int
		stats  UnknownStats // without Pending
		closed bool
	}
}

type unknownKey struct {
	asked string
	hour  Hour
}

type unknownCount struct {
	count, sent int64
	first, last int64
	refused     bool // the store refuses the text
}

// unknownReading is a count as a batch will have brought it to the store.
type unknownReading struct {
	key   unknownKey
	count int64
}

// RecordUnknown counts a request for a flag that does not exist, under the key, id or tag that was asked for. Of an hour,
// 1,000 texts are counted by themselves, and the others together as OtherUnknown; a text is cut to MaxAsked bytes and made
// valid UTF-8 without zero bytes. A zero time is now. It does no I/O, and nothing at all if the Store is not a DetailStore.
func (e *Engine) RecordUnknown(asked string, at time.Time) {
	if e.details == nil {
		return
	}
	if at.IsZero() {
		at = e.options.Now()
	}
	e.unknown.add(CleanAsked(asked), at.UnixMilli())
}

// CleanAsked returns what is counted for a text that a caller has sent: cut to MaxAsked bytes, valid UTF-8 without zero bytes.
func CleanAsked(text string) string {
	if len(text) > MaxAsked {
		end := MaxAsked
		for end > MaxAsked-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	text = strings.ToValidUTF8(text, "?")
	return strings.ReplaceAll(text, "\x00", "?") // which PostgreSQL has no place for
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

// countForLocked returns the count of the key, or of OtherUnknown when room is short, or nil.
func (u *unknownCounter) countForLocked(key unknownKey) *unknownCount {
	if c := u.mu.counts[key]; c != nil && !c.refused {
		return c
	} else if c != nil || u.mu.texts[key.hour] >= unknownPerHour || u.mu.all >= maxUnknown {
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
		// The key of the map keeps its text alive, which must not be a part of a large request.
		key.asked = strings.Clone(key.asked)
		u.mu.texts[key.hour]++
		u.mu.all++
	case len(u.mu.counts)-u.mu.all >= maxUnknown:
		return nil
	}
	c := &unknownCount{}
	u.mu.counts[key] = c
	return c
}

// begin returns what the next batch brings, at most limit rows, in the order of hours and texts.
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

// settle notes that the readings are stored.
func (u *unknownCounter) settle(readings []unknownReading) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range readings {
		c := u.mu.counts[r.key]
		u.mu.stats.Stored += r.count - c.sent
		c.sent = r.count
	}
}

// refuse takes note that the store refuses the text of a reading: it is counted as OtherUnknown, which is dropped if it is
// refused as well.
func (u *unknownCounter) refuse(r unknownReading) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.mu.counts[r.key]
	left := c.count - c.sent
	c.sent = c.count
	other := (*unknownCount)(nil)
	if r.key.asked != OtherUnknown {
		c.refused = true
		other = u.countForLocked(r.key)
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

// retire gives up the counts outside of the hour that are stored.
func (u *unknownCounter) retire(now Hour) {
	u.mu.Lock()
	defer u.mu.Unlock()
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

// isPending reports whether something waits for the store.
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

// drop counts what waits for the store as dropped, after close.
func (u *unknownCounter) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mu.stats.Dropped = u.mu.stats.Recorded - u.mu.stats.Stored
	u.mu.counts = nil
}
