package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/chstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/forward"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kafka"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kinesis"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/pubsub"
	"github.com/flagr-datar/flagr-datar/pkg/store"
	"github.com/flagr-datar/flagr-datar/pkg/ui"
)

// countStore is the store of the counts: the database of the flags, or ClickHouse.
type countStore interface {
	datar.DetailStore
	ingest.Store
}

// counting is Datar's part of the server. All fields are nil if Datar is off.
type counting struct {
	engine *datar.Engine
	// counts is the engine's store, or nil if it forwards to a central server.
	counts countStore
	// statements describes counts in the database of the flags. Otherwise it is nil.
	statements ui.Statements
	forward    *forward.Store
	allFlags   bool // including flags that are not recorded
}

func selectedRecorders(c *config.Config) handler.SelectedRecorders {
	return handler.SelectedRecorders{Enabled: c.Recorder.Enabled, Types: c.Recorder.Types}
}

// newCounting opens the store and creates the engine, if Datar is selected. If there is no
// database, so that db is nil, and no central server, Datar stays off.
func newCounting(ctx context.Context, c *config.Config, db *store.Store, logger *slog.Logger, now func() time.Time) (*counting, error) {
	d := &counting{allFlags: c.Datar.Flags == config.DatarFlagsAll}
	if !selectedRecorders(c).Datar() {
		return d, nil
	}
	options := datar.Options{
		FlushInterval: c.Datar.FlushInterval,
		Journal:       journalOptions(c.Datar.JournalDir),
		Retention:     c.Datar.Retention,
		Server:        datar.ServerOptions{Name: c.Datar.ServerName(), Kind: serverKind(c)},
		Logger:        logger,
		Now:           now,
	}
	var err error
	switch {
	case c.Datar.ForwardURL != "":
		d.forward, err = forward.New(forward.Options{
			URL: c.Datar.ForwardURL, Header: c.Datar.ForwardHeader(), Dir: options.Journal.Dir, Logger: logger,
		})
		options.Store, options.Catalog = d.forward, datar.StaticCatalog{}
	case db == nil:
		logger.Warn("recorder datar stays off: flags come from a JSON document, so there is no database to keep counts in; " +
			"FLAGR_RECORDER_DATAR_FORWARD_URL sends them to a server that has one")
		return d, nil
	case c.Datar.Store != "":
		d.counts, err = openClickHouse(ctx, c.Datar.Store, logger)
		options.Store, options.Catalog = d.counts, catalog{db}
	case db.ReadOnly():
		logger.Warn("recorder datar stays off: the database is read only; " +
			"FLAGR_RECORDER_DATAR_FORWARD_URL sends counts to a server that can write, and FLAGR_RECORDER_DATAR_STORE keeps them elsewhere")
		return d, nil
	default:
		var counts *gormstore.Store
		counts, err = gormstore.New(ctx, db.DB(), gormstore.Options{Logger: logger})
		d.counts, d.statements = counts, counts
		options.Store, options.Catalog = counts, catalog{db}
	}
	if err != nil {
		return nil, fmt.Errorf("recorder datar: open the store of the counts: %w", err)
	}
	if d.engine, err = datar.New(options); err != nil {
		return nil, fmt.Errorf("recorder datar: %w", err)
	}
	return d, nil
}

// openClickHouse opens the store of FLAGR_RECORDER_DATAR_STORE.
func openClickHouse(ctx context.Context, address string, logger *slog.Logger) (countStore, error) {
	options, err := chstore.ParseURL(address)
	if err != nil {
		return nil, fmt.Errorf("FLAGR_RECORDER_DATAR_STORE: %w", err)
	}
	options.Logger = logger
	s, err := chstore.New(ctx, options)
	if err != nil {
		return nil, err // not an interface with a nil pointer
	}
	return s, nil
}

func serverKind(c *config.Config) datar.ServerKind {
	if c.Datar.ForwardURL != "" {
		return datar.KindEdge
	}
	return datar.KindServer
}

// recorder is nil if Datar is off.
func (d *counting) recorder() *handler.DatarRecorder {
	if d.engine == nil {
		return nil
	}
	return handler.NewDatarRecorder(handler.DatarOptions{Engine: d.engine, Forward: d.forward, AllFlags: d.allFlags})
}

