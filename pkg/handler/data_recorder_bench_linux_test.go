package handler

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kafka"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/kinesis"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/pubsub"
)

// The brokers of these benchmarks run in this process and discard their input. Everything before
// them is real: the queues, the frames, the clients, and the connections.

// benchKafka starts a broker and returns its address.
func benchKafka(b *testing.B) string {
	b.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(12, benchTopic))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		response := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range r.(*kmsg.ProduceRequest).Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				taken := kmsg.NewProduceResponseTopicPartition()
				taken.Partition = partition.Partition
				answer.Partitions = append(answer.Partitions, taken)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, true
	})
	return c.ListenAddrs()[0]
}

const benchTopic = "flagr-benchmark"

func benchKinesis(b *testing.B) string {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeStreamSummary") {
			_, _ = io.WriteString(rw, "{}")
			return
		}
		one := `{"SequenceNumber":"1","ShardId":"shardId-000000000000"}`
		entries := bytes.Count(body, []byte(`"PartitionKey"`))
		rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = fmt.Fprintf(rw, `{"FailedRecordCount":0,"Records":[%s]}`, strings.Repeat(one+",", entries-1)+one)
	}))
	b.Cleanup(s.Close)
	return s.URL
}

type forgetMessages struct{}

func (forgetMessages) React(request any) (handled bool, answer any, err error) {
	ids := make([]string, len(request.(*pubsubpb.PublishRequest).Messages))
	return true, &pubsubpb.PublishResponse{MessageIds: ids}, nil
}

func benchPubSub(b *testing.B) string {
	b.Helper()
	s := pstest.NewServer(pstest.ServerReactorOption{FuncName: "Publish", Reactor: forgetMessages{}})
	b.Cleanup(func() { _ = s.Close() })
	if _, err := s.GServer.CreateTopic(b.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + benchTopic}); err != nil {
		b.Fatal(err)
	}
	return s.Addr
}

// deadAddress returns an address without a listener.
func deadAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// evaluator is an evaluation service with its recorders.
type evaluator struct {
	*eval.Service
	recorders *DataRecorders
}

// newEvaluator starts the recorders as a server with this FLAGR_RECORDER_TYPE does. "" turns
// recording off.
func newEvaluator(b *testing.B, types, kafkaBroker string, environ map[string]string) *evaluator {
	b.Helper()
	merged := map[string]string{
		"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": cmp.Or(types, "datar"),
		"FLAGR_RECORDER_KAFKA_BROKERS": kafkaBroker, "FLAGR_RECORDER_KAFKA_TOPIC": benchTopic,
	}
	maps.Copy(merged, environ)
	c, err := config.Load(merged)
	if err != nil {
		b.Fatal(err)
	}
	all := benchRecorders(b, types != "", c)
	all.Start()
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = all.Close(ctx) // fails with a dead broker
	})
	e := &evaluator{recorders: all}
	var r eval.Recorder
	if !all.Empty() {
		r = all
	}
	e.Service = eval.NewService(&collector{snapshot: flags()}, r, eval.Options{})
	return e
}

