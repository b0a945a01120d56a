package app

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// pageStore adapts the store to the pages.
type pageStore struct {
	*store.Store
	// counts: new flags are recorded, because users who create a flag on the pages expect to see its evaluations
	// there.
	counts bool
}

// DeletedFlags implements ui.Store. It reads all deleted flags, because the store lists by ID.
func (s pageStore) DeletedFlags(ctx context.Context, limit, offset int) ([]entity.Flag, error) {
	flags, err := s.Flags(ctx, store.FlagQuery{Deleted: true})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(flags, func(a, b entity.Flag) int {
		return cmp.Or(b.DeletedAt.Time.Compare(a.DeletedAt.Time), cmp.Compare(b.ID, a.ID))
	})
	flags = flags[min(offset, len(flags)):]
	return flags[:min(limit, len(flags))], nil
}

// Snapshots implements ui.Store. Snapshots beyond what the store reads at once have no states.
func (s pageStore) Snapshots(ctx context.Context, flagID int64, limit, offset int) ([]entity.FlagSnapshot, error) {
	rows, err := s.Store.Snapshots(ctx, flagID, store.SnapshotQuery{Limit: new(int64(limit)), Offset: new(int64(offset))})
	if err != nil || len(rows) == limit {
		return rows, err
	}
	heads, err := s.SnapshotHeads(ctx, flagID, offset+limit)
	for _, head := range heads[min(offset+len(rows), len(heads)):] {
		row := entity.FlagSnapshot{FlagID: head.FlagID, UpdatedBy: head.UpdatedBy}
		row.ID, row.CreatedAt = head.ID, head.CreatedAt
		rows = append(rows, row)
	}
	return rows, err
}

// Tags implements ui.Store.
func (s pageStore) Tags(ctx context.Context) ([]string, error) {
	tags, err := s.Store.Tags(ctx, store.TagQuery{Limit: new(int64(500))})
	values := make([]string, len(tags))
	for i := range tags {
		values[i] = tags[i].Value
	}
	return values, err
}

// CreateFlag implements ui.Store.
func (s pageStore) CreateFlag(ctx context.Context, by, key, description string, boolean bool) (*entity.Flag, error) {
	flag := store.NewFlag{Key: key, Description: description, DataRecordsEnabled: s.counts}
	if boolean {
		flag.Template = store.TemplateBoolean
	}
	return s.Store.CreateFlag(ctx, by, flag)
}

// newPages creates the pages. They are read-only if there is no store, or if the server only evaluates.
func (a *App) newPages(c *config.Config, actor func(*http.Request) string, writable bool, db *store.Store, counting *counting, answers *answers) (*ui.UI, error) {
	o := ui.Options{
		Snapshots:       a.cache,
		Refresh:         a.cache.Look,
		LastCheck:       a.cache.LastCheck,
		Prefix:          c.Web.Prefix,
		Actor:           actor,
		Settings:        settingsOf(c),
		Version:         Version,
		RefreshInterval: c.EvalCache.RefreshInterval,
		EntityTypes:     c.Web.UIEntityTypes,
		Memory:          a.memory,
		Logger:          a.logger,
	}
	if writable {
		o.Store = pageStore{db, answers.service != nil && answers.service.HasCounts()}
	}
	if answers.service != nil && answers.service.HasCounts() {
		o.Numbers, o.Tail = answers.service, answers.tail != nil
		o.Books = engineCounts{counting.counts, counting.engine}
		o.SQL, o.CountsAll = c.Datar.Store == "", counting.allFlags
	}
	return ui.New(o)
}

func settingsOf(c *config.Config) []ui.Setting {
	var settings []ui.Setting
	for _, s := range c.Settings() {
		settings = append(settings, ui.Setting{Name: s.Name, Value: s.Value, Default: s.Default, Secret: s.Secret, Set: s.Set})
	}
	return settings
}
