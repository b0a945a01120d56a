package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// IngestStore is a store that accepts batches of counts from elsewhere.
type IngestStore interface {
	datar.Store
	ingest.Store
}

// RunIngest tests the contract of ingest.Store. open is as for Run.
func RunIngest(t *testing.T, open func(*testing.T) IngestStore) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, IngestStore)
	}{
		{"a receipt is kept with its rows", receiptKept},
		{"a batch without a key is added each time", noReceipt},
		{"a known batch of a writer is told", knownBatch},
		{"a receipt of a writer's batch", writerReceipt},
		{"a check changes nothing", checked},
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
		known, found, err := s.ApplyBatch(t.Context(), datar.Batch{Writer: "w", Sequence: sequence, Rows: sent(1, 5)}, ingest.Receipt{Key: "w"})
		if want := i == 1 || i == 3; err != nil || known != want || found != nil {
			t.Errorf("call %d: known %v, receipt %v, %v; want %v", i, known, found, err, want)
		}
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 10})
}

func writerReceipt(t *testing.T, s IngestStore) {
	for i, answer := range []string{"first", "second", ""} {
		batch := datar.Batch{Writer: "w", Sequence: 1, Rows: sent(1, 5)}
		known, found, err := s.ApplyBatch(t.Context(), batch, ingest.Receipt{Key: "w:1", Digest: "d", Answer: answer})
		if err != nil || known != (i > 0) {
			t.Fatalf("call %d: known %v, %v", i, known, err)
		}
		if i > 0 && (found == nil || found.Answer != "first" || found.Digest != "d") {
			t.Errorf("call %d: found %v, want the first receipt", i, found)
		}
	}
	// A batch without rows, as when all rows are rejected.
	if known, _, err := s.ApplyBatch(t.Context(), datar.Batch{Writer: "w", Sequence: 2}, ingest.Receipt{Key: "w:2", Answer: "none"}); known || err != nil {
		t.Errorf("known %v, %v", known, err)
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 5})
}

func checked(t *testing.T, s IngestStore) {
	apply(t, s, "w", 1, row(1, 1, 1, hour, 4))
	for range 2 {
		if err := s.Check(t.Context(), append(sent(1, 5), row(2, 1, 1, hour, 6))); err != nil {
			t.Fatal(err)
		}
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 4})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(gone, sent(1, 5)); err == nil || errors.Is(err, datar.ErrRefused) {
		t.Errorf("without a database: %v", err)
	}
}

func sameBatches(t *testing.T, s IngestStore) {
	const senders, keys = 100, 50
	var applied atomic.Int64
	var digests [keys]atomic.Pointer[string] // of the applied batches, as returned to all senders
	var group sync.WaitGroup
	for sender := range senders {
		group.Go(func() {
			for k := range int64(keys) {
				receipt := ingest.Receipt{Key: fmt.Sprint("key ", k), Digest: fmt.Sprint("body ", sender%2)}
				for {
					found, err := s.ApplyReceipt(t.Context(), sent(k+1, 3), receipt)
					if err == nil {
						digest := receipt.Digest
						if found == nil {
							applied.Add(1)
						} else {
							digest = found.Digest
						}
						if !digests[k].CompareAndSwap(nil, &digest) && *digests[k].Load() != digest {
							t.Errorf("%s: a sender is told of %s, and another one of %s", receipt.Key, digest, *digests[k].Load())
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
