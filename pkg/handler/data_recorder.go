package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// DataRecorder takes evaluations out of the process.
type DataRecorder interface {
	// AsyncRecord takes one evaluation. It returns at once, whatever the destination does, and does not keep the result.
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
	// DatarForward sends Datar's counts to a central server, instead of keeping them in DatarStore; nil: it does not.
	DatarForward *forward.Store
	// Catalog names flags for Datar.
	Catalog datar.Catalog
	// DatarFlushInterval is the time between two flushes of Datar; 0 means its default.
	DatarFlushInterval time.Duration
	// DatarRetention is how long Datar's counts are kept in detail; 0 means for ever.
	DatarRetention time.Duration
	// DatarJournal says where Datar's counts survive the process.
	DatarJournal datar.JournalOptions
	// Kafka, Kinesis and PubSub configure the streaming recorders.
	Kafka   config.Kafka
	Kinesis config.Kinesis
	PubSub  config.PubSub
	// RawJSONFrames nests results in streamed records as JSON objects and not as texts.
	RawJSONFrames bool
	// QueueRecords and QueueBytes bound what each streaming recorder holds in memory; 0 means the defaults.
	QueueRecords int
	QueueBytes   int64
	// Logger is mandatory.
	Logger *slog.Logger
}

// DataRecorders is the fan-out: what it is given, it gives to each recorder.
type DataRecorders struct {
	recorders []DataRecorder
	names     []string // of recorders, in the same order
	datar     *datar.Engine
	framing   *recorder.Framing // of all streaming recorders
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
	for i, one := range d.recorders {
		statuses[i].Name = d.names[i]
		if r, ok := one.(interface{ Failing() bool }); ok {
			statuses[i].Failing = r.Failing()
		}
	}
	return statuses
}

// Stats tells what has become of the records of each streaming recorder. Datar has a status of its own.
func (d *DataRecorders) Stats() []recorder.Stats {
	var stats []recorder.Stats
	for _, r := range d.recorders {
		if stream, ok := r.(*StreamRecorder); ok {
			stats = append(stats, stream.Stats())
		}
	}
	return stats
}

// NewDataRecorder constructs the recorders that are switched on, which may be none. Start starts them. An error is about
// what is configured: a broker that cannot be reached is none.
func NewDataRecorder(ctx context.Context, o RecorderOptions) (_ *DataRecorders, err error) {
	all := &DataRecorders{framing: framingOf(o)}
	if !o.Enabled {
		return all, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, all.Close(ctx))
		}
	}()
	add := func(name string, r DataRecorder) {
		all.recorders, all.names = append(all.recorders, r), append(all.names, name)
	}
	for _, name := range o.Types {
		var stream *StreamRecorder
		var err error
		switch name {
		case config.RecorderDatar:
			if o.DatarStore == nil && o.DatarForward == nil {
				o.Logger.Warn("recorder datar stays off: flags come from a JSON document, so there is no database to keep counts in; " +
					"FLAGR_RECORDER_DATAR_FORWARD_URL sends them to a server that has one")
				continue
			}
			d, err := NewDatarRecorder(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("recorder datar: %w", err)
			}
			add(name, d)
			all.datar = d.engine
			continue
		case config.RecorderKafka:
			stream, err = NewKafkaRecorder(o, all.framing)
		case config.RecorderKinesis:
			stream, err = NewKinesisRecorder(ctx, o, all.framing)
		case config.RecorderPubSub:
			stream, err = NewPubSubRecorder(o, all.framing)
		default:
			return nil, fmt.Errorf("recorder %q is not known", name)
		}
		if err != nil {
			return nil, fmt.Errorf("recorder %s: %w", name, err)
		}
		add(name, stream)
	}
	return all, nil
}

// framingOf says which frames the recorders will ask for, so that no others are built.
func framingOf(o RecorderOptions) *recorder.Framing {
	f := &recorder.Framing{RawJSON: o.RawJSONFrames, NoPlain: true}
	for _, name := range o.Types {
		switch name {
		case config.RecorderKafka:
			if o.Kafka.Encrypted {
				f.Sealed, f.Key = true, recorder.NewKey(o.Kafka.EncryptionKey)
			} else {
				f.NoPlain = false
			}
		case config.RecorderKinesis, config.RecorderPubSub:
			f.NoPlain = false
		}
	}
	return f
}

// Datar is the engine behind the recorder datar, nil when that is off.
func (d *DataRecorders) Datar() *datar.Engine { return d.datar }

// Empty reports whether there are no recorders at all.
func (d *DataRecorders) Empty() bool { return len(d.recorders) == 0 }

// AsyncRecord gives one evaluation or exposure to each recorder. Streaming recorders share one record.
func (d *DataRecorders) AsyncRecord(r *eval.Result) {
	var shared *recorder.Record
	for _, one := range d.recorders {
		stream, ok := one.(*StreamRecorder)
		if !ok {
			one.AsyncRecord(r)
			continue
		}
		if shared == nil {
			shared = newRecord(r, d.framing)
		}
		stream.sink.AsyncRecord(shared)
	}
}

// Start starts each recorder.
func (d *DataRecorders) Start() {
	for _, r := range d.recorders {
		r.Start()
	}
}

// Drain flushes each recorder again and again, with a pause in between, until ctx ends. One that hangs takes no time from
// the others. Recorders log their failures themselves.
func (d *DataRecorders) Drain(ctx context.Context, pause time.Duration) {
	_ = d.atOnce(func(r DataRecorder) error {
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

// Flush flushes each recorder, all at once, and returns all their errors.
func (d *DataRecorders) Flush(ctx context.Context) error {
	return d.atOnce(func(r DataRecorder) error { return r.Flush(ctx) })
}

// Close closes each recorder, all of them within ctx, and returns all their errors. One that hangs takes no time from
// the others.
func (d *DataRecorders) Close(ctx context.Context) error {
	return d.atOnce(func(r DataRecorder) error { return r.Close(ctx) })
}

// atOnce does the same with each recorder, waits for all, and joins the errors, each with the recorder's name.
func (d *DataRecorders) atOnce(do func(DataRecorder) error) error {
	errs := make([]error, len(d.recorders))
	var wg sync.WaitGroup
	for i, r := range d.recorders {
		wg.Go(func() {
			if err := do(r); err != nil {
				errs[i] = fmt.Errorf("recorder %s: %w", d.names[i], err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
