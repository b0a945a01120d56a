package datar

import (
	"math/bits"
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

const (
	// stripes is the number of further slots of a busy key.
	stripes = 32
	// A key is busy if busyCounts of its evaluations, a power of two, happened within busyTime
	// milliseconds.
	busyCounts = 1 << 16
	busyTime   = 1000
)

// cell is the place where a key is counted. Record reads the first six fields, which share a cache
// line and rarely change. Of the slot, whose cache line moves between processors with every count,
// it only uses the count.
//
// A key that many processors count at the same time gets stripes: cells of its own, each with a
// slot, so that the processors do not wait for each other. A flush treats them like other cells and
// adds up their rows.
type cell struct {
	key  packedKey
	slot *slot
	// first and last are copies of the slot's. They are updated after the slot's and before the
	// count, and a flush reads them after the count. So they cover every evaluation in a count that
	// is sent.
	first, last atomic.Int64
	flags       atomic.Uint32
	mapped      bool   // slot is in a journal
	isStripe    bool   // of another cell, and not in the table
	arena       *arena // keeps the memory of slot
	index       int    // of slot within arena
	// bothLocks has what the flushing lock and Engine.mu protect: writing requires both, reading
	// one of them.
	bothLocks struct {
		// settled is a copy of slot.stored that truncation of a file cannot change.
		settled int64
		// sealed: slot accepts no more counts, and final is the last count. The slot itself may
		// briefly have a greater count, until a late Record has taken back its addition.
		sealed bool
		final  int64
	}
	// stripes are set before the flag striped, and never change afterward.
	stripes *[stripes]*cell
	// lap is the time of the last evaluation at which the count reached a multiple of busyCounts,
	// in Unix milliseconds.
	lap atomic.Int64
	_   [8]byte // padding to a size that the allocator aligns to cache lines
}

// The flags of a cell.
const (
	// changed is set from the first count after a flush read the slot until the next flush reads
	// it.
	changed = 1 << iota
	striped
)

// addition is the result of counting an evaluation. It is 0 if the evaluation must be counted
// elsewhere, because the slot was sealed before, or because its memory is gone.
type addition uint8

const (
	counted addition = 1 << iota
	// first: the first count since a flush read the slot.
	first
	// busy: the key should have stripes.
	busy
)

func newCell(key Key, a *arena, index int) *cell {
	c := &cell{key: key.pack(), slot: &a.slots[index], mapped: a.journal != nil, arena: a, index: index}
	c.first.Store(c.slot.first.Load())
	c.last.Store(c.slot.last.Load())
	return c
}

// ofGoroutine returns where the goroutine counts: in the cell, or in one of its stripes.
func (f found) ofGoroutine() found {
	if f.cell.flags.Load()&striped == 0 {
		return f
	}
	c := f.cell.stripes[stripeOfGoroutine()]
	return found{c, c.slot}
}

// addWithin counts n evaluations if ms is not before the first and not after the last one, and
// returns the count. It returns 0 if it did not count, and a negative number if the slot was
// sealed. finish does the rest.
//
// It is inlined where each nanosecond matters, and has no more than nearly all evaluations need.
func (f found) addWithin(ms, n int64) int64 {
	// The processor starts the load of the count before it has the cell, unlike an addition.
	if f.slot.count.Load() < 0 || ms < f.cell.first.Load() || ms > f.cell.last.Load() {
		return 0
	}
	return f.slot.count.Add(n)
}

// addMapped is addWithin for a slot in a file. If the file was truncated, that faults, and the
// result is 0.
func (f found) addMapped(ms, n int64) (count int64) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if count == 0 {
			isFault(recover()) // finish faults again
		}
	}()
	return f.addWithin(ms, n)
}

// isFinished reports whether an addition of n with this result needs no finish.
func (c *cell) isFinished(count, n int64) bool {
	return count%busyCounts >= n && c.flags.Load()&changed != 0
}

// add counts n evaluations in the cell.
func (f found) add(ms, n int64) addition { return f.finish(0, ms, n) }

// finish does what addWithin or addMapped with the result count left to do.
func (f found) finish(count, ms, n int64) addition {
	c := f.cell
	switch {
	case count < 0:
		c.arena.guard(func() { f.slot.count.Add(-n) }) // the count in a journal is wrong only for this moment
		return 0
	case count == 0:
		c.arena.guard(func() { count = f.addAnywhere(ms, n) })
	}
	if count == 0 {
		return 0
	}
	a := counted
	if c.flags.Load()&changed == 0 && c.flags.Or(changed)&changed == 0 {
		a |= first
	}
	if count%busyCounts < n && c.isBusy(ms) { // it is a multiple now, or has passed one
		a |= busy
	}
	return a
}

// addAnywhere is addWithin for any time, and returns 0 if the slot was sealed.
func (f found) addAnywhere(ms, n int64) int64 {
	if f.slot.count.Load() < 0 {
		return 0
	}
	f.slot.cover(ms)
	lower(&f.cell.first, ms)
	raise(&f.cell.last, ms)
	return f.slot.add(n)
}

func (c *cell) isBusy(ms int64) bool {
	before := c.lap.Swap(ms)
	return before != 0 && ms-before < busyTime && !c.isStripe && c.flags.Load()&striped == 0
}

