package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

// active is a stream that is there.
type active struct{}

func (active) DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: &types.StreamDescriptionSummary{StreamStatus: types.StreamStatusActive}}, nil
}

// stream is an API in memory. decide, if set, gives the error code of a record, or "" for one that
// is taken. refuse, if set, gives the error of a request, or nil.
type stream struct {
	active
	mu       sync.Mutex
	requests []int // how many records each had
	bytes    []int
	keys     map[string][]string // data by key
	decide   func(request int, entry types.PutRecordsRequestEntry) string
	refuse   func([]types.PutRecordsRequestEntry) error
	err      error
}

func (s *stream) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	request, size := len(s.requests), 0
	out := &kinesis.PutRecordsOutput{}
	if s.refuse != nil {
		if err := s.refuse(in.Records); err != nil {
			return nil, err
		}
	}
	for _, e := range in.Records {
		size += len(e.Data) + len(*e.PartitionKey)
		if s.decide != nil {
			if code := s.decide(request, e); code != "" {
				out.Records = append(out.Records, types.PutRecordsResultEntry{ErrorCode: &code, ErrorMessage: aws.String("try later")})
				continue
			}
		}
		if s.err == nil {
			if s.keys == nil {
				s.keys = map[string][]string{}
			}
			s.keys[*e.PartitionKey] = append(s.keys[*e.PartitionKey], string(e.Data))
		}
		out.Records = append(out.Records, types.PutRecordsResultEntry{SequenceNumber: aws.String("1"), ShardId: aws.String("s")})
	}
	s.requests, s.bytes = append(s.requests, len(in.Records)), append(s.bytes, size)
	return out, s.err
}

func (s *stream) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, data := range s.keys {
		n += len(data)
	}
	return n
}

func setup(t *testing.T, api API, change func(*Options)) *recorder.Sink {
	t.Helper()
	o := Options{Stream: "flagr-records", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	return recordertest.Sink(t, recorder.Options{
		Name:         "kinesis",
		Transport:    New(api, o),
		Health:       recorder.NewHealth(o.Logger),
		BatchRecords: MaxRequestRecords,
		BatchBytes:   MaxRequestBytes,
		Concurrency:  4,
		Logger:       o.Logger,
	})
}

func record(key string, length int) *recorder.Record {
	return recorder.NewRecord(key, length, &recorder.Framing{}, recordertest.Text(length))
}

func finish(t *testing.T, s *recorder.Sink) recorder.Stats {
	t.Helper()
	s.Start()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	return s.Stats()
}

func TestRequestsKeepTheLimits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		change         func(*Options)
		records, bytes int
	}{
		{"of the service", nil, 500, 5 << 20},
		{"of the options", func(o *Options) { o.RequestRecords, o.RequestBytes = 7, 100_000 }, 7, 100_000},
		{"beyond the service", func(o *Options) { o.RequestRecords, o.RequestBytes = 10_000, 1<<30 }, 500, 5 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			api := &stream{}
			s := setup(t, api, tc.change)
			for i := range 1200 {
				s.AsyncRecord(record(fmt.Sprint(i), i%25*1000))
			}
			if stats := finish(t, s); stats.Delivered != 1200 || len(stats.Dropped) != 0 {
				t.Errorf("%+v", stats)
			}
			if n := api.taken(); n != 1200 {
				t.Errorf("%d arrived", n)
			}
			for i := range api.requests {
				if api.requests[i] > tc.records || api.bytes[i] > tc.bytes {
					t.Errorf("a request of %d records and %d bytes", api.requests[i], api.bytes[i])
				}
			}
		})
	}
}

