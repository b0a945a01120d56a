package handler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The names of the recorders in RecorderType and in responses.
const (
	RecorderDatar   = "datar"
	RecorderKafka   = "kafka"
	RecorderKinesis = "kinesis"
	RecorderPubSub  = "pubsub"
)

// SelectedRecorders are the recorders that RecorderEnabled and RecorderType select. RecorderEnabled
// is the kill switch of all recording: while it is off, the selection is empty.
type SelectedRecorders struct {
	Enabled bool
	Types   []string
}

// Streams returns the selected recorders that stream to a broker, in the order of RecorderType.
func (s SelectedRecorders) Streams() []string {
	if !s.Enabled {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Types), func(name string) bool { return name == RecorderDatar })
}

// Datar reports whether the recorder datar is selected.
func (s SelectedRecorders) Datar() bool { return s.Enabled && slices.Contains(s.Types, RecorderDatar) }

// DataRecorder delivers evaluations to a destination outside the process. DataRecorders passes them
// to it.
type DataRecorder interface {
	// Name returns the recorder's name, one of the constants above.
	Name() string
	// Failing reports whether the last attempt to deliver failed.
	Failing() bool
	// Start starts the delivery in the background.
	Start()
	// Flush delivers what was recorded so far. If that fails, it keeps the data and returns the
	// error.
	Flush(ctx context.Context) error
	// Close delivers what is left until ctx ends, and then stops the recorder.
	Close(ctx context.Context) error
}

// DataRecorders passes each evaluation to Datar and to all streams.
type DataRecorders struct {
	datar   *DatarRecorder // nil when off
	streams []*StreamRecorder
	framing *recorder.Framing
}

// NewDataRecorders returns DataRecorders over datar, which may be nil, and streams. With rawJSON,
// the plain frames of streams nest results as JSON objects instead of strings.
func NewDataRecorders(datar *DatarRecorder, streams []*StreamRecorder, rawJSON bool) *DataRecorders {
	framing := &recorder.Framing{RawJSON: rawJSON, NoPlain: true}
	for _, s := range streams {
		if s.encryptionKey == nil {
			framing.NoPlain = false
		} else {
			framing.Sealed, framing.Key = true, *s.encryptionKey
		}
	}
	return &DataRecorders{datar: datar, streams: streams, framing: framing}
}

// Empty reports whether there are no recorders.
func (d *DataRecorders) Empty() bool { return d.datar == nil && len(d.streams) == 0 }

// AsyncRecord passes one evaluation or exposure to Datar and, if it belongs in records, to each
// stream. It does not retain r. All streams share one record.
func (d *DataRecorders) AsyncRecord(r *eval.Result) {
	if d.datar != nil {
		d.datar.AsyncRecord(r)
	}
	d.stream(r)
}

// Batch returns a recorder that passes the results of a batch on as AsyncRecord does, except that
// Datar may count them as late as Flush.
func (d *DataRecorders) Batch() eval.BatchRecorder {
	b := &batchRecorder{recorders: d}
	if d.datar != nil {
		b.tally = d.datar.options.Engine.NewTally()
	}
	return b
}

// batchRecorder is the recorder of one batch.
type batchRecorder struct {
	recorders *DataRecorders
	tally     *datar.Tally // nil if Datar is off
}

func (b *batchRecorder) AsyncRecord(r *eval.Result) {
	if b.tally != nil {
		var event datar.Event
		if b.recorders.datar.event(r, &event) {
			b.tally.Record(&event)
		}
	}
	b.recorders.stream(r)
}

func (b *batchRecorder) Flush() {
	if b.tally != nil {
		b.tally.Flush()
	}
}

// stream passes a result to each stream, if it belongs in records.
func (d *DataRecorders) stream(r *eval.Result) {
	if len(d.streams) == 0 || !r.Recorded() {
		return
	}
	record := newRecord(r, d.framing)
	for _, s := range d.streams {
		s.sink.AsyncRecord(record)
	}
}

// all returns the recorders, Datar first.
func (d *DataRecorders) all() []DataRecorder {
	var all []DataRecorder
	if d.datar != nil {
		all = append(all, d.datar)
	}
	for _, s := range d.streams {
		all = append(all, s)
	}
	return all
}

// RecorderStatus is the state of one recorder.
type RecorderStatus struct {
	Name string
	// Failing is true if the recorder's last attempt to deliver failed.
	Failing bool
}

// Statuses returns the state of each recorder, Datar first.
func (d *DataRecorders) Statuses() []RecorderStatus {
	var statuses []RecorderStatus
	for _, r := range d.all() {
		statuses = append(statuses, RecorderStatus{Name: r.Name(), Failing: r.Failing()})
	}
	return statuses
}

// Stats returns the statistics of each stream. Datar reports its statistics separately.
func (d *DataRecorders) Stats() []recorder.Stats {
	var stats []recorder.Stats
	for _, s := range d.streams {
		stats = append(stats, s.Stats())
	}
	return stats
}

// Start starts each recorder.
func (d *DataRecorders) Start() {
	for _, r := range d.all() {
		r.Start()
	}
}

// Drain flushes each recorder repeatedly, with a pause between rounds, until ctx ends. The
// recorders run in parallel, so one that hangs does not delay the others. Recorders log their own
// failures.
func (d *DataRecorders) Drain(ctx context.Context, pause time.Duration) {
	_ = together(d.all(), func(r DataRecorder) error {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			_ = r.Flush(ctx) // the next round retries
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
}

// Flush flushes all recorders in parallel and joins their errors.
func (d *DataRecorders) Flush(ctx context.Context) error {
	return together(d.all(), func(r DataRecorder) error { return r.Flush(ctx) })
}

// Close closes all recorders in parallel, within ctx, and joins their errors. One that hangs does
// not delay the others.
func (d *DataRecorders) Close(ctx context.Context) error {
	return together(d.all(), func(r DataRecorder) error { return r.Close(ctx) })
}

// together calls do for all recorders in parallel and waits for them. It joins the errors, each
// with its recorder's name.
func together(recorders []DataRecorder, do func(DataRecorder) error) error {
	errs := make([]error, len(recorders))
	var wg sync.WaitGroup
	for i, r := range recorders {
		wg.Go(func() {
			if err := do(r); err != nil {
				errs[i] = fmt.Errorf("recorder %s: %w", r.Name(), err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
