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
	// freeWork is the time that one call of Maintain works without pauses. In normal operation, a
	// call needs less.
	freeWork = time.Second
	// pausesPerWork is the length of a pause in proportion to the work before it. With 2, a third
	// of a processor is used, here or in the database.
	pausesPerWork = 2
	// largeBacklog is the number of hours without rollups above which a query of all flags may take
	// long. It then ends after preparingTimeout.
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

// do does a piece of work. If the work so far has taken longer than what is free, it pauses
// afterward, until ctx ends.
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
		missing map[int64]int  // by ID of the kind
		days    []int64        // for which dayDetails are due, the newest first
		ready   map[int64]bool // those of them that have dayDetails
	}
}

// begin counts the rollups that are due, by kind, and those of them that exist.
func (p *rollupProgress) begin(due [][]int64, have numbers) {
	var progress datar.RollupProgress
	missing := map[int64]int{}
	var days []int64
	ready := map[int64]bool{}
	for i, k := range kinds {
		progress.Due += len(due[i])
		for _, start := range due[i] {
			if _, found := have[rollup{Kind: int16(k.id), StartHour: start}]; found {
				progress.Made++
				ready[start] = ready[start] || k.id == dayDetails.id
			} else {
				missing[k.id]++
			}
		}
		if k.id == dayDetails.id {
			days = due[i]
		}
	}
	progress.DetailsFrom = newestDays(days, ready)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.RollupProgress, p.mu.missing, p.mu.days, p.mu.ready = progress, missing, days, ready
}

// newestDays returns the first hour of the newest days that are all ready, or 0. days are in the
// order of the newest first.
func newestDays(days []int64, ready map[int64]bool) (from datar.Hour) {
	for _, start := range days {
		if !ready[start] {
			break
		}
		from = datar.Hour(start)
	}
	return from
}

// made counts one more rollup of a kind. One that replaces another was counted before.
func (p *rollupProgress) made(k kind, start int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.id == dayDetails.id && p.mu.ready != nil {
		p.mu.ready[start] = true
		p.mu.DetailsFrom = newestDays(p.mu.days, p.mu.ready)
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

// ofAllFlags is atOneMoment for queries of all flags that prefer a kind of rollup. While many of
// these are missing, it returns a datar.PreparingError after preparingTimeout.
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
