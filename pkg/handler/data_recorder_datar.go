package handler

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// DatarRecorder counts evaluations in Datar's engine.
type DatarRecorder struct {
	engine  *datar.Engine
	forward *forward.Store
}

// NewDatarRecorder makes a recorder over an engine. If the engine's store forwards counts to a central server, forward is
// that store, which knows flags and variants by their keys; otherwise it is nil.
func NewDatarRecorder(engine *datar.Engine, forward *forward.Store) *DatarRecorder {
	return &DatarRecorder{engine: engine, forward: forward}
}

// AsyncRecord counts one evaluation in memory. Exposures are not counted: they report evaluations that were.
func (d *DatarRecorder) AsyncRecord(r *eval.Result) {
	if r.RecordSource != eval.SourceEvaluation {
		return
	}
	event := datar.Event{FlagID: r.FlagID, VariantID: r.VariantID, SegmentID: r.SegmentID, Time: r.Timestamp}
	if d.forward != nil {
		var err error
		if event.FlagID, event.VariantID, err = d.forward.Outcome(r.FlagKey, r.VariantKey); err != nil {
			event.FlagID = 0 // the engine counts it as dropped: without its key the count cannot be sent
		}
	}
	d.engine.Record(event)
}

// Name is RecorderDatar.
func (d *DatarRecorder) Name() string { return RecorderDatar }

// Failing reports whether the last flush failed. Its counts wait for the next one.
func (d *DatarRecorder) Failing() bool { return d.engine.Stats().LastError != nil }

// Start begins to flush in the background.
func (d *DatarRecorder) Start() { d.engine.Start() }

// Flush stores what was counted so far.
func (d *DatarRecorder) Flush(ctx context.Context) error { return d.engine.Flush(ctx) }

// Close stores what is left and ends the engine.
func (d *DatarRecorder) Close(ctx context.Context) error { return d.engine.Close(ctx) }
