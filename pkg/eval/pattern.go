package eval

import (
	"regexp"
	"runtime"
	"sync"
	"weak"
)

// minSharedPattern is the size from which compiled patterns are shared. Smaller ones take less than
// about 12 KB each.
const minSharedPattern = 256

// patterns compiles the patterns of flags.
type patterns struct {
	left int // remaining limit for their sizes
	// shared may be nil. Then patterns are only parsed, see entity.PatternSize.
	shared *sharedPatterns
}

// sharedPatterns has the large compiled patterns that are in use by a snapshot and those that it
// was made from, by their source. A reload compiles flags whose patterns have not changed, while
// the snapshot before it is still in use: without sharing, each pattern would be in memory twice.
type sharedPatterns struct {
	mu struct {
		sync.Mutex
		compiled map[string]weak.Pointer[regexp.Regexp]
	}
}

func newSharedPatterns() *sharedPatterns {
	p := new(sharedPatterns)
	p.mu.compiled = map[string]weak.Pointer[regexp.Regexp]{}
	return p
}

// compile is regexp.Compile for a pattern of that size.
func (p *sharedPatterns) compile(source string, size int) (*regexp.Regexp, error) {
	if size < minSharedPattern {
		return regexp.Compile(source)
	}
	p.mu.Lock()
	known := p.mu.compiled[source].Value()
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	compiled, err := regexp.Compile(source)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.mu.compiled[source].Value(); known != nil {
		return known, nil
	}
	p.mu.compiled[source] = weak.Make(compiled)
	runtime.AddCleanup(compiled, p.forget, source)
	return compiled, nil
}

// forget removes a pattern that is no longer in use.
func (p *sharedPatterns) forget(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.compiled[source].Value() == nil {
		delete(p.mu.compiled, source)
	}
}
