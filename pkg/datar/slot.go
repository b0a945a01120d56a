package datar

import (
	"math"
	"sync/atomic"
	"unsafe"
)

// sealedBit marks a slot that accepts no more counts. As the sign bit, it shows in the result of
// the addition that was too late.
const sealedBit = math.MinInt64

// slot counts the evaluations of one key. It fills one cache line, so that neighbors do not slow
// each other down. It is in memory or in a mapped journal file, from which it is read back after a
// kill, so its layout is a file format.
type slot struct {
	// flagID is 0 while the slot is free. It is the last part of the key that is written, and never
	// changes afterward.
	flagID               atomic.Int64
	variantID, segmentID int64
	hour                 Hour
	// version, outcome and asked are 0 in journals of version 1.
	version uint16
	outcome Outcome
	asked   Asked
	// count only grows, so no evaluation can be lost between a read and a reset.
	count atomic.Int64
	// stored is how much of count is in the store. Only a flush writes it.
	stored atomic.Int64
	// first and last are Unix milliseconds. They are updated before count, so they cover every
	// evaluation in it.
	first, last atomic.Int64
}

const slotSize = 64

// Both differences are constants that fit an array's length only if slotSize is correct.
var (
	_ [slotSize - unsafe.Sizeof(slot{})]byte
	_ [unsafe.Sizeof(slot{}) - slotSize]byte
)

// take assigns a free slot to the key. The caller owns the slot until it is published.
func (s *slot) take(key Key, ms int64) {
	s.variantID, s.segmentID, s.hour = key.VariantID, key.SegmentID, key.Hour
	s.version, s.outcome, s.asked = key.Version, key.Outcome, key.Asked
	s.first.Store(ms)
	s.last.Store(ms)
	s.flagID.Store(key.FlagID)
}

func (s *slot) key() Key {
	return Key{
		FlagID: s.flagID.Load(), VariantID: s.variantID, SegmentID: s.segmentID, Hour: s.hour,
		Version: s.version, Outcome: s.outcome, Asked: s.asked,
	}
}

// add counts n evaluations and returns the count. It returns 0 if the slot was sealed before; the
// evaluations must then be counted elsewhere.
func (s *slot) add(n int64) int64 {
	count := s.count.Add(n)
	if count < 0 {
		s.count.Add(-n) // the count in a journal is wrong only for this moment
		return 0
	}
	return count
}

// cover widens the time from first to last to include ms.
func (s *slot) cover(ms int64) {
	lower(&s.first, ms)
	raise(&s.last, ms)
}

func lower(v *atomic.Int64, to int64) {
	for old := v.Load(); to < old && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

func raise(v *atomic.Int64, to int64) {
	for old := v.Load(); to > old && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

// counted returns the count, also of a sealed slot.
func (s *slot) counted() int64 { return s.count.Load() &^ sealedBit }

// retire seals the slot if all of its counts are stored. Then no count can be added.
func (s *slot) retire(stored int64) bool {
	return s.count.CompareAndSwap(stored, stored|sealedBit)
}

// seal ends counting in the slot and returns the final count.
func (s *slot) seal() int64 { return s.count.Or(sealedBit) &^ sealedBit }
