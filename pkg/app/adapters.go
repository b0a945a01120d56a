package app

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// The types of this file show one package to another that does not import it.

// catalog provides the names of flags in the store to Datar, including those of deleted flags.
type catalog struct{ flags *store.Store }

// Flags implements datar.Catalog.
func (c catalog) Flags(ctx context.Context, ids []int64) (map[int64]datar.FlagInfo, error) {
	flags, err := c.flags.FlagsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	infos := make(map[int64]datar.FlagInfo, len(flags))
	for _, f := range flags {
		deleted := f.DeletedAt.Valid
		infos[int64(f.ID)] = datar.FlagInfo{Key: f.Key, Description: f.Description, Enabled: f.Enabled && !deleted, Deleted: deleted}
	}
	return infos, nil
}

// countedFlags finds the flags of counts that are sent in, among those that the server evaluates.
type countedFlags struct {
	snapshots eval.Source
	// all accepts counts of all flags. Otherwise only those of flags with dataRecordsEnabled are
	// accepted.
	all bool
}

// FlagByKey implements ingest.Flags.
func (f countedFlags) FlagByKey(key string) (ingest.Flag, bool) {
	snapshot := f.snapshots.Snapshot()
	if snapshot == nil || key == "" {
		return ingest.Flag{}, false
	}
	found := snapshot.Flag(0, key)
	if found == nil || found.Key != key { // an ID in place of the key is rejected here
		return ingest.Flag{}, false
	}
	flag := ingest.Flag{ID: int64(found.ID), RecordsEnabled: found.DataRecordsEnabled || f.all, Variants: map[string]int64{}}
	for _, v := range found.Variants {
		flag.Variants[v.Key] = int64(v.ID)
	}
	for _, s := range found.Segments {
		flag.Segments = append(flag.Segments, int64(s.ID))
	}
	return flag, true
}

// engineCounts are the counts of the store plus those that the engine has not stored yet.
type engineCounts struct {
	countStore
	engine *datar.Engine
}

// Refresh implements insight.Counts.
func (c engineCounts) Refresh(ctx context.Context) { c.engine.Refresh(ctx) }

// Servers implements insight.Counts and ui.Statistics. It includes the current state of this
// server.
func (c engineCounts) Servers(ctx context.Context) ([]datar.ServerRecord, error) {
	return c.engine.Servers(ctx)
}

// Stats implements ui.Statistics.
func (c engineCounts) Stats() datar.Stats { return c.engine.Stats() }

// pageStore provides the store to the pages.
type pageStore struct {
	*store.Store
	// counts: new flags are recorded, because users who create a flag on the pages expect to see
	// its evaluations there.
	counts bool
}

// Snapshots implements ui.Store.
func (s pageStore) Snapshots(ctx context.Context, flagID int64, limit, offset int) ([]entity.FlagSnapshot, error) {
	return s.SnapshotPage(ctx, flagID, limit, offset)
}

// Tags implements ui.Store.
func (s pageStore) Tags(ctx context.Context) ([]string, error) { return s.TagValues(ctx) }

// CreateFlag implements ui.Store.
func (s pageStore) CreateFlag(ctx context.Context, by, key, description string, boolean bool) (*entity.Flag, error) {
	flag := store.NewFlag{Key: key, Description: description, DataRecordsEnabled: s.counts}
	if boolean {
		flag.Template = store.TemplateBoolean
	}
	return s.Store.CreateFlag(ctx, by, flag)
}
