package datar_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Merging two lists is grouping all of their rows.
func TestMergeRows(t *testing.T) {
	t.Parallel()
	const by = datar.GroupFlag | datar.GroupVersion
	random := rand.New(rand.NewPCG(4, 5))
	list := func() []datar.Row {
		rows := make([]datar.Row, random.IntN(6))
		for i := range rows {
			rows[i] = datar.Row{Key: datar.Key{FlagID: random.Int64N(3) + 1, Version: uint16(random.IntN(2))}, Count: random.Int64N(5) - 2,
				Ingested: random.Int64N(2), First: random.Int64N(3), Last: random.Int64N(9)}
		}
		return slices.DeleteFunc(datar.GroupRows(rows, by), func(r datar.Row) bool { return r.Count == 0 })
	}
	for range 500 {
		a, b := list(), list()
		before := slices.Concat(a, b)
		got := datar.MergeRows(a, b)
		want := slices.DeleteFunc(datar.GroupRows(before, by), func(r datar.Row) bool { return r.Count == 0 })
		if !slices.Equal(got, want) {
			t.Fatalf("%+v and %+v: got %+v, want %+v", a, b, got, want)
		}
		for i := range got {
			got[i].Count = 99
		}
		if !slices.Equal(slices.Concat(a, b), before) {
			t.Fatal("the lists have changed")
		}
	}
}
