// Package kinesis sends records to an Amazon Kinesis data stream.
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// What PutRecords takes, as AWS documents it. Bytes are those of data and partition key together.
const (
	MaxRequestRecords = 500
	MaxRequestBytes   = 5 << 20
	MaxRecordBytes    = 1 << 20
	maxKeyCharacters  = 256
)

// DefaultConnections is how many requests may run at once.
const DefaultConnections = 24

// attemptsPerRequest is how often the SDK itself tries a request. Pauses between longer rows of attempts are the sink's.
const attemptsPerRequest = 3

// requestTimeout bounds a request with the SDK's own attempts. A service that takes a request and never answers would hold a
// connection until the system gives up on it, which takes a quarter of an hour.
const requestTimeout = 30 * time.Second

// API is what the transport needs of a client.
type API interface {
	PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

// Options describe the stream.
type Options struct {
	Stream string
	// RequestRecords and RequestBytes bound one request. 0, and more than the service takes, mean what the service takes.
	RequestRecords, RequestBytes int
	// Verbose logs each request at level info.
	Verbose bool
	// Logger is mandatory.
	Logger *slog.Logger
}

// Transport writes to a stream with PutRecords.
type Transport struct {
	api     API
	options Options
}

// NewClient makes a client of what the surroundings say: the AWS_ variables, the shared configuration files, or the role
// of the machine. It needs a region and connects to nobody yet.
func NewClient(ctx context.Context) (*kinesis.Client, error) {
	c, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRetryMaxAttempts(attemptsPerRequest))
	if err != nil {
		return nil, fmt.Errorf("configuration of the AWS client: %w", err)
	}
	if c.Region == "" {
		return nil, errors.New("no AWS region is configured: set AWS_REGION")
	}
	return kinesis.NewFromConfig(c), nil
}

// New makes a transport.
func New(api API, o Options) *Transport {
	o.RequestRecords = limit(o.RequestRecords, MaxRequestRecords)
	o.RequestBytes = limit(o.RequestBytes, MaxRequestBytes)
	return &Transport{api: api, options: o}
}

func limit(asked, most int) int {
	if asked <= 0 {
		return most
	}
	return min(asked, most)
}

// Send puts a batch in as many requests as the limits ask for, one after the other.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	errs := make([]error, len(batch))
	var entries []types.PutRecordsRequestEntry
	var indices []int // of the entries in the batch
	bytes := 0
	put := func() {
		if len(entries) > 0 {
			t.put(ctx, entries, indices, errs)
		}
		entries, indices, bytes = nil, nil, 0
	}
	for i, r := range batch {
		frame, err := r.Frame()
		if err != nil {
			errs[i] = recorder.Drop(recorder.Unencodable, err)
			continue
		}
		key := partitionKey(r.Key())
		size := len(frame) + len(key)
		if size > MaxRecordBytes {
			errs[i] = recorder.Drop(recorder.TooLarge, fmt.Errorf("record of %d bytes: Kinesis takes %d", size, MaxRecordBytes))
			continue
		}
		if len(entries) == t.options.RequestRecords || bytes+size > t.options.RequestBytes {
			put()
		}
		entries = append(entries, types.PutRecordsRequestEntry{Data: frame, PartitionKey: &key})
		indices = append(indices, i)
		bytes += size
	}
	put()
	return errs
}

// partitionKey cuts what Kinesis does not take: it wants 1 to 256 characters.
func partitionKey(key string) string {
	if key == "" {
		return "-"
	}
	if len(key) <= maxKeyCharacters {
		return key
	}
	if utf8.RuneCountInString(key) <= maxKeyCharacters {
		return key
	}
	return string([]rune(key)[:maxKeyCharacters])
}

// put sends one request and writes the results of its records into errs.
func (t *Transport) put(ctx context.Context, entries []types.PutRecordsRequestEntry, indices []int, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out, err := t.api.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &t.options.Stream, Records: entries})
	if err == nil && len(out.Records) != len(entries) {
		err = fmt.Errorf("kinesis answered for %d records of %d", len(out.Records), len(entries))
	}
	if err != nil {
		err = classify(err, len(entries))
		for _, i := range indices {
			errs[i] = err
		}
		return
	}
	failed := 0
	for n, result := range out.Records {
		if result.ErrorCode != nil {
			failed++
			errs[indices[n]] = fmt.Errorf("%s: %s", *result.ErrorCode, aws.ToString(result.ErrorMessage))
		}
	}
	if t.options.Verbose {
		t.options.Logger.Info("kinesis: put records", "records", len(entries), "failed", failed)
	}
}

// classify tells an error about a single record, which will not pass, from trouble that may.
func classify(err error, records int) error {
	var invalid *types.InvalidArgumentException
	if records == 1 && errors.As(err, &invalid) {
		return recorder.Drop(recorder.Rejected, err)
	}
	return err
}

// Close does nothing: a client has nothing to close.
func (t *Transport) Close() error { return nil }
