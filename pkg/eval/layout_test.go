package eval_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// entitiesByBucket has one entity id for each bucket of a flag.
func entitiesByBucket(t *testing.T, flagID int64) []string {
	t.Helper()
	ids := make([]string, eval.Buckets)
	for found, n := 0, 0; found < eval.Buckets; n++ {
		id := fmt.Sprintf("e%d", n)
		if b := eval.BucketOf(flagID, id); ids[b] == "" {
			ids[b] = id
			found++
		}
	}
	return ids
}

// randomSegmentedFlag has up to three segments without constraints, of which evaluation tries the
// first.
func randomSegmentedFlag(r *rand.Rand, id uint) entity.Flag {
	f := entity.Flag{Model: entity.Model{ID: id}, Key: fmt.Sprintf("flag-%d", id), Enabled: true}
	variants := 1 + r.IntN(5)
	for v := range variants {
		f.Variants = append(f.Variants, entity.Variant{Model: entity.Model{ID: uint(10 + v)}, Key: fmt.Sprintf("v%d", v)})
	}
	for s := range 1 + r.IntN(3) {
		segment := entity.Segment{Model: entity.Model{ID: uint(20 + s)}, Rank: uint(r.IntN(3)), RolloutPercent: uint(r.IntN(101))}
		if r.IntN(4) == 0 {
			segment.RolloutPercent = uint(r.IntN(2) * 100)
		}
		left := 100
		for v := range variants {
			percent := r.IntN(left + 1)
			if v == variants-1 {
				percent = left
			}
			left -= percent
			segment.Distributions = append(segment.Distributions, entity.Distribution{VariantID: uint(10 + v), Percent: uint(percent)})
		}
		f.Segments = append(f.Segments, segment)
	}
	return f
}

// What a layout says of each bucket is what an entity of that bucket gets.
func TestLayoutIsWhatEntitiesOfAllBucketsGet(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(17, 5))
	for id := uint(1); id <= 30; id++ {
		f := randomSegmentedFlag(r, id)
		layout := eval.LayoutOf(&f)
		snapshot := eval.Compile([]entity.Flag{f})
		first := layout.Segments[0]
		got, heldOut := map[int64]int{}, 0
		for bucket, entityID := range entitiesByBucket(t, int64(id)) {
			result := snapshot.Evaluate(eval.Request{FlagID: int64(id), EntityID: entityID}, time.Time{}, false)
			if result.VariantID != first.ByBucket[bucket] {
				t.Fatalf("flag %d, bucket %d: entity got %d, layout says %d", id, bucket, result.VariantID, first.ByBucket[bucket])
			}
			if result.VariantID == 0 {
				heldOut++
			} else {
				got[result.VariantID]++
			}
		}
		sum := first.HeldOut
		for _, g := range first.Given {
			sum += g.Buckets
			if g.Buckets != got[g.VariantID] {
				t.Errorf("flag %d: variant %d has %d buckets, and %d entities got it", id, g.VariantID, g.Buckets, got[g.VariantID])
			}
		}
		if heldOut != first.HeldOut || sum != eval.Buckets {
			t.Errorf("flag %d: %d held out, layout says %d; sum %d", id, heldOut, first.HeldOut, sum)
		}
		for i, s := range layout.Segments {
			if want := map[bool]eval.Reach{true: eval.ReachEverybody, false: eval.ReachNobody}[i == 0]; s.Reach != want {
				t.Errorf("flag %d: segment %d reaches %s, want %s", id, s.SegmentID, s.Reach, want)
			}
		}
	}
}

// A rollout takes whole buckets of each variant, one at least.
func TestLayoutOfSmallRollout(t *testing.T) {
	t.Parallel()
	f := entity.Flag{Model: entity.Model{ID: 42}, Variants: []entity.Variant{{Model: entity.Model{ID: 1}, Key: "a"}, {Model: entity.Model{ID: 2}, Key: "b"}},
		Segments: []entity.Segment{{Model: entity.Model{ID: 3}, RolloutPercent: 1,
			Distributions: []entity.Distribution{{VariantID: 2, Percent: 99}, {VariantID: 1, Percent: 1}, {VariantID: 9, Percent: 0}}}}}
	s := eval.LayoutOf(&f).Segments[0]
	if len(s.Given) != 2 || s.Given[0] != (eval.VariantLayout{VariantID: 1, VariantKey: "a", Percent: 1, Buckets: 1}) ||
		s.Given[1] != (eval.VariantLayout{VariantID: 2, VariantKey: "b", Percent: 99, Buckets: 10}) || s.HeldOut != 989 {
		t.Errorf("got %+v, held out %d", s.Given, s.HeldOut)
	}
}

func constraint(property, operator, value string) entity.Constraint {
	return entity.Constraint{Property: property, Operator: operator, Value: value}
}

