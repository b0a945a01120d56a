package gormstore

import (
	"context"
	"math"
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
	// largeBacklog is the number of hours without rollups above which a query of all flags may take long. It then ends
	// after preparingTimeout.
	largeBacklog     = 3 * hoursPerDay
	preparingTimeout = 2 * time.Second
)

// pace lets a long series of small pieces of work leave time for other work.
type pace struct{ free time.Duration }

// newPace returns the pace of a call of Maintain.
func (s *Store) newPace() pace {
	if s.unpaced {
		return pace{free: math.MaxInt64}
	}
	return pace{free: freeWork}
}

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
		missing map[int64]int // by ID of the kind
		nextDay int64         // the newest day without dayDetails
	}
}

// begin counts the rollups that are due, by kind, and those of them that exist.
func (p *rollupProgress) begin(due [][]int64, have numbers) {
	var progress datar.RollupProgress
	missing := map[int64]int{}
	var nextDay int64
	for i, k := range kinds {
		progress.Due += len(due[i])
		for _, start := range due[i] {
			if _, found := have[rollup{Kind: int16(k.id), StartHour: start}]; found {
				progress.Made++
			} else {
				missing[k.id]++
			}
		}
		if k.id == dayDetails.id {
			progress.DetailsFrom, nextDay = newestDays(due[i], have)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.RollupProgress, p.mu.missing, p.mu.nextDay = progress, missing, nextDay
}

// newestDays returns the first hour of the newest days that all have dayDetails, or 0, and the newest day without them.
// due are the days that need them, the newest first.
func newestDays(due []int64, have numbers) (from datar.Hour, next int64) {
	for _, start := range due {
		if _, found := have[rollup{Kind: int16(dayDetails.id), StartHour: start}]; !found {
			return from, start
		}
		from = datar.Hour(start)
	}
	return from, math.MinInt64
}

// made counts one more rollup of a kind. One that replaces another was counted before.
func (p *rollupProgress) made(k kind, start int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.id == dayDetails.id && start == p.mu.nextDay {
		p.mu.DetailsFrom, p.mu.nextDay = datar.Hour(start), start-hoursPerDay
	}
	if p.mu.missing[k.id] > 0 {
		p.mu.missing[k.id]--
		p.mu.Made++
	}
}

// lacks reports whether many hours have no rollup of a kind.
func (p *rollupProgress) lacks(k kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.mu.missing[k.id])*k.hours > largeBacklog
}

// Rollups implements datar.RollupStore.
func (s *Store) Rollups() datar.RollupProgress {
	s.rollupProgress.mu.Lock()
	defer s.rollupProgress.mu.Unlock()
	return s.rollupProgress.mu.RollupProgress
}

// ofAllFlags is atOneMoment for queries of all flags that prefer a kind of rollup. While many of these are missing, it
// returns a datar.PreparingError after preparingTimeout.
func (s *Store) ofAllFlags(ctx context.Context, prefer kind, queries func(tx *gorm.DB) error) error {
	if !s.rollupProgress.lacks(prefer) {
		return s.atOneMoment(ctx, queries)
	}
	limited, cancel := context.WithTimeout(ctx, preparingTimeout)
	defer cancel()
	err := s.atOneMoment(limited, queries)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		progress := s.Rollups()
		return (*datar.PreparingError)(&progress)
	}
	return err
}
