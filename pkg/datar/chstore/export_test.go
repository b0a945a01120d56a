package chstore

import (
	"context"
	"time"
)

// SetGrace shortens the times that a purge waits.
func (s *Store) SetGrace(purge, drop time.Duration) { s.purgeGrace, s.dropGrace = purge, drop }

// PurgeDay is one step of a purge.
func (s *Store) PurgeDay(ctx context.Context, day int64) error { return s.purgeDay(ctx, day) }
