package datar

import (
	"runtime/debug"
	"sync/atomic"
)

// cell says where a key is counted. Record reads the first five fields, which share a cache line and seldom change;
// of the slot, whose line every count takes from the other processors, it touches nothing but the count.
type cell struct {
	key  Key
	slot *slot
	// first and last are those of slot. They are updated after the slot's and before the count, and a flush reads them
	// after the count, so what is sent with a count covers every evaluation in it.
	first, last atomic.Int64
	// changed is 1 from the first count after a flush read the slot until the next flush reads it.
	changed atomic.Uint32
	mapped  bool   // slot lies in a journal
	arena   *arena // keeps the memory of slot
	index   int    // of slot within arena
	// settled is what is in slot.stored, where no cut of a file reaches it. It is written under the flushing lock and
	// mu, and read under either.
	settled int64
	// sealed: nothing is counted in slot any more, and final is what was. The slot itself may show more for a moment,
	// until a Record that came too late has taken its addition back. Both are kept like settled.
	sealed bool
	final  int64
	_      [24]byte // up to a size that the allocator aligns to cache lines
}

func newCell(key Key, a *arena, index int) *cell {
	c := &cell{key: key, slot: &a.slots[index], mapped: a.journal != nil, arena: a, index: index}
	c.first.Store(c.slot.first.Load())
	c.last.Store(c.slot.last.Load())
	return c
}

// add counts one evaluation. counted is false if the slot was sealed before, or its memory is gone, and the evaluation
// must be counted elsewhere; first is true if it is the first since a flush read the slot.
func (c *cell) add(ms int64) (counted, first bool) {
	if c.mapped {
		counted = c.addMapped(ms)
	} else {
		counted = c.addTo(c.slot, ms)
	}
	return counted, counted && c.changed.Load() == 0 && c.changed.Swap(1) == 0
}

func (c *cell) addTo(s *slot, ms int64) bool {
	if ms < c.first.Load() || ms > c.last.Load() {
		s.cover(ms)
		lower(&c.first, ms)
		raise(&c.last, ms)
	}
	return s.add()
}

// addMapped is addTo for a slot in a file, which faults if the file was cut.
func (c *cell) addMapped(ms int64) (counted bool) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if !counted && isFault(recover()) {
			c.arena.missing.Store(true)
		}
	}()
	return c.addTo(c.slot, ms)
}

// counted is how much was counted in the cell.
func (c *cell) counted() int64 {
	if c.sealed {
		return c.final
	}
	return c.slot.counted()
}

// base is the part of the slot's count that is settled.
func (c *cell) base() int64 {
	if c.slot.flagID.Load() == 0 { // the file was cut before it, and what came after the cut is counted from 0
		return c.slot.stored.Load()
	}
	return c.settled
}

// left is the number of evaluations that are not settled. It is never negative, although the count may be cut away.
func (c *cell) left() int64 {
	base := c.base() // before the count, which is never less
	return max(0, c.counted()-base)
}

// table finds cells by key: open addressing with linear probing. Readers take no lock. Writers, who hold Engine.mu,
// put cells into empty places only; to take cells out or to grow they publish a new table.
type table struct {
	places []atomic.Pointer[cell] // a power of two, at most half of it filled
}

func newTable(cells int) *table {
	const smallest = 256
	size := smallest
	for size < 4*cells {
		size *= 2
	}
	return &table{places: make([]atomic.Pointer[cell], size)}
}

func (t *table) get(key Key) *cell {
	mask := uint64(len(t.places) - 1)
	for i := key.hash() & mask; ; i = (i + 1) & mask {
		c := t.places[i].Load()
		if c == nil || c.key == key {
			return c
		}
	}
}

func (t *table) put(c *cell) {
	mask := uint64(len(t.places) - 1)
	i := c.key.hash() & mask
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
