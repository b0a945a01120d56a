package handler

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/pubsub"
)

// pubsubLinger is how long messages are gathered; there is no variable for it.
const pubsubLinger = 10 * time.Millisecond

// NewPubSubRecorder makes a recorder that publishes to a Google Cloud Pub/Sub topic. It connects to nobody before
// Start.
func NewPubSubRecorder(o RecorderOptions, framing *recorder.Framing) (*StreamRecorder, error) {
	c := &o.PubSub
	logger := o.Logger.With("recorder", config.RecorderPubSub)
	transport, err := pubsub.New(pubsub.Options{
		ProjectID:      c.ProjectID,
		Topic:          c.TopicName,
		KeyFile:        c.KeyFile,
		Verbose:        c.Verbose,
		AttemptTimeout: c.VerboseCancelTimeout,
		Logger:         logger,
	})
	if err != nil {
		return nil, err
	}
	sink := recorder.NewSink(recorder.Options{
		Name:         config.RecorderPubSub,
		Transport:    transport,
		Health:       recorder.NewHealth(logger),
		MaxRecords:   o.QueueRecords,
		MaxBytes:     o.QueueBytes,
		BatchRecords: pubsub.BatchRecords,
		BatchBytes:   pubsub.BatchBytes,
		Linger:       pubsubLinger,
		Concurrency:  pubsub.Concurrency,
		Logger:       logger,
	})
	return &StreamRecorder{sink: sink, framing: framing}, nil
}
