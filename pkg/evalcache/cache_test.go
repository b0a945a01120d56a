package evalcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

// fakeStore has one flag, whose snapshot id is the version.
type fakeStore struct {
	mu      sync.Mutex
	version int64
	loads   int   // of all flags
	changes int   // times it told what had changed
	gone    bool  // the flag, when asked for changes
	err     error // of both methods
	hang    bool  // until the context ends
	// onVersion runs between reading the version and returning it.
	onVersion func()
}

func (s *fakeStore) set(change func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *fakeStore) FlagsVersion(ctx context.Context) (string, error) {
	s.mu.Lock()
	version, err, hang, onVersion := s.version, s.err, s.hang, s.onVersion
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if onVersion != nil {
		onVersion()
	}
	return strconv.FormatInt(version, 10), err
}

func (s *fakeStore) EvalFlags(context.Context) ([]entity.Flag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	return []entity.Flag{{Model: entity.Model{ID: 1}, Key: "k", SnapshotID: uint(s.version)}}, s.err
}

// ChangedFlags says that the flag has changed, or is gone.
func (s *fakeStore) ChangedFlags(_ context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if s.gone {
		for _, f := range known {
			gone = append(gone, f.ID)
		}
		return nil, gone, s.err
	}
	return []entity.Flag{{Model: entity.Model{ID: 1}, Key: "k", SnapshotID: uint(s.version)}}, nil, s.err
}

type fixture struct {
	*evalcache.Cache
	store *fakeStore
	log   *bytes.Buffer // read it only when the cache is idle
}

func setup(o evalcache.Options) *fixture {
	f := &fixture{store: &fakeStore{version: 1}, log: &bytes.Buffer{}}
	o.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	f.Cache = evalcache.New(evalcache.FromStore(f.store), o)
	return f
}

func (f *fixture) version() uint { return f.Snapshot().Flag(1, "").SnapshotID }

func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(evalcache.Options{RefreshInterval: 3 * time.Second, RefreshTimeout: time.Second})
		if f.Snapshot().Flag(1, "k") != nil || !f.LastCheck().IsZero() {
			t.Error("flags are there before the start")
		}
		started := time.Now()
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Stop(t.Context()) }()
		if f.version() != 1 || !f.LastCheck().Equal(started) {
			t.Errorf("after the start: version %d, last check %v", f.version(), f.LastCheck())
		}
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }

		before := f.Snapshot()
		wait(3 * time.Second)
		if f.store.loads != 1 || f.Snapshot() != before {
			t.Errorf("unchanged flags were loaded %d times", f.store.loads)
		}
		if got := f.LastCheck().Sub(started); got != 3*time.Second {
			t.Errorf("last check %v after the start, want 3s", got)
		}

		f.store.set(func(s *fakeStore) { s.version = 2 })
		wait(2 * time.Second)
		if f.version() != 1 {
			t.Error("reloaded before the interval was over")
		}
		wait(time.Second)
		if f.version() != 2 || f.store.loads != 1 || f.store.changes != 1 {
			t.Errorf("after a change: version %d, %d loads, %d looks at changes", f.version(), f.store.loads, f.store.changes)
		}

		f.store.set(func(s *fakeStore) { s.version, s.err = 3, errors.New("database is gone") })
		wait(9 * time.Second)
		if f.version() != 2 || f.LastCheck().Sub(started) != 6*time.Second {
			t.Errorf("in the outage: version %d, last check after %v", f.version(), f.LastCheck().Sub(started))
		}
		if got := strings.Count(f.log.String(), "database is gone"); got != 1 {
			t.Errorf("one outage was logged %d times:\n%s", got, f.log)
		}
		f.store.set(func(s *fakeStore) { s.err = nil })
		wait(3 * time.Second)
		if f.version() != 3 {
			t.Errorf("after the outage: version %d", f.version())
		}

		f.store.set(func(s *fakeStore) { s.version, s.hang = 4, true })
		wait(5 * time.Second) // the interval and the timeout
		f.store.set(func(s *fakeStore) { s.hang = false })
		wait(3 * time.Second)
		if f.version() != 4 || !strings.Contains(f.log.String(), "deadline exceeded") {
			t.Errorf("after a hanging database: version %d, log:\n%s", f.version(), f.log)
		}
	})
}

