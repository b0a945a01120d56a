// Package memstore keeps counts in memory: for tests, for examples, and as the smallest Store to read before
// writing one.
package memstore

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// Store is a datar.Store whose counts end with the process. The zero value is ready to use.
type Store struct {
	mu       sync.Mutex
	rows     map[datar.Key]datar.Row
	applied  map[string]int64 // last sequence by writer
	receipts map[string]ingest.Receipt
}

var (
	_ datar.Store  = (*Store)(nil)
	_ ingest.Store = (*Store)(nil)
)

// Identity implements datar.Store. Stores in memory have none to tell apart: with them journals make no sense.
func (s *Store) Identity() string { return "memory" }

// Apply implements datar.Store.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	_, _, err := s.ApplyBatch(ctx, batch, ingest.Receipt{})
	return err
}

// ApplyBatch implements ingest.Store.
func (s *Store) ApplyBatch(ctx context.Context, batch datar.Batch, receipt ingest.Receipt) (known bool, found *ingest.Receipt, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, nil, err
	}
	if s.applied == nil {
		s.applied = map[string]int64{}
	}
	if s.applied[batch.Writer] >= batch.Sequence {
		if kept, ok := s.receipts[receipt.Key]; ok {
			found = &kept
		}
		return true, found, nil
	}
	s.applied[batch.Writer] = batch.Sequence
	if receipt.Answer != "" {
		s.keep(receipt)
	}
	s.add(batch.Rows)
	return false, nil, nil
}

// Check implements ingest.Store: a store in memory refuses nothing.
func (s *Store) Check(ctx context.Context, _ []datar.Row) error { return ctx.Err() }

// ApplyReceipt implements ingest.Store.
func (s *Store) ApplyReceipt(ctx context.Context, rows []datar.Row, receipt ingest.Receipt) (*ingest.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if found, ok := s.receipts[receipt.Key]; ok {
		return &found, nil
	}
	if receipt.Key != "" {
		s.keep(receipt)
	}
	s.add(rows)
	return nil, nil
}

// keep runs under mu.
func (s *Store) keep(receipt ingest.Receipt) {
	if s.receipts == nil {
		s.receipts = map[string]ingest.Receipt{}
	}
	s.receipts[receipt.Key] = receipt
}

// add runs under mu.
func (s *Store) add(rows []datar.Row) {
	if s.rows == nil {
		s.rows = map[datar.Key]datar.Row{}
	}
	for _, add := range rows {
		row, ok := s.rows[add.Key]
		if !ok {
			row = datar.Row{Key: add.Key, First: add.First, Last: add.Last}
		}
		row.Count += add.Count
		row.Ingested += add.Ingested
		row.First = min(row.First, add.First)
		row.Last = max(row.Last, add.Last)
		s.rows[add.Key] = row
	}
}

// Totals implements datar.Store.
func (s *Store) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type group struct {
		flag, variant, segment int64
		day                    datar.Hour
	}
	groups := map[group]datar.Total{}
	for key, row := range s.rows {
		if key.Hour < query.From || key.Hour >= query.To || (query.FlagID != 0 && key.FlagID != query.FlagID) {
			continue
		}
		var g group
		switch query.GroupBy {
		case datar.ByFlag:
			g.flag = key.FlagID
		case datar.ByOutcome:
			g.variant, g.segment = key.VariantID, key.SegmentID
		case datar.ByDay:
			g.day = key.Hour.DayStart()
		}
		t := groups[g]
		groups[g] = datar.Total{
			FlagID: g.flag, VariantID: g.variant, SegmentID: g.segment, Day: g.day,
			Count: t.Count + row.Count, Ingested: t.Ingested + row.Ingested, Last: max(t.Last, row.Last),
		}
	}
	return slices.Collect(maps.Values(groups)), nil
}

// Rows returns a copy of all rows, in no particular order.
func (s *Store) Rows() []datar.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := make([]datar.Row, 0, len(s.rows))
	for _, row := range s.rows {
		rows = append(rows, row)
	}
	return rows
}