// benchRecorders returns the recorders of a configuration, with Datar over an in-memory store.
func benchRecorders(b *testing.B, enabled bool, c *config.Config) *DataRecorders {
	b.Helper()
	selected := SelectedRecorders{Enabled: enabled, Types: c.Recorder.Types}
	queue := QueueOptions{Records: c.Recorder.QueueRecords, Bytes: int64(c.Recorder.QueueBytes), Logger: slog.New(slog.DiscardHandler)}
	var counting *DatarRecorder
	if selected.Datar() {
		counting = newDatar(b, b.TempDir())
	}
	var streams []*StreamRecorder
	for _, name := range selected.Streams() {
		var stream *StreamRecorder
		var err error
		switch name {
		case RecorderKafka:
			stream, err = NewKafkaRecorder(KafkaOptions{
				Producer: kafka.Options{
					Brokers: []string{c.Kafka.Brokers}, Topic: c.Kafka.Topic, Version: c.Kafka.Version, RequiredAcks: c.Kafka.RequiredAcks,
					RetryMax: c.Kafka.RetryMax, MaxOpenRequests: c.Kafka.MaxOpenRequests, KeyEnabled: true,
				},
				Linger: c.Kafka.FlushFrequency, Queue: queue,
			})
		case RecorderKinesis:
			stream, err = NewKinesisRecorder(b.Context(), KinesisOptions{Producer: kinesis.Options{Stream: c.Kinesis.StreamName}, Linger: c.Kinesis.FlushInterval, Queue: queue})
		case RecorderPubSub:
			stream, err = NewPubSubRecorder(PubSubOptions{Publisher: pubsub.Options{ProjectID: c.PubSub.ProjectID, Topic: c.PubSub.TopicName}, Queue: queue})
		}
		if err != nil {
			b.Fatal(err)
		}
		streams = append(streams, stream)
	}
	return NewDataRecorders(counting, streams, false)
}

// benchRequests returns evaluations of a recorded flag that assign a variant.
func benchRequests() []eval.Request {
	requests := make([]eval.Request, 1000)
	for i := range requests {
		requests[i] = eval.Request{
			FlagID: 1, EntityID: fmt.Sprintf("user-%d", i), EntityType: "user",
			EntityContext: map[string]any{"country": "FR", "age": json.Number("30"), "plan": "basic"},
		}
	}
	return requests
}

// perRound is the number of evaluations that are timed together. The default queue holds five times
// as many.
const perRound = 20_000

// round evaluates, and returns the CPU time in nanoseconds that one evaluation takes in the calling
// goroutine. It excludes the recorders' own goroutines, except for what they cost the caller:
// locks, and assistance to the garbage collector.
func (e *evaluator) round(b *testing.B, requests []eval.Request) float64 {
	b.Helper()
	runtime.GC()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := cpuOf(b, unix.RUSAGE_THREAD)
	for i := range perRound {
		_, _ = e.Evaluate(b.Context(), requests[i%len(requests)])
	}
	return float64(cpuOf(b, unix.RUSAGE_THREAD)-start) / perRound
}

