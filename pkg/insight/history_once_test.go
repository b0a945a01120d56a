package insight_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// slowHistory is a world in which reading snapshots takes a minute.
type slowHistory struct {
	*world
	mu    sync.Mutex
	reads int
}

func (w *slowHistory) EachSnapshot(ctx context.Context, ids []int64, each func(*entity.FlagSnapshot)) error {
	w.mu.Lock()
	w.reads++
	w.mu.Unlock()
	select {
	case <-time.After(time.Minute):
		return w.world.EachSnapshot(ctx, ids, each)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func slowService(now time.Time) (*slowHistory, *insight.Service) {
	w := &slowHistory{world: &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}}
	f := checkout()
	f.ID, f.SnapshotID = 1, 1
	w.flags[1] = f
	w.snapshots = []entity.FlagSnapshot{{Model: entity.Model{ID: 1, CreatedAt: now.Add(-time.Hour)}, FlagID: 1, Flag: []byte(`{}`)}}
	return w, insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
}

// TestHistoriesAreReadOnce: many requests that need the same history read it once, and one that ends leaves it to another.
func TestHistoriesAreReadOnce(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(ctx context.Context, s *insight.Service) error{
		"a flag": func(ctx context.Context, s *insight.Service) error { _, err := s.State(ctx, 1, nil); return err },
		"a list": func(ctx context.Context, s *insight.Service) error {
			_, err := s.States(ctx, insight.StatesQuery{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, s := slowService(time.Now())
				leaves, leave := context.WithCancel(t.Context())
				left := make(chan error, 1)
				go func() { left <- ask(leaves, s) }()
				synctest.Wait()
				results := make(chan error, 10)
				for range cap(results) {
					go func() { results <- ask(t.Context(), s) }()
				}
				synctest.Wait()
				if w.reads != 1 {
					t.Errorf("%d requests read the history at once", w.reads)
				}
				leave()
				if err := <-left; !errors.Is(err, context.Canceled) {
					t.Errorf("the client that left: %v", err)
				}
				for range cap(results) {
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
				if w.reads != 2 {
					t.Errorf("the history was read %d times, want once by the client that left and once by another", w.reads)
				}
			})
		})
	}
}

// TestListsOfLongTextsTakeMemory: the descriptions of a list take memory that requests share.
func TestListsOfLongTextsTakeMemory(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:00:00Z")
	w := &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}
	f := checkout()
	f.Description = string(make([]byte, 100_000))
	w.flags[1] = f
	s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
	memory := budget.NewMemory(600_000)
	for want := range 2 { // of requests that are refused
		ctx, release := memory.Share(t.Context())
		defer release()
		if _, err := s.States(ctx, insight.StatesQuery{}); errors.Is(err, budget.ErrExhausted) != (want == 1) {
			t.Errorf("request %d: %v", want, err)
		}
	}
}
