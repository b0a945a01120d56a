package app

import (
	"context"
	"runtime"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
	"github.com/flagr-datar/flagr-datar/pkg/notification"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// newWebhook creates the queue of changes, or returns nil if the webhook is off.
func (a *App) newWebhook(c config.Notification) *notification.Webhook {
	if !c.WebhookEnabled {
		return nil
	}
	w := notification.New(notification.Options{
		URL:        c.WebhookURL,
		Header:     c.Header(),
		Timeout:    c.Timeout,
		MaxRetries: c.MaxRetries,
		RetryBase:  c.RetryBase,
		RetryMax:   c.RetryMax,
		Logger:     a.logger,
	})
	// It stops after the recorders, so that a hanging receiver does not take the time that they
	// need to store their counts.
	a.onStop("notifications", flushOnStop("webhook", webhookStopTimeout, a.logger, w.Stop))
	return w
}

// openFlags opens the source of the flags. The store is nil if the source is a JSON document.
func (a *App) openFlags(ctx context.Context, c *config.Config) (*store.Store, evalcache.FlagSource, error) {
	switch c.Database.Driver {
	case config.DriverJSONFile:
		return nil, evalcache.FromFile(c.Database.DSN), nil
	case config.DriverJSONHTTP:
		return nil, evalcache.FromHTTP(c.Database.DSN, nil), nil
	}
	var onChange func(entity.Change)
	if a.webhook != nil {
		onChange = a.webhook.Notify
	}
	db, err := store.Open(ctx, store.Options{
		Driver:        c.Database.Driver,
		DSN:           c.Database.DSN,
		LogQueries:    c.Database.LogQueries,
		RetryAttempts: c.Database.RetryAttempts,
		RetryDelay:    c.Database.RetryDelay,
		AllowReadOnly: c.Eval.OnlyMode,
		OnChange:      onChange,
		ChangeDetails: a.webhook != nil && c.Notification.DetailedDiffEnabled,
		Logger:        a.logger,
		Now:           a.now,
	})
	if err != nil {
		return nil, nil, err
	}
	a.onStop("database", func(context.Context) error { return db.Close() })
	a.releaseMemory = func(ctx context.Context) {
		if err := db.ReleaseMemory(ctx); err != nil && ctx.Err() == nil {
			a.logger.Warn("the memory of the database is not released", "error", err)
		}
	}
	return db, evalcache.FromStore(db), nil
}

// newCache creates the cache of flags for evaluations.
func (a *App) newCache(c config.EvalCache, source evalcache.FlagSource) *evalcache.Cache {
	o := evalcache.Options{
		RefreshInterval: c.RefreshInterval,
		RefreshTimeout:  c.RefreshTimeout,
		Now:             a.now,
		Logger:          a.logger,
	}
	if a.ownsProcess {
		// Otherwise the old flags, and the memory for reading the new ones, stay until the heap has
		// doubled.
		o.Swapped = runtime.GC
	}
	cache := evalcache.New(source, o)
	a.onStop("evaluation cache", cache.Stop)
	return cache
}
