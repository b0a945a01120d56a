package main

import (
	"path/filepath"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) datar.Store {
		return opened(t, filepath.Join(t.TempDir(), "counts.sqlite"))
	})
}

func TestStoreIsOpenedAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "counts.sqlite")
	storetest.RunReopen(t, func(t *testing.T) datar.Store { return opened(t, file) })
}

func opened(t *testing.T, file string) *store {
	t.Helper()
	s, err := openStore(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	return s
}
