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

// probeTimeout bounds the question whether the stream is there.
const probeTimeout = 5 * time.Second

// credentialCodes are the answers to credentials that are over, unknown or wrong.
var credentialCodes = []string{
	"ExpiredTokenException", "ExpiredToken", "InvalidClientTokenId", "InvalidSignatureException", "UnrecognizedClientException",
}

// API is what the transport needs of a client.
type API interface {
	DescribeStreamSummary(ctx context.Context, in *kinesis.DescribeStreamSummaryInput, options ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

// Options describe the stream.
type Options struct {
	Stream string
	// RequestRecords and RequestBytes bound one request. 0, and more than the service takes, mean what the service takes.
	RequestRecords, RequestBytes int
	// Verbose logs each request at level info.
	Verbose bool
	// Renew makes a client that reads the credentials of the surroundings again. It is called when those of the present client are
	// refused; nil keeps the client.
	Renew func(context.Context) (API, error)
	// Logger is mandatory.
	Logger *slog.Logger
}

// Transport writes to a stream with PutRecords.
type Transport struct {
	options Options

	mu       sync.Mutex
	api      API
	renewals int
}

// NewClient makes a client of what the surroundings say: the AWS_ variables, the shared configuration files, or the role
// of the machine. It needs a region and connects to no server yet.
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

// client gives the present client, and how often it was renewed.
func (t *Transport) client() (api API, renewals int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.api, t.renewals
}

// renew replaces a client whose credentials were refused, unless another request has done so. The SDK reads keys and sessions of
// files only once.
func (t *Transport) renew(ctx context.Context, renewals int, refusal error) {
	if t.options.Renew == nil || !slices.Contains(credentialCodes, codeOf(refusal)) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.renewals != renewals {
		return
	}
	if api, err := t.options.Renew(ctx); err == nil { // else the present client goes on to say what is wrong
		t.api, t.renewals = api, t.renewals+1
	}
}

func limit(asked, most int) int {
	if asked <= 0 {
		return most
	}
	return min(asked, most)
}

// Probe asks whether the stream is there and takes records. A service that answers, but does not tell that to this role or
// not so often, can be reached.
func (t *Transport) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	once := func(o *kinesis.Options) { o.RetryMaxAttempts = 1 } // the sink asks again
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
		return fmt.Errorf("stream %s takes no records: it is %s", t.options.Stream, strings.ToLower(string(status)))
	}
	return nil
}

// Send puts a batch in as many requests as the limits ask for, one after the other. One that Kinesis refuses for the sake of
// some of its records is sent again in smaller ones.
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
			errs[i] = recorder.Drop(recorder.TooLarge, fmt.Errorf("record of %d bytes: Kinesis takes %d", size, MaxRecordBytes))
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

// partitionKey cuts what Kinesis does not take: it wants 1 to 256 characters. Those outside of the basic plane of Unicode, such
// as emoji, count as two: servers that imitate Kinesis do so, and a key that is cut too early harms nobody.
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
		frame, _ := r.Frame() // Send has asked before
		entries[i] = types.PutRecordsRequestEntry{Data: frame, PartitionKey: aws.String(partitionKey(r.Key()))}
	}
	api, renewals := t.client()
	out, err := api.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: &t.options.Stream, Records: entries})
	t.renew(ctx, renewals, err)
	if err == nil && len(out.Records) != len(entries) {
		err = fmt.Errorf("kinesis answered for %d records of %d", len(out.Records), len(entries))
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

// refused tells an error about what is in a request, which will not pass, from trouble that may. Kinesis says what does not
// keep to the form of a request: the name of the stream is no fault of a record, and can be mended.
func refused(err error) bool {
	switch codeOf(err) {
	case "InvalidArgumentException":
		return true
	case "ValidationException":
		return !strings.Contains(err.Error(), "at 'streamName'")
	}
	return false
}

// answer is an error that the service has answered with.
type answer interface {
	error
	ErrorCode() string
	ErrorMessage() string
}

// codeOf gives the code of an answer, "" for other errors and for none.
func codeOf(err error) string {
	if a, ok := errors.AsType[answer](err); ok {
		return a.ErrorCode()
	}
	return ""
}

// withoutRequest leaves out what the service repeats of a request in the further lines of its answer: the headers of one with
// a bad signature have a session token among them.
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

// Close does nothing: a client has nothing to close.
func (t *Transport) Close() error { return nil }
