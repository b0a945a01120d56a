package app

import (
	"net/http"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// newPages creates the pages. They are read-only if there is no store, or if the server only
// evaluates.
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
		Trials:          a.trialLimits(c),
		Database:        databaseName(c.Database),
		Retention:       c.Datar.Retention,
		Memory:          a.memory,
		Turns:           a.turns,
		Elsewhere:       c.Database.IsDocument() || c.Datar.ForwardURL != "",
		Now:             a.now,
		Logger:          a.logger,
	}
	if writable {
		o.Store = pageStore{db, answers.service != nil && answers.service.HasCounts()}
	}
	if answers.service != nil && answers.service.HasCounts() {
		o.Numbers, o.Tail = answers.service, answers.tail != nil
		o.Statistics = engineCounts{counting.counts, counting.engine}
		o.SQL, o.CountsAll = counting.statements, counting.allFlags
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