func reachOf(constraints ...entity.Constraint) eval.SegmentLayout {
	f := entity.Flag{Model: entity.Model{ID: 1}, Segments: []entity.Segment{{Model: entity.Model{ID: 2}, RolloutPercent: 100, Constraints: constraints}}}
	return eval.LayoutOf(&f).Segments[0]
}

func TestConstraintsThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		constraints []entity.Constraint
		nobody      bool
	}{
		"two strings":              {[]entity.Constraint{constraint("c", "EQ", `"FR"`), constraint("c", "EQ", `"DE"`)}, true},
		"the same string":          {[]entity.Constraint{constraint("c", "EQ", `"FR"`), constraint("c", "EQ", `"FR"`)}, false},
		"two properties":           {[]entity.Constraint{constraint("c", "EQ", `"FR"`), constraint("d", "EQ", `"DE"`)}, false},
		"string and number":        {[]entity.Constraint{constraint("c", "EQ", `"1"`), constraint("c", "GT", `0`)}, true},
		"lists apart":              {[]entity.Constraint{constraint("c", "IN", `["a","b"]`), constraint("c", "IN", `["c"]`)}, true},
		"lists with a common text": {[]entity.Constraint{constraint("c", "IN", `["a","b"]`), constraint("c", "IN", `["b","c"]`)}, false},
		"all texts ruled out":      {[]entity.Constraint{constraint("c", "NOTIN", `["a","b","c"]`), constraint("c", "IN", `["b","c"]`)}, true},
		"one text left":            {[]entity.Constraint{constraint("c", "NOTIN", `["a","b"]`), constraint("c", "IN", `["b","c"]`)}, false},
		"ranges apart":             {[]entity.Constraint{constraint("n", "LT", `5`), constraint("n", "GT", `5`)}, true},
		"ranges that touch":        {[]entity.Constraint{constraint("n", "LTE", `5`), constraint("n", "GTE", `5`)}, false},
		"nearly touching":          {[]entity.Constraint{constraint("n", "LTE", `5`), constraint("n", "GTE", `5.0000005`)}, false},
		"number out of range":      {[]entity.Constraint{constraint("n", "IN", `[1,2,3]`), constraint("n", "GT", `3.5`)}, true},
		"number in range":          {[]entity.Constraint{constraint("n", "IN", `[1,2,3]`), constraint("n", "GT", `2.5`)}, false},
		"booleans":                 {[]entity.Constraint{constraint("b", "EQ", `true`), constraint("b", "EQ", `false`)}, true},
		"boolean and its negation": {[]entity.Constraint{constraint("b", "EQ", `true`), constraint("b", "NEQ", `true`)}, true},
		"pattern":                  {[]entity.Constraint{constraint("c", "EQ", `"FR"`), constraint("c", "EREG", `"^D"`)}, true},
		"pattern that fits":        {[]entity.Constraint{constraint("c", "EQ", `"DE"`), constraint("c", "EREG", `"^D"`)}, false},
		"no text is a list":        {[]entity.Constraint{constraint("c", "NEQ", `"a"`), constraint("c", "CONTAINS", `"a"`)}, true},
		"list and text":            {[]entity.Constraint{constraint("c", "EQ", `"a"`), constraint("c", "CONTAINS", `"a"`)}, true},
		"equals a list":            {[]entity.Constraint{constraint("c", "EQ", `["a"]`)}, true},
		"does not parse":           {[]entity.Constraint{constraint("c", "EQ", `FR`)}, true},
		"nested, apart":            {[]entity.Constraint{constraint("a.b", "EQ", `"x"`), constraint("a.b", "EQ", `"y"`)}, true},
		"nested, other path":       {[]entity.Constraint{constraint("a.b", "EQ", `"x"`), constraint("a.c", "EQ", `"y"`)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reachOf(test.constraints...)
			if (s.Reach == eval.ReachNobody) != test.nobody || s.ReachText.IsZero() == test.nobody {
				t.Errorf("got %s: %q", s.Reach, s.ReachText)
			}
		})
	}
}

