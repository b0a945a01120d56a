package handler

import (
	"context"
	"strconv"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// DatarOptions configures the datar recorder.
type DatarOptions struct {
	// Engine is mandatory.
	Engine *datar.Engine
	// Forward is set if the engine's store forwards counts to a central server, which identifies
	// flags and variants by their keys. Otherwise it is nil.
	Forward *forward.Store
	// AllFlags counts the evaluations of all flags. Otherwise only flags with dataRecordsEnabled
	// are counted.
	AllFlags bool
}

// DatarRecorder counts evaluations in Datar's engine.
type DatarRecorder struct{ options DatarOptions }

// NewDatarRecorder returns a recorder that counts in o.Engine.
func NewDatarRecorder(o DatarOptions) *DatarRecorder { return &DatarRecorder{o} }

// AsyncRecord counts one evaluation with its outcome, in memory. It ignores exposures, because each
// of them reports an evaluation that was counted already.
func (d *DatarRecorder) AsyncRecord(r *eval.Result) {
	var event datar.Event
	if d.event(r, &event) {
		d.options.Engine.Record(event)
	}
}

// event sets the event to count, or returns false if there is none. It counts requests for flags
// that do not exist, which are not events.
func (d *DatarRecorder) event(r *eval.Result, event *datar.Event) bool {
	switch {
	case r.RecordSource != eval.SourceEvaluation:
		return false
	case r.Reason == eval.FlagNotFound:
		d.recordUnknown(r)
		return false
	case !r.DataRecordsEnabled && !d.options.AllFlags:
		return false
	}
	outcome, segmentID := r.Outcome()
	if outcome == eval.OutcomeNone {
		return false
	}
	*event = datar.Event{
		FlagID: r.FlagID, VariantID: r.VariantID, SegmentID: segmentID, Time: r.Timestamp, Outcome: datar.Outcome(outcome),
		Asked: datar.Asked(r.Asked), Version: uint16(r.FlagSnapshotID), // the count keeps the snapshot ID modulo 65,536
	}
	if d.options.Forward != nil {
		var err error
		if event.FlagID, event.VariantID, err = d.options.Forward.Outcome(r.FlagKey, r.VariantKey); err != nil {
			event.FlagID = 0 // the engine counts it as dropped, because a count without a flag key cannot be sent
		}
	}
	return true
}

// recordUnknown counts a request for a flag that does not exist.
func (d *DatarRecorder) recordUnknown(r *eval.Result) {
	asked := r.Request.FlagKey
	if asked == "" {
		if r.Request.FlagID == 0 { // the request names no flag
			return
		}
		asked = strconv.FormatInt(r.Request.FlagID, 10)
	}
	d.options.Engine.RecordUnknown(asked, r.Timestamp)
}

// Name returns RecorderDatar.
func (d *DatarRecorder) Name() string { return RecorderDatar }

// Failing reports whether the last flush failed, or the clock of this process or of the store is
// wrong. The engine keeps the counts of a failed flush for the next one.
func (d *DatarRecorder) Failing() bool {
	s := d.options.Engine.Stats()
	return s.LastError != nil || s.StoreClockOffset.Abs() >= datar.MaxAhead
}

// Start starts flushing in the background.
func (d *DatarRecorder) Start() { d.options.Engine.Start() }

// Flush stores the counts so far.
func (d *DatarRecorder) Flush(ctx context.Context) error { return d.options.Engine.Flush(ctx) }

// Close stores the remaining counts and stops the engine.
func (d *DatarRecorder) Close(ctx context.Context) error { return d.options.Engine.Close(ctx) }
