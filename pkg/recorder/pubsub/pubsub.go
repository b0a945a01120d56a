// Package pubsub sends records to a Google Cloud Pub/Sub topic.
package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The limits of one call of Send.
const (
	BatchRecords = 1000
	BatchBytes   = 5 << 20
)

// Concurrency is the maximum number of concurrent calls of Send. Pub/Sub does not guarantee an
// order anyway.
const Concurrency = 4

const (
	// maxMessageBytes is Pub/Sub's limit of a request, less the overhead of a message.
	maxMessageBytes = 10_000_000 - 1024

	// aroundMessage is more than the overhead of a message in a request.
	aroundMessage = 16

	// attemptTimeout limits one request.
	attemptTimeout = 10 * time.Second

	// probeTimeout limits the check of the topic.
	probeTimeout = 5 * time.Second

	// connectTimeout limits opening a connection, like the default.
	connectTimeout = 20 * time.Second

	// longestReconnectPause is the same as the sink's.
	longestReconnectPause = 5 * time.Second
)

// Options configure the topic.
type Options struct {
	ProjectID, Topic string
	// KeyFile is the JSON of a service account, or of other credentials; "" means the default
	// credentials of the environment.
	KeyFile string
	// Verbose logs each message's ID, and aborts a request after AttemptTimeout.
	Verbose bool
	// AttemptTimeout limits the wait for a response if Verbose; 0, and more than 10 seconds, mean
	// 10 seconds.
	AttemptTimeout time.Duration
	// ClientOptions are appended to the client's options, for tests.
	ClientOptions []option.ClientOption
	// Logger is required.
	Logger *slog.Logger
}

// Transport publishes to a topic.
type Transport struct {
	options Options

	// Probe or Send makes the client when one is first called: finding credentials may need a
	// network.
	mu struct {
		sync.Mutex
		client *pubsub.Client
		closed bool
	}
}

// New makes a transport. It connects to no server yet; errors are about the key file.
func New(o Options) (*Transport, error) {
	t := &Transport{options: o}
	if _, err := t.credentials(); err != nil {
		return nil, err
	}
	return t, nil
}

// credentials reads the key file, if there is one.
func (t *Transport) credentials() ([]option.ClientOption, error) {
	if t.options.KeyFile == "" {
		return nil, nil
	}
	key, err := os.ReadFile(t.options.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	var kind struct{ Type option.CredentialsType }
	if err := json.Unmarshal(key, &kind); err != nil || kind.Type == "" {
		return nil, fmt.Errorf("key file: %s is not JSON with a type, such as that of a service account", t.options.KeyFile)
	}
	return []option.ClientOption{option.WithAuthCredentialsJSON(kind.Type, key)}, nil
}

// reconnect says how connections that were lost are made again. By default gRPC waits for up to two
// minutes, and while it waits everything fails at once: the sink could try as often as it likes.
func reconnect() grpc.ConnectParams {
	params := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}
	params.Backoff.MaxDelay = longestReconnectPause
	return params
}

// connect makes the client, once it can be made.
func (t *Transport) connect(ctx context.Context) (*pubsub.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return nil, errors.New("transport is closed")
	}
	if t.mu.client != nil {
		return t.mu.client, nil
	}
	opts, err := t.credentials() // they may have been renewed
	if err != nil {
		return nil, err
	}
	opts = append(opts, option.WithGRPCDialOption(grpc.WithConnectParams(reconnect())))
	client, err := pubsub.NewClient(ctx, t.options.ProjectID, append(opts, t.options.ClientOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("pubsub client: %w", err)
	}
	// The client does not retry: the sink does, and the client's retries would hide an error for 10
	// s.
	client.TopicAdminClient.CallOptions.GetTopic, client.TopicAdminClient.CallOptions.Publish = nil, nil
	t.mu.client = client
	return client, nil
}

