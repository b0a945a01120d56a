package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

// fault is trouble of a broker that passes, under load.
type fault struct {
	begin, end func(t *testing.T)
	lasts      time.Duration // beyond the moment in which it is noticed
	unnoticed  bool          // the state stays working: for a recorder with patience
	floods     bool          // the load goes on when the queue is full
	loses      recorder.Reason
}

// patience is an Options.Silence of a recorder whose state must not change. On a busy machine
// acknowledgements may stay out for longer than a recorder allows by default.
const patience = time.Minute

// strike lets a fault begin and end while a recorder is under load, checks what can be seen of it
// from outside, and returns how many records there were. It leaves the recorder closed.
func (ft fault) strike(t *testing.T, f *fixture) int {
	t.Helper()
	state := func() string { return fmt.Sprintf("%+v\n%s", f.Stats(), f.log) }
	began := time.Now()
	l := f.load(t, 0, ft.floods)
	wait(t, "the first records", func() bool { return f.Stats().Delivered >= 1000 }, state)
	var times recordertest.Fault
	times.Begin()
	ft.begin(t)
	if ft.unnoticed {
		more := f.Stats().Delivered + 2000
		wait(t, "more records", func() bool { return f.Stats().Delivered >= more }, state)
	} else {
		wait(t, "the outage to be noticed", func() bool { return f.Stats().State == recorder.Failing }, state)
	}
	times.Noticed()
	if ft.lasts > 0 {
		<-time.After(ft.lasts)
	}
	ft.end(t)
	times.End()
	more := f.Stats().Delivered + 1000
	wait(t, "the end of the outage to be noticed", func() bool {
		s := f.Stats()
		return s.State == recorder.Working && s.Delivered >= more
	}, state)
	times.Working()
	total := l.stop()
	wait(t, "all records", func() bool { return f.Stats().Pending == 0 }, state)
	times.Log(t, f.Stats())
	s := f.finish(t)
	var dropped uint64
	for reason, n := range s.Dropped {
		dropped += n
		if reason != ft.loses {
			t.Errorf("%d records were dropped: %s", n, reason)
		}
	}
	if s.Recorded != uint64(total) || s.Recorded != s.Delivered+dropped {
		t.Errorf("%d recorded: %+v", total, s)
	}
	least, most := 1, 1+int(time.Since(began)/time.Minute) // on a busy machine a fault may seem to be several
	if ft.unnoticed {
		least, most = 0, 0
	}
	if n := f.log.Count("cannot deliver, and keeps trying"); n < least || n > most || f.log.Count("delivers again") != n {
		t.Errorf("want %d to %d lines for beginnings, and as many for ends:\n%s", least, most, f.log)
	}
	return total
}

// arrived checks that all of n records are in a topic, in order and once if that is promised.
func arrived(t *testing.T, brokers []string, topic string, n int, promised bool) {
	t.Helper()
	got := numbersOf(t, consume(t, brokers, n, kgo.ConsumeTopics(topic)), promised)
	unique := slices.Compact(slices.Clone(got))
	if len(unique) != n || promised && len(got) != n {
		t.Errorf("%d records arrived, %d different ones; want %d", len(got), len(unique), n)
	}
}

func idempotent(o *Options) { o.RequiredAcks, o.Idempotent = -1, true }

// until starts a cluster that a fault ends, unlike cluster, at an address that it does not lose to
// others meanwhile.
func until(t *testing.T, address string, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{at(address), kfake.NumBrokers(1), kfake.SeedTopics(3, topic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestALeaderThatMoves(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){"idempotent": idempotent, "acks 1": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, kfake.NumBrokers(3))
			f := setup(t, c.ListenAddrs(), func(o *Options) {
				o.Silence = patience
				if change != nil {
					change(o)
				}
			})
			move := func(t *testing.T) {
				t.Helper()
				for p := range int32(3) {
					if err := c.MoveTopicPartition(topic, p, (c.LeaderFor(topic, p)+1)%3); err != nil {
						t.Fatal(err)
					}
				}
			}
			total := fault{begin: move, end: move, unnoticed: true}.strike(t, f)
			arrived(t, c.ListenAddrs(), topic, total, change != nil)
		})
	}
}

// A broker without data takes the place of another one: another cluster, other IDs of topics and
// producers.
func TestABrokerThatIsReplaced(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){"idempotent": idempotent, "acks 1": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := testaddress.Unused(t)
			c := until(t, address)
			f := setup(t, c.ListenAddrs(), change)
			fault{
				begin: func(*testing.T) { c.Close() },
				end:   func(t *testing.T) { cluster(t, at(address), kfake.ClusterID("another")) },
			}.strike(t, f)
		})
	}
}

