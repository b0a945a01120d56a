package eval

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// manySegments is a flag whose segments all read x and x.y. The last one matches what contains
// "yes".
func manySegments(id uint, segments int) entity.Flag {
	f := entity.Flag{Model: entity.Model{ID: id}, Key: fmt.Sprint("flag-", id), Enabled: true, Variants: []entity.Variant{{Model: entity.Model{ID: 1}, Key: "on"}}}
	for i := range segments {
		c := entity.Constraint{Property: "x", Operator: "EQ", Value: fmt.Sprintf("%q", fmt.Sprint("v", i))}
		switch {
		case i == segments-1:
			c.Operator, c.Value = "CONTAINS", `"yes"`
		case i%2 == 0:
			c.Operator = "CONTAINS"
		case i%5 == 0:
			c.Property = "x.y"
		}
		f.Segments = append(f.Segments, entity.Segment{
			Model: entity.Model{ID: uint(i + 1)}, Rank: uint(i), RolloutPercent: 100, Constraints: []entity.Constraint{c}, Distributions: []entity.Distribution{{VariantID: 1, Percent: 100}},
		})
	}
	return f
}

// TestLongValuesAreConvertedOnce: the work of an evaluation is not the product of its context and
// the constraints. It is not parallel, because it counts allocations.
func TestLongValuesAreConvertedOnce(t *testing.T) {
	const segments, items = 2000, 5000
	snapshot := Compile([]entity.Flag{manySegments(1, segments)})
	for name, x := range map[string]string{
		"texts":     "[" + strings.Repeat(`"no",`, items) + `"yes"]`,
		"numbers":   "[" + strings.Repeat("1,", items) + "2]",
		"mixed":     "[" + strings.Repeat(`1,"no",`, items/2) + "2]",
		"escapes":   `"` + strings.Repeat(`\"`, items) + `"`,
		"digits":    strings.Repeat("9", items),
		"an object": `{"y":[` + strings.Repeat("1,", items) + `2]}`,
	} {
		t.Run(name, func(t *testing.T) {
			source := `{"x":` + x + `}`
			var decoded map[string]any
			decoder := json.NewDecoder(strings.NewReader(source))
			decoder.UseNumber()
			if err := decoder.Decode(&decoded); err != nil {
				t.Fatal(err)
			}
			for _, context := range []any{&Object{JSON: source, Members: []Member{{"x", x}}}, decoded} {
				var result Result
				evaluate := func() {
					snapshot.EvaluateInto(Request{FlagID: 1, EntityID: "e", EntityContext: context}, time.Time{}, false, &result)
				}
				if n := testing.AllocsPerRun(1, evaluate); n > 4*items {
					t.Errorf("%T: %v allocations", context, n)
				}
				if matched := name == "texts"; (result.Reason == Matched) != matched {
					t.Errorf("%T: %v", context, result.Reason)
				}
				if _, isMap := context.(map[string]any); result.scratch.known == nil && (!isMap || name != "escapes") {
					t.Errorf("%T: nothing was kept", context)
				}
			}
		})
	}
}

// TestContextsOfABatchAreTheirOwn: flags of one entity share what was converted, and entities do
// not.
func TestContextsOfABatchAreTheirOwn(t *testing.T) {
	t.Parallel()
	snapshot := Compile([]entity.Flag{manySegments(1, 10), manySegments(2, 10)})
	service := NewService(fixed{snapshot}, nil, Options{})
	with, without := "["+strings.Repeat(`"no",`, 100)+`"yes"]`, "["+strings.Repeat(`"no",`, 100)+`"not"]`
	batch := BatchRequest{FlagIDs: []int64{1, 2}}
	for i, x := range []string{with, without, with} {
		batch.Entities = append(batch.Entities, Entity{EntityID: fmt.Sprint(i), EntityContext: &Object{JSON: `{"x":` + x + `}`, Members: []Member{{"x", x}}}})
	}
	var reasons []Reason
	if err := service.EvaluateEach(t.Context(), batch, func(r *Result) { reasons = append(reasons, r.Reason) }); err != nil {
		t.Fatal(err)
	}
	if want := []Reason{Matched, Matched, NoMatch, NoMatch, Matched, Matched}; !slices.Equal(reasons, want) {
		t.Errorf("%v, want %v", reasons, want)
	}
}

// fixed is a Source of one snapshot.
type fixed struct{ snapshot *Snapshot }

func (f fixed) Snapshot() *Snapshot { return f.snapshot }

// TestIndexedListsHaveTheSameItems compares both forms of a list.
func TestIndexedListsHaveTheSameItems(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		numbers, texts := make([]any, 1+random.IntN(40)), make([]any, 1+random.IntN(40))
		for i := range numbers {
			numbers[i] = json.Number(fmt.Sprint(float64(random.IntN(50))/7 + float64(random.IntN(3))*1e-7))
		}
		for i := range texts {
			texts[i] = fmt.Sprint(random.IntN(60))
		}
		for n := range 60 {
			item := value{kind: number, number: float64(n) / 7}
			plain, quick := member(&item, &value{kind: numberList, list: &list{items: numbers}}), member(&item, &value{kind: numberList, list: indexed(&list{items: numbers})})
			if plain != quick {
				t.Fatalf("%v in %v: %v, indexed %v", item.number, numbers, plain.truth, quick.truth)
			}
			item = value{kind: text, text: fmt.Sprint(n)}
			plain, quick = member(&item, &value{kind: textList, list: &list{items: texts}}), member(&item, &value{kind: textList, list: indexed(&list{items: texts})})
			if plain != quick {
				t.Fatalf("%v in %v: %v, indexed %v", item.text, texts, plain.truth, quick.truth)
			}
		}
	}
}

// TestExplanationsHaveABound: each reason matched a pattern again, with all the work of an
// evaluation.
func TestExplanationsHaveABound(t *testing.T) {
	t.Parallel()
	var f entity.Flag
	f.ID, f.Enabled = 1, true
	for i := range 300 {
		f.Segments = append(f.Segments, entity.Segment{Model: entity.Model{ID: uint(i + 1)}, Constraints: []entity.Constraint{{Property: "p", Operator: "EREG", Value: `"^(y?){500}x$"`}}})
	}
	snapshot := Compile([]entity.Flag{f})
	result := snapshot.Evaluate(Request{FlagID: 1, EntityID: "e", EntityContext: map[string]any{"p": strings.Repeat("y", 2000)}}, time.Time{}, true)
	if s := result.scratch; s.work > maxMatchWork || s.reasons > maxMatchWork || s.reasons == 0 {
		t.Errorf("%+v", s)
	}
	if last := result.SegmentLogs[len(result.SegmentLogs)-1].Message; !strings.Contains(last, "exceed 4194304") {
		t.Error(last)
	}
}
