package datar_test

import (
	"path/filepath"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

// The store of the examples is one that others will copy.
func TestTheStoreOfTheExampleIsRight(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) datar.Store {
		s, err := openFileStore(filepath.Join(t.TempDir(), "counts.json"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
