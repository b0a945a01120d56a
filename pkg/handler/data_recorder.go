package handler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The recorders, by the names that RecorderType and answers have.
const (
	RecorderDatar   = "datar"
	RecorderKafka   = "kafka"
	RecorderKinesis = "kinesis"
	RecorderPubSub  = "pubsub"
)

// SelectedRecorders are the recorders that RecorderEnabled and RecorderType select: none while RecorderEnabled is off,
// which is the kill switch of all recording.
type SelectedRecorders struct {
	Enabled bool
	Types   []string
}

// Streams are the selected recorders that stream to a broker, in the order of RecorderType.
func (s SelectedRecorders) Streams() []string {
	if !s.Enabled {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Types), func(name string) bool { return name == RecorderDatar })
}

// Datar reports whether the recorder datar is selected.
func (s SelectedRecorders) Datar() bool { return s.Enabled && slices.Contains(s.Types, RecorderDatar) }

// DataRecorder takes evaluations out of the process. What it takes is the business of the fan-out.
type DataRecorder interface {
	// Name is one of the names of recorders.
	Name() string
	// Failing reports whether the last attempt to deliver failed.
	Failing() bool
	// Start begins to deliver in the background.
	Start()
	// Flush delivers what was recorded so far, or keeps it and returns why that failed.
	Flush(ctx context.Context) error
	// Close delivers what is left until ctx ends, and ends the recorder.
	Close(ctx context.Context) error
}

// DataRecorders is the fan-out: it gives each evaluation to Datar and to all streams.
type DataRecorders struct {
	datar   *DatarRecorder // nil when off
	streams []*StreamRecorder
	framing *recorder.Framing
}

// NewDataRecorders makes the fan-out to Datar, which may be nil, and to streams. With rawJSON, the plain frames of streams
// nest results as JSON objects and not as strings.
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

// AsyncRecord gives one evaluation or exposure to Datar and, if it belongs into records, to each stream. It does not keep it.
// Streams share one record.
func (d *DataRecorders) AsyncRecord(r *eval.Result) {
	if d.datar != nil {
		d.datar.AsyncRecord(r)
	}
	if len(d.streams) == 0 || !r.Recorded() {
		return
	}
	record := newRecord(r, d.framing)
	for _, s := range d.streams {
		s.sink.AsyncRecord(record)
	}
}

// all lists the recorders.
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
	// Failing is whether its last attempt to deliver failed.
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

// Stats returns the statistics of each stream. Datar has a status of its own.
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

// Drain flushes each recorder repeatedly, with a pause in between, until ctx ends. One that hangs takes no time from the
// others. Recorders log their failures themselves.
func (d *DataRecorders) Drain(ctx context.Context, pause time.Duration) {
	_ = together(d.all(), func(r DataRecorder) error {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			_ = r.Flush(ctx) // the next round tries again
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
}

// Flush flushes all recorders at once and returns all their errors.
func (d *DataRecorders) Flush(ctx context.Context) error {
	return together(d.all(), func(r DataRecorder) error { return r.Flush(ctx) })
}

// Close closes all recorders at once, within ctx, and returns all their errors. One that hangs takes no time from the
// others.
func (d *DataRecorders) Close(ctx context.Context) error {
	return together(d.all(), func(r DataRecorder) error { return r.Close(ctx) })
}

// together does the same with each recorder at once, waits for all, and joins the errors, each with the recorder's name.
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