// journalOptions makes a folder mandatory only if it is configured: the default must not prevent a
// start where no file can be written.
func journalOptions(dir string) datar.JournalOptions {
	switch dir {
	case config.JournalOff:
		return datar.JournalOptions{}
	case "":
		return datar.JournalOptions{Dir: "."}
	default:
		return datar.JournalOptions{Dir: dir, Required: true}
	}
}

// newStreams creates the selected streaming recorders. An error is about the configuration; an
// unreachable broker is not an error. With an error it also returns the streams created before,
// which must be closed.
func newStreams(ctx context.Context, c *config.Config, logger *slog.Logger) ([]*handler.StreamRecorder, error) {
	queue := handler.QueueOptions{Records: c.Recorder.QueueRecords, Bytes: int64(c.Recorder.QueueBytes), Logger: logger}
	var streams []*handler.StreamRecorder
	for _, name := range selectedRecorders(c).Streams() {
		var stream *handler.StreamRecorder
		var err error
		switch name {
		case handler.RecorderKafka:
			if c.Kafka.Encrypted && rawJSONFrames(c) {
				logger.Warn("an encrypted payload is sent as a string, regardless of FLAGR_RECORDER_FRAME_OUTPUT_MODE", "recorder", name)
			}
			stream, err = handler.NewKafkaRecorder(kafkaOptions(&c.Kafka, queue))
		case handler.RecorderKinesis:
			stream, err = handler.NewKinesisRecorder(ctx, kinesisOptions(&c.Kinesis, queue))
		case handler.RecorderPubSub:
			stream, err = handler.NewPubSubRecorder(pubSubOptions(&c.PubSub, queue))
		default:
			err = errors.New("not known")
		}
		if err != nil {
			return streams, fmt.Errorf("recorder %s: %w", name, err)
		}
		streams = append(streams, stream)
	}
	return streams, nil
}

func rawJSONFrames(c *config.Config) bool {
	return c.Recorder.FrameOutputMode == config.FramePayloadRawJSON
}

func kafkaOptions(c *config.Kafka, queue handler.QueueOptions) handler.KafkaOptions {
	o := handler.KafkaOptions{
		Producer: kafka.Options{
			Brokers:         splitBrokers(c.Brokers),
			Topic:           c.Topic,
			Version:         c.Version,
			Compression:     c.CompressionCodec,
			RequiredAcks:    c.RequiredAcks,
			Idempotent:      c.Idempotent,
			RetryMax:        c.RetryMax,
			MaxOpenRequests: c.MaxOpenRequests,
			SASLUsername:    c.SASLUsername,
			SASLPassword:    c.SASLPassword,
			SASLMechanism:   c.SASLMechanism,
			KeyEnabled:      c.PartitionKeyEnabled,
			Partitioner:     c.Partitioner,
			Verbose:         c.Verbose,
		},
		CertFile:  c.CertFile,
		KeyFile:   c.KeyFile,
		CAFile:    c.CAFile,
		UseTLS:    c.SimpleSSL,
		VerifyTLS: c.VerifySSL,
		Linger:    c.FlushFrequency,
		Queue:     queue,
	}
	if c.Encrypted {
		o.EncryptionKey = new(recorder.NewKey(c.EncryptionKey))
	}
	return o
}

func splitBrokers(list string) []string {
	var brokers []string
	for b := range strings.SplitSeq(list, ",") {
		if b = strings.TrimSpace(b); b != "" {
			brokers = append(brokers, b)
		}
	}
	return brokers
}

func kinesisOptions(c *config.Kinesis, queue handler.QueueOptions) handler.KinesisOptions {
	return handler.KinesisOptions{
		Producer: kinesis.Options{
			Stream:         c.StreamName,
			RequestRecords: c.BatchCount,
			RequestBytes:   c.BatchSize,
			Verbose:        c.Verbose,
		},
		Linger:      c.FlushInterval,
		Connections: c.MaxConnections,
		Queue:       queue,
	}
}

func pubSubOptions(c *config.PubSub, queue handler.QueueOptions) handler.PubSubOptions {
	return handler.PubSubOptions{
		Publisher: pubsub.Options{
			ProjectID:      c.ProjectID,
			Topic:          c.TopicName,
			KeyFile:        c.KeyFile,
			Verbose:        c.Verbose,
			AttemptTimeout: c.VerboseCancelTimeout,
		},
		Queue: queue,
	}
}
