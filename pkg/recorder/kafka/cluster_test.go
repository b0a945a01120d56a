package kafka

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The tests of this file need three brokers of Apache Kafka, of which the first is also the
// controller, and take minutes: make streams. They are not parallel: each does to the brokers what
// others would suffer from.

// replicated is a topic of three partitions with a replica on each broker, of which two must be in
// sync.
type replicated struct {
	administrator
	brokers []string
	topic   string
}

func newReplicated(t *testing.T) replicated {
	t.Helper()
	lengthy(t)
	addresses := os.Getenv("FLAGR_TEST_KAFKA_CLUSTER")
	if addresses == "" {
		t.Skip("FLAGR_TEST_KAFKA_CLUSTER names no brokers: run make streams")
	}
	r := replicated{brokers: strings.Split(addresses, ","), topic: fmt.Sprintf("flagr-replicated-%d", time.Now().UnixNano())}
	r.administrator = administer(t, r.brokers)
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = r.topic, -1, -1
	for p := range int32(3) {
		assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		assignment.Partition, assignment.Replicas = p, replicas(p, 0)
		topic.ReplicaAssignment = append(topic.ReplicaAssignment, assignment)
	}
	config := kmsg.NewCreateTopicsRequestTopicConfig()
	config.Name, config.Value = "min.insync.replicas", new("2")
	topic.Configs = append(topic.Configs, config)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(t.Context(), r.client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.awaitReplicas()
	return r
}

// replicas gives the brokers of a partition, the one to lead it first. Each shift makes another one
// the leader.
func replicas(partition, shift int32) []int32 {
	ids := make([]int32, 3)
	for i := range ids {
		ids[i] = (partition+shift+int32(i))%3 + 1
	}
	return ids
}

// setup makes a recorder with idempotent delivery.
func (r replicated) setup(change func(*Options)) *fixture {
	r.t.Helper()
	return setup(r.t, r.brokers, func(o *Options) {
		idempotent(o)
		o.Topic, o.RetryMax = r.topic, 1000
		if change != nil {
			change(o)
		}
	})
}

// partitions gives the partitions as the brokers see them, nil while they do not answer.
func (r replicated) partitions() []kmsg.MetadataResponseTopicPartition {
	r.t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &r.topic
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(r.t.Context(), r.client)
	if err != nil || len(response.Topics) != 1 {
		return nil
	}
	return response.Topics[0].Partitions
}

// awaitReplicas waits until all replicas are in sync, and lead what they are to lead if the topic
// is new.
func (r replicated) awaitReplicas() {
	r.t.Helper()
	wait(r.t, "all replicas to be in sync", func() bool {
		partitions := r.partitions()
		return len(partitions) == 3 && !slices.ContainsFunc(partitions, func(p kmsg.MetadataResponseTopicPartition) bool {
			return p.ErrorCode != 0 || p.Leader <= 0 || len(p.ISR) != 3
		})
	}, func() string { return fmt.Sprintf("%+v", r.partitions()) })
}

// restart starts brokers that were killed, and waits until they have what they missed.
func (r replicated) restart(nodes ...int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, n := range nodes {
			control(t, "begin", strconv.Itoa(n))
		}
		r.awaitReplicas()
	}
}

func (r replicated) kill(nodes ...int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		for _, n := range nodes {
			control(t, "kill", strconv.Itoa(n))
		}
	}
}

func TestClusterLosesALeader(t *testing.T) {
	r := newReplicated(t)
	f := r.setup(func(o *Options) { o.Silence = patience })
	total := fault{begin: r.kill(2), end: r.restart(2), unnoticed: true}.strike(t, f)
	arrived(t, r.brokers, r.topic, total, true)
}

func TestClusterMovesLeaders(t *testing.T) {
	r := newReplicated(t)
	f := r.setup(func(o *Options) { o.Silence = patience })
	total := fault{
		begin:     func(t *testing.T) { r.lead(t, 1) },
		end:       func(t *testing.T) { r.lead(t, 2) },
		unnoticed: true,
	}.strike(t, f)
	arrived(t, r.brokers, r.topic, total, true)
}

// lead makes the first of the replicas with a shift the leader of each partition.
func (r replicated) lead(t *testing.T, shift int32) {
	t.Helper()
	request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	topic.Topic = r.topic
	election := kmsg.NewPtrElectLeadersRequest()
	elected := kmsg.NewElectLeadersRequestTopic()
	elected.Topic = r.topic
	for i := range int32(3) {
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition, p.Replicas = i, replicas(i, shift)
		topic.Partitions = append(topic.Partitions, p)
		elected.Partitions = append(elected.Partitions, i)
	}
	request.Topics = append(request.Topics, topic)
	election.Topics = append(election.Topics, elected)
	altered, err := request.RequestWith(t.Context(), r.client)
	if err == nil {
		err = kerr.ErrorForCode(altered.ErrorCode)
	}
	for _, p := range altered.Topics[0].Partitions {
		err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
	}
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the new leaders", func() bool {
		if _, err := election.RequestWith(t.Context(), r.client); err != nil {
			return false
		}
		partitions := r.partitions()
		return len(partitions) == 3 && !slices.ContainsFunc(partitions, func(p kmsg.MetadataResponseTopicPartition) bool {
			return p.Leader != replicas(p.Partition, shift)[0]
		})
	}, func() string { return fmt.Sprintf("%+v", r.partitions()) })
}

// The broker comes back under its address without data, and copies them from the others.
func TestClusterReplacesABroker(t *testing.T) {
	r := newReplicated(t)
	f := r.setup(func(o *Options) { o.Silence = patience })
	total := fault{
		begin:     func(t *testing.T) { control(t, "replace", "3") },
		end:       func(*testing.T) { r.awaitReplicas() },
		unnoticed: true,
	}.strike(t, f)
	arrived(t, r.brokers, r.topic, total, true)
}

func TestClusterHasTooFewReplicas(t *testing.T) {
	r := newReplicated(t)
	f := r.setup(nil)
	total := fault{begin: r.kill(2, 3), end: r.restart(2, 3)}.strike(t, f)
	arrived(t, r.brokers, r.topic, total, true)
}
