package handler

import (
	"context"
	"strconv"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// DatarOptions configure the recorder datar.
type DatarOptions struct {
	// Engine is mandatory.
	Engine *datar.Engine
	// Forward is the engine's store if that forwards counts to a central server, which knows flags and variants by their
	// keys; otherwise nil.
	Forward *forward.Store
	// AllFlags counts evaluations of all flags; otherwise those of flags whose dataRecordsEnabled is on.
	AllFlags bool
}

// DatarRecorder counts evaluations in Datar's engine.
type DatarRecorder struct{ options DatarOptions }

// NewDatarRecorder makes a recorder over an engine.
func NewDatarRecorder(o DatarOptions) *DatarRecorder { return &DatarRecorder{o} }

// AsyncRecord counts one evaluation in memory, with its outcome. Exposures are not counted: they report evaluations that were.
func (d *DatarRecorder) AsyncRecord(r *eval.Result) {
	switch {
	case r.RecordSource != eval.SourceEvaluation:
		return
	case r.Reason == eval.FlagNotFound:
		d.recordUnknown(r)
		return
	case !r.DataRecordsEnabled && !d.options.AllFlags:
		return
	}
	outcome, segmentID, ok := insight.OutcomeOf(r)
	if !ok {
		return
	}
	event := datar.Event{
		FlagID: r.FlagID, VariantID: r.VariantID, SegmentID: segmentID, Time: r.Timestamp, Outcome: outcome,
		Asked: datar.Asked(r.Asked), Version: uint16(r.FlagSnapshotID), // its meaning is the id modulo 65,536
	}
	if d.options.Forward != nil {
		var err error
		if event.FlagID, event.VariantID, err = d.options.Forward.Outcome(r.FlagKey, r.VariantKey); err != nil {
			event.FlagID = 0 // the engine counts it as dropped: without its key the count cannot be sent
		}
	}
	d.options.Engine.Record(event)
}

// recordUnknown counts what was asked for and is not there.
func (d *DatarRecorder) recordUnknown(r *eval.Result) {
	asked := r.Request.FlagKey
	if asked == "" {
		if r.Request.FlagID == 0 { // nothing was asked for
			return
		}
		asked = strconv.FormatInt(r.Request.FlagID, 10)
	}
	d.options.Engine.RecordUnknown(asked, r.Timestamp)
}

// Name is RecorderDatar.
func (d *DatarRecorder) Name() string { return RecorderDatar }

// Failing reports whether the last flush failed. Its counts wait for the next one.
func (d *DatarRecorder) Failing() bool { return d.options.Engine.Stats().LastError != nil }

// Start begins to flush in the background.
func (d *DatarRecorder) Start() { d.options.Engine.Start() }

// Flush stores what was counted so far.
func (d *DatarRecorder) Flush(ctx context.Context) error { return d.options.Engine.Flush(ctx) }

// Close stores what is left and ends the engine.
func (d *DatarRecorder) Close(ctx context.Context) error { return d.options.Engine.Close(ctx) }