func cpuOf(b *testing.B, who int) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(who, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkRecording measures an evaluation with each combination of recorders, named like
// FLAGR_RECORDER_TYPE. All times are CPU times of the request's goroutine, not elapsed times:
//
//   - ns/op: an evaluation,
//   - added-ns/op: the additional cost of recording,
//   - x-alive, for combinations with a dead Kafka broker and a full queue: an evaluation, as a
//     multiple of one with a live broker.
//
// Compared combinations take turns, round by round, and the numbers are medians over the rounds. An
// iteration is one round of each.
func BenchmarkRecording(b *testing.B) {
	environ := map[string]string{
		"FLAGR_RECORDER_PUBSUB_PROJECT_ID": "p", "FLAGR_RECORDER_PUBSUB_TOPIC_NAME": benchTopic, "FLAGR_RECORDER_KINESIS_STREAM_NAME": benchTopic,
	}
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_KINESIS": benchKinesis(b), "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
		"PUBSUB_EMULATOR_HOST": benchPubSub(b),
	} {
		b.Setenv(name, value)
	}
	alive, dead := benchKafka(b), deadAddress(b)
	requests := benchRequests()
	for _, tc := range []struct {
		types string
		dead  bool
	}{
		{"", false},
		{"datar", false},
		{"kafka", false},
		{"kinesis", false},
		{"pubsub", false},
		{"kafka,datar", false},
		{"kafka,kinesis,pubsub,datar", false},
		{"kafka", true},
		{"kafka,datar", true},
	} {
		name := cmp.Or(tc.types, "none")
		if tc.dead {
			name += ":dead"
		}
		b.Run(name, func(b *testing.B) {
			compared := []*evaluator{newEvaluator(b, "", alive, environ)}
			if tc.types != "" {
				compared = append(compared, newEvaluator(b, tc.types, alive, environ))
			}
			if tc.dead {
				e := newEvaluator(b, tc.types, dead, environ)
				for i := 0; e.recorders.Stats()[0].Dropped[recorder.QueueFull] == 0; i++ {
					_, _ = e.Evaluate(b.Context(), requests[i%len(requests)])
				}
				compared = append(compared, e)
			}
			for _, e := range compared {
				e.round(b, requests) // warms up
			}
			own, added, ofAlive := []float64{}, []float64{}, []float64{}
			took := make([]float64, len(compared))
			first := 0
			for b.Loop() {
				for i := range compared {
					i = (i + first) % len(compared)
					took[i] = compared[i].round(b, requests)
					if tc.dead && i == 2 {
						continue
					}
					if err := compared[i].recorders.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				first++
				last := took[len(took)-1]
				own, added = append(own, last), append(added, last-took[0])
				if tc.dead {
					ofAlive = append(ofAlive, last/took[1])
				}
			}
			b.ReportMetric(median(own), "ns/op")
			if tc.types != "" {
				b.ReportMetric(median(added), "added-ns/op")
			}
			if tc.dead {
				b.ReportMetric(median(ofAlive), "x-alive")
			}
			for _, e := range compared[:min(2, len(compared))] {
				for _, s := range e.recorders.Stats() {
					if s.Delivered != s.Recorded {
						b.Errorf("not all were delivered: %+v", s)
					}
				}
			}
		})
	}
}

// BenchmarkRecordingKeepsUp evaluates 50,000 times per second with Kafka and Datar on, b.N
// evaluations in all, and reports
//
//   - records/s: the rate of records that the broker confirmed, until the last confirmation,
//   - dropped: the number of records without confirmation,
//   - peak-queue-records and peak-queue-MiB: the peak size of the queue, by its own count, of
//     100,000 and 64 MiB,
//   - peak-heap-MiB: the peak heap of the process, including the broker unless it is that of
//     FLAGR_TEST_KAFKA,
//   - cores: the average number of busy cores, likewise.
func BenchmarkRecordingKeepsUp(b *testing.B) {
	const perSecond = 50_000
	address := os.Getenv("FLAGR_TEST_KAFKA")
	if address == "" {
		address = benchKafka(b)
	}
	e := newEvaluator(b, "kafka,datar", address, nil)
	requests := benchRequests()
	_, _ = e.Evaluate(b.Context(), requests[0])
	if err := e.recorders.Flush(b.Context()); err != nil { // a real broker creates the topic
		b.Fatal(err)
	}
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	var records int
	var queued int64
	var held uint64
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	busy, start := cpuOf(b, unix.RUSAGE_SELF), time.Now()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		<-tick.C
		for due := min(int(math.Ceil(time.Since(start).Seconds()*perSecond)), b.N); sent < due; sent++ {
			_, _ = e.Evaluate(b.Context(), requests[sent%len(requests)])
		}
		stats := e.recorders.Stats()[0]
		metrics.Read(heap)
		records, queued, held = max(records, stats.Pending), max(queued, stats.PendingBytes), max(held, heap[0].Value.Uint64())
	}
	if err := e.recorders.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	b.StopTimer()
	stats := e.recorders.Stats()[0]
	b.ReportMetric(float64(stats.Delivered-1)/took.Seconds(), "records/s")
	b.ReportMetric(float64(stats.Recorded-stats.Delivered), "dropped")
	b.ReportMetric(float64(records), "peak-queue-records")
	b.ReportMetric(float64(queued)/(1<<20), "peak-queue-MiB")
	b.ReportMetric(float64(held)/(1<<20), "peak-heap-MiB")
	b.ReportMetric((cpuOf(b, unix.RUSAGE_SELF)-busy).Seconds()/took.Seconds(), "cores")
}
