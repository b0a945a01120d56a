package datar

import (
	"math"
	"sync/atomic"
)

// sealedBit marks a cell that takes no more counts. As the sign bit it shows in the result of the very addition that
// came too late.
const sealedBit = math.MinInt64

// cell counts the evaluations of one key. It fills one cache line of 64 bytes, so that neighbours do not slow each
// other down. The key never changes after the cell was published.
type cell struct {
	flagID, variantID, segmentID int64
	hour                         Hour
	// changed is 1 from the first count after a flush read the cell until the next flush reads it.
	changed atomic.Uint32
	// count only grows: nothing is taken back while the hour lives, so nothing can fall between reading and resetting.
	count atomic.Int64
	// stored is how much of count the store has. Only the flush writes it.
	stored atomic.Int64
	// first and last are Unix milliseconds. They are updated before count, and a flush reads them after it, so what
	// is sent with a count covers every evaluation in it.
	first, last atomic.Int64
}

func newCell(key Key, ms int64) *cell {
	c := &cell{flagID: key.FlagID, variantID: key.VariantID, segmentID: key.SegmentID, hour: key.Hour}
	c.first.Store(ms)
	c.last.Store(ms)
	return c
}

func (c *cell) key() Key {
	return Key{FlagID: c.flagID, VariantID: c.variantID, SegmentID: c.segmentID, Hour: c.hour}
}

// add counts one evaluation. It reports false if the cell was sealed before and the evaluation must be counted
// elsewhere.
func (c *cell) add(ms int64) bool {
	for first := c.first.Load(); ms < first; first = c.first.Load() {
		if c.first.CompareAndSwap(first, ms) {
			break
		}
	}
	for last := c.last.Load(); ms > last; last = c.last.Load() {
		if c.last.CompareAndSwap(last, ms) {
			break
		}
	}
	return c.count.Add(1) > 0
}

// retire seals the cell if everything in it is stored. After that no count can reach it.
func (c *cell) retire() bool {
	stored := c.stored.Load()
	return c.count.CompareAndSwap(stored, stored|sealedBit)
}

// seal ends counting in the cell and returns the final count.
func (c *cell) seal() int64 { return c.count.Or(sealedBit) }

// table finds cells by key: open addressing with linear probing. Readers take no lock. Writers, who hold Engine.mu,
// put cells into empty places only; to take cells out or to grow they publish a new table.
type table struct {
	places []atomic.Pointer[cell] // a power of two, at most half of it filled
}

func newTable(cells []*cell) *table {
	const smallest = 256
	size := smallest
	for size < 4*len(cells) {
		size *= 2
	}
	t := &table{places: make([]atomic.Pointer[cell], size)}
	for _, c := range cells {
		t.put(c)
	}
	return t
}

func (t *table) get(key Key) *cell {
	mask := uint64(len(t.places) - 1)
	for i := key.hash() & mask; ; i = (i + 1) & mask {
		c := t.places[i].Load()
		if c == nil || (c.flagID == key.FlagID && c.variantID == key.VariantID && c.segmentID == key.SegmentID && c.hour == key.Hour) {
			return c
		}
	}
}

func (t *table) put(c *cell) {
	mask := uint64(len(t.places) - 1)
	i := c.key().hash() & mask
	for t.places[i].Load() != nil {
		i = (i + 1) & mask
	}
	t.places[i].Store(c)
}

func (t *table) hasRoomFor(cells int) bool { return 2*cells <= len(t.places) }

// hash mixes the parts with odd constants and ends with the 64-bit finaliser of MurmurHash3 (Austin Appleby, public
// domain): ids are small and dense, so every bit of them must reach the low bits of the result.
func (k Key) hash() uint64 {
	h := uint64(k.FlagID)*0x9e3779b97f4a7c15 + uint64(k.VariantID)*0xc2b2ae3d27d4eb4f +
		uint64(k.SegmentID)*0x165667b19e3779f9 + uint64(uint32(k.Hour))*0x27d4eb2f165667c5
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}
