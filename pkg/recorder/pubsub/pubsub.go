// Package pubsub sends records to a Google Cloud Pub/Sub topic.
package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The bounds of one call of Send.
const (
	BatchRecords = 1000
	BatchBytes   = 5 << 20
)

// Concurrency is how many calls of Send may run at once. Pub/Sub promises no order anyway.
const Concurrency = 4

const (
	// maxMessageBytes is what Pub/Sub takes as a request, less some bytes for what is around the data.
	maxMessageBytes = 10_000_000 - 1024

	// attemptTimeout is how long the client itself repeats a request. Then the sink knows that something is wrong.
	attemptTimeout = 10 * time.Second
)

// Options describe the topic.
type Options struct {
	ProjectID, Topic string
	// KeyFile is the JSON of a service account, or of another kind of credentials; "" means those of the surroundings.
	KeyFile string
	// Verbose logs each message's id, and gives up an attempt after AttemptTimeout.
	Verbose bool
	// AttemptTimeout bounds the wait for the answers to a batch if Verbose; 0: no bound of its own.
	AttemptTimeout time.Duration
	// ClientOptions are given to the client after all others, for tests.
	ClientOptions []option.ClientOption
	// Logger is mandatory.
	Logger *slog.Logger
}

// Transport publishes to a topic.
type Transport struct {
	options    Options
	clientOpts []option.ClientOption

	// mu protects what Send makes when it is first called: finding credentials may need a network.
	mu        sync.Mutex
	client    *pubsub.Client
	publisher *pubsub.Publisher
	closed    bool
}

// New makes a transport. It connects to nobody yet; errors are about the key file.
func New(o Options) (*Transport, error) {
	t := &Transport{options: o}
	if o.KeyFile != "" {
		key, err := os.ReadFile(o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		var kind struct{ Type option.CredentialsType }
		if err := json.Unmarshal(key, &kind); err != nil || kind.Type == "" {
			return nil, fmt.Errorf("key file: %s is not JSON with a type, such as that of a service account", o.KeyFile)
		}
		t.clientOpts = append(t.clientOpts, option.WithAuthCredentialsJSON(kind.Type, key))
	}
	t.clientOpts = append(t.clientOpts, o.ClientOptions...)
	return t, nil
}

// connect makes the client, once it can be made.
func (t *Transport) connect(ctx context.Context) (*pubsub.Publisher, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("transport is closed")
	}
	if t.publisher != nil {
		return t.publisher, nil
	}
	client, err := pubsub.NewClient(ctx, t.options.ProjectID, t.clientOpts...)
	if err != nil {
		return nil, fmt.Errorf("pubsub client: %w", err)
	}
	t.client, t.publisher = client, client.Publisher(t.options.Topic)
	s := &t.publisher.PublishSettings
	s.CountThreshold = BatchRecords
	s.ByteThreshold = BatchBytes
	s.DelayThreshold = time.Millisecond // Send brings whole batches; Flush would wait for earlier ones
	s.Timeout = attemptTimeout
	s.EnableCompression = false
	return t.publisher, nil
}

// Send publishes a batch and waits for the ids of its messages.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	publisher, err := t.connect(ctx)
	if err != nil {
		return recorder.FailAll(len(batch), err)
	}
	if t.options.Verbose && t.options.AttemptTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.options.AttemptTimeout)
		defer cancel()
	}
	errs := make([]error, len(batch))
	results := make([]*pubsub.PublishResult, len(batch))
	for i, r := range batch {
		frame, err := r.Frame()
		if err != nil {
			errs[i] = recorder.Drop(recorder.Unencodable, err)
			continue
		}
		if size := len(frame); size > maxMessageBytes {
			errs[i] = recorder.Drop(recorder.TooLarge, fmt.Errorf("message of %d bytes: Pub/Sub takes %d", size, maxMessageBytes))
			continue
		}
		results[i] = publisher.Publish(ctx, &pubsub.Message{Data: frame})
	}
	for i, result := range results {
		if result == nil {
			continue
		}
		id, err := result.Get(ctx)
		switch {
		case err == nil && t.options.Verbose:
			t.options.Logger.Info("pubsub: published", "id", id)
		case err != nil && t.options.Verbose:
			t.options.Logger.Info("pubsub: not published", "error", err)
		}
		errs[i] = classify(err)
	}
	return errs
}

// classify tells an error about a message, which will not pass, from trouble that may.
func classify(err error) error {
	if err != nil && status.Code(err) == codes.InvalidArgument {
		return recorder.Drop(recorder.Rejected, err)
	}
	return err
}

// Close ends the client. What it still holds is given up.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.client == nil {
		return nil
	}
	err := t.client.Close()
	if err != nil {
		return fmt.Errorf("close the pubsub client: %w", err)
	}
	return nil
}
