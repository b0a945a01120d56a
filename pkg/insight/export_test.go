package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// HistoryOf computes the history of a flag from its snapshots, oldest first, as the Service does.
func HistoryOf(snapshots []entity.FlagSnapshot, created bool, all time.Time) History {
	r := historyReader{created: created, left: len(snapshots)}
	for i := range slices.Backward(snapshots) {
		r.add(&snapshots[i])
	}
	return r.history(all)
}

// Explain adds an evaluation to the sample, as Run does, and returns the number of its counters.
func (s *Sampler) Explain(r *eval.Result) int {
	if unmatched, ok := eval.NewUnmatched(r); ok {
		s.explain(sampled{unmatched, r.FlagID, datar.HourOf(r.Timestamp)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.stops)
}

// CachedHistory returns the History of a flag that the Service has cached.
func (s *Service) CachedHistory(flagID int64) History {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	return s.cache.mu.histories[flagID].history
}
