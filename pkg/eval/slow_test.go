package eval_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// TestLongEvaluationsTakeTurns has flags whose evaluation is quick or takes long, depending on the
// context. While another evaluation has the only turn, quick ones do not wait.
func TestLongEvaluationsTakeTurns(t *testing.T) {
	t.Parallel()
	plain := newFlag(1, newSegment(1, 0, 100, onlyControl))
	stored := newFlag(2, newSegment(2, 0, 100, onlyControl))
	stored.Segments[0].Constraints = []entity.Constraint{{Property: "x", Operator: "EREG", Value: `"(a?){50}b"`}}
	given := newFlag(3, newSegment(3, 0, 100, onlyControl))
	given.Segments[0].Constraints = []entity.Constraint{{Property: "x", Operator: "EREG", Value: "{q}"}}
	read := newFlag(4)
	for i := range uint(1000) {
		read.Segments = append(read.Segments, newSegment(100+i, i, 100, onlyControl))
		read.Segments[i].Constraints = []entity.Constraint{{Property: "x", Operator: "NEQ", Value: `"c"`}}
	}
	wide := newFlag(5, newSegment(5, 0, 100, onlyControl), newSegment(6, 1, 100, onlyControl))
	for i := range wide.Segments {
		wide.Segments[i].Constraints = []entity.Constraint{{Property: "x", Operator: "NEQ", Value: `"c"` + strings.Repeat(`) AND ({x} != "c"`, 400)}}
	}
	disabled := read
	disabled.ID, disabled.Key, disabled.Enabled = 6, "flag-6", false
	quick := map[string]any{"x": "aab", "q": "b"}
	long := map[string]any{"x": strings.Repeat("a", 9000) + "b", "q": strings.Repeat("a?", 100) + "b"}

	synctest.Test(t, func(t *testing.T) {
		turns, others := budget.NewTurns(1), false // others: the test has the turn
		inTurn := false                            // the caller has the turn
		take := func() {
			if err := turns.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			others = true
		}
		release := func() {
			others = false
			turns.Release()
		}
		use := func(*eval.Result) {
			if !others && len(turns) != 0 {
				t.Error("the turn has not ended when the result may be sent to a slow client")
			}
		}
		f := setup(t, plain, stored, given, read, wide, disabled)
		service := eval.NewService(f, f, eval.Options{Turns: turns})
		ways := map[string]func(ctx context.Context, id int64, c map[string]any) error{
			"single": func(ctx context.Context, id int64, c map[string]any) error {
				_, err := service.Evaluate(ctx, eval.Request{FlagID: id, EntityID: "e", EntityContext: c, InTurn: inTurn})
				return err
			},
			"batch": func(ctx context.Context, id int64, c map[string]any) error {
				batch := eval.BatchRequest{Entities: []eval.Entity{{EntityID: "e", EntityContext: c}}, FlagIDs: []int64{id}, InTurn: inTurn}
				return service.EvaluateEach(ctx, batch, use)
			},
			"flags": func(ctx context.Context, id int64, c map[string]any) error {
				found, _ := f.snapshot.Find(fmt.Sprintf("flag-%d", id))
				return service.EvaluateFlags(ctx, eval.Request{EntityID: "e", EntityContext: c, InTurn: inTurn}, []eval.CompiledFlag{found}, true, use)
			},
		}
		for name, evaluate := range ways {
			for id := range int64(6) {
				if err := evaluate(t.Context(), id+1, long); err != nil {
					t.Errorf("%s: flag %d: %v", name, id+1, err)
				}
			}
			take()
			for id := range int64(6) {
				if err := evaluate(t.Context(), id+1, quick); err != nil {
					t.Errorf("%s: flag %d: %v", name, id+1, err)
				}
			}
			if err := evaluate(t.Context(), 6, long); err != nil {
				t.Errorf("%s: a disabled flag: %v", name, err)
			}
			for _, id := range []int64{2, 3, 4, 5} {
				inTurn = true
				if err := evaluate(t.Context(), id, long); err != nil {
					t.Errorf("%s: flag %d, in the turn of the caller: %v", name, id, err)
				}
				inTurn, f.recorded = false, nil
				ctx, leave := context.WithCancel(t.Context())
				ended := make(chan error, 2)
				go func() { ended <- evaluate(ctx, id, long) }()
				synctest.Wait()
				if len(ended) != 0 {
					t.Errorf("%s: flag %d does not wait for its turn: %v", name, id, <-ended)
				}
				leave()
				if err := <-ended; !errors.Is(err, context.Canceled) || len(f.recorded) != 0 {
					t.Errorf("%s: flag %d, after its client left: %v, %d recorded", name, id, err, len(f.recorded))
				}
				go func() { ended <- evaluate(t.Context(), id, long) }()
				synctest.Wait()
				release()
				if err := <-ended; err != nil || len(f.recorded) != 1 || f.recorded[0].Reason != eval.Matched {
					t.Errorf("%s: flag %d, after its turn: %v, %d recorded", name, id, err, len(f.recorded))
				}
				take()
			}
			release()
		}
	})
}

// TestAPanicEndsTheTurn has a server that goes on, as net/http does after a panic.
func TestAPanicEndsTheTurn(t *testing.T) {
	t.Parallel()
	many := newFlag(1)
	for i := range uint(1000) {
		many.Segments = append(many.Segments, newSegment(100+i, i, 100, onlyControl))
	}
	f, turns := setup(t, many), budget.NewTurns(1)
	service := eval.NewService(f, f, eval.Options{Turns: turns, Random: func() int32 {
		if len(turns) != 1 {
			t.Error("the evaluation has no turn")
		}
		panic("broken")
	}})
	defer func() {
		if recover() == nil || len(turns) != 0 {
			t.Error("the turn has not ended")
		}
	}()
	_, err := service.Evaluate(t.Context(), eval.Request{FlagID: 1, EntityContext: map[string]any{"x": strings.Repeat("a", 9000)}})
	t.Error(err)
}
