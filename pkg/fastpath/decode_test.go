package fastpath

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

func batchOf(entities int) string {
	one := strings.Repeat(`,{"entityID":"user-1001","entityType":"user","entityContext":{"age":30,"country":"FR"}}`, entities)
	return `{"entities":[` + one[1:] + `],"flagIDs":[1]}`
}

func TestMemoryOfABatch(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 100, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			var d decoder
			if r, ok := d.batch(batchOf(n)); !ok || len(r.Entities) != n {
				t.Fatalf("%d entities were read, plain %v", len(r.Entities), ok)
			}
			if got, most := max(cap(d.entities), cap(d.objects), cap(d.members)/2), 2*n+5; got > most {
				t.Errorf("there is memory for %d entities, %d contexts and %d properties, want %d at most, and twice as many properties",
					cap(d.entities), cap(d.objects), cap(d.members), most)
			}
		})
	}
}

// TestMemoryOfAFewSmallEntities has entities without properties before a long one. If all of them
// were expected to be as small, the memory would be seven times the text.
func TestMemoryOfAFewSmallEntities(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3000} {
		var d decoder
		body := `{"entities":[` + strings.Repeat(`{"entityContext":{"a":1}},`, n) + `{"entityID":"` + strings.Repeat("x", 1<<20) + `"}],"flagIDs":[1]}`
		if r, ok := d.batch(body); !ok || len(r.Entities) != n+1 {
			t.Fatalf("%d entities were read, plain %v", len(r.Entities), ok)
		}
		if got, most := max(cap(d.entities), cap(d.objects)+d.contexts, cap(d.members)+d.properties), 4*n+2000; got > most {
			t.Errorf("after %d entities, there is memory for %d, want %d at most", n+1, got, most)
		}
	}
}

// TestMemoryOfKeysBeforeEntities checks that the decoder does not take the entities for more keys.
func TestMemoryOfKeysBeforeEntities(t *testing.T) {
	t.Parallel()
	body := strings.Replace(batchOf(2000), `{`, `{"flagKeys":["a","b"],"flagTags":["c"],`, 1)
	var d decoder
	r, ok := d.batch(body)
	if most := 8; !ok || len(r.FlagKeys) != 2 || cap(r.FlagKeys) > most || cap(r.FlagTags) > most {
		t.Errorf("plain %v: there is memory for %d keys and %d tags, want %d at most", ok, cap(r.FlagKeys), cap(r.FlagTags), most)
	}
}

// TestShapesOfMixedEntities counts the entities that get a shape.
func TestShapesOfMixedEntities(t *testing.T) {
	t.Parallel()
	var d decoder
	shapes := 0
	for i := range 10 * shapeTries {
		d.scanner = scanner{text: fmt.Sprintf(`,{"entityContext":{"b%d":1,"a":2}}`, i), at: 1}
		var e eval.Entity
		if !d.entity(&e) {
			t.Fatal("an entity is not plain")
		}
		if d.shape.end != "" {
			shapes++
		}
	}
	if want := shapeTries - 1 + 10; shapes != want {
		t.Errorf("%d of %d entities have a shape, want %d", shapes, 10*shapeTries, want)
	}
	d.scanner = scanner{text: `,{"entityContext":{"b":1,"a":2}}`}
	for range 2 * shapeTries {
		d.at = 1
		var e eval.Entity
		d.entity(&e)
	}
	if d.unlike != 0 {
		t.Errorf("%d entities that are alike are parsed in full", d.unlike)
	}
}

// TestMemoryOfUnsortedContexts counts allocations for contexts that are written anew.
func TestMemoryOfUnsortedContexts(t *testing.T) {
	var d decoder
	body := strings.ReplaceAll(batchOf(500), `"age":30,"country":"FR"`, `"country":"FR","age":30`)
	if n := testing.AllocsPerRun(10, func() {
		if _, ok := d.batch(body); !ok {
			t.Fatal("not plain")
		}
		d.forget(maxPooledParts)
	}); n > 10 {
		t.Errorf("%.0f allocations for 500 contexts", n)
	}
}

// A decoder that waits for its next request must not keep texts of the ones before.
func TestForget(t *testing.T) {
	t.Parallel()
	var d decoder
	const most = 1000
	for _, n := range []int{100, 3, 200, 1} {
		// The last entity has the shape of the others up to its end.
		d.batch(strings.Replace(batchOf(n), `}}],`, `}},{"entityContext":{"b":1,"a":2}},{"entityID":"user-1001","entityType":"user","entityContext":{"age":30,"country":""},"x":0}],`, 1))
		d.forget(most)
		if d.text != "" || strings.Trim(string(d.block[:cap(d.block)]), "\x00") != "" || d.shape.end != "" || slices.ContainsFunc(d.shape.parts[:cap(d.shape.parts)], func(p part) bool { return p != part{} }) || slices.ContainsFunc(d.entities[:cap(d.entities)], func(e eval.Entity) bool { return e != eval.Entity{} }) ||
			slices.ContainsFunc(d.objects[:cap(d.objects)], func(o eval.Object) bool { return o.JSON != "" || o.Members != nil }) ||
			slices.ContainsFunc(d.members[:cap(d.members)], func(m eval.Member) bool { return m != eval.Member{} }) {
			t.Errorf("something is left of a batch of %d", n)
		}
	}
	if cap(d.entities) == 0 || cap(d.objects) == 0 || cap(d.members) == 0 || cap(d.block) == 0 {
		t.Error("the memory is not kept")
	}
	d.batch(batchOf(2 * most))
	d.forget(most)
	if cap(d.entities) != 0 || cap(d.objects) != 0 || cap(d.members) != 0 || cap(d.block) != 0 {
		t.Error("the memory of a large batch is kept")
	}
	d.batch(`{"entities":[{"entityContext":{"b":"` + strings.Repeat("x", textBlock) + `","a":1}}],"flagIDs":[1]}`)
	if d.forget(most); cap(d.block) != 0 {
		t.Error("the memory of a large context is kept")
	}
}

// BenchmarkDecode reads batches of 500 entities, whose values differ.
func BenchmarkDecode(b *testing.B) {
	sorted := `{"entityID":"user-%d","entityType":"user","entityContext":{"age":%d,"country":"%s"}}`
	unsorted := `{"entityID":"user-%d","entityType":"user","entityContext":{"id":%d,"country":"%s"}}`
	for _, bc := range []struct {
		name  string
		forms []string
	}{
		{"sorted", []string{sorted}},
		{"unsorted", []string{unsorted}},
		{"spaces", []string{`{"entityID": "user-%d", "entityType": "user", "entityContext": {"age": %d, "country": "%s"}}`}},
		{"alternating", []string{sorted, strings.Replace(sorted, "country", "plan", 1)}},
		{"alternating, unsorted", []string{unsorted, strings.Replace(unsorted, "country", "city", 1)}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var text strings.Builder
			for i := range 500 {
				fmt.Fprintf(&text, ","+bc.forms[i%len(bc.forms)], 1000+i, 20+i%50, []string{"FR", "DE"}[i%2])
			}
			body := `{"entities":[` + text.String()[1:] + `],"flagKeys":["bench"]}`
			var d decoder
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := d.batch(body); !ok {
					b.Fatal("not plain")
				}
				d.forget(maxPooledParts)
			}
		})
	}
}