// disconnect closes a client with rejected credentials, so that the next attempt reads the key file
// again. Other requests of this client are also rejected.
func (t *Transport) disconnect(client *pubsub.Client, refusal error) {
	if t.options.KeyFile == "" || status.Code(refusal) != codes.Unauthenticated {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.client == client {
		t.mu.client = nil
		_ = client.Close() // the client cannot be used anymore
	}
}

// Probe checks whether the topic exists. A service that denies or throttles this request is
// reachable.
func (t *Transport) Probe(ctx context.Context) error {
	client, err := t.connect(ctx) // does not dial; the client may use ctx for later tokens
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	topic := client.Publisher(t.options.Topic).String()
	_, err = client.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: topic})
	t.disconnect(client, err)
	if slices.Contains([]codes.Code{codes.OK, codes.PermissionDenied, codes.ResourceExhausted, codes.Unimplemented}, status.Code(err)) {
		return nil
	}
	return fmt.Errorf("topic %s: %w", topic, err)
}

// Send publishes a batch, in as many requests as the limits require, and waits for the IDs of its
// messages. It does not use the client's own batching, which would put a rejected message into a
// request with messages of other batches.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	client, err := t.connect(ctx)
	if err != nil {
		return recorder.FailAll(len(batch), err)
	}
	errs := make([]error, len(batch))
	var request []*recorder.Record
	var indices []int // of the request in the batch
	bytes := 0
	publish := func() {
		results := t.publish(ctx, client, request)
		recorder.Isolate(request, results, refused, func(part []*recorder.Record) []error { return t.publish(ctx, client, part) })
		for n, err := range results { // nil if all were accepted
			if refused(err) {
				err = recorder.Drop(recorder.Rejected, err)
			}
			errs[indices[n]] = err
		}
		request, indices, bytes = nil, nil, 0
	}
	for i, r := range batch {
		frame, err := r.Frame()
		if err != nil {
			errs[i] = recorder.Drop(recorder.Unencodable, err)
			continue
		}
		if size := len(frame); size > maxMessageBytes {
			errs[i] = recorder.Drop(recorder.TooLarge, fmt.Errorf("message of %d bytes, want at most %d", size, maxMessageBytes))
			continue
		}
		size := len(frame) + aroundMessage
		if len(request) == BatchRecords || len(request) > 0 && bytes+size > BatchBytes {
			publish()
		}
		request, indices, bytes = append(request, r), append(indices, i), bytes+size
	}
	if len(request) > 0 {
		publish()
	}
	return errs
}

// publish sends one request. It returns nil if Pub/Sub accepted it.
func (t *Transport) publish(ctx context.Context, client *pubsub.Client, records []*recorder.Record) []error {
	timeout := attemptTimeout
	if t.options.Verbose && t.options.AttemptTimeout > 0 {
		timeout = min(timeout, t.options.AttemptTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request := &pubsubpb.PublishRequest{Topic: client.Publisher(t.options.Topic).String()}
	for _, r := range records {
		frame, _ := r.Frame() // Send has already checked it
		request.Messages = append(request.Messages, &pubsubpb.PubsubMessage{Data: frame})
	}
	response, err := client.TopicAdminClient.Publish(ctx, request)
	t.disconnect(client, err)
	if err == nil && len(response.MessageIds) != len(records) {
		err = fmt.Errorf("pubsub returned results for %d messages of %d", len(response.MessageIds), len(records))
	}
	if err != nil {
		if t.options.Verbose {
			t.options.Logger.Info("pubsub: not published", "messages", len(records), "error", err)
		}
		return recorder.FailAll(len(records), err)
	}
	if t.options.Verbose {
		for _, id := range response.MessageIds {
			t.options.Logger.Info("pubsub: published", "id", id)
		}
	}
	return nil
}

// refused distinguishes permanent errors, about the contents of a request, from temporary ones.
func refused(err error) bool { return status.Code(err) == codes.InvalidArgument }

// Close closes the client. Its remaining messages are dropped.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.closed = true
	if t.mu.client == nil {
		return nil
	}
	err := t.mu.client.Close()
	if err != nil {
		return fmt.Errorf("close the pubsub client: %w", err)
	}
	return nil
}
