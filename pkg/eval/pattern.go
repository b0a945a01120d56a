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

// sharedPatterns has the large compiled patterns that are in use, by their source. A reload
// compiles flags whose patterns have not changed, while the snapshot before it is still in use:
// without sharing, each pattern would be in memory twice.
var sharedPatterns = patternCache{compiled: map[string]weak.Pointer[regexp.Regexp]{}}

type patternCache struct {
	mu       sync.Mutex
	compiled map[string]weak.Pointer[regexp.Regexp]
}

// compile is regexp.Compile for a pattern of that size.
func (p *patternCache) compile(source string, size int) (*regexp.Regexp, error) {
	if size < minSharedPattern {
		return regexp.Compile(source)
	}
	p.mu.Lock()
	shared := p.compiled[source].Value()
	p.mu.Unlock()
	if shared != nil {
		return shared, nil
	}
	compiled, err := regexp.Compile(source)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if shared := p.compiled[source].Value(); shared != nil {
		return shared, nil
	}
	p.compiled[source] = weak.Make(compiled)
	runtime.AddCleanup(compiled, p.forget, source)
	return compiled, nil
}

// forget removes a pattern that is no longer in use.
func (p *patternCache) forget(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.compiled[source].Value() == nil {
		delete(p.compiled, source)
	}
}
