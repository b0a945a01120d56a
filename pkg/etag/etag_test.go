package etag_test

import (
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/etag"
)

func TestListReadsWhatClientsAndProxiesSend(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][]string{
		`"a"`:                 {"a"},
		`W/"a"`:               {"a"},
		` W/"a-gzip" , "b" `:  {"a", "b"},
		`"a","b-gzip",W/"c"`:  {"a", "b", "c"},
		`a`:                   {"a"},
		`*`:                   {"*"},
		``:                    {""},
		`W/"a", W/"x-gzip.y"`: {"a", "x-gzip.y"},
	} {
		if got := slices.Collect(etag.List([]string{header})); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	if got := slices.Collect(etag.List([]string{`"a"`, `"b"`})); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("two headers: got %q", got)
	}
	for first := range etag.List([]string{`"a","b"`}) {
		if first != "a" {
			t.Errorf("the first tag is %q", first)
		}
		break
	}
}
