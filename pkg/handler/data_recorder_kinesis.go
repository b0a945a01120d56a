package handler

import (
	"cmp"
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kinesis"
)

// NewKinesisRecorder makes a recorder that writes to an Amazon Kinesis stream. It connects to nobody before
// Start.
func NewKinesisRecorder(ctx context.Context, o RecorderOptions, framing *recorder.Framing) (*StreamRecorder, error) {
	c := &o.Kinesis
	logger := o.Logger.With("recorder", config.RecorderKinesis)
	client, err := kinesis.NewClient(ctx)
	if err != nil {
		return nil, err
	}
	sink := recorder.NewSink(recorder.Options{
		Name: config.RecorderKinesis,
		Transport: kinesis.New(client, kinesis.Options{
			Stream:         c.StreamName,
			RequestRecords: c.BatchCount,
			RequestBytes:   c.BatchSize,
			Verbose:        c.Verbose,
			Logger:         logger,
		}),
		Health:       recorder.NewHealth(logger),
		MaxRecords:   o.QueueRecords,
		MaxBytes:     o.QueueBytes,
		BatchRecords: cmp.Or(c.BatchCount, kinesis.MaxRequestRecords),
		BatchBytes:   int64(cmp.Or(c.BatchSize, kinesis.MaxRequestBytes)),
		Linger:       c.FlushInterval,
		Concurrency:  cmp.Or(c.MaxConnections, kinesis.DefaultConnections),
		Logger:       logger,
	})
	return &StreamRecorder{sink: sink, framing: framing}, nil
}