// TestOutagesAreLoggedOnce has a source that is away, with another error each time, and whose
// documents may be bad.
func TestOutagesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		source := &fickleSource{}
		cache := evalcache.New(source, evalcache.Options{RefreshInterval: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := cache.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cache.Stop(t.Context()) }()
		for _, step := range []struct {
			name         string
			away, bad    bool
			version      string
			errors, good int // lines so far
		}{
			{"well", false, false, "1", 0, 0},
			{"away", true, false, "1", 1, 0},
			{"back", false, false, "1", 1, 1},
			{"bad document", false, true, "2", 2, 1},
			{"another bad document", false, true, "3", 3, 1},
			{"away with a bad document", true, true, "3", 4, 1},
			{"good document", false, false, "4", 4, 2},
		} {
			source.mu.Lock()
			source.away, source.bad, source.version = step.away, step.bad, step.version
			source.mu.Unlock()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			failed, good := strings.Count(log.String(), "level=ERROR"), strings.Count(log.String(), "can be loaded again")
			if failed != step.errors || good != step.good {
				t.Errorf("%s: %d and %d lines so far, want %d and %d:\n%s", step.name, failed, good, step.errors, step.good, &log)
			}
		}
	})
}

type fickleSource struct {
	mu        sync.Mutex
	away, bad bool
	version   string
	port      int
}

func (s *fickleSource) Version(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port++; s.away {
		return "", fmt.Errorf("dial from 127.0.0.1:%d: connection refused", s.port)
	}
	return s.version, nil
}

func (s *fickleSource) Flags(context.Context) ([]entity.Flag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad {
		return nil, fmt.Errorf("version %s: %w", s.version, evalcache.ErrDocument)
	}
	return nil, nil
}

func TestChangesAreLoadedAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f *fixture
		var swapped []uint
		f = setup(evalcache.Options{RefreshInterval: time.Second, Swapped: func() { swapped = append(swapped, f.version()) }})
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Stop(t.Context()) }()
		after := func(change func(*fakeStore), version uint, changes int) {
			t.Helper()
			f.store.set(change)
			time.Sleep(time.Second)
			synctest.Wait()
			if f.version() != version || f.store.loads != 1 || f.store.changes != changes {
				t.Errorf("version %d, %d loads, %d looks at changes, want %d, 1, %d", f.version(), f.store.loads, f.store.changes, version, changes)
			}
		}
		after(func(s *fakeStore) { s.version = 2 }, 2, 1)
		after(func(s *fakeStore) { s.version, s.err = 3, errors.New("database is gone") }, 2, 1)
		after(func(s *fakeStore) { s.err = nil }, 3, 2)
		f.store.set(func(s *fakeStore) { s.version, s.gone = 4, true })
		time.Sleep(time.Second)
		synctest.Wait()
		if f.Snapshot().Len() != 0 {
			t.Error("a flag that is gone is still there")
		}
		if !slices.Equal(swapped, []uint{1}) {
			t.Errorf("Swapped was called with versions %v", swapped)
		}
	})
}

// handStore has flags whose snapshot ids never change, as if everything was done by hand.
type handStore struct {
	mu      sync.Mutex
	version int
	flags   []entity.Flag
	read    int // flags, by ChangedFlags
}

func (s *handStore) FlagsVersion(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strconv.Itoa(s.version), nil
}

func (s *handStore) EvalFlags(context.Context) ([]entity.Flag, error) {
	return slices.Clone(s.flags), nil
}

func (s *handStore) ChangedFlags(_ context.Context, known []*entity.Flag) (changed []entity.Flag, gone []uint, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []uint
	for _, f := range known {
		if !slices.ContainsFunc(s.flags, func(other entity.Flag) bool { return other.ID == f.ID }) {
			gone = append(gone, f.ID)
		}
		ids = append(ids, f.ID)
	}
	for _, f := range s.flags {
		if !slices.Contains(ids, f.ID) {
			changed = append(changed, f)
		}
	}
	s.read += len(changed)
	return changed, gone, nil
}

// With each reload some more flags are read again, or all of them where they are few, so that what
// nothing tells of shows as well.
func TestChangesByHandShowInTurn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		flags int
		after []int // flags as they are now, after each reload
		read  int   // at most, by each
	}{
		{100, []int{99, 99}, 99},
		{110, []int{20, 40, 60, 80, 100, 109, 109}, 20},
	} {
		t.Run(fmt.Sprint(test.flags), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &handStore{}
				for id := range uint(test.flags) {
					store.flags = append(store.flags, entity.Flag{Model: entity.Model{ID: id + 1}, Key: "before"})
				}
				c := evalcache.New(evalcache.FromStore(store), evalcache.Options{RefreshInterval: time.Second, Logger: slog.New(slog.DiscardHandler)})
				if err := c.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Stop(t.Context()) }()
				store.mu.Lock()
				for i := range store.flags {
					store.flags[i].Key = "after"
				}
				store.flags = slices.Delete(store.flags, 89, 90) // noticed at once
				store.mu.Unlock()
				read := 0
				for i, want := range test.after {
					store.mu.Lock()
					store.version++
					store.mu.Unlock()
					time.Sleep(time.Second)
					synctest.Wait()
					after := 0
					flags := c.Snapshot().Flags()
					for _, f := range flags {
						if f.Key == "after" {
							after++
						}
					}
					if len(flags) != test.flags-1 || after != want {
						t.Errorf("reload %d: %d flags, %d of them as they are, want %d and %d", i+1, len(flags), after, test.flags-1, want)
					}
					if n := store.read - read; n > test.read {
						t.Errorf("reload %d read %d flags, at most %d should be", i+1, n, test.read)
					}
					read = store.read
				}
			})
		})
	}
}

