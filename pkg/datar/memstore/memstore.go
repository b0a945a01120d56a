// Package memstore keeps counts in memory: for tests, for examples, and as the smallest Store to read before
// writing one.
package memstore

import (
	"context"
	"sync"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Store is a datar.Store whose counts end with the process. The zero value is ready to use.
type Store struct {
	mu      sync.Mutex
	rows    map[datar.Key]datar.Row
	applied map[string]int64 // last sequence by writer
}

var _ datar.Store = (*Store)(nil)

// Identity implements datar.Store. Stores in memory have none to tell apart: with them journals make no sense.
func (s *Store) Identity() string { return "memory" }

// Apply implements datar.Store.
func (s *Store) Apply(ctx context.Context, batch datar.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.rows == nil {
		s.rows, s.applied = map[datar.Key]datar.Row{}, map[string]int64{}
	}
	if s.applied[batch.Writer] >= batch.Sequence {
		return nil
	}
	s.applied[batch.Writer] = batch.Sequence
	for _, add := range batch.Rows {
		row, ok := s.rows[add.Key]
		if !ok {
			row = datar.Row{Key: add.Key, First: add.First, Last: add.Last}
		}
		row.Count += add.Count
		row.First = min(row.First, add.First)
		row.Last = max(row.Last, add.Last)
		s.rows[add.Key] = row
	}
	return nil
}

// Totals implements datar.Store.
func (s *Store) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	groups := map[int64]datar.Total{}
	for key, row := range s.rows {
		if key.Hour < query.From || key.Hour >= query.To || (query.FlagID != 0 && key.FlagID != query.FlagID) {
			continue
		}
		id := groupOf(key, query.GroupBy)
		total := groups[id]
		groups[id] = datar.Total{ID: id, Count: total.Count + row.Count, Last: max(total.Last, row.Last)}
	}
	totals := make([]datar.Total, 0, len(groups))
	for _, total := range groups {
		totals = append(totals, total)
	}
	return totals, nil
}

func groupOf(key datar.Key, dimension datar.Dimension) int64 {
	switch dimension {
	case datar.ByFlag:
		return key.FlagID
	case datar.ByVariant:
		return key.VariantID
	case datar.BySegment:
		return key.SegmentID
	default:
		return int64(key.Hour)
	}
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