func TestOnlyRecordsThatFailedAreSentAgain(t *testing.T) {
	t.Parallel()
	attempts := map[string]int{}
	api := &stream{}
	api.decide = func(_ int, e types.PutRecordsRequestEntry) string {
		attempts[*e.PartitionKey]++
		switch {
		case attempts[*e.PartitionKey] == 1 && strings.HasSuffix(*e.PartitionKey, "3"):
			return "ProvisionedThroughputExceededException"
		case attempts[*e.PartitionKey] <= 2 && strings.HasSuffix(*e.PartitionKey, "7"):
			return "InternalFailure"
		}
		return ""
	}
	s := setup(t, api, nil)
	for i := range 100 {
		s.AsyncRecord(record(fmt.Sprint(i), 10))
	}
	if stats := finish(t, s); stats.Delivered != 100 || stats.Retried != 30 {
		t.Errorf("%+v", stats)
	}
	if diff := cmp.Diff([]int{100, 20, 10}, api.requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for key, data := range api.keys {
		if len(data) != 1 {
			t.Errorf("%s arrived %d times", key, len(data))
		}
	}
}

func TestARecordThatIsTooLargeIsDroppedAlone(t *testing.T) {
	t.Parallel()
	api := &stream{}
	s := setup(t, api, nil)
	frame, err := record("large", 0).Frame()
	if err != nil {
		t.Fatal(err)
	}
	room := MaxRecordBytes - len(frame) - len("large")
	s.AsyncRecord(record("small", 10))
	s.AsyncRecord(record("large", room+1))
	s.AsyncRecord(record("large", room))
	if stats := finish(t, s); stats.Delivered != 2 || stats.Dropped[recorder.TooLarge] != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestPartitionKeysFitTheService(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, key, want string }{
		{"usual", "user-1", "user-1"},
		{"empty", "", "-"},
		{"long", strings.Repeat("k", 300), strings.Repeat("k", 256)},
		{"characters, not bytes", strings.Repeat("é", 256), strings.Repeat("é", 256)},
		{"long, of several bytes", strings.Repeat("é", 300), strings.Repeat("é", 256)},
		{"characters that count as two", "k" + strings.Repeat("😀", 128), "k" + strings.Repeat("😀", 127)},
		{"not UTF-8", strings.Repeat("\xff", 300), strings.Repeat("\xff", 256)},
	} {
		if got := partitionKey(tc.key); got != tc.want {
			t.Errorf("%s: key is %q", tc.name, got)
		}
	}
}

// invalid is how Kinesis answers a request that does not keep to its form.
func invalid(field string) error {
	return &types.ValidationException{Message: aws.String("1 validation error detected: Value at '" + field + "' failed to satisfy constraint")}
}

func TestOnlyTheRecordsThatAreRefusedAreDropped(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
	}{
		{"argument", &types.InvalidArgumentException{Message: aws.String("Invalid ExplicitHashKey.")}},
		{"form", invalid("records.3.member.partitionKey")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			api := &stream{}
			api.refuse = func(entries []types.PutRecordsRequestEntry) error {
				for _, e := range entries {
					if strings.HasPrefix(*e.PartitionKey, "bad") {
						return tc.err
					}
				}
				return nil
			}
			again := map[string]bool{}
			api.decide = func(_ int, e types.PutRecordsRequestEntry) string { // of what is sent in parts, some is throttled
				if *e.PartitionKey == "99" && !again["99"] {
					again["99"] = true
					return "ProvisionedThroughputExceededException"
				}
				return ""
			}
			s := setup(t, api, nil)
			for i := range 1200 {
				if i == 100 || i == 700 || i == 701 {
					s.AsyncRecord(record(fmt.Sprintf("bad-%d", i), 10))
				}
				s.AsyncRecord(record(fmt.Sprint(i), 10))
			}
			if stats := finish(t, s); stats.Delivered != 1200 || stats.Dropped[recorder.Rejected] != 3 || stats.Retried != 1 {
				t.Errorf("%+v", stats)
			}
			for key, data := range api.keys {
				if len(data) != 1 {
					t.Errorf("%s arrived %d times", key, len(data))
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		err     error
		records int
		dropped recorder.Reason
	}{
		{"throttled", &types.ProvisionedThroughputExceededException{}, 5, ""},
		{"no such stream", &types.ResourceNotFoundException{}, 1, ""},
		{"network", errors.New("connection refused"), 1, ""},
		{"invalid record", &types.InvalidArgumentException{}, 1, recorder.Rejected},
		{"invalid records", &types.InvalidArgumentException{}, 3, recorder.Rejected},
		{"a record out of form", invalid("records.1.member.partitionKey"), 1, recorder.Rejected},
		{"records out of form", invalid("records.1.member.partitionKey"), 3, recorder.Rejected},
		{"a stream that cannot be", invalid("streamName"), 3, ""},
	} {
		transport := New(&stream{err: tc.err}, Options{Stream: "s", Logger: slog.New(slog.DiscardHandler)})
		batch := make([]*recorder.Record, tc.records)
		for i := range batch {
			batch[i] = record("k", 1)
		}
		for _, err := range transport.Send(t.Context(), batch) {
			if !errors.Is(err, tc.err) || recorder.DropReason(err) != tc.dropped {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
}

// Only the first line of an answer is passed on, but the kind of the error must not get lost with
// the rest.
func TestAnswersOfSeveralLines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		err     error
		want    string
		dropped recorder.Reason
	}{
		{
			"a key of two lines", &types.ValidationException{Message: aws.String("1 validation error detected: Value 'secret\nkey' at 'records.1.member.partitionKey'")},
			"dropped (rejected): ValidationException: 1 validation error detected: Value 'secret", recorder.Rejected,
		},
		{
			"bad credentials", &types.AccessDeniedException{Message: aws.String("Check your key.\n\nx-amz-security-token:secret")},
			"AccessDeniedException: Check your key.", "",
		},
	} {
		transport := New(&stream{err: tc.err}, Options{Stream: "s", Logger: slog.New(slog.DiscardHandler)})
		for _, err := range transport.Send(t.Context(), []*recorder.Record{record("k", 1), record("l", 1)}) {
			if err.Error() != tc.want || recorder.DropReason(err) != tc.dropped {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
}

func TestARegionIsNeeded(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	if _, err := NewClient(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("error is %v", err)
	}
	t.Setenv("AWS_REGION", "eu-central-1")
	if _, err := NewClient(t.Context()); err != nil {
		t.Error(err)
	}
}

// client makes a client for a server that speaks the protocol of Kinesis.
func client(url string) *kinesis.Client {
	return kinesis.NewFromConfig(aws.Config{
		Region:      "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	}, func(o *kinesis.Options) {
		o.BaseEndpoint = &url
		o.RetryMaxAttempts = 1
	})
}

func TestAStreamThatIsDownIsTriedAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeStreamSummary") {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mu.Lock()
		requests++
		n := requests
		mu.Unlock()
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if n < 3 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var body struct{ Records []json.RawMessage }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		answer := map[string]any{"FailedRecordCount": 0}
		results := make([]map[string]string, len(body.Records))
		for i := range results {
			results[i] = map[string]string{"SequenceNumber": "1", "ShardId": "s"}
		}
		answer["Records"] = results
		if err := json.NewEncoder(rw).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	s := setup(t, client(server.URL), nil)
	for i := range 10 {
		s.AsyncRecord(record(fmt.Sprint(i), 10))
	}
	if stats := finish(t, s); stats.Delivered != 10 || stats.Retried != 20 {
		t.Errorf("%+v", stats)
	}
}

// silent takes requests and does not answer.
type silent struct{}

func (silent) DescribeStreamSummary(ctx context.Context, _ *kinesis.DescribeStreamSummaryInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) PutRecords(ctx context.Context, _ *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAStreamThatDoesNotAnswerIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, struct {
			active
			writer
		}{writer: silent{}}, nil)
		s.AsyncRecord(record("a", 10))
		s.Start()
		<-time.After(requestTimeout) // fake time
		synctest.Wait()
		if stats := s.Stats(); stats.State != recorder.Failing || stats.Pending != 1 {
			t.Errorf("%+v", stats)
		}
	})
}

// writer is the half of an API that takes records.
type writer interface {
	PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

func TestAServiceThatDoesNotAnswerIsNoticedBeforeTheFirstRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, silent{}, nil)
		s.Start()
		<-time.After(probeTimeout) // fake time
		synctest.Wait()
		if stats := s.Stats(); stats.State != recorder.Failing || !strings.Contains(stats.LastError, "stream flagr-records") {
			t.Errorf("%+v", stats)
		}
		closing := time.Now()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(closing); took != 0 {
			t.Errorf("close took %s", took)
		}
	})
}

