package app

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// answers has the services that answer questions about flags. All fields are nil if flags come from
// a JSON document. sampler and tail are nil if nothing is counted.
type answers struct {
	service *insight.Service
	sampler *insight.Sampler
	tail    *insight.Tail
}

// newAnswers creates the services. The database is nil if flags come from a JSON document.
func (a *App) newAnswers(c *config.Config, db *store.Store, d *counting) *answers {
	if db == nil {
		return &answers{}
	}
	o := insight.Options{
		Flags:     db,
		Snapshots: a.cache,
		Refresh:   c.EvalCache.RefreshInterval,
		Trials:    a.trialLimits(c),
		Now:       a.now,
	}
	all := &answers{}
	if d.counts != nil && d.engine != nil {
		o.Counts = engineCounts{d.counts, d.engine}
		if d.allFlags {
			o.CountsAll = a.now() // what was counted before is not known: another setting may have been in force
		}
		all.sampler = insight.NewSampler(a.now())
		o.Sampler = all.sampler
		ctx, cancel := context.WithCancel(context.Background())
		a.sampling.Go(func() { all.sampler.Run(ctx) })
		a.onStop("sample of reasons", func(context.Context) error {
			cancel()
			a.sampling.Wait()
			return nil
		})
		if c.Datar.TailEnabled {
			all.tail = insight.NewTail()
		}
	}
	all.service = insight.NewService(o)
	return all
}

// trialLimits bounds trials of the API and of the pages.
func (a *App) trialLimits(c *config.Config) insight.TrialLimits {
	return insight.TrialLimits{Entities: c.Eval.BatchSize, AnswerBytes: c.Eval.AnswerBytes, Turns: a.turns}
}

// observers are called for every evaluation.
func (a *answers) observers() []func(*eval.Result) {
	var list []func(*eval.Result)
	if a.sampler != nil {
		list = append(list, a.sampler.Observe)
	}
	if a.tail != nil {
		list = append(list, a.tail.Observe)
	}
	return list
}
