package handler

import (
	"cmp"
	"context"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kinesis"
)

// KinesisOptions configures the kinesis recorder.
type KinesisOptions struct {
	// Producer configures requests. NewKinesisRecorder sets Logger.
	Producer kinesis.Options
	// Linger is how long records are collected before they are sent.
	Linger time.Duration
	// Connections is the number of parallel requests. 0 means kinesis.DefaultConnections.
	Connections int
	Queue       QueueOptions
}

// NewKinesisRecorder returns a recorder that writes to an Amazon Kinesis stream. It does not
// connect before Start, so an error is always about the options or the AWS configuration.
func NewKinesisRecorder(ctx context.Context, o KinesisOptions) (*StreamRecorder, error) {
	logger := o.Queue.Logger.With("recorder", RecorderKinesis)
	client, err := kinesis.NewClient(ctx)
	if err != nil {
		return nil, err
	}
	producer := o.Producer
	producer.Logger = logger
	producer.Renew = func(ctx context.Context) (kinesis.API, error) { return kinesis.NewClient(ctx) }
	return newStreamRecorder(o.Queue, recorder.Options{
		Name:         RecorderKinesis,
		Transport:    kinesis.New(client, producer),
		Health:       recorder.NewHealth(logger),
		BatchRecords: cmp.Or(producer.RequestRecords, kinesis.MaxRequestRecords),
		BatchBytes:   int64(cmp.Or(producer.RequestBytes, kinesis.MaxRequestBytes)),
		Linger:       o.Linger,
		Silence:      recorder.DefaultSilence,
		Concurrency:  cmp.Or(o.Connections, kinesis.DefaultConnections),
		Logger:       logger,
	}), nil
}
