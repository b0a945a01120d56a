package evallog

import "unsafe"

// The limits that tests reach.
const (
	FlushKeys       = flushKeys
	MaxKeys         = maxKeys
	MaxKeysPerFlag  = maxKeysPerFlag
	MaxDegradedKeys = maxDegradedKeys
	MaxPending      = maxPending
)

// IsUnlocked reports whether the lock of the counts is free.
func (e *Engine) IsUnlocked() bool {
	if !e.mu.TryLock() {
		return false
	}
	e.mu.Unlock()
	return true
}

// TableBytes is the memory of the keys that are counted in full, without what their strings point
// to.
func (e *Engine) TableBytes() int {
	t := e.mu.keys
	return len(t.chunks)*bucketsPerChunk*int(unsafe.Sizeof(bucket{})) + cap(t.chunks)*int(unsafe.Sizeof(t.chunks[0])) +
		4*(len(t.index)+len(t.flags))
}

// SameHash reports whether two texts collide for a seed.
func SameHash(seed uint64, a, b string) bool { return hashText(seed, a) == hashText(seed, b) }
