package gormstore_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// TestSendersAreRead reads the data about senders that another store needs, in pages.
func TestSendersAreRead(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := newStore(t, openKind(t, kind, kind.Fresh(t)))
		for i := range 5 {
			r := ingest.Receipt{Key: fmt.Sprint("key ", i), Digest: fmt.Sprint("d", i), Answer: "{}"}
			if _, _, err := s.ApplyBatch(t.Context(), datar.Batch{Writer: fmt.Sprint("sender:", i%2), Sequence: int64(i) + 1}, r); err != nil {
				t.Fatal(err)
			}
		}
		sequences, err := s.LastSequences(t.Context())
		if err != nil || len(sequences) != 2 || sequences["sender:0"] != 5 || sequences["sender:1"] != 4 {
			t.Errorf("sequences are %v, %v", sequences, err)
		}
		var digests []string
		for after := ""; ; {
			page, err := s.Receipts(t.Context(), after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				digests = append(digests, r.Digest)
			}
			after = page[len(page)-1].Key
		}
		if slices.Sort(digests); !slices.Equal(digests, []string{"d0", "d1", "d2", "d3", "d4"}) {
			t.Errorf("digests are %q", digests)
		}
	})
}
