package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// IngestStore is a store that takes batches of counts from elsewhere.
type IngestStore interface {
	datar.Store
	ingest.Store
}

// RunIngest tests what an ingest.Store promises. open is as for Run.
func RunIngest(t *testing.T, open func(*testing.T) IngestStore) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, IngestStore)
	}{
		{"a receipt is kept with its rows", receiptKept},
		{"a batch without a key is added each time", noReceipt},
		{"a known batch of a writer is told", knownBatch},
		{"many senders of the same batches", sameBatches},
		{"what was sent in is counted apart", sentIn},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

func sent(flag, count int64) []datar.Row {
	r := row(flag, 1, 1, hour, count)
	r.Ingested = count
	return []datar.Row{r}
}

func receiptKept(t *testing.T, s IngestStore) {
	key := strings.Repeat("ü", ingest.MaxKeyLength)
	first := ingest.Receipt{Key: key, Digest: "d1", Answer: strings.Repeat("{}", 40_000)}
	for i, digest := range []string{"d1", "d1", "d2"} {
		found, err := s.ApplyReceipt(t.Context(), sent(1, 5), ingest.Receipt{Key: key, Digest: digest, Answer: first.Answer})
		switch {
		case err != nil:
			t.Fatal(err)
		case (found == nil) != (i == 0):
			t.Fatalf("call %d: found %v", i, found)
		case found != nil && (found.Digest != "d1" || found.Answer != first.Answer):
			t.Errorf("call %d: found %.50v..., want the first receipt", i, found)
		}
	}
	other := ingest.Receipt{Key: strings.ToUpper(key), Digest: "d1"}
	if found, err := s.ApplyReceipt(t.Context(), sent(1, 7), other); found != nil || err != nil {
		t.Errorf("a key in upper case: %v, %v; want it to be another", found, err)
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 12})
}

func noReceipt(t *testing.T, s IngestStore) {
	for range 2 {
		if found, err := s.ApplyReceipt(t.Context(), sent(1, 5), ingest.Receipt{}); found != nil || err != nil {
			t.Fatal(found, err)
		}
	}
	if _, err := s.ApplyReceipt(t.Context(), nil, ingest.Receipt{Key: "empty"}); err != nil {
		t.Errorf("a batch without rows: %v", err)
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 10})
}

func knownBatch(t *testing.T, s IngestStore) {
	for i, sequence := range []int64{1, 1, 2, 1} {
		known, err := s.ApplyBatch(t.Context(), datar.Batch{Writer: "w", Sequence: sequence, Rows: sent(1, 5)})
		if want := i == 1 || i == 3; err != nil || known != want {
			t.Errorf("call %d: known %v, %v; want %v", i, known, err, want)
		}
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 10})
}

func sameBatches(t *testing.T, s IngestStore) {
	const senders, keys = 20, 10
	var applied atomic.Int64
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			for k := range int64(keys) {
				receipt := ingest.Receipt{Key: fmt.Sprint("key ", k), Digest: "d"}
				for {
					found, err := s.ApplyReceipt(t.Context(), sent(k+1, 3), receipt)
					if err == nil {
						if found == nil {
							applied.Add(1)
						}
						break
					}
					if context.Cause(t.Context()) != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	if n := applied.Load(); n != keys {
		t.Errorf("%d batches were applied, want each of %d once", n, keys)
	}
	want := map[int64]int64{}
	for k := range int64(keys) {
		want[k+1] = 3
	}
	wantCounts(t, s, all(datar.ByFlag), want)
}

func sentIn(t *testing.T, s IngestStore) {
	apply(t, s, "w", 1, row(1, 1, 1, hour, 4))
	if _, err := s.ApplyReceipt(t.Context(), sent(1, 5), ingest.Receipt{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	query := all(datar.ByOutcome)
	query.FlagID = 1
	if got := totals(t, s, query); len(got) != 1 || got[0].Count != 9 || got[0].Ingested != 5 {
		t.Errorf("totals are %+v, want 9 of which 5 were sent in", got)
	}
}