// Its users know the broker by a name, which comes to stand for another address.
func TestAnAddressThatMoves(t *testing.T) {
	t.Parallel()
	first := netip.MustParseAddrPort(testaddress.Unused(t))
	second := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), first.Port())
	c := until(t, first.String())
	names := nameServer(t)
	names.address.Store(new(first.Addr().As4()))
	f := setup(t, []string{fmt.Sprintf("kafka.test:%d", first.Port())}, func(o *Options) { o.Resolver = names.resolver() })
	fault{
		begin: func(*testing.T) { c.Close() },
		end: func(t *testing.T) {
			cluster(t, at(second.String()))
			names.address.Store(new(second.Addr().As4()))
		},
	}.strike(t, f)
}

// names is a server for the domain name system that knows one address.
type names struct {
	conn    net.PacketConn
	address atomic.Pointer[[4]byte]
}

func nameServer(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n := &names{conn: conn}
	go n.serve()
	return n
}

func (n *names) serve() {
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buffer[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
		if q.Type == dnsmessage.TypeA {
			answer.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: *n.address.Load()},
			}}
		}
		if packed, err := answer.Pack(); err == nil {
			_, _ = n.conn.WriteTo(packed, from) // whoever has asked asks again
		}
	}
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

// The broker does not know the password for a while.
func TestCredentialsThatAreRefusedForAWhile(t *testing.T) {
	t.Parallel()
	with := func(password string) []kfake.Opt {
		return []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(ScramSHA256, "flagr", password)}
	}
	address := testaddress.Unused(t)
	c := until(t, address, with("pw")...)
	f := setup(t, c.ListenAddrs(), func(o *Options) {
		o.SASLUsername, o.SASLPassword, o.SASLMechanism = "flagr", "pw", ScramSHA256
	})
	fault{
		begin: func(t *testing.T) {
			c.Close()
			c = until(t, address, with("another")...)
		},
		end: func(t *testing.T) {
			c.Close()
			c = cluster(t, append(with("pw"), at(address))...)
		},
	}.strike(t, f)
}

// The broker gets a certificate of another authority and demands one from its clients. The client's
// files follow.
func TestACertificateThatIsRenewed(t *testing.T) {
	t.Parallel()
	address := testaddress.Unused(t)
	host := netip.MustParseAddrPort(address).Addr().AsSlice()
	first, second := makeCertificates(t, host), makeCertificates(t, host)
	with := func(c certificates) kfake.Opt {
		mutual := c.server.Clone()
		mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, c.pool
		return kfake.TLS(mutual)
	}
	c := until(t, address, with(first))
	config, err := NewTLS(first.certFile, first.keyFile, first.caFile, true)
	if err != nil {
		t.Fatal(err)
	}
	f := setup(t, c.ListenAddrs(), func(o *Options) { o.TLS = config })
	fault{
		begin: func(t *testing.T) {
			c.Close()
			cluster(t, with(second), at(address))
			if err := os.WriteFile(first.keyFile, []byte("half a"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		end: func(t *testing.T) {
			if s := f.Stats().LastError; s == "" {
				t.Error("no error")
			}
			for to, from := range map[string]string{first.keyFile: second.keyFile, first.certFile: second.certFile} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
		},
	}.strike(t, f)
}

func TestTooFewReplicasForAWhile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Options)
		loses  recorder.Reason
	}{
		{"retries last", func(o *Options) { idempotent(o); o.RetryMax = 1000 }, ""},
		{"retries end", func(o *Options) { o.RequiredAcks, o.RetryMax = -1, 2 }, recorder.RetriesExhausted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			f := setup(t, c.ListenAddrs(), tc.change)
			var refusal *kfake.FaultHandle
			fault{
				begin: func(*testing.T) {
					refusal = c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
				},
				end:   func(*testing.T) { refusal.Remove() },
				loses: tc.loses,
			}.strike(t, f)
		})
	}
}

func TestApacheKafkaGetsMorePartitions(t *testing.T) {
	t.Parallel()
	address := realBroker(t)
	topic := newTopic(t, address, 1, nil)
	a := administer(t, []string{address})
	a.settle()
	f := setup(t, []string{address}, func(o *Options) { o.Topic, o.Silence = topic, patience })
	total := fault{
		unnoticed: true,
		begin: func(t *testing.T) {
			request := kmsg.NewPtrCreatePartitionsRequest()
			more := kmsg.NewCreatePartitionsRequestTopic()
			more.Topic, more.Count = topic, 4
			request.Topics = append(request.Topics, more)
			response, err := request.RequestWith(t.Context(), a.client)
			if err == nil {
				err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		end: func(t *testing.T) {
			testwait.Until(t, "records in the new partitions", func() bool { return !slices.Contains(a.ends(topic, 4), 0) })
		},
	}.strike(t, f)
	arrived(t, []string{address}, topic, total, false)
}

// ends gives the offsets at the ends of partitions.
func (a administrator) ends(topic string, partitions int) []int64 {
	a.t.Helper()
	ends := make([]int64, partitions)
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	for i := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(i), -1, -1
		asked.Partitions = append(asked.Partitions, p)
	}
	request.Topics = append(request.Topics, asked)
	for _, shard := range a.client.RequestSharded(a.t.Context(), request) {
		if shard.Err != nil {
			continue // as long as the broker does not know the partition
		}
		for _, answered := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range answered.Partitions {
				ends[p.Partition] = max(0, p.Offset)
			}
		}
	}
	return ends
}

