package handler

import (
	"context"
	"fmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// DatarRecorder counts evaluations in Datar's engine.
type DatarRecorder struct {
	engine  *datar.Engine
	forward *forward.Store // nil where counts are kept in a database
}

// NewDatarRecorder opens the store and makes an engine over it.
func NewDatarRecorder(ctx context.Context, o RecorderOptions) (*DatarRecorder, error) {
	var store datar.Store = o.DatarForward
	if o.DatarForward == nil {
		var err error
		if store, err = o.DatarStore(ctx); err != nil {
			return nil, fmt.Errorf("open the store of the counts: %w", err)
		}
	}
	engine, err := datar.New(datar.Options{
		Store:         store,
		Catalog:       o.Catalog,
		FlushInterval: o.DatarFlushInterval,
		Journal:       o.DatarJournal,
		Retention:     o.DatarRetention,
		Logger:        o.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &DatarRecorder{engine: engine, forward: o.DatarForward}, nil
}

// AsyncRecord counts one evaluation in memory. Exposures are not counted: they tell of evaluations that were.
func (d *DatarRecorder) AsyncRecord(r *eval.Result) {
	if r.RecordSource != eval.SourceEvaluation {
		return
	}
	event := datar.Event{FlagID: r.FlagID, VariantID: r.VariantID, SegmentID: r.SegmentID, Time: r.Timestamp}
	if d.forward != nil {
		var err error
		if event.FlagID, event.VariantID, err = d.forward.Outcome(r.FlagKey, r.VariantKey); err != nil {
			event.FlagID = 0 // the engine counts it as dropped: nobody could tell later whose it was
		}
	}
	d.engine.Record(event)
}

// Failing reports whether the last flush failed. Its counts wait for the next one.
func (d *DatarRecorder) Failing() bool { return d.engine.Stats().LastError != nil }

// Start begins to flush in the background.
func (d *DatarRecorder) Start() { d.engine.Start() }

// Flush stores what was counted so far.
func (d *DatarRecorder) Flush(ctx context.Context) error { return d.engine.Flush(ctx) }

// Close stores what is left and ends the engine.
func (d *DatarRecorder) Close(ctx context.Context) error { return d.engine.Close(ctx) }
