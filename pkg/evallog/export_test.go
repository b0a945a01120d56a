package evallog

// IsUnlocked reports whether nobody holds the lock of the counts.
func (e *Engine) IsUnlocked() bool {
	if !e.mu.TryLock() {
		return false
	}
	e.mu.Unlock()
	return true
}
