package handler

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/pubsub"
)

// pubsubLinger is how long messages are collected before they are published. It is not
// configurable.
const pubsubLinger = 10 * time.Millisecond

// PubSubOptions configures the pubsub recorder.
type PubSubOptions struct {
	// Publisher configures the client. NewPubSubRecorder sets Logger.
	Publisher pubsub.Options
	Queue     QueueOptions
}

// NewPubSubRecorder returns a recorder that publishes to a Google Cloud Pub/Sub topic. It does not
// connect before Start, so an error is always about the options.
func NewPubSubRecorder(o PubSubOptions) (*StreamRecorder, error) {
	logger := o.Queue.Logger.With("recorder", RecorderPubSub)
	publisher := o.Publisher
	publisher.Logger = logger
	transport, err := pubsub.New(publisher)
	if err != nil {
		return nil, err
	}
	return newStreamRecorder(o.Queue, recorder.Options{
		Name:         RecorderPubSub,
		Transport:    transport,
		Health:       recorder.NewHealth(logger),
		BatchRecords: pubsub.BatchRecords,
		BatchBytes:   pubsub.BatchBytes,
		Linger:       pubsubLinger,
		Silence:      recorder.DefaultSilence,
		Concurrency:  pubsub.Concurrency,
		Logger:       logger,
	}), nil
}
