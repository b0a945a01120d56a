package integration_tests

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
)

// honest evaluates one flag for one entity after another until it is stopped.
type honest struct {
	mu       sync.Mutex
	answered int64
	phase    []time.Duration // latencies since the phase began

	stop func()
}

func startHonest(t *testing.T, s *server, f flagAnswer, context object) *honest {
	t.Helper()
	h := &honest{}
	var stopped atomic.Bool
	var running sync.WaitGroup
	h.stop = sync.OnceFunc(func() {
		stopped.Store(true)
		running.Wait()
	})
	t.Cleanup(h.stop)
	for c := range 2 {
		running.Go(func() {
			for i := 0; !stopped.Load(); i++ {
				began := time.Now()
				a, err := s.try(http.MethodPost, "/evaluation", object{"flagID": f.ID, "entityID": fmt.Sprintf("%d-%d", c, i), "entityContext": context})
				if err != nil || a.status != http.StatusOK {
					t.Errorf("evaluation: %s, %v", a, err)
					return
				}
				h.mu.Lock()
				h.answered++
				h.phase = append(h.phase, time.Since(began))
				h.mu.Unlock()
			}
		})
	}
	return h
}

// next ends a phase after at least n evaluations, and returns its median and 99th percentile.
func (h *honest) next(t *testing.T, n int) (p50, p99 time.Duration) {
	t.Helper()
	var latencies []time.Duration
	poll(t, "honest evaluations", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.phase) < n {
			return false
		}
		latencies, h.phase = h.phase, nil
		return true
	})
	slices.Sort(latencies)
	return latencies[len(latencies)/2], latencies[len(latencies)*99/100]
}

// trouble is a fault of a broker.
type trouble struct {
	name       string
	begin, end func(t *testing.T, c *kfake.Cluster, address string) // address is the address of the cluster
}

func troubles() []trouble {
	thawed := make(chan struct{})
	thaw := sync.OnceFunc(func() { close(thawed) })
	return []trouble{
		{
			name: "topic deleted and created again",
			begin: func(t *testing.T, c *kfake.Cluster, _ string) {
				if err := c.DeleteTopic("flagr-records"); err != nil {
					t.Fatal(err)
				}
			},
			end: func(t *testing.T, c *kfake.Cluster, _ string) {
				if err := c.CreateTopic("flagr-records", kafkaPartitions, nil); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "broker does not answer",
			begin: func(t *testing.T, c *kfake.Cluster, _ string) {
				t.Cleanup(thaw) // again, in case the test has failed
				c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					c.SleepControl(func() { <-thawed })
					return nil, nil, false
				})
			},
			end: func(*testing.T, *kfake.Cluster, string) { thaw() },
		},
		{
			name:  "broker replaced",
			begin: func(_ *testing.T, c *kfake.Cluster, _ string) { c.Close() },
			end:   func(t *testing.T, _ *kfake.Cluster, address string) { kafkaAt(t, address) },
		},
	}
}

// kafkaAt starts a broker with the topic at a free address.
func kafkaAt(t *testing.T, address string) *kfake.Cluster {
	t.Helper()
	listen := func(network, _ string) (net.Listener, error) { return net.Listen(network, address) }
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(kafkaPartitions, "flagr-records"), kfake.ListenFn(listen))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestEvaluationsDuringBrokerFaults evaluates while Kafka has faults. All evaluations must be
// acknowledged and counted by Datar and in the recorder's statistics, and the queue must stay
// within its bound. Latencies and memory depend on the machine, so they are only logged.
func TestEvaluationsDuringBrokerFaults(t *testing.T) {
	t.Parallel()
	const phase, bound = 1000, 1 << 20
	for _, tc := range troubles() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			db := databases[0] // the kind of database makes no difference to streams
			address := testaddress.Unused(t)
			c := kafkaAt(t, address)
			s := start(t, db, db.fresh(t), environ{
				"FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED": "false",
				"FLAGR_EVAL_LOGGING_ENABLED":              "false",
				"FLAGR_RECORDER_TYPE":                     "kafka,datar",
				"FLAGR_RECORDER_KAFKA_BROKERS":            address,
				"FLAGR_RECORDER_KAFKA_FLUSHFREQUENCY":     "20ms",
				"FLAGR_RECORDER_KAFKA_RETRYMAX":           "1000",
				"FLAGR_RECORDER_QUEUE_BYTES":              strconv.Itoa(bound),
			})
			f := newFlag(t, s, "honest")
			awaitChanges(t, s)
			state := func(want string) func() bool {
				return func() bool { return recorders(t, s)["kafka"].State == want }
			}
			h := startHonest(t, s, f, object{"country": "DE", "text": string(make([]byte, 500))})
			h.next(t, phase) // warm up connections and caches
			p50Before, p99Before := h.next(t, phase)
			poll(t, "the first records", state("working"))
			memory := residentMegabytes(t, s)

			tc.begin(t, c, address)
			poll(t, "the trouble to be noticed", state("failing"))
			h.next(t, 1)
			p50, p99 := h.next(t, phase)
			poll(t, "the queue to be full", func() bool { return recorders(t, s)["kafka"].Dropped["queue_full"] > 0 })
			if pending := get[struct {
				Recorders []struct{ PendingBytes int64 }
			}](t, s, "/recorders/status").Recorders[0].PendingBytes; pending > bound || pending < bound/2 {
				t.Errorf("the queue has %d bytes, its bound is %d", pending, bound)
			}
			memoryInTrouble := residentMegabytes(t, s)

			tc.end(t, c, address)
			poll(t, "the end of the trouble to be noticed", state("working"))
			h.next(t, phase)
			h.stop()
			poll(t, "all records to be settled", func() bool { return recorders(t, s)["kafka"].Pending == 0 })
			r := recorders(t, s)["kafka"]
			if r.Recorded != h.answered || r.State != "working" || len(r.Dropped) != 1 {
				t.Errorf("%d evaluations were acknowledged: %+v", h.answered, r)
			}
			if got := counts(t, s, h.answered).total(f.ID); got != h.answered {
				t.Errorf("Datar counts %d, %d evaluations were acknowledged", got, h.answered)
			}
			t.Logf("%d evaluations, delivered %d, dropped %v; p50 %s and p99 %s, during faults %s and %s: %.2f and %.2f times; memory %d MB, during faults %d MB",
				h.answered, r.Delivered, r.Dropped, p50Before, p99Before, p50, p99,
				float64(p50)/float64(p50Before), float64(p99)/float64(p99Before), memory, memoryInTrouble)
		})
	}
}

// residentMegabytes returns 0 if the memory cannot be read.
func residentMegabytes(t *testing.T, s *server) int64 {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	return residentBytes(t, s.cmd.Process.Pid) >> 20
}
