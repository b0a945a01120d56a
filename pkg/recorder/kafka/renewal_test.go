package kafka

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// administrator changes the topics of a broker.
type administrator struct {
	t      *testing.T
	client *kgo.Client
}

func administer(t *testing.T, brokers []string) administrator {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return administrator{t, client}
}

// createTopic creates a topic, unless the broker has done so by itself when it was asked for it.
func (a administrator) createTopic(name string, partitions int32) {
	a.t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(a.t.Context(), a.client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		a.t.Fatal(err)
	}
}

func (a administrator) deleteTopic(name string) {
	a.t.Helper()
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TopicNames = []string{name}
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(a.t.Context(), a.client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// settle waits until the broker has carried out all changes of topics before. Apache Kafka answers
// sooner, and takes records for topics that were deleted. It carries changes out in order, so one
// that is complete shows that those before are.
func (a administrator) settle() {
	a.t.Helper()
	name := fmt.Sprintf("settled-%d", time.Now().UnixNano())
	a.createTopic(name, 1)
	client, err := kgo.NewClient(append(a.client.Opts(), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		a.t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(a.t.Context(), &kgo.Record{Topic: name}).FirstErr(); err != nil {
		a.t.Fatal(err)
	}
}

// load records 20 numbers every 2 ms until it is stopped. Unless it floods, it pauses while half of
// the queue is in use: how long a fault lasts on a busy machine must not decide on what is lost.
type load struct {
	next    atomic.Int64
	done    chan struct{}
	running sync.WaitGroup
}

func (f *fixture) load(t *testing.T, from int, floods bool) *load {
	l := &load{done: make(chan struct{})}
	l.next.Store(int64(from))
	l.running.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.done:
				return
			case <-tick.C:
				if !floods && f.Stats().Pending > recorder.DefaultMaxRecords/2 {
					continue
				}
				i := int(l.next.Load())
				f.record(i, i+20)
				l.next.Store(int64(i + 20))
			}
		}
	})
	t.Cleanup(func() { l.stop() })
	return l
}

// stop ends the load and returns how many numbers there are.
func (l *load) stop() int {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	l.running.Wait()
	return int(l.next.Load())
}

// recreation is how a topic is created again.
type recreation struct {
	name       string
	underLoad  bool
	gap        time.Duration
	partitions int32
}

var recreations = []recreation{
	{name: "idle", partitions: 3},
	{name: "under load", underLoad: true, partitions: 3},
	{name: "under load, with fewer partitions", underLoad: true, partitions: 1},
	{name: "with a gap", gap: 3 * time.Second, partitions: 3},
	{name: "under load, with a gap", underLoad: true, gap: 3 * time.Second, partitions: 3},
}

// delivery is a setting that a topic's recreation must not depend on.
type delivery struct {
	name          string
	once, inOrder bool // what is promised of the records of an entity, even while the topic is recreated
	change        func(*Options)
}

var newest = []delivery{
	{"idempotent", true, true, func(o *Options) { o.RequiredAcks, o.Idempotent = -1, true }},
	{"acks 1", false, false, nil},
}

// older speak protocols that have no IDs of topics, or none to write with.
var older = []delivery{
	{"idempotent, 2.8.0", true, false, func(o *Options) { o.RequiredAcks, o.Idempotent, o.Version = -1, true, "2.8.0" }},
	{"idempotent, 2.1.0", true, false, func(o *Options) { o.RequiredAcks, o.Idempotent, o.Version = -1, true, "2.1.0" }},
	{"acks 1, 2.8.0", false, false, func(o *Options) { o.Version = "2.8.0" }},
	{"acks 1, 2.1.0", false, false, func(o *Options) { o.Version = "2.1.0" }},
}

// run deletes and creates the topic of a recorder, and checks that it goes on with the new one.
func (r recreation) run(t *testing.T, brokers []string, topic string, d delivery) {
	t.Helper()
	a := administer(t, brokers)
	a.createTopic(topic, 3)
	a.settle()
	f := setup(t, brokers, func(o *Options) {
		o.Topic = topic
		if d.change != nil {
			d.change(o)
		}
	})
	state := func() string { return fmt.Sprintf("%+v\n%s", f.Stats(), f.log) }
	var l *load
	total := 1000
	if r.underLoad {
		l = f.load(t, 0, false)
	} else {
		f.record(0, total)
	}
	wait(t, "the first records", func() bool { return f.Stats().Delivered >= 1000 }, state)
	a.deleteTopic(topic)
	if r.gap > 0 {
		time.Sleep(r.gap)
	}
	a.createTopic(topic, r.partitions)
	a.settle()
	first := total // what is recorded from now on must be in the new topic
	if r.underLoad {
		first = int(l.next.Load())
		testwait.Until(t, "more load", func() bool { return l.next.Load() >= int64(first)+4000 })
		total = l.stop()
	} else {
		total += 1000
		f.record(first, total)
	}
	start := time.Now()
	wait(t, "all records", func() bool { return f.Stats().Pending == 0 }, state)
	if got := f.Stats().State; got != recorder.Working {
		t.Errorf("state is %s", got)
	}
	delivered(t, f.finish(t), uint64(total))
	got := numbersOf(t, consume(t, brokers, total-first, kgo.ConsumeTopics(topic)), d.inOrder)
	if unique := slices.Compact(slices.Clone(got)); d.once && len(unique) != len(got) {
		t.Errorf("%d records arrived twice", len(got)-len(unique))
	}
	after := slices.DeleteFunc(slices.Compact(got), func(n int) bool { return n < first })
	if len(after) != total-first {
		t.Errorf("%d of %d records arrived that were recorded after the topic was there", len(after), total-first)
	}
	t.Logf("%d records, %d before the topic was there, retried %d, %s", total, first, f.Stats().Retried, time.Since(start))
}

func TestATopicThatIsRecreated(t *testing.T) {
	t.Parallel()
	for _, r := range recreations {
		r.gap = min(r.gap, time.Second)
		for _, d := range newest {
			t.Run(r.name+", "+d.name, func(t *testing.T) {
				t.Parallel()
				c, err := kfake.NewCluster(kfake.NumBrokers(1))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				r.run(t, c.ListenAddrs(), topic, d)
			})
		}
	}
}

// onApacheKafka recreates topics of a real broker.
func onApacheKafka(t *testing.T, recreations []recreation, deliveries []delivery) {
	t.Helper()
	address := realBroker(t)
	for i, r := range recreations {
		for n, d := range deliveries {
			t.Run(r.name+", "+d.name, func(t *testing.T) {
				t.Parallel()
				r.run(t, []string{address}, fmt.Sprintf("flagr-recreated-%d-%d-%d", i, n, time.Now().UnixNano()), d)
			})
		}
	}
}

func TestApacheKafkaTopicIsRecreated(t *testing.T) {
	t.Parallel()
	onApacheKafka(t, recreations, newest)
}

func TestApacheKafkaTopicIsRecreatedForOlderProtocols(t *testing.T) {
	t.Parallel()
	onApacheKafka(t, recreations[1:2], older)
}

// lengthy skips a test that takes too long for every change.
func lengthy(t *testing.T) {
	t.Helper()
	if os.Getenv("FLAGR_TEST_STREAMS") == "" {
		t.Skip("it takes long: run make streams")
	}
}

func TestStreamsTopicIsRecreatedForOlderProtocols(t *testing.T) {
	t.Parallel()
	lengthy(t)
	onApacheKafka(t, recreations, older)
}