// service speaks the protocol of Kinesis about its stream, and only that. It can be changed while
// it runs.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	body   string
}

func newService(t *testing.T, address string, status int, body string) *service {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{status: status, body: body}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if target := r.Header.Get("X-Amz-Target"); err != nil || target != "Kinesis_20131202.DescribeStreamSummary" || string(body) != `{"StreamName":"flagr-records"}` {
			t.Errorf("%s with %s: %v", target, body, err)
		}
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		rw.WriteHeader(s.status)
		_, _ = io.WriteString(rw, s.body)
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *service) become(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func summary(status string) string {
	return `{"StreamDescriptionSummary":{"StreamName":"flagr-records","StreamStatus":"` + status + `"}}`
}

func failure(code, message string) string {
	text, _ := json.Marshal(map[string]string{"__type": code, "message": message})
	return string(text)
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		status int
		body   string
		want   string // in the error; "" if the service can be reached
		not    string // in the error
	}{
		{name: "active", status: 200, body: summary("ACTIVE")},
		{name: "resharding", status: 200, body: summary("UPDATING")},
		{name: "too new", status: 200, body: summary("CREATING"), want: "stream flagr-records does not accept records: it is creating"},
		{name: "going", status: 200, body: summary("DELETING"), want: "stream flagr-records does not accept records: it is deleting"},
		{name: "nothing told", status: 200, body: "{}"},
		{name: "missing", status: 400, body: failure("ResourceNotFoundException", "Stream flagr-records under account 1 not found."), want: "stream flagr-records: "},
		{name: "role may not ask", status: 400, body: failure("AccessDeniedException", "User: u is not authorized to perform: kinesis:DescribeStreamSummary")},
		{name: "many servers ask", status: 400, body: failure("LimitExceededException", "Rate exceeded")},
		{name: "imitation without the operation", status: 400, body: failure("UnknownOperationException", "")},
		{name: "credentials ended", status: 400, body: failure("ExpiredTokenException", "The security token included in the request is expired"), want: "ExpiredTokenException"},
		{
			name: "bad signature", status: 400, want: "Check your AWS Secret Access Key", not: "session-token",
			body: failure("InvalidSignatureException", "The signature does not match. Check your AWS Secret Access Key.\n\nThe Canonical String should have been\n'POST\n/\n\nx-amz-security-token:session-token'"),
		},
		{name: "down", status: 503, body: "", want: "stream flagr-records: "},
		{name: "something else", status: 200, body: "<html>", want: "stream flagr-records: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, "127.0.0.1:0", tc.status, tc.body)
			transport := New(client(s.URL), Options{Stream: "flagr-records", Logger: slog.New(slog.DiscardHandler)})
			err := transport.Probe(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
			if tc.not != "" && strings.Contains(fmt.Sprint(err), tc.not) {
				t.Errorf("error tells too much: %v", err)
			}
		})
	}
}

