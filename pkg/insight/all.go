package insight

import (
	"context"
	"errors"
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// AllStates returns the states of all flags that are not deleted, in the order of their IDs. Unlike
// States, it has no selection and no pages, and it does not fail while old counts are being added
// up: see States.Preparing.
func (s *Service) AllStates(ctx context.Context, lately int) (*States, error) {
	n := int64(lately)
	if _, err := days(&n); err != nil {
		return nil, err
	}
	list, err := s.statesOfAll(ctx, lately)
	if preparing, ok := errors.AsType[*datar.PreparingError](err); ok {
		return s.countsOfAll(ctx, lately, datar.RollupProgress(*preparing))
	}
	return list, err
}

func (s *Service) statesOfAll(ctx context.Context, lately int) (*States, error) {
	all, err := s.allStates(ctx, lately)
	if err != nil {
		return nil, err
	}
	list := &States{Days: lately, Total: len(all.flags), Flags: make([]FlagState, len(all.flags)), Complete: all.complete, Preparing: all.preparing}
	for i, f := range all.flags {
		if all.preparing != nil && all.isUnasked(f) {
			list.Flags[i] = withoutState(f, nil)
			continue
		}
		list.Flags[i] = all.describe(f)
	}
	return list, s.sparks(ctx, list.Flags, all.today)
}

// withoutState returns the counts of a flag, which are not enough to conclude its state.
func withoutState(f *entity.Flag, rows []datar.Row) FlagState {
	one := FlagState{State: &State{FlagID: int64(f.ID), FlagKey: f.Key}, Flag: f, Total: sum(rows)}
	one.Evidence.Count = one.Total
	one.Evidence.Last, _ = lastOf(rows)
	return one
}

// countsOfAll returns the counts of the newest days, as far as they are added up, without states.
func (s *Service) countsOfAll(ctx context.Context, lately int, progress datar.RollupProgress) (*States, error) {
	list := &States{Days: lately, Preparing: &progress}
	if progress.DetailsFrom == 0 {
		return list, nil
	}
	last, err := s.latelySpan(ctx, lately)
	if err != nil {
		return nil, err
	}
	sp := last.detailed
	if sp.first < progress.DetailsFrom {
		sp.first, sp.from = progress.DetailsFrom, progress.DetailsFrom.Time()
		list.CountsFrom = sp.from
	}
	rows, err := s.details(ctx, 0, sp, datar.GroupFlag|datar.GroupDay)
	if err != nil {
		return nil, err
	}
	servers, err := s.o.Counts.Servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the records of servers: %w", err)
	}
	list.Complete = CompleteOf(&CompleteInput{From: sp.from, To: sp.now, Now: sp.now, Servers: servers})
	firstSpark := datar.HourOf(sp.now).DayStart() - (sparkDays-1)*24
	for _, f := range s.o.Snapshots.Snapshot().Listed() {
		own := rowsOf(rows, int64(f.ID))
		one := withoutState(f, own)
		one.Spark = make([]int64, sparkDays)
		for _, r := range own {
			if r.Hour >= firstSpark {
				one.Spark[(r.Hour-firstSpark)/24] += r.Count
			}
		}
		list.Flags = append(list.Flags, one)
	}
	list.Total = len(list.Flags)
	return list, nil
}
