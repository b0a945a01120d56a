package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// DataRecorder takes evaluations out of the process.
type DataRecorder interface {
	// AsyncRecord takes one evaluation. It returns at once, whatever the destination does, and may keep the result,
	// which nobody changes.
	AsyncRecord(r *eval.Result)
	// Start begins to deliver in the background.
	Start()
	// Flush delivers what was taken so far, or keeps it and returns why that failed.
	Flush(ctx context.Context) error
	// Close delivers what is left until ctx ends, and ends the recorder.
	Close(ctx context.Context) error
}

// RecorderOptions say which recorders there are.
type RecorderOptions struct {
	// Enabled is the kill switch: without it nothing is constructed, whatever Types says.
	Enabled bool
	// Types lists recorders by their names in pkg/config, each once.
	Types []string
	// DatarStore opens where Datar keeps its counts. It is called only if Datar is to be constructed; nil means that
	// there is no database, so that Datar stays off.
	DatarStore func(ctx context.Context) (datar.Store, error)
	// Catalog names flags for Datar.
	Catalog datar.Catalog
	// DatarFlushInterval is the time between two flushes of Datar; 0 means its default.
	DatarFlushInterval time.Duration
	// DatarJournal says where Datar's counts survive the process.
	DatarJournal datar.JournalOptions
	// Logger is mandatory.
	Logger *slog.Logger
}

// DataRecorders is the fan-out: what it is given, it gives to each recorder.
type DataRecorders struct {
	recorders []DataRecorder
	names     []string // of recorders, in the same order
	datar     *datar.Engine
}

// RecorderStatus tells how a recorder is.
type RecorderStatus struct {
	Name string
	// Failing is whether its last attempt to deliver failed.
	Failing bool
}

// Statuses tells how each recorder is. One that has no method Failing is well.
func (d *DataRecorders) Statuses() []RecorderStatus {
	statuses := make([]RecorderStatus, len(d.recorders))
	for i, recorder := range d.recorders {
		statuses[i].Name = d.names[i]
		if r, ok := recorder.(interface{ Failing() bool }); ok {
			statuses[i].Failing = r.Failing()
		}
	}
	return statuses
}

// NewDataRecorder constructs the recorders that are switched on, which may be none. Start starts them.
func NewDataRecorder(ctx context.Context, o RecorderOptions) (*DataRecorders, error) {
	all := &DataRecorders{}
	if !o.Enabled {
		return all, nil
	}
	for _, name := range o.Types {
		switch name {
		case config.RecorderDatar:
			if o.DatarStore == nil {
				o.Logger.Warn("recorder datar stays off: flags come from a JSON document, so there is no database to keep counts in")
				continue
			}
			d, err := NewDatarRecorder(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("recorder datar: %w", err)
			}
			all.recorders, all.names = append(all.recorders, d), append(all.names, name)
			all.datar = d.engine
		case config.RecorderKafka, config.RecorderKinesis, config.RecorderPubSub:
			o.Logger.Warn("recorder " + name + " is not available in this version: it receives nothing")
		default:
			return nil, fmt.Errorf("recorder %q is not known", name)
		}
	}
	return all, nil
}

// Datar is the engine behind the recorder datar, nil when that is off.
func (d *DataRecorders) Datar() *datar.Engine { return d.datar }

// Empty reports whether there are no recorders at all.
func (d *DataRecorders) Empty() bool { return len(d.recorders) == 0 }

// AsyncRecord gives one evaluation or exposure to each recorder.
func (d *DataRecorders) AsyncRecord(r *eval.Result) {
	for _, recorder := range d.recorders {
		recorder.AsyncRecord(r)
	}
}

// Start starts each recorder.
func (d *DataRecorders) Start() {
	for _, recorder := range d.recorders {
		recorder.Start()
	}
}

// Flush flushes each recorder and returns all their errors.
func (d *DataRecorders) Flush(ctx context.Context) error {
	var errs []error
	for _, recorder := range d.recorders {
		errs = append(errs, recorder.Flush(ctx))
	}
	return errors.Join(errs...)
}

// Close closes each recorder, all of them within ctx, and returns all their errors. One that hangs takes no time from
// the others.
func (d *DataRecorders) Close(ctx context.Context) error {
	results := make(chan error)
	for _, recorder := range d.recorders {
		go func() { results <- recorder.Close(ctx) }()
	}
	var errs []error
	for range d.recorders {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}
