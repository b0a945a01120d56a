package chstore_test

import (
	"sync"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

func open(t testing.TB, address string) *chstore.Store {
	t.Helper()
	options, err := chstore.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := chstore.New(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestManyStartAtOnce opens stores at the same time in an empty database. All must use the same
// identity.
func TestManyStartAtOnce(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		options, err := chstore.ParseURL(fresh(t))
		if err != nil {
			t.Fatal(err)
		}
		var stores [6]*chstore.Store
		var group sync.WaitGroup
		for i := range stores {
			group.Go(func() {
				s, err := chstore.New(t.Context(), options)
				if err != nil {
					t.Errorf("server %d: %v", i, err)
					return
				}
				t.Cleanup(s.Close)
				stores[i] = s
			})
		}
		group.Wait()
		for i, s := range stores {
			if s != nil && stores[0] != nil && s.Identity() != stores[0].Identity() {
				t.Errorf("server %d takes the database for %q, the first one for %q", i, s.Identity(), stores[0].Identity())
			}
		}
	})
}

func TestStore(t *testing.T) {
	onEachEngine(t, func(t *testing.T, fresh func(testing.TB) string) {
		storetest.Run(t, func(t *testing.T) datar.Store {
			s := open(t, fresh(t))
			s.BuildAtOnce()
			return s
		})
		storetest.RunIngest(t, func(t *testing.T) storetest.IngestStore { return open(t, fresh(t)) })
		address := fresh(t)
		storetest.RunReopen(t, func(t *testing.T) datar.Store { return open(t, address) })
	})
}
