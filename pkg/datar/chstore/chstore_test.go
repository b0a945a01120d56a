package chstore_test

import (
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