// TestChangeWhileLoading changes the flags after their version was read: the next refresh must load
// them again.
func TestChangeWhileLoading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := setup(evalcache.Options{RefreshInterval: time.Second})
		f.store.onVersion = func() {
			f.store.set(func(s *fakeStore) { s.version, s.onVersion = 2, nil })
		}
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.version() != 2 || f.store.changes != 1 {
			t.Errorf("version %d after %d looks at changes, want 2 after 1", f.version(), f.store.changes)
		}
	})
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	t.Run("failing first load", func(t *testing.T) {
		t.Parallel()
		f := setup(evalcache.Options{})
		f.store.err = errors.New("database is gone")
		if err := f.Start(t.Context()); !errors.Is(err, f.store.err) {
			t.Errorf("got error %v", err)
		}
		f.store.err = nil
		if err := f.Start(t.Context()); err != nil {
			t.Errorf("second try: %v", err)
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		f := setup(evalcache.Options{})
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Start(t.Context()); err == nil {
			t.Error("no error on the second start")
		}
		for range 2 {
			if err := f.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if f.version() != 1 {
			t.Error("the snapshot is gone after Stop")
		}
	})
	t.Run("stop before start", func(t *testing.T) {
		t.Parallel()
		f := setup(evalcache.Options{})
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := f.Start(t.Context()); err == nil {
			t.Error("started after Stop")
		}
	})
	t.Run("stop ends a hanging first load", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := setup(evalcache.Options{})
			f.store.hang = true
			failed := make(chan error)
			go func() { failed <- f.Start(t.Context()) }()
			synctest.Wait()
			go func() { _ = f.Stop(t.Context()) }()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v", err)
			}
		})
	})
	t.Run("the context of start does not end the refreshing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := setup(evalcache.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			if err := f.Start(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			f.store.set(func(s *fakeStore) { s.version = 2 })
			time.Sleep(4 * time.Second) // beyond the default interval
			if err := f.Stop(t.Context()); err != nil || f.version() != 2 {
				t.Errorf("version %d, error %v", f.version(), err)
			}
		})
	})
	t.Run("stop keeps its deadline", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			blocked := make(chan struct{})
			f := setup(evalcache.Options{})
			if err := f.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.store.set(func(s *fakeStore) { s.onVersion = func() { <-blocked } })
			time.Sleep(4 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := f.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v", err)
			}
			close(blocked)
			if err := f.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestEvaluateWhileReloading is for the race detector: evaluations run while snapshots are swapped,
// and versions never go backwards.
func TestEvaluateWhileReloading(t *testing.T) {
	t.Parallel()
	f := setup(evalcache.Options{RefreshInterval: time.Millisecond})
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	service := eval.NewService(f, nil, eval.Options{})
	deadline := time.Now().Add(time.Minute)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			last := int64(0)
			for last < 20 && time.Now().Before(deadline) {
				var result eval.Result
				if err := service.EvaluateInto(t.Context(), eval.Request{FlagID: 1}, &result); err != nil {
					t.Error(err)
				}
				got := result.FlagSnapshotID
				if got < last {
					t.Errorf("version %d after %d", got, last)
				}
				if last = got; got == f.last() {
					f.store.set(func(s *fakeStore) { s.version++ })
				}
			}
			if last < 20 {
				t.Errorf("stuck at version %d", last)
			}
		})
	}
	group.Wait()
	if err := f.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func (f *fixture) last() (version int64) {
	f.store.set(func(s *fakeStore) { version = s.version })
	return version
}

func TestProblemsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	source := &brokenSource{}
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		cache := evalcache.New(source, evalcache.Options{RefreshInterval: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := cache.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond)
		if err := cache.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if got := strings.Count(log.String(), "constraint 5 never matches"); got != 1 || source.loads < 4 {
		t.Errorf("logged %d times in %d loads:\n%s", got, source.loads, log.String())
	}
}

type brokenSource struct{ loads int }

func (s *brokenSource) Version(context.Context) (string, error) { return strconv.Itoa(s.loads), nil }

func (s *brokenSource) Flags(context.Context) ([]entity.Flag, error) {
	s.loads++
	return []entity.Flag{{Model: entity.Model{ID: 1}, Key: "k", Segments: []entity.Segment{{
		Model: entity.Model{ID: 2}, Constraints: []entity.Constraint{{Model: entity.Model{ID: 5}, Property: "x", Operator: "EQ", Value: "FR"}},
	}}}}, nil
}
