// Package kinesis sends records to an Amazon Kinesis data stream.
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The limits of PutRecords, as AWS documents them. Bytes include data and partition key.
const (
	MaxRequestRecords = 500
	MaxRequestBytes   = 5 << 20
	MaxRecordBytes    = 1 << 20
	maxKeyCharacters  = 256
)

// DefaultConnections is the default maximum number of concurrent requests.
const DefaultConnections = 24

// attemptsPerRequest is how often the SDK itself tries a request. The sink makes further retries
// after longer delays.
const attemptsPerRequest = 3

// requestTimeout limits a request including the SDK's own retries. Without it, a service that
// accepts a request and never responds would block a connection until the operating system closes
// it, which takes a quarter of an hour.
const requestTimeout = 30 * time.Second

// probeTimeout limits the check of the stream.
const probeTimeout = 5 * time.Second

// credentialCodes are the error codes for expired, unknown and wrong credentials.
var credentialCodes = []string{
	"ExpiredTokenException", "ExpiredToken", "InvalidClientTokenId", "InvalidSignatureException", "UnrecognizedClientException",
}

// API is the part of the client that the transport uses.
type API interface {
	DescribeStreamSummary(ctx context.Context, in *kinesis.DescribeStreamSummaryInput, options ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

// Options configure the stream.
type Options struct {
	Stream string
	// RequestRecords and RequestBytes limit one request. 0, and values above the service's limits,
	// mean the service's limits.
	RequestRecords, RequestBytes int
	// Verbose logs each request at level info.
	Verbose bool
	// Renew returns a client that reads the credentials of the environment again. It is called if
	// the current client's credentials are rejected; nil keeps the client.
	Renew func(context.Context) (API, error)
	// Logger is required.
	Logger *slog.Logger
}

// Transport writes to a stream with PutRecords.
type Transport struct {
	options Options

	mu struct {
		sync.Mutex
		api      API
		renewals int
	}
}

// NewClient returns a client with the configuration of the environment: the AWS_ variables, the
// shared configuration files, or the role of the machine. It requires a region and does not connect
// yet.
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

// New returns a Transport.
func New(api API, o Options) *Transport {
	o.RequestRecords = limit(o.RequestRecords, MaxRequestRecords)
	o.RequestBytes = limit(o.RequestBytes, MaxRequestBytes)
	t := &Transport{options: o}
	t.mu.api = api
	return t
}

// client returns the current client, and how often it was renewed.
func (t *Transport) client() (api API, renewals int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.api, t.mu.renewals
}

// renew replaces a client with rejected credentials, unless another request has already done so.
// The SDK reads keys and sessions from files only once.
func (t *Transport) renew(ctx context.Context, renewals int, refusal error) {
	if t.options.Renew == nil || !slices.Contains(credentialCodes, codeOf(refusal)) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.renewals != renewals {
		return
	}
	if api, err := t.options.Renew(ctx); err == nil { // otherwise the current client reports the error
		t.mu.api, t.mu.renewals = api, t.mu.renewals+1
	}
}

func limit(asked, most int) int {
	if asked <= 0 {
		return most
	}
	return min(asked, most)
}

// Probe checks whether the stream exists and accepts records. A service that denies or throttles
// this request is reachable.
func (t *Transport) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	once := func(o *kinesis.Options) { o.RetryMaxAttempts = 1 } // the sink retries
	api, renewals := t.client()
	out, err := api.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &t.options.Stream}, once)
	t.renew(ctx, renewals, err)
	switch codeOf(err) {
	case "AccessDeniedException", "LimitExceededException", "UnknownOperationException":
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", t.options.Stream, withoutRequest(err))
	}
	if out.StreamDescriptionSummary == nil {
		return nil
	}
	if status := out.StreamDescriptionSummary.StreamStatus; status == types.StreamStatusCreating || status == types.StreamStatusDeleting {
		return fmt.Errorf("stream %s does not accept records: it is %s", t.options.Stream, strings.ToLower(string(status)))
	}
	return nil
}