// stripeOfGoroutine spreads goroutines over stripes by the addresses of their stacks. The spread
// need not be even or stable.
func stripeOfGoroutine() int {
	var here byte
	at := uintptr(unsafe.Pointer(&here))
	return int((at>>11 ^ at>>16 ^ at>>21) % stripes) // stacks start with 2 KiB, and double
}

// counted returns the count of the cell.
func (c *cell) counted() int64 {
	if c.bothLocks.sealed {
		return c.bothLocks.final
	}
	return c.slot.counted()
}

// base returns the settled part of the slot's count.
func (c *cell) base() int64 {
	if c.slot.flagID.Load() == 0 { // the file was truncated before the slot, and later counts start at 0
		return c.slot.stored.Load()
	}
	return c.bothLocks.settled
}

// left returns the number of evaluations that are not settled. It is never negative, even if
// truncation reset the count.
func (c *cell) left() int64 {
	base := c.base() // before the count, which is never less
	return max(0, c.counted()-base)
}

// table maps keys to cells, with open addressing and linear probing. Readers take no lock. Writers
// hold Engine.mu and put cells only into empty places; to remove cells or to grow, they publish a
// new table.
//
// With many keys, a Record waits for memory most of the time. So places are small, and stay in the
// caches of a processor. A found has a cell and its slot, so that both are fetched at the same time
// and not one after the other.
type table struct {
	// places has a power of two as its length, and is at most half full. A place has the index of a
	// found plus 1 in as many low bits as an index of places has. Its other bits are from the key's
	// hash, which saves a comparison with most other keys. 0 is empty.
	places []atomic.Uint32
	found  []found
	// hot is the key that got stripes last, if any did. It is looked at first.
	hot atomic.Pointer[hot]
	// engineMu has what Engine.mu protects.
	engineMu struct {
		used int // of found
	}
}

// found has what Record needs for a key. It does not change once it has a place.
type found struct {
	cell *cell
	slot *slot
}

// hot is a found with its key.
type hot struct {
	key packedKey
	found
}

func newTable(cells int) *table {
	const smallest = 256
	size := smallest
	for size < 4*cells {
		size *= 2
	}
	return &table{places: make([]atomic.Uint32, size), found: make([]found, max(smallest/2, 2*cells))}
}

// get returns a found without a cell if the key has none.
func (t *table) get(key packedKey) found {
	if h := t.hot.Load(); h != nil && h.key == key {
		return h.found
	}
	mask, hash := uint64(len(t.places)-1), key.hash()
	tag := uint32(hash>>32) &^ uint32(mask)
	for i := hash & mask; ; i = (i + 1) & mask {
		place := t.places[i].Load()
		if place == 0 {
			return found{}
		}
		if place&^uint32(mask) != tag {
			continue
		}
		if f := t.found[uint64(place)&mask-1]; f.cell.key == key {
			return f
		}
	}
}

// putLocked requires hasRoomLocked.
func (t *table) putLocked(c *cell) {
	mask, hash := uint64(len(t.places)-1), c.key.hash()
	i := hash & mask
	for t.places[i].Load() != 0 {
		i = (i + 1) & mask
	}
	t.found[t.engineMu.used] = found{c, c.slot}
	t.engineMu.used++
	t.places[i].Store(uint32(hash>>32)&^uint32(mask) | uint32(t.engineMu.used))
	t.noteStripes(c)
}

// noteStripes makes a cell that has stripes the one that is looked at first.
func (t *table) noteStripes(c *cell) {
	if c.flags.Load()&striped != 0 {
		t.hot.Store(&hot{c.key, found{c, c.slot}})
	}
}

func (t *table) hasRoomLocked() bool { return t.engineMu.used < len(t.found) }

// packedKey is a Key in four words, which are faster to compare and hash than its seven parts.
type packedKey struct {
	flagID, variantID, segmentID int64
	// rest has the hour in its upper half, and below it version, outcome and asked.
	rest uint64
}

func packRest(hour Hour, version uint16, outcome Outcome, asked Asked) uint64 {
	return uint64(uint32(hour))<<32 | uint64(version)<<16 | uint64(outcome)<<8 | uint64(asked)
}

func (k Key) pack() packedKey {
	return packedKey{k.FlagID, k.VariantID, k.SegmentID, packRest(k.Hour, k.Version, k.Outcome, k.Asked)}
}

func (k packedKey) unpack() Key {
	return Key{
		FlagID: k.flagID, VariantID: k.variantID, SegmentID: k.segmentID,
		Hour: k.hour(), Version: uint16(k.rest >> 16), Outcome: Outcome(k.rest >> 8), Asked: Asked(k.rest),
	}
}

func (k packedKey) hour() Hour { return Hour(int32(k.rest >> 32)) }

// hash multiplies the parts with odd constants, and folds the 128 bits of a product, like the hash
// functions of the wyhash family (Wang Yi, public domain). IDs are small and dense, so every bit of
// them must affect the low bits of the result.
func (k packedKey) hash() uint64 {
	high, low := bits.Mul64(uint64(k.flagID)*0x9e3779b97f4a7c15+uint64(k.variantID)*0xc2b2ae3d27d4eb4f+
		uint64(k.segmentID)*0x165667b19e3779f9+k.rest*0x27d4eb2f165667c5, 0xff51afd7ed558ccd)
	return high ^ low
}
