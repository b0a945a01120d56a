package memstore_test

import (
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) datar.Store { return &memstore.Store{} })
}

func TestIngestStore(t *testing.T) {
	t.Parallel()
	storetest.RunIngest(t, func(*testing.T) storetest.IngestStore { return &memstore.Store{} })
}
