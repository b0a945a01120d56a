package store

import (
	"fmt"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestListsHaveFewLengths checks that the number of flags in a query does not lead to many
// statement texts, because drivers and databases cache each text.
func TestListsHaveFewLengths(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const flags = 40
		s := setup(t, kind)
		var known []*entity.Flag
		var ids []int64
		var keys []string
		for i := range flags {
			flag := &entity.Flag{Key: fmt.Sprint("flag", i), Tags: []entity.Tag{{Value: fmt.Sprint("tag", i)}}}
			ok(t, s.DB().Create(flag).Error)
			ok(t, s.DB().Create(&entity.Segment{FlagID: flag.ID, Description: "all"}).Error)
			known, ids, keys = append(known, flag), append(ids, int64(flag.ID)), append(keys, flag.Key)
		}
		texts := testdb.CountTexts(t, s.DB())

		read := func(n int) {
			t.Helper()
			found, err := s.FlagsByID(t.Context(), ids[:n])
			ok(t, err)
			heads, err := s.HeadsOfFlags(t.Context(), ids[:n])
			ok(t, err)
			_, err = s.SnapshotsByID(t.Context(), ids[:n])
			ok(t, err)
			_, err = s.DeletedAmong(t.Context(), keys[:n], ids[:n])
			ok(t, err)
			changed, gone, err := s.ChangedFlags(t.Context(), known[n:])
			ok(t, err)
			if len(found) != n || len(heads) != 0 || len(changed) != n || len(gone) != 0 {
				t.Errorf("of %d flags there are %d, %d heads, %d changed and %d gone", n, len(found), len(heads), len(changed), len(gone))
			}
		}
		for _, n := range []int{1, 2, 4, 8, 16, 32, flags} {
			read(n)
		}
		some := texts()
		for n := range flags {
			read(n + 1)
		}
		if n := texts(); n > some {
			t.Errorf("%d texts for lists of all lengths, want the %d of seven lengths", n, some)
		}
	})
}

func TestPaddedLists(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: 0, 1: 1, 3: 4, 256: 256, 257: idsPerQuery, 500: idsPerQuery, 600: 600} {
		list := make([]int, n, 2*n+1)
		for i := range list {
			list[i] = i + 1
		}
		got := padded(list)
		if len(got) != want || n > 0 && got[len(got)-1] != n {
			t.Errorf("%d values become %d, want %d that end with the last one", n, len(got), want)
		}
	}
}
