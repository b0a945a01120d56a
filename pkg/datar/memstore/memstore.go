// Package memstore keeps counts in memory: for tests, for examples, and as the simplest Store to
// read before writing another one.
package memstore

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
)

// Store is a datar.Store whose counts are lost when the process ends. The zero value is ready to
// use.
type Store struct {
	mu struct {
		sync.Mutex
		rows     map[datar.Key]datar.Row // events
		details  map[datar.Key]datar.Row
		unknown  map[request]datar.UnknownRow
		servers  map[run]datar.ServerRecord
		applied  map[string]int64 // last sequence by writer
		receipts map[string]ingest.Receipt
	}
}

// request is one key that was asked for within an hour.
type request struct {
	asked string
	hour  datar.Hour
}

// run is one run of a server.
type run struct{ name, id string }

var (
	_ datar.DetailStore = (*Store)(nil)
	_ ingest.Store      = (*Store)(nil)
)

// Identity implements datar.Store. All stores in memory have the same identity: journals are
// useless with them.
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
	if s.mu.applied == nil {
		s.mu.applied = map[string]int64{}
	}
	if s.mu.applied[batch.Writer] >= batch.Sequence {
		if kept, ok := s.mu.receipts[receipt.Key]; ok {
			found = &kept
		}
		return true, found, nil
	}
	s.mu.applied[batch.Writer] = batch.Sequence
	if receipt.Answer != "" {
		s.keepLocked(receipt)
	}
	s.addLocked(batch.Rows)
	for _, u := range batch.Unknown {
		s.addUnknownLocked(u)
	}
	if batch.Server != nil {
		s.noteServerLocked(*batch.Server)
	}
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
	if found, ok := s.mu.receipts[receipt.Key]; ok {
		return &found, nil
	}
	if receipt.Key != "" {
		s.keepLocked(receipt)
	}
	s.addLocked(rows)
	return nil, nil
}

func (s *Store) keepLocked(receipt ingest.Receipt) {
	if s.mu.receipts == nil {
		s.mu.receipts = map[string]ingest.Receipt{}
	}
	s.mu.receipts[receipt.Key] = receipt
}

func (s *Store) addLocked(rows []datar.Row) {
	if s.mu.rows == nil {
		s.mu.rows, s.mu.details = map[datar.Key]datar.Row{}, map[datar.Key]datar.Row{}
	}
	for _, row := range datar.EventRows(rows) {
		addTo(s.mu.rows, row)
	}
	for _, row := range rows {
		if row.Outcome != datar.Unattributed {
			addTo(s.mu.details, row)
		}
	}
}

func addTo(rows map[datar.Key]datar.Row, add datar.Row) {
	row, ok := rows[add.Key]
	if !ok {
		row = datar.Row{Key: add.Key, First: add.First, Last: add.Last}
	}
	row.Count += add.Count
	row.Ingested += add.Ingested
	row.First = min(row.First, add.First)
	row.Last = max(row.Last, add.Last)
	rows[add.Key] = row
}

func (s *Store) addUnknownLocked(add datar.UnknownRow) {
	if s.mu.unknown == nil {
		s.mu.unknown = map[request]datar.UnknownRow{}
	}
	key := request{add.Asked, add.Hour}
	row, ok := s.mu.unknown[key]
	if !ok {
		s.mu.unknown[key] = add
		return
	}
	row.Count += add.Count
	row.First, row.Last = min(row.First, add.First), max(row.Last, add.Last)
	s.mu.unknown[key] = row
}

func (s *Store) noteServerLocked(record datar.ServerRecord) {
	if s.mu.servers == nil {
		s.mu.servers = map[run]datar.ServerRecord{}
	}
	key := run{record.Name, record.Run}
	if !s.mu.servers[key].At.After(record.At) {
		record.Dropped = maps.Clone(record.Dropped)
		s.mu.servers[key] = record
	}
}

// Details implements datar.DetailStore.
func (s *Store) Details(ctx context.Context, query datar.DetailsQuery) ([]datar.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	within := func(all map[datar.Key]datar.Row) (rows []datar.Row) {
		for key, row := range all {
			if key.Hour >= query.From && key.Hour < query.To && (query.FlagID == 0 || key.FlagID == query.FlagID) {
				rows = append(rows, row)
			}
		}
		return rows
	}
	// Grouping by all parts is finer than any query.
	return datar.WithUnattributed(within(s.mu.details), within(s.mu.rows), query.GroupBy), nil
}

// DetailedFrom implements datar.DetailStore: nothing is ever reduced.
func (s *Store) DetailedFrom(ctx context.Context) (datar.Hour, error) { return 0, ctx.Err() }

// Unknown implements datar.DetailStore.
func (s *Store) Unknown(ctx context.Context, query datar.UnknownQuery) ([]datar.UnknownRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sums := map[string]datar.UnknownRow{}
	for key, row := range s.mu.unknown {
		if key.hour < query.From || key.hour >= query.To {
			continue
		}
		row.Hour = 0
		if sum, ok := sums[key.asked]; ok {
			row.Count += sum.Count
			row.First, row.Last = min(row.First, sum.First), max(row.Last, sum.Last)
		}
		sums[key.asked] = row
	}
	rows := slices.SortedFunc(maps.Values(sums), func(a, b datar.UnknownRow) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Asked, b.Asked))
	})
	rows = rows[min(query.Offset, len(rows)):]
	return rows[:min(query.Limit, len(rows))], nil
}

// Servers implements datar.DetailStore.
func (s *Store) Servers(ctx context.Context) ([]datar.ServerRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := make([]datar.ServerRecord, 0, len(s.mu.servers))
	for _, record := range s.mu.servers {
		record.Dropped = maps.Clone(record.Dropped)
		records = append(records, record)
	}
	return records, ctx.Err()
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
	for key, row := range s.mu.rows {
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

// Rows returns a copy of all rows of the events, in no particular order.
func (s *Store) Rows() []datar.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := make([]datar.Row, 0, len(s.mu.rows))
	for _, row := range s.mu.rows {
		rows = append(rows, row)
	}
	return rows
}
