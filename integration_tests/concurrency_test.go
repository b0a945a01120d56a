package integration_tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
)

// TestManyWritersAtOnce changes one flag and creates others from many clients at the same time.
// Every change must succeed and add one snapshot.
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

// TestEverythingAtOnceToOneFlag creates, renames, reorders, distributes and deletes the parts of
// one flag, and the flag, from many clients at random. No response may have status 5xx, and the
// flag must be consistent at the end.
func TestEverythingAtOnceToOneFlag(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db database) {
		const clients, changes = 8, 30
		s := start(t, db, db.fresh(t), nil)
		f := newFlag(t, s, "contended")
		var group sync.WaitGroup
		for client := range clients {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(client), 3))
				for i := range changes {
					c := anyChange(s, f, random, fmt.Sprintf("c%d-%d", client, i))
					a, err := s.try(c.method, f.path()+c.path, c.body)
					if err != nil || a.status >= http.StatusInternalServerError {
						t.Errorf("%s %s: %s, %v", c.method, c.path, a, err)
					}
				}
			})
		}
		group.Wait()
		a := s.call(t, http.MethodPut, f.path()+"/restore", nil)
		if a.status != http.StatusOK && a.status != http.StatusNotFound {
			t.Errorf("restore: %s", a)
		}
		checkParts(t, get[partsAnswer](t, s, f.path()))
		newest := get[[]struct{ Flag partsAnswer }](t, s, f.path()+"/snapshots?limit=1")
		checkParts(t, newest[0].Flag)
		awaitChanges(t, s)
		evaluate(t, s, f, "u", nil)
	})
}

// partsAnswer is a flag with the parts that refer to each other, in a response or a snapshot.
type partsAnswer struct {
	Variants []struct {
		ID  int64
		Key string
	}
	Segments []struct {
		ID            int64
		Distributions []struct {
			VariantID  int64
			VariantKey string
			Percent    int
		}
	}
}

type change struct {
	method, path string
	body         any
}

// anyChange returns a random change of the current parts of the flag.
func anyChange(s *server, f flagAnswer, random *rand.Rand, name string) change {
	var now partsAnswer
	a, err := s.try(http.MethodGet, f.path(), nil)
	if err != nil || a.status == http.StatusNotFound {
		return change{http.MethodPut, "/restore", nil}
	}
	if json.Unmarshal(a.body, &now) != nil || len(now.Variants) == 0 || len(now.Segments) == 0 {
		return change{http.MethodPost, [...]string{"/variants", "/segments"}[random.IntN(2)],
			object{"key": name, "description": name, "rolloutPercent": 100}}
	}
	variant := fmt.Sprintf("/variants/%d", now.Variants[random.IntN(len(now.Variants))].ID)
	segment := fmt.Sprintf("/segments/%d", now.Segments[random.IntN(len(now.Segments))].ID)
	var ids []int64
	for _, one := range now.Segments {
		ids = append(ids, one.ID)
	}
	random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	first := now.Variants[0]
	changes := []change{
		{http.MethodPost, "/variants", object{"key": name}},
		{http.MethodPut, variant, object{"key": name}},
		{http.MethodDelete, variant, nil},
		{http.MethodPost, "/segments", object{"description": name, "rolloutPercent": random.IntN(101)}},
		{http.MethodPost, "/segments", object{"description": name, "rolloutPercent": random.IntN(101)}},
		{http.MethodPut, segment, object{"description": name, "rolloutPercent": 50}},
		{http.MethodDelete, segment, nil},
		{http.MethodPut, "/segments/reorder", object{"segmentIDs": ids}},
		{http.MethodPut, segment + "/distributions", object{"distributions": []object{
			{"variantID": first.ID, "variantKey": first.Key, "percent": 100}}}},
		{http.MethodPost, segment + "/constraints", object{"property": "p", "operator": "EQ", "value": `"x"`}},
		{http.MethodPut, "", object{"description": name, "key": name}},
		{http.MethodPost, "/tags", object{"value": fmt.Sprint("t", random.IntN(5))}},
		{http.MethodPut, "/enabled", object{"enabled": random.IntN(2) == 0}},
		{http.MethodDelete, "", nil},
	}
	return changes[random.IntN(len(changes))]
}

// checkParts checks that distributions refer to existing variants and sum to 100 percent.
func checkParts(t *testing.T, flag partsAnswer) {
	t.Helper()
	keys := map[int64]string{}
	for _, v := range flag.Variants {
		keys[v.ID] = v.Key
	}
	for _, segment := range flag.Segments {
		sum := 0
		for _, d := range segment.Distributions {
			sum += d.Percent
			if key, ok := keys[d.VariantID]; !ok || key != d.VariantKey {
				t.Errorf("segment %d assigns %d percent to variant %d %q; the flag has %v", segment.ID, d.Percent, d.VariantID, d.VariantKey, keys)
			}
		}
		if len(segment.Distributions) > 0 && sum != 100 {
			t.Errorf("the distributions of segment %d sum to %d percent", segment.ID, sum)
		}
	}
}
