package gormstore

import (
	"context"
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// Receipts returns up to limit receipts in the order of their keys, starting with the first key
// after the given one. Each Key is the SHA-256 of the sender's key, in hex. Another store uses them
// to take over the batches of senders.
func (s *Store) Receipts(ctx context.Context, after string, limit int) ([]ingest.Receipt, error) {
	var found []struct{ KeyHash, Digest, Answer string }
	if err := s.db.WithContext(ctx).Raw(s.sql("SELECT key_hash, digest, answer FROM datar_receipts WHERE key_hash > ? ORDER BY key_hash LIMIT ?"),
		after, limit).Scan(&found).Error; err != nil {
		return nil, fmt.Errorf("datar store: read receipts: %w", err)
	}
	receipts := make([]ingest.Receipt, len(found))
	for i, r := range found {
		receipts[i] = ingest.Receipt{Key: r.KeyHash, Digest: r.Digest, Answer: r.Answer}
	}
	return receipts, nil
}

// LastSequences returns the last applied batch of each writer, by the name of the writer.
func (s *Store) LastSequences(ctx context.Context) (map[string]int64, error) {
	var found []struct {
		WriterID     string
		LastSequence int64
	}
	if err := s.db.WithContext(ctx).Raw(s.sql("SELECT writer_id, last_sequence FROM datar_writers")).Scan(&found).Error; err != nil {
		return nil, fmt.Errorf("datar store: read the ledger of writers: %w", err)
	}
	sequences := make(map[string]int64, len(found))
	for _, w := range found {
		sequences[w.WriterID] = w.LastSequence
	}
	return sequences, nil
}
