// Package testlog has a log that tests can read while the code under test writes to it.
package testlog

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer is a log. The zero value is empty. Its methods may be called concurrently.
type Buffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write appends to the log. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String returns everything written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// Count returns how often text is in the log.
func (b *Buffer) Count(text string) int { return strings.Count(b.String(), text) }
