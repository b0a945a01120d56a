package kinesis

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

// shard counts what arrives at a server that speaks the protocol of Kinesis, by data.
type shard struct {
	mu    sync.Mutex
	times map[string]int
}

// request is one of PutRecords.
type request struct {
	Records []struct{ Data string }
}

func (s *shard) take(data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[data]++
}

func (s *shard) count() (different, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.times {
		all += n
	}
	return len(s.times), all
}

// answer takes the records for which fails gives no error code.
func (s *shard) answer(rw http.ResponseWriter, in request, fails func(i int) string) {
	type result struct {
		SequenceNumber, ErrorCode, ErrorMessage string `json:",omitempty"`

		ShardID string `json:"ShardId,omitempty"`
	}
	var out struct {
		FailedRecordCount int
		Records           []result
	}
	for i, r := range in.Records {
		if code := fails(i); code != "" {
			out.FailedRecordCount++
			out.Records = append(out.Records, result{ErrorCode: code, ErrorMessage: "later"})
			continue
		}
		s.take(r.Data)
		out.Records = append(out.Records, result{SequenceNumber: "1", ShardID: "s"})
	}
	_ = json.NewEncoder(rw).Encode(out)
}

func takeAll(int) string { return "" }

// refusal answers every request with an error.
func refusal(code string) func(*shard, http.ResponseWriter, request) {
	return func(_ *shard, rw http.ResponseWriter, _ request) {
		rw.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(rw, failure(code, "it is so"))
	}
}

// page answers as a proxy does.
func page(status int) func(*shard, http.ResponseWriter, request) {
	return func(_ *shard, rw http.ResponseWriter, _ request) {
		rw.Header().Set("Content-Type", "text/html")
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, "<html><body>Please sign in</body></html>")
	}
}

func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		answer    func(*shard, http.ResponseWriter, request)
		want      string // in the last error
		unnoticed bool   // the state stays working
		twice     bool   // records may arrive twice
	}{
		{name: "the stream is created again", answer: refusal("ResourceNotFoundException"), want: "ResourceNotFoundException"},
		{name: "throttled", answer: refusal("ProvisionedThroughputExceededException"), want: "ProvisionedThroughputExceededException"},
		{name: "permission taken", answer: refusal("AccessDeniedException"), want: "AccessDeniedException"},
		{name: "credentials expired", answer: refusal("ExpiredTokenException"), want: "ExpiredTokenException"},
		{name: "key of the stream gone", answer: refusal("KMSAccessDeniedException"), want: "KMSAccessDeniedException"},
		{name: "page of a proxy", answer: page(http.StatusOK), want: "deserialization failed"},
		{name: "page of a proxy that fails", answer: page(http.StatusBadGateway), want: "502"},
		{
			name: "some records fail", unnoticed: true,
			answer: func(s *shard, rw http.ResponseWriter, in request) {
				s.answer(rw, in, func(i int) string {
					if i%2 == 1 {
						return "ProvisionedThroughputExceededException"
					}
					return ""
				})
			},
		},
		{
			name: "all records fail", want: "InternalFailure",
			answer: func(s *shard, rw http.ResponseWriter, in request) {
				s.answer(rw, in, func(int) string { return "InternalFailure" })
			},
		},
		{
			name: "answers are lost", want: "EOF", twice: true,
			answer: func(s *shard, rw http.ResponseWriter, in request) {
				for _, r := range in.Records {
					s.take(r.Data)
				}
				if conn, _, err := rw.(http.Hijacker).Hijack(); err == nil {
					_ = conn.Close()
				}
			},
		},
		{
			name: "no answers", want: "no response for 5s", twice: true,
			answer: func(_ *shard, rw http.ResponseWriter, _ request) {
				if conn, _, err := rw.(http.Hijacker).Hijack(); err == nil {
					time.AfterFunc(8*time.Second, func() { _ = conn.Close() })
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &shard{times: map[string]int{}}
			var trouble atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				var in request
				rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
				switch err := json.NewDecoder(r.Body).Decode(&in); {
				case strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeStreamSummary"):
					_, _ = io.WriteString(rw, summary("ACTIVE"))
				case err != nil:
					t.Error(err)
				case trouble.Load():
					tc.answer(s, rw, in)
				default:
					s.answer(rw, in, takeAll)
				}
			}))
			t.Cleanup(server.Close)
			log := &testlog.Buffer{}
			silence := recorder.DefaultSilence
			if tc.unnoticed {
				silence = time.Minute // no answer on a busy machine is no outage here
			}
			sink := logged(t, New(client(server.URL), Options{Stream: "flagr-records", Logger: slog.New(slog.DiscardHandler)}), log, silence)
			began := time.Now()
			var n atomic.Int64
			stop := load(t, sink, &n)
			testwait.Until(t, "the first records", func() bool { return sink.Stats().Delivered >= 100 })
			var times recordertest.Fault
			times.Begin()
			trouble.Store(true)
			if tc.unnoticed {
				more := sink.Stats().Delivered + 200
				testwait.Until(t, "more records", func() bool { return sink.Stats().Delivered >= more })
			} else {
				testwait.Until(t, "the outage to be noticed", func() bool {
					stats := sink.Stats()
					return stats.State == recorder.Failing && strings.Contains(stats.LastError, tc.want)
				})
			}
			times.Noticed()
			trouble.Store(false)
			times.End()
			more := sink.Stats().Delivered + 100
			testwait.Until(t, "the end of the outage to be noticed", func() bool {
				stats := sink.Stats()
				return stats.State == recorder.Working && stats.Delivered >= more
			})
			times.Working()
			stop()
			testwait.Until(t, "all records", func() bool { return sink.Stats().Pending == 0 })
			times.Log(t, sink.Stats())
			finish(t, sink)
			stats := sink.Stats()
			if stats.Delivered != uint64(n.Load()) || stats.Recorded != stats.Delivered || len(stats.Dropped) != 0 {
				t.Errorf("%d recorded: %+v", n.Load(), stats)
			}
			different, all := s.count()
			if different != int(n.Load()) || !tc.twice && all != different {
				t.Errorf("%d records arrived, %d different ones; want %d", all, different, n.Load())
			}
			least, most := 1, 1+int(time.Since(began)/time.Minute) // on a busy machine a fault may seem to be several
			if tc.unnoticed {
				least, most = 0, 0
			}
			if n := log.Count("cannot deliver, and keeps trying"); n < least || n > most || log.Count("delivers again") != n {
				t.Errorf("want %d to %d lines for beginnings, and as many for ends:\n%s", least, most, log)
			}
		})
	}
}