func TestAServiceThatIsDownAtStart(t *testing.T) {
	t.Parallel()
	address := testaddress.Unused(t)
	log := &testlog.Buffer{}
	s := setup(t, client("http://"+address), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	s.Start()
	testwait.Until(t, "the outage to be noticed", func() bool { return s.Stats().State == recorder.Failing })
	first := s.Stats().LastErrorAt
	testwait.Until(t, "another try", func() bool { return s.Stats().LastErrorAt.After(first) })

	service := newService(t, address, 400, failure("ResourceNotFoundException", "Stream not found"))
	testwait.Until(t, "the missing stream to be noticed", func() bool { return strings.Contains(s.Stats().LastError, "ResourceNotFoundException") })
	if stats := s.Stats(); stats.State != recorder.Failing || log.Count("\n") != 1 || log.Count("keeps trying") != 1 {
		t.Errorf("%+v\n%s", stats, log)
	}

	service.become(200, summary("ACTIVE"))
	testwait.Until(t, "the stream to be noticed", func() bool { return s.Stats().State == recorder.Working })
	testwait.Until(t, "the end of the outage in the log", func() bool { return log.Count("can reach its broker") == 1 })
	if stats := s.Stats(); log.Count("\n") != 2 || stats.Recorded != 0 || !stats.LastDelivery.IsZero() {
		t.Errorf("%+v\n%s", stats, log)
	}
}

// imitations gives the URLs of servers that imitate Kinesis, see integration_tests/brokers:
// FLAGR_TEST_KINESIS lists them.
func imitations(t *testing.T) []string {
	t.Helper()
	urls := os.Getenv("FLAGR_TEST_KINESIS")
	if urls == "" && os.Getenv("FLAGR_TEST_REQUIRE_SERVERS") != "" {
		t.Fatal("FLAGR_TEST_KINESIS names no server")
	}
	if urls == "" {
		t.Skip("FLAGR_TEST_KINESIS names no server: run with integration_tests/brokers/kinesis.sh")
	}
	return strings.Split(urls, ",")
}

func TestServersThatImitateKinesis(t *testing.T) {
	t.Parallel()
	for _, url := range imitations(t) {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			c := client(url)
			name := fmt.Sprintf("flagr-%d", time.Now().UnixNano())
			log := &testlog.Buffer{}
			s := setup(t, &imperfect{API: c, seen: map[string]bool{}}, func(o *Options) {
				o.Stream, o.Logger = name, slog.New(slog.NewTextHandler(log, nil))
			})
			s.Start()
			testwait.Until(t, "the missing stream to be noticed", func() bool { return strings.Contains(s.Stats().LastError, "ResourceNotFoundException") })
			testwait.Until(t, "the missing stream in the log", func() bool { return log.Count("\n") > 0 })
			if stats := s.Stats(); stats.State != recorder.Failing || log.Count("\n") != 1 || log.Count(name) == 0 {
				t.Errorf("%+v\n%s", stats, log)
			}
			createStream(t, c, name, 2)
			testwait.Until(t, "the stream to be noticed", func() bool { return s.Stats().State == recorder.Working })
			want := map[string]string{}
			for i := range 1200 {
				r := record(fmt.Sprint(i), i%100)
				frame, err := r.Frame()
				if err != nil {
					t.Fatal(err)
				}
				want[fmt.Sprint(i)] = string(frame)
				s.AsyncRecord(r)
			}
			emoji := record(strings.Repeat("😀", 300), 10)
			frame, err := emoji.Frame()
			if err != nil {
				t.Fatal(err)
			}
			want[strings.Repeat("😀", 128)] = string(frame)
			s.AsyncRecord(emoji)
			s.AsyncRecord(record("large", MaxRecordBytes))
			s.AsyncRecord(record(badKey, 10))
			s.AsyncRecord(record(badHash, 10))
			if stats := finish(t, s); stats.Delivered != 1201 || stats.Dropped[recorder.TooLarge] != 1 || stats.Dropped[recorder.Rejected] != 2 {
				t.Errorf("%+v", stats)
			}
			if diff := cmp.Diff(want, read(t, c, name)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func createStream(t *testing.T, c *kinesis.Client, name string, shards int32) {
	t.Helper()
	if _, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = c.DeleteStream(context.Background(), &kinesis.DeleteStreamInput{StreamName: &name})
	})
	awaitStream(t, c, name)
}

// awaitStream waits until a stream is active.
func awaitStream(t *testing.T, c *kinesis.Client, name string) {
	t.Helper()
	waiter := kinesis.NewStreamExistsWaiter(c, func(o *kinesis.StreamExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second // 10 s and more are for the real service
	})
	if err := waiter.Wait(t.Context(), &kinesis.DescribeStreamInput{StreamName: &name}, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// Records with these keys are sent so that the service refuses them.
const badKey, badHash = "bad key", "bad hash"

// imperfect passes records on to a server, but every third one not before it comes again, as a
// shard does that gets too much: neither server can be brought to do so. And it spoils some, since
// a transport sends none that a server refuses.
type imperfect struct {
	API
	mu   sync.Mutex
	seen map[string]bool // by key, that were refused
}

func (s *imperfect) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, options ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	passed := *in
	passed.Records = nil
	refused := make([]bool, len(in.Records))
	for i, r := range in.Records {
		switch *r.PartitionKey {
		case badKey:
			r.PartitionKey = aws.String(strings.Repeat("k", 257))
		case badHash:
			r.ExplicitHashKey = aws.String("340282366920938463463374607431768211456") // 2^128
		default:
			refused[i] = i%3 == 0 && !s.seen[*r.PartitionKey]
		}
		if refused[i] {
			s.seen[*r.PartitionKey] = true
		} else {
			passed.Records = append(passed.Records, r)
		}
	}
	taken := &kinesis.PutRecordsOutput{}
	if len(passed.Records) > 0 {
		var err error
		if taken, err = s.API.PutRecords(ctx, &passed, options...); err != nil {
			return nil, err
		}
	}
	out := &kinesis.PutRecordsOutput{FailedRecordCount: aws.Int32(int32(len(in.Records) - len(passed.Records)))}
	for i := range in.Records {
		if refused[i] {
			out.Records = append(out.Records, types.PutRecordsResultEntry{
				ErrorCode: aws.String("ProvisionedThroughputExceededException"), ErrorMessage: aws.String("Rate exceeded for shard"),
			})
			continue
		}
		out.Records = append(out.Records, taken.Records[0])
		taken.Records = taken.Records[1:]
	}
	return out, nil
}

// read gives the data of a stream by key, and checks that no key comes twice.
func read(t *testing.T, c *kinesis.Client, name string) map[string]string {
	t.Helper()
	got := map[string]string{}
	shards, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range shards.Shards {
		iterator, err := c.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: &name, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		for next := iterator.ShardIterator; next != nil; {
			out, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Records {
				if _, ok := got[*r.PartitionKey]; ok {
					t.Errorf("%s comes twice", *r.PartitionKey)
				}
				got[*r.PartitionKey] = string(r.Data)
			}
			next = out.NextShardIterator
			if len(out.Records) == 0 {
				break
			}
		}
	}
	return got
}