// No context matches constraints that the layout reports as unreachable.
func TestNobodyIsNeverWrong(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	values := []any{"a", "b", "c", "1", "", json.Number("1"), json.Number("2"), json.Number("1.0000005"), json.Number("0.9999994"), json.Number("-3"),
		true, false, nil, []any{"a", "b"}, []any{json.Number("1")}, []any{}, map[string]any{"x": "a"}}
	operators := map[string][]string{
		"EQ": {`"a"`, `"b"`, `1`, `1.0000007`, `true`, `["a"]`}, "NEQ": {`"a"`, `1`, `false`, `[1]`},
		"IN": {`["a","b"]`, `["c"]`, `[1,2]`, `[1.0000008]`}, "NOTIN": {`["a","b","c"]`, `[1,2]`},
		"LT": {`1`, `2`, `-1`}, "LTE": {`1`, `0.9999995`}, "GT": {`1`, `2`, `-3`}, "GTE": {`1`, `1.0000009`},
		"EREG": {`"^a"`, `"."`}, "NEREG": {`"^a"`}, "CONTAINS": {`"a"`, `1`}, "NOTCONTAINS": {`"a"`, `2`},
	}
	var all []entity.Constraint
	for _, operator := range []string{"EQ", "NEQ", "IN", "NOTIN", "LT", "LTE", "GT", "GTE", "EREG", "NEREG", "CONTAINS", "NOTCONTAINS"} {
		for _, value := range operators[operator] {
			all = append(all, constraint("p", operator, value))
		}
	}
	nobody := 0
	for range 5000 {
		constraints := []entity.Constraint{all[r.IntN(len(all))], all[r.IntN(len(all))]}
		if reachOf(constraints...).Reach != eval.ReachNobody {
			continue
		}
		nobody++
		f := entity.Flag{Model: entity.Model{ID: 1}, Enabled: true, Variants: []entity.Variant{{Model: entity.Model{ID: 1}, Key: "on"}},
			Segments: []entity.Segment{{Model: entity.Model{ID: 2}, RolloutPercent: 100, Constraints: constraints, Distributions: []entity.Distribution{{VariantID: 1, Percent: 100}}}}}
		snapshot := eval.Compile([]entity.Flag{f})
		for _, value := range values {
			if result := snapshot.Evaluate(eval.Request{FlagID: 1, EntityID: "e", EntityContext: map[string]any{"p": value}}, time.Time{}, false); result.Reason == eval.Matched {
				t.Fatalf("%v matches %+v", value, constraints)
			}
		}
	}
	if nobody < 1000 {
		t.Errorf("only %d pairs reach nobody: the test sees too few", nobody)
	}
}

func TestStopsNameTheFirstConstraintThatDidNotHold(t *testing.T) {
	t.Parallel()
	withID := func(id uint, c entity.Constraint) entity.Constraint {
		c.ID = id
		return c
	}
	f := entity.Flag{Model: entity.Model{ID: 1}, Enabled: true, Segments: []entity.Segment{
		{Model: entity.Model{ID: 9}, Rank: 2, Constraints: []entity.Constraint{withID(33, constraint("vip", "EQ", "true"))}},
		{Model: entity.Model{ID: 8}, Rank: 1, RolloutPercent: 0, Constraints: []entity.Constraint{withID(31, constraint("country", "EQ", `"FR"`)), withID(32, constraint("user.age", "GTE", "18"))}},
	}}
	snapshot := eval.Compile([]entity.Flag{f})
	for name, test := range map[string]struct {
		context any
		want    string
	}{
		"nothing":     {nil, "8/31/1 9/33/1"},
		"no object":   {"text", "8/31/1 9/33/1"},
		"wrong value": {map[string]any{"country": "DE", "vip": false}, "8/31/0 9/33/0"},
		"wrong type":  {map[string]any{"country": "FR", "user": map[string]any{"age": "19"}, "vip": "true"}, "8/32/2 9/33/2"},
		"missing":     {map[string]any{"country": "FR", "user": map[string]any{}, "vip": nil}, "8/32/1 9/33/1"},
		"raw JSON":    {&eval.Object{JSON: `{"country":"FR","user":{"age":17}}`, Members: []eval.Member{{"country", `"FR"`}, {"user", `{"age":17}`}}}, "8/32/0 9/33/1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := snapshot.Evaluate(eval.Request{FlagID: 1, EntityID: "e", EntityContext: test.context}, time.Time{}, false)
			unmatched, ok := eval.NewUnmatched(result)
			if !ok {
				t.Fatal("not taken")
			}
			var got []string
			for _, stop := range unmatched.Stops() {
				got = append(got, fmt.Sprintf("%d/%d/%d", stop.SegmentID, stop.ConstraintID, stop.Cause))
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got %s, want %s", text, test.want)
			}
			if percent, ok := result.RolloutPercent(); ok != (name == "held out") || percent != 0 {
				t.Errorf("rollout %d, %t", percent, ok)
			}
		})
	}
	off := f
	off.Enabled = false
	adult := map[string]any{"country": "FR", "user": map[string]any{"age": json.Number("20")}}
	for name, result := range map[string]*eval.Result{
		"held out":  snapshot.Evaluate(eval.Request{FlagID: 1, EntityID: "e", EntityContext: adult}, time.Time{}, false),
		"off":       eval.Compile([]entity.Flag{off}).Evaluate(eval.Request{FlagID: 1}, time.Time{}, false),
		"not there": snapshot.Evaluate(eval.Request{FlagID: 2}, time.Time{}, false),
		"too large": snapshot.Evaluate(eval.Request{FlagID: 1, EntityContext: &eval.Object{JSON: `{"x":"` + strings.Repeat("x", 1<<16) + `"}`}}, time.Time{}, false),
	} {
		if _, ok := eval.NewUnmatched(result); ok {
			t.Errorf("%s: taken", name)
		}
	}
}