// logged puts a sink in front of a transport, as the server does.
func logged(t *testing.T, transport *Transport, log *testlog.Buffer, silence time.Duration) *recorder.Sink {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(log, nil))
	s := recorder.NewSink(recorder.Options{
		Name: "kinesis", Transport: transport, Health: recorder.NewHealth(logger),
		BatchRecords: MaxRequestRecords, BatchBytes: MaxRequestBytes,
		Linger: 10 * time.Millisecond, Silence: silence, Concurrency: 4, Logger: logger,
	})
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx) // tests that care have closed it
	})
	return s
}

// load records two different texts each millisecond, and counts them in n, until stop is called. It
// pauses while half of the queue is in use: how long a fault lasts on a busy machine must not
// decide on what is lost.
func load(t *testing.T, s *recorder.Sink, n *atomic.Int64) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if s.Stats().Pending > recorder.DefaultMaxRecords/2 {
					continue
				}
				for range 2 {
					i := n.Add(1)
					s.AsyncRecord(recorder.NewRecord(fmt.Sprint(i%20), 100, &recorder.Framing{}, numbered(i)))
				}
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// numbered is a payload like no other.
type numbered int64

func (n numbered) MarshalPayload() ([]byte, error) { return json.Marshal(n) }

// The service accepts another key from now on, and the surroundings have it.
func TestCredentialsThatAreRotated(t *testing.T) {
	t.Parallel()
	s := &shard{times: map[string]int{}}
	var accepted atomic.Pointer[string]
	accepted.Store(new("AKIDOLD"))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var in request
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch err := json.NewDecoder(r.Body).Decode(&in); {
		case err != nil:
			t.Error(err)
		case !strings.Contains(r.Header.Get("Authorization"), *accepted.Load()):
			refusal("UnrecognizedClientException")(s, rw, in)
		case strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeStreamSummary"):
			_, _ = io.WriteString(rw, summary("ACTIVE"))
		default:
			s.answer(rw, in, takeAll)
		}
	}))
	t.Cleanup(server.Close)
	var surroundings atomic.Pointer[string]
	surroundings.Store(new("AKIDOLD"))
	renew := func(context.Context) (API, error) {
		return kinesis.NewFromConfig(aws.Config{
			Region:      "us-east-1",
			Credentials: credentials.NewStaticCredentialsProvider(*surroundings.Load(), "secret", ""),
		}, func(o *kinesis.Options) { o.BaseEndpoint, o.RetryMaxAttempts = &server.URL, 1 }), nil
	}
	api, err := renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log := &testlog.Buffer{}
	sink := logged(t, New(api, Options{Stream: "flagr-records", Logger: slog.New(slog.DiscardHandler), Renew: renew}), log, recorder.DefaultSilence)
	sink.AsyncRecord(record("a", 10))
	testwait.Until(t, "the first record", func() bool { return sink.Stats().Delivered == 1 })
	accepted.Store(new("AKIDNEW"))
	sink.AsyncRecord(record("b", 20))
	testwait.Until(t, "the refusal to be noticed", func() bool { return sink.Stats().State == recorder.Failing })
	surroundings.Store(new("AKIDNEW"))
	testwait.Until(t, "the second record", func() bool { return sink.Stats().Delivered == 2 })
	if stats := finish(t, sink); stats.State != recorder.Working || len(stats.Dropped) != 0 {
		t.Errorf("%+v", stats)
	}
	frame, err := record("b", 20).Frame()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.times[base64.StdEncoding.EncodeToString(frame)]; n != 1 {
		t.Errorf("it arrived %d times", n)
	}
}

