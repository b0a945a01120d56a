package eval_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// TestUnreadableFlags compiles a flag with a value that cannot be read, which then is repaired: it
// is not in the snapshot until then, by ID, key or tag, and is a problem once.
func TestUnreadableFlags(t *testing.T) {
	t.Parallel()
	flags := []entity.Flag{
		{Model: entity.Model{ID: 1}, Key: "broken", Enabled: true, Tags: []entity.Tag{{Value: "t"}}, Unreadable: "variant 5: attachment is not the JSON of an object"},
		{Model: entity.Model{ID: 2}, Key: "fine", Enabled: true, Tags: []entity.Tag{{Value: "t"}}},
	}
	check := func(s *eval.Snapshot, reason eval.Reason, problems string) {
		t.Helper()
		listed, want := "", "broken fine "
		for _, f := range s.Listed() {
			listed += f.Key + " "
		}
		if reason == eval.FlagNotFound && problems == "[]" {
			want = "fine "
		}
		if listed != want || s.Len() != len(s.Flags()) {
			t.Errorf("lists %s, want %s", listed, want)
		}
		for _, request := range []eval.Request{{FlagID: 1}, {FlagKey: "broken"}} {
			if r := s.Evaluate(request, time.Now(), false); r.Reason != reason {
				t.Errorf("%+v gives %v, want %v", request, r.Reason, reason)
			}
		}
		if r := s.Evaluate(eval.Request{FlagID: 2}, time.Now(), false); r.Reason != eval.NoSegments {
			t.Errorf("the other flag gives %v", r.Reason)
		}
		if got := fmt.Sprint(s.Problems()); got != problems {
			t.Errorf("problems are %s, want %s", got, problems)
		}
	}
	const problem = "[flag 1 (broken) is not evaluated: variant 5: attachment is not the JSON of an object]"
	s := eval.Compile(flags)
	check(s, eval.FlagNotFound, problem)
	check(s.With(flags[:1], nil), eval.FlagNotFound, problem)
	check(s.With(nil, nil), eval.FlagNotFound, "[]") // it was deleted
	repaired := flags[0]
	repaired.Unreadable = ""
	s = s.With([]entity.Flag{repaired}, nil)
	check(s, eval.NoSegments, "[]")
	check(s.With(flags[:1], nil), eval.FlagNotFound, problem)
}
