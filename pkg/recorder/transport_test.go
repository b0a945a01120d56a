package recorder

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIsolate(t *testing.T) {
	t.Parallel()
	errRefused := errors.New("refused")
	for _, tc := range []struct {
		name   string
		bad    []string // refused even alone
		down   []string // fail for another reason, with what is sent together with them
		most   int      // records that a request may have
		want   map[string]error
		atMost int // requests, the first one included
	}{
		{name: "one bad record", bad: []string{"70"}, most: 100, want: map[string]error{"70": errRefused}, atMost: 15},
		{name: "the first and the last", bad: []string{"0", "99"}, most: 100, want: map[string]error{"0": errRefused, "99": errRefused}, atMost: 29},
		{name: "too many at once", most: 30, atMost: 7},
		{name: "both", bad: []string{"70"}, most: 30, want: map[string]error{"70": errRefused}, atMost: 17},
		{name: "none", most: 100, atMost: 1},
		{name: "trouble meanwhile", down: []string{"70"}, most: 1, want: map[string]error{"70": errDown}, atMost: 199},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var batch []*Record
			for i := range 100 {
				batch = append(batch, record(fmt.Sprint(i)))
			}
			requests, taken := 0, map[string]int{}
			send := func(part []*Record) []error {
				requests++
				has := func(keys []string) bool {
					return slices.ContainsFunc(part, func(r *Record) bool { return slices.Contains(keys, r.Key()) })
				}
				switch {
				case len(part) > tc.most || has(tc.bad):
					return FailAll(len(part), errRefused)
				case has(tc.down):
					return FailAll(len(part), errDown)
				}
				for _, r := range part {
					taken[r.Key()]++
				}
				return nil
			}
			errs := send(batch)
			Isolate(batch, errs, func(err error) bool { return errors.Is(err, errRefused) }, send)
			for i, r := range batch {
				want := tc.want[r.Key()]
				if errs != nil && !errors.Is(errs[i], want) || errs == nil && want != nil {
					t.Errorf("%s: error is %v, want %v", r.Key(), errs[i], want)
				}
				arrived := 1
				if want != nil {
					arrived = 0
				}
				if diff := cmp.Diff(arrived, taken[r.Key()]); diff != "" {
					t.Errorf("%s arrived (-want +got):\n%s", r.Key(), diff)
				}
			}
			if requests > tc.atMost {
				t.Errorf("%d requests, want at most %d", requests, tc.atMost)
			}
		})
	}
}
