package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// series maps comparable keys to values. Reading a known value takes no lock and does not allocate,
// which sync.Map cannot do for struct keys. It only grows; its users limit the keys.
type series[K comparable, V any] struct {
	// own returns a copy of a key that may be kept. If it is nil, all keys may be kept.
	own   func(K) K
	known atomic.Pointer[map[K]V] // never changed after it is stored

	mu struct {
		sync.Mutex
		all    map[K]V // known values, and those not in known yet
		misses int     // lookups in all since known was replaced
	}
}

// get returns the value of the key. If there is none it calls create with a key that may be kept,
// one call at a time, and keeps the value if create returns true.
func (s *series[K, V]) get(key K, create func(key K) (value V, keep bool)) V {
	if known := s.known.Load(); known != nil {
		if value, ok := (*known)[key]; ok {
			return value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.mu.all[key]
	if !ok {
		if s.own != nil {
			key = s.own(key)
		}
		var keep bool
		if value, keep = create(key); !keep {
			return value
		}
		if s.mu.all == nil {
			s.mu.all = map[K]V{}
		}
		s.mu.all[key] = value
	}
	// A copy costs as much as there are keys, so it is made after that many misses: n new keys cost
	// O(n) in total.
	if s.mu.misses++; s.mu.misses >= len(s.mu.all) {
		known := maps.Clone(s.mu.all)
		s.known.Store(&known)
		s.mu.misses = 0
	}
	return value
}
