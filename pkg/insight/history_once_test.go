package insight_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

// TestHistoriesAreReadOnce: many requests that need the same history read it once, and one that
// ends leaves it to another.
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

// countingHistory counts the snapshots that are read.
type countingHistory struct {
	*world
	read int
}

func (w *countingHistory) EachSnapshot(ctx context.Context, ids []int64, each func(*entity.FlagSnapshot)) error {
	w.read += len(ids)
	return w.world.EachSnapshot(ctx, ids, each)
}

// TestHistoriesGrow changes a flag at random, also by transactions that commit late, and compares a
// Service that has cached the History before each change with one that reads all of it. Only new
// snapshots, and the one before them, may be read again.
func TestHistoriesGrow(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 11))
		now := at(t, "2026-01-31T14:00:00Z")
		w := &countingHistory{world: &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}}
		options := insight.Options{Counts: w, Flags: w, Refresh: refresh, Now: func() time.Time { return w.now }}
		if seed%3 == 1 { // flags are counted, whatever their records say, from some time on
			options.CountsAll = now.Add(time.Duration(r.IntN(60)-30) * time.Minute)
		}
		f := randomFlag(r, 1)
		w.flags[1] = f
		change := func(id uint) entity.FlagSnapshot {
			w.now = w.now.Add(time.Duration(r.IntN(3)) * time.Minute)
			switch r.IntN(5) {
			case 0:
				f.DataRecordsEnabled = !f.DataRecordsEnabled
			case 1:
				f.Enabled = !f.Enabled
			case 2:
				f.Notes += "x"
			case 3:
				f = randomFlag(r, 1)
			}
			w.flags[1] = f
			text, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(10) == 0 {
				text = []byte(`{"damaged`)
			}
			return entity.FlagSnapshot{Model: entity.Model{ID: id, CreatedAt: w.now}, FlagID: 1, Flag: text}
		}
		ask := func(s *insight.Service) insight.History {
			if _, err := s.State(t.Context(), 1, nil); err != nil {
				t.Fatal(err)
			}
			return s.CachedHistory(1)
		}
		options.Snapshots = fixedFlags{w.Snapshot()}
		long := insight.NewService(options)
		const apart = 100 // IDs, so that there are some between them
		next, late := uint(apart), uint(0)
		for step := range 30 {
			added := r.IntN(3)
			if step == 0 {
				added = 5
			}
			isLate := step > 0 && r.IntN(10) == 0
			if isLate { // an ID below the newest one, which the next change shows
				late, added = late+1, max(1, added)
				w.snapshots = slices.Insert(w.snapshots, len(w.snapshots)-1, change(next-2*apart+late))
			}
			for range added {
				w.snapshots, late = append(w.snapshots, change(next)), 0
				next += apart
			}
			w.read = 0
			got := ask(long)
			if read := w.read; !isLate && step > 0 && (options.CountsAll.IsZero() || options.CountsAll.Before(now)) && read > added+1 {
				t.Fatalf("seed %d, step %d: %d snapshots are read after %d changes", seed, step, read, added)
			}
			if diff := cmp.Diff(ask(insight.NewService(options)), got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, diff)
			}
		}
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

// TestListsHaveUnreadableFlags: a flag with a value that cannot be read is not evaluated, but its
// counts of the past are still there.
func TestListsHaveUnreadableFlags(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-01-31T14:00:00Z")
	w := &world{now: now, flags: map[int64]*entity.Flag{}, counts: &memstore.Store{}}
	for id, unreadable := range []string{"", "segment 3: rank is -1", ""} {
		f := checkout()
		f.ID, f.Unreadable = uint(id+1), unreadable
		w.flags[int64(f.ID)] = f
	}
	s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: fixedFlags{w.Snapshot()}, Refresh: refresh, Now: func() time.Time { return now }})
	states, err := s.States(t.Context(), insight.StatesQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for i := range states.Flags {
		ids = append(ids, states.Flags[i].FlagID)
	}
	if slices.Sort(ids); !slices.Equal(ids, []int64{1, 2, 3}) {
		t.Errorf("the list has the flags %v", ids)
	}
}
