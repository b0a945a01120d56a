package integration_tests

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// TestManyWritersAtOnce lets clients change one flag, and create others, all at the same time: every change must
// succeed and leave its snapshot.
func TestManyWritersAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		const clients, changes = 8, 25
		s := start(t, db, db.fresh(t), nil)
		f := newFlag(t, s, "contended")
		type snapshot struct {
			Flag struct{ Description string }
		}
		snapshots := f.path() + "/snapshots"
		before := len(get[[]snapshot](t, s, snapshots))

		var writers sync.WaitGroup
		for client := range clients {
			writers.Go(func() {
				for i := range changes {
					for _, c := range []struct {
						method, path string
						body         object
					}{
						{http.MethodPut, f.path(), object{"description": fmt.Sprintf("%d by %d", i, client)}},
						{http.MethodPost, "/flags", object{"description": "d", "key": fmt.Sprintf("c%d-%d", client, i)}},
					} {
						if a, err := s.try(c.method, c.path, c.body); err != nil || a.status != http.StatusOK {
							t.Errorf("%s %s: %s, %v", c.method, c.path, a, err)
						}
					}
				}
			})
		}
		writers.Wait()

		after := get[[]snapshot](t, s, snapshots)
		if got := len(after) - before; got != clients*changes {
			t.Errorf("%d snapshots for %d changes", got, clients*changes)
		}
		seen := map[string]bool{}
		for _, s := range after {
			seen[s.Flag.Description] = true
		}
		if len(seen) != clients*changes+1 {
			t.Errorf("the snapshots show %d different descriptions, want %d", len(seen), clients*changes+1)
		}
		if got := get[flagAnswer](t, s, f.path()).Description; got != after[0].Flag.Description {
			t.Errorf("the flag is %q, its newest snapshot %q", got, after[0].Flag.Description)
		}
		if got := len(get[[]any](t, s, "/flags")); got != clients*changes+1 {
			t.Errorf("%d flags, want %d", got, clients*changes+1)
		}
		newest := get[struct{ MaxID int }](t, s, "/flags/snapshots/max_id").MaxID
		if want := before + 2*clients*changes; newest != want {
			t.Errorf("the newest snapshot is %d, want %d: one for each change", newest, want)
		}
	})
}
