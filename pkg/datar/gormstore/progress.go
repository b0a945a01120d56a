package gormstore

import (
	"context"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// freeWork is the time that one call of Maintain works without pauses. In normal operation, a call needs less.
	freeWork = time.Second
	// pausesPerWork is the length of a pause in proportion to the work before it. With 2, a third of a processor is
	// used, here or in the database.
	pausesPerWork = 2
	// largeBacklog is the number of missing rollups above which a query of all flags may take long. It then ends after
	// preparingTimeout, so that the database does the same work only once.
	largeBacklog     = 48
	preparingTimeout = 2 * time.Second
)

// pace lets a long series of small pieces of work leave time for other work.
type pace struct{ free time.Duration }

// do does a piece of work. If the work so far has taken longer than what is free, it pauses afterward, until ctx ends.
func (p *pace) do(ctx context.Context, work func() error) error {
	began := time.Now()
	if err := work(); err != nil {
		return err
	}
	took := time.Since(began)
	if p.free -= took; p.free > 0 {
		return nil
	}
	timer := time.NewTimer(pausesPerWork * took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rollupProgress is the progress of rollups as the last call of Maintain saw it.
type rollupProgress struct {
	mu struct {
		sync.Mutex
		datar.RollupProgress
	}
}

// begin counts the rollups that are due, by kind, and those of them that exist.
func (p *rollupProgress) begin(due [][]int64, have numbers) {
	var progress datar.RollupProgress
	for i, k := range kinds {
		progress.Due += len(due[i])
		for _, start := range due[i] {
			if _, found := have[rollup{Kind: int16(k.id), StartHour: start}]; found {
				progress.Made++
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.RollupProgress = progress
}

// made counts one more rollup.
func (p *rollupProgress) made() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.Made = min(p.mu.Made+1, p.mu.Due) // a replaced one was counted before
}

// Rollups implements datar.RollupStore.
func (s *Store) Rollups() datar.RollupProgress {
	s.rollupProgress.mu.Lock()
	defer s.rollupProgress.mu.Unlock()
	return s.rollupProgress.mu.RollupProgress
}

// ofAllFlags is atOneMoment for queries of all flags. While many rollups are missing, it returns a datar.PreparingError
// after preparingTimeout.
func (s *Store) ofAllFlags(ctx context.Context, queries func(tx *gorm.DB) error) error {
	progress := s.Rollups()
	if progress.Due-progress.Made <= largeBacklog {
		return s.atOneMoment(ctx, queries)
	}
	limited, cancel := context.WithTimeout(ctx, preparingTimeout)
	defer cancel()
	err := s.atOneMoment(limited, queries)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return (*datar.PreparingError)(&progress)
	}
	return err
}
