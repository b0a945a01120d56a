package budget_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
)

func TestTurnsAreGivenInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(2)
		for range 2 {
			if err := turns.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var got []int
		for i := range 3 {
			go func() {
				if err := turns.Take(t.Context()); err != nil {
					t.Error(err)
				}
				got = append(got, i) // the next one gets its turn only when this one's is over
			}()
			synctest.Wait()
		}
		if len(got) != 0 {
			t.Errorf("%v have a turn beside the two that may", got)
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		if err := turns.Take(left); !errors.Is(err, context.Canceled) {
			t.Errorf("who has left gets %v", err)
		}
		for n := range 3 {
			turns.Release()
			synctest.Wait()
			if len(got) != n+1 || got[n] != n {
				t.Errorf("after %d turns that ended %v have one", n+1, got)
			}
		}
		turns.Release()
		turns.Release()
	})
}

func TestWithoutTurnsAllWorkAtOnce(t *testing.T) {
	t.Parallel()
	var turns budget.Turns
	for range 100 {
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	turns.Release()
}

// TestNoTurnAfterTheEnd: a turn that is granted just before the context ends is returned.
func TestNoTurnAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		for range 2 {
			if err := turns.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, leave := context.WithCancel(t.Context())
			got := make(chan error)
			go func() { got <- turns.Take(ctx) }()
			synctest.Wait()
			turns.Release() // to the other one, which has not run yet
			leave()
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Fatalf("who has left gets %v", err)
			}
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := budget.NewTurns(1)
		ctx, turn := turns.Context(t.Context())
		for range 2 { // the second one has a turn
			if err := budget.Resume(ctx); err != nil {
				t.Fatal(err)
			}
		}
		budget.Pause(ctx)
		if err := turns.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		resumed := false
		go func() {
			if err := budget.Resume(ctx); err != nil {
				t.Error(err)
			}
			resumed = true
		}()
		synctest.Wait()
		if resumed {
			t.Error("resumed beside another turn")
		}
		turns.Release()
		synctest.Wait()
		if !resumed {
			t.Error("not resumed after the other turn")
		}
		turn.End()
		turn.End()
		if err := turns.Take(t.Context()); err != nil {
			t.Error(err)
		}
		budget.Pause(t.Context())
		if err := budget.Resume(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestWaitingForAnotherTurnPauses checks that a request ends its turn of reads while it waits for
// one of long work, and keeps it if it need not wait.
func TestWaitingForAnotherTurnPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads, work := budget.NewTurns(1), budget.NewTurns(1)
		ctx, turn := reads.Context(t.Context())
		defer turn.End()
		taken := func() bool {
			left, leave := context.WithCancel(t.Context())
			leave()
			if reads.Take(left) != nil {
				return true
			}
			reads.Release()
			return false
		}
		if err := errors.Join(budget.Resume(ctx), work.Take(ctx)); err != nil || !taken() {
			t.Fatalf("without waiting: has a turn of reads: %t, %v", taken(), err)
		}
		done := make(chan error)
		go func() { done <- work.Take(ctx) }()
		if synctest.Wait(); taken() {
			t.Error("a request that waits for long work has a turn of reads")
		}
		work.Release()
		if err := errors.Join(<-done, budget.Resume(ctx)); err != nil || !taken() {
			t.Errorf("after waiting: has a turn of reads: %t, %v", taken(), err)
		}
	})
}

// TestOtherGoroutinesHaveNoTurn uses a turn and a context without it at the same time, for the race
// detector.
func TestOtherGoroutinesHaveNoTurn(t *testing.T) {
	t.Parallel()
	reads := budget.NewTurns(1)
	ctx, turn := reads.Context(t.Context())
	other := budget.WithoutTurn(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		for range 100 {
			budget.Yield(other)
			budget.Pause(other)
			if err := budget.Resume(other); err != nil {
				t.Error(err)
			}
		}
	})
	for range 100 {
		if err := budget.Resume(ctx); err != nil {
			t.Error(err)
		}
		budget.Yield(ctx)
		turn.End()
	}
	group.Wait()
}