// The tests from here on are not parallel: they do to the broker what other tests would suffer
// from.

func TestApacheKafkaEnforcesAQuota(t *testing.T) {
	address := realBroker(t)
	topic := newTopic(t, address, 3, nil)
	a := administer(t, []string{address})
	a.settle()
	f := setup(t, []string{address}, func(o *Options) { o.Topic, o.Silence = topic, patience })
	quota := func(remove bool) func(*testing.T) {
		return func(t *testing.T) {
			request := kmsg.NewPtrAlterClientQuotasRequest()
			entry := kmsg.NewAlterClientQuotasRequestEntry()
			entity := kmsg.NewAlterClientQuotasRequestEntryEntity()
			entity.Type, entity.Name = "client-id", new("flagr")
			op := kmsg.NewAlterClientQuotasRequestEntryOp()
			op.Key, op.Value, op.Remove = "producer_byte_rate", 20_000, remove
			entry.Entity, entry.Ops = append(entry.Entity, entity), append(entry.Ops, op)
			request.Entries = append(request.Entries, entry)
			response, err := request.RequestWith(context.WithoutCancel(t.Context()), a.client)
			if err == nil {
				err = kerr.ErrorForCode(response.Entries[0].ErrorCode)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { quota(true)(t) }) // a second time, or if the test has failed
	// Slower, but no outage. How long the broker makes the client wait depends on how much it has
	// sent before: up to the whole window of a quota, 11 s.
	fault{begin: quota(false), end: quota(true), lasts: 3 * time.Second, unnoticed: true}.strike(t, f)
	arrived(t, []string{address}, topic, int(f.Stats().Delivered), false)
}

func frozen(t *testing.T, lasts time.Duration, change func(*Options), promised bool) {
	t.Helper()
	address := realBroker(t)
	topic := newTopic(t, address, 3, nil)
	administer(t, []string{address}).settle()
	f := setup(t, []string{address}, func(o *Options) {
		o.Topic = topic
		change(o)
	})
	t.Cleanup(func() { control(t, "thaw") }) // a second time, or if the test has failed
	ft := fault{
		begin: func(t *testing.T) { control(t, "freeze") },
		end:   func(t *testing.T) { control(t, "thaw") },
		lasts: lasts,
	}
	if lasts > 0 {
		ft.floods, ft.loses = true, recorder.QueueFull
	}
	ft.strike(t, f)
	arrived(t, []string{address}, topic, int(f.Stats().Delivered), promised)
}

func TestApacheKafkaIsFrozen(t *testing.T) { frozen(t, 0, idempotent, true) }

func TestStreamsBrokerIsFrozenFor15Seconds(t *testing.T) {
	lengthy(t)
	frozen(t, 15*time.Second-defaultSilence, idempotent, true)
	frozen(t, 15*time.Second-defaultSilence, func(o *Options) { o.RequiredAcks = 1 }, false)
}

func TestStreamsBrokerIsFrozenFor70Seconds(t *testing.T) {
	lengthy(t)
	frozen(t, 70*time.Second-defaultSilence, idempotent, true)
	frozen(t, 70*time.Second-defaultSilence, func(o *Options) { o.RequiredAcks = 1 }, false)
}

func TestApacheKafkaIsFrozenAtTheStop(t *testing.T) {
	address := realBroker(t)
	topic := newTopic(t, address, 3, nil)
	administer(t, []string{address}).settle()
	f := setup(t, []string{address}, func(o *Options) {
		idempotent(o)
		o.Topic = topic
	})
	f.record(0, 100)
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control(t, "thaw") })
	control(t, "freeze")
	f.record(100, 200)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	before := time.Now()
	if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(before); took > time.Minute { // some seconds, if the machine is not busy
		t.Errorf("the stop took %s", took)
	}
	want := map[recorder.Reason]uint64{recorder.Undelivered: 100}
	wait(t, "the end of all records", func() bool { return f.Stats().Pending == 0 }, f.log.String)
	if s := f.Stats(); s.Delivered != 100 || !maps.Equal(s.Dropped, want) {
		t.Errorf("%+v", s)
	}
}

// The new broker is one of another cluster, and has no topics.
func TestApacheKafkaIsReplaced(t *testing.T) {
	address := realBroker(t)
	topic := newTopic(t, address, 3, nil)
	administer(t, []string{address}).settle()
	f := setup(t, []string{address}, func(o *Options) {
		idempotent(o)
		o.Topic = topic
	})
	done := make(chan struct{})
	fault{
		begin: func(t *testing.T) {
			go func() {
				defer close(done)
				control(t, "replace")
			}()
		},
		end: func(*testing.T) { <-done },
	}.strike(t, f)
}
