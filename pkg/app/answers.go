package app

import (
	"context"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// countsWait is how long an answer waits for what this server has counted and not stored.
const countsWait = time.Second

// engineCounts are the counts of the store, with those that the engine still has.
type engineCounts struct {
	*gormstore.Store
	engine *datar.Engine
}

// Refresh implements insight.Counts.
func (c engineCounts) Refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, countsWait)
	defer cancel()
	_ = c.engine.Flush(ctx) // an error is in the engine's statistics; the answer has what is stored
}

// Stats implements ui.Books.
func (c engineCounts) Stats() datar.Stats { return c.engine.Stats() }

// newAnswers makes the service that answers questions about flags, nil without a database or with Datar off.
func (a *App) newAnswers(c *config.Config, db *store.Store, counting *counting) *insight.Service {
	if db == nil || counting.counts == nil || counting.engine == nil {
		return nil
	}
	return insight.NewService(insight.Options{
		Counts:    engineCounts{counting.counts, counting.engine},
		Flags:     db,
		Snapshots: a.cache,
		Refresh:   c.EvalCache.RefreshInterval,
		BatchSize: c.Eval.BatchSize,
		Now:       time.Now,
	})
}
