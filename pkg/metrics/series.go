package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// series finds a value by a comparable key. Reading what is known takes no lock and no memory, which sync.Map cannot do
// for keys that are structs. It only grows; whoever uses it bounds the keys.
type series[K comparable, V any] struct {
	known atomic.Pointer[map[K]V] // never changed once it is here

	mu     sync.Mutex // guards what follows
	all    map[K]V    // what is known, and what is not there yet
	misses int        // lookups that had to come here since known was replaced
}

// get returns the value of the key. If there is none it calls create, one call at a time, and keeps the value if create
// says so.
func (s *series[K, V]) get(key K, create func() (value V, keep bool)) V {
	if known := s.known.Load(); known != nil {
		if value, ok := (*known)[key]; ok {
			return value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.all[key]
	if !ok {
		var keep bool
		if value, keep = create(); !keep {
			return value
		}
		if s.all == nil {
			s.all = map[K]V{}
		}
		s.all[key] = value
	}
	// A copy costs as much as there are keys, so it must have spared as many lookups: n new keys cost O(n) altogether.
	if s.misses++; s.misses >= len(s.all) {
		known := maps.Clone(s.all)
		s.known.Store(&known)
		s.misses = 0
	}
	return value
}
