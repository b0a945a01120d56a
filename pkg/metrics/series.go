package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// series maps comparable keys to values. Reading a known value takes no lock and does not allocate, which sync.Map
// cannot do for struct keys. It only grows; its users limit the keys.
type series[K comparable, V any] struct {
	known atomic.Pointer[map[K]V] // never changed after it is stored

	mu     sync.Mutex // protects the fields below
	all    map[K]V    // known values, and those not in known yet
	misses int        // lookups in all since known was replaced
}

// get returns the value of the key. If there is none it calls create, one call at a time, and keeps the value if
// create returns true.
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
	// A copy costs as much as there are keys, so it is made after that many misses: n new keys cost O(n) in total.
	if s.misses++; s.misses >= len(s.all) {
		known := maps.Clone(s.all)
		s.known.Store(&known)
		s.misses = 0
	}
	return value
}
