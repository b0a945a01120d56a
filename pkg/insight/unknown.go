package insight

import (
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Unknown is a requested key or ID of a flag that does not exist.
type Unknown struct {
	// Asked is the requested text, truncated to 63 bytes, or "(other)" for all texts beyond those
	// that a server keeps per hour.
	Asked       string
	Count       int64
	First, Last time.Time
	// DeletedFlagID is the ID of the deleted flag that has this key or ID, or 0.
	DeletedFlagID int64
	// Similar is the key of a flag that differs in one or two letters, or "".
	Similar string
}

// UnknownOf describes requested texts. keys are those of all flags that exist. deleted maps the
// keys of deleted flags, and their IDs in decimal, to their IDs.
func UnknownOf(rows []datar.UnknownRow, keys []string, deleted map[string]int64) []Unknown {
	index := newKeyIndex(keys)
	list := make([]Unknown, len(rows))
	for i, r := range rows {
		list[i] = Unknown{Asked: r.Asked, Count: r.Count, First: milli(r.First), Last: milli(r.Last), DeletedFlagID: deleted[r.Asked]}
		if r.Asked != datar.OtherUnknown && list[i].DeletedFlagID == 0 {
			list[i].Similar = index.similar(r.Asked)
		}
	}
	return list
}

// milli converts milliseconds since 1970. It returns the zero time for 0.
func milli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// UnknownTable lists texts.
func UnknownTable(list []Unknown) *Table {
	return tableOf([]string{"asked", "count", "firstAt", "lastAt", "deletedFlagID", "similar"}, func(add func(cells ...string)) {
		for _, u := range list {
			add(u.Asked, number(u.Count), timeText(u.First), timeText(u.Last), id(u.DeletedFlagID), u.Similar)
		}
	})
}

// maxDistance is the maximum number of letters in which similar keys differ.
const maxDistance = 2

// keyIndex finds similar keys.
type keyIndex struct {
	keys  []string
	lower []string
	// letters are the sets of characters of the keys. They rule out most keys quickly: texts that
	// differ in one or two letters differ in at most four characters.
	letters []uint64
}

func newKeyIndex(keys []string) *keyIndex {
	x := &keyIndex{keys: slices.Sorted(slices.Values(keys))}
	x.lower, x.letters = make([]string, len(keys)), make([]uint64, len(keys))
	for i, key := range x.keys {
		x.lower[i] = strings.ToLower(key)
		x.letters[i] = lettersOf(x.lower[i])
	}
	return x
}

// lettersOf returns a set of characters. Several characters can share a bit.
func lettersOf(s string) (set uint64) {
	for i := range len(s) {
		set |= 1 << (s[i] % 64)
	}
	return set
}

// similar returns the key that differs least, in at most two letters and in less than half of them.
// It ignores case.
func (x *keyIndex) similar(asked string) string {
	asked = strings.ToLower(asked)
	letters := lettersOf(asked)
	best, found := maxDistance+1, ""
	for i, key := range x.lower {
		if n := len(key) - len(asked); n > maxDistance || n < -maxDistance || bits.OnesCount64(x.letters[i]^letters) > 2*maxDistance {
			continue
		}
		if d := distance(asked, key); d < best && 2*d < min(len(asked), len(key)) {
			best, found = d, x.keys[i]
		}
	}
	return found
}

// distance returns the minimum number of letters to insert, delete, replace or swap with the next
// one to turn a into b (optimal string alignment). It works on bytes, because keys are ASCII.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
