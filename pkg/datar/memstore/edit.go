package memstore

import (
	"context"
	"maps"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

var _ datar.FlagEditor = (*Store)(nil)

// DeleteFlag implements datar.FlagEditor.
func (s *Store) DeleteFlag(ctx context.Context, flagID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, rows := range []map[datar.Key]datar.Row{s.mu.rows, s.mu.details} {
		maps.DeleteFunc(rows, func(k datar.Key, _ datar.Row) bool { return k.FlagID == flagID })
	}
	return nil
}

// MergeFlag implements datar.FlagEditor.
func (s *Store) MergeFlag(ctx context.Context, from, to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, rows := range []map[datar.Key]datar.Row{s.mu.rows, s.mu.details} {
		for key, row := range maps.Clone(rows) {
			if key.FlagID == from {
				delete(rows, key)
				row.FlagID = to
				addTo(rows, row)
			}
		}
	}
	return nil
}