// Send puts a batch in as many requests as the limits require, one after the other. If Kinesis
// rejects a request because of some records, Send sends smaller requests.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	errs := make([]error, len(batch))
	var request []*recorder.Record
	var indices []int // of the request in the batch
	bytes := 0
	put := func() {
		results := t.put(ctx, request)
		recorder.Isolate(request, results, refused, func(part []*recorder.Record) []error { return t.put(ctx, part) })
		for n, err := range results {
			i := indices[n]
			errs[i] = withoutRequest(err)
			if refused(err) {
				errs[i] = recorder.Drop(recorder.Rejected, errs[i])
			}
		}
		request, indices, bytes = nil, nil, 0
	}
	for i, r := range batch {
		frame, err := r.Frame()
		if err != nil {
			errs[i] = recorder.Drop(recorder.Unencodable, err)
			continue
		}
		size := len(frame) + len(partitionKey(r.Key()))
		if size > MaxRecordBytes {
			errs[i] = recorder.Drop(recorder.TooLarge, fmt.Errorf("record of %d bytes, want at most %d", size, MaxRecordBytes))
			continue
		}
		if len(request) == t.options.RequestRecords || len(request) > 0 && bytes+size > t.options.RequestBytes {
			put()
		}
		request, indices, bytes = append(request, r), append(indices, i), bytes+size
	}
	if len(request) > 0 {
		put()
	}
	return errs
}

// partitionKey cuts a key to the accepted length of 1 to 256 characters. Characters outside of
// Unicode's basic plane, such as emoji, count as two, as in servers that imitate Kinesis. Cutting a
// key too early is harmless.
func partitionKey(key string) string {
	if key == "" {
		return "-"
	}
	if len(key) <= maxKeyCharacters {
		return key
	}
	characters := 0
	for i, r := range key {
		if characters += utf16.RuneLen(r); characters > maxKeyCharacters {
			return key[:i]
		}
	}
	return key
}

// put sends one request. It returns one result for each record.
func (t *Transport) put(ctx context.Context, records []*recorder.Record) []error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	entries := make([]types.PutRecordsRequestEntry, len(records))
	for i, r := range records {
		frame, _ := r.Frame() // Send has already checked it
		entries[i] = types.PutRecordsRequestEntry{Data: frame, PartitionKey: aws.String(partitionKey(r.Key()))}
	}
	api, renewals := t.client()
	out, err := api.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &t.options.Stream, Records: entries})
	t.renew(ctx, renewals, err)
	if err == nil && len(out.Records) != len(entries) {
		err = fmt.Errorf("kinesis returned results for %d records of %d", len(out.Records), len(entries))
	}
	if err != nil {
		return recorder.FailAll(len(records), err)
	}
	errs := make([]error, len(records))
	failed := 0
	for i, result := range out.Records {
		if result.ErrorCode != nil {
			failed++
			errs[i] = fmt.Errorf("%s: %s", *result.ErrorCode, aws.ToString(result.ErrorMessage))
		}
	}
	if t.options.Verbose {
		t.options.Logger.Info("kinesis: put records", "records", len(entries), "failed", failed)
	}
	return errs
}

// refused distinguishes permanent errors, about the contents of a request, from temporary ones.
// Kinesis reports fields with an invalid format. The name of the stream is not the fault of a
// record, and can be corrected.
func refused(err error) bool {
	switch codeOf(err) {
	case "InvalidArgumentException":
		return true
	case "ValidationException":
		return !strings.Contains(err.Error(), "at 'streamName'")
	}
	return false
}

// answer is an error response of the service.
type answer interface {
	error
	ErrorCode() string
	ErrorMessage() string
}

// codeOf returns the code of an error response, or "" for other errors and nil.
func codeOf(err error) string {
	if a, ok := errors.AsType[answer](err); ok {
		return a.ErrorCode()
	}
	return ""
}

// withoutRequest drops further lines of an error response, which repeat parts of the request: after
// an invalid signature, they include the headers with a session token.
func withoutRequest(err error) error {
	var a answer
	if !errors.As(err, &a) {
		return err
	}
	if first, _, more := strings.Cut(a.ErrorMessage(), "\n"); more {
		return fmt.Errorf("%s: %s", a.ErrorCode(), strings.TrimSpace(first))
	}
	return err
}

// Close does nothing, because the client has nothing to close.
func (t *Transport) Close() error { return nil }