// A shard is split in two while records come, and the two are merged.
func TestServersThatImitateKinesisReshard(t *testing.T) {
	t.Parallel()
	for _, url := range imitations(t) {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			c := client(url)
			name := fmt.Sprintf("flagr-resharded-%d", time.Now().UnixNano())
			createStream(t, c, name, 1)
			log := &testlog.Buffer{}
			sink := logged(t, New(c, Options{Stream: name, Logger: slog.New(slog.DiscardHandler)}), log, time.Minute)
			n := 0
			load := func() {
				more := sink.Stats().Delivered + 500
				testwait.Until(t, "more records", func() bool {
					for ; sink.Stats().Pending < 20; n++ {
						sink.AsyncRecord(record(fmt.Sprint("entity-", n), 10))
					}
					return sink.Stats().Delivered >= more
				})
			}
			load()
			first := openShards(t, c, name)
			if len(first) != 1 {
				t.Fatalf("%d shards", len(first))
			}
			half := "170141183460469231731687303715884105728" // 2^127
			if _, err := c.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: &name, ShardToSplit: &first[0], NewStartingHashKey: &half}); err != nil {
				t.Fatal(err)
			}
			load()
			awaitStream(t, c, name)
			second := openShards(t, c, name)
			if len(second) != 2 {
				t.Fatalf("%d shards", len(second))
			}
			load()
			if _, err := c.MergeShards(t.Context(), &kinesis.MergeShardsInput{StreamName: &name, ShardToMerge: &second[0], AdjacentShardToMerge: &second[1]}); err != nil {
				t.Fatal(err)
			}
			load()
			awaitStream(t, c, name)
			load()
			stats := finish(t, sink)
			if stats.Delivered != uint64(n) || stats.Recorded != stats.Delivered || stats.State != recorder.Working || len(stats.Dropped) != 0 {
				t.Errorf("%d recorded: %+v", n, stats)
			}
			if got := len(read(t, c, name)); got != n {
				t.Errorf("%d records arrived, want %d", got, n)
			}
			if log.Count("cannot deliver") != 0 {
				t.Errorf("the log has an outage:\n%s", log)
			}
		})
	}
}

// openShards gives the IDs of the shards that take records.
func openShards(t *testing.T, c *kinesis.Client, name string) (ids []string) {
	t.Helper()
	out, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range out.Shards {
		if shard.SequenceNumberRange.EndingSequenceNumber == nil {
			ids = append(ids, *shard.ShardId)
		}
	}
	return ids
}
