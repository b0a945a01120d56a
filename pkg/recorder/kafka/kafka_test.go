package kafka

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/integration_tests/testlog"
	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/pkg/recorder/recordertest"
)

const topic = "flagr-records"

// cluster starts one broker in this process, with the topic in three partitions.
func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	opts = append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(3, topic)}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fixture is a sink in front of a Kafka transport.
type fixture struct {
	*recorder.Sink
	log     *testlog.Buffer
	framing *recorder.Framing
}

// setup makes and starts a recorder. change adjusts what Flagr has by default, but for the time to
// gather records.
func setup(t *testing.T, brokers []string, change func(*Options)) *fixture {
	t.Helper()
	log := &testlog.Buffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	o := Options{
		Brokers:         brokers,
		Topic:           topic,
		Version:         NoMaxVersion,
		RequiredAcks:    1,
		RetryMax:        5,
		MaxOpenRequests: 5,
		KeyEnabled:      true,
		Health:          recorder.NewHealth(logger),
		Logger:          logger,
	}
	if change != nil {
		change(&o)
	}
	transport, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{log: log, framing: &recorder.Framing{Sealed: o.Sealed, NoPlain: o.Sealed, Key: recorder.NewKey("secret")}}
	f.Sink = recordertest.Sink(t, recorder.Options{
		Name:         "kafka",
		Transport:    transport,
		Health:       o.Health,
		BatchRecords: BatchRecords,
		BatchBytes:   BatchBytes,
		Linger:       10 * time.Millisecond,
		Logger:       logger,
	})
	f.Start()
	return f
}

// number is a payload that carries its number.
type number int

func (n number) MarshalPayload() ([]byte, error) { return json.Marshal(map[string]int{"n": int(n)}) }

func entity(i int) string { return "entity" + strconv.Itoa(i%20) }

// record gives the records from to to, of twenty entities.
func (f *fixture) record(from, to int) {
	for i := from; i < to; i++ {
		f.AsyncRecord(recorder.NewRecord(entity(i), 200, f.framing, number(i)))
	}
}

// finish closes the recorder, which must deliver all.
func (f *fixture) finish(t *testing.T) recorder.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Errorf("close: %v\n%s", err, f.log)
	}
	return f.Stats()
}

func delivered(t *testing.T, stats recorder.Stats, n uint64) {
	t.Helper()
	if stats.Delivered != n || stats.Recorded != n || len(stats.Dropped) != 0 || stats.Pending != 0 {
		t.Errorf("want all of %d delivered: %+v", n, stats)
	}
}

// consume reads the topic until n records are there and nothing more comes.
func consume(t *testing.T, brokers []string, n int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for {
		patience := time.Minute
		if len(records) >= n {
			patience = 200 * time.Millisecond // for what should not be there
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		fetches := client.PollFetches(ctx)
		ended := ctx.Err() != nil
		cancel()
		if !ended && fetches.Err() != nil {
			t.Fatal(fetches.Err())
		}
		records = append(records, fetches.Records()...)
		if ended {
			return records
		}
	}
}

// numbers gives the numbers in the payloads, sorted, and checks that those of each entity grow in
// the log.
func numbers(t *testing.T, records []*kgo.Record) []int {
	t.Helper()
	return numbersOf(t, records, true)
}

// numbersOf is numbers with the check left to choose.
func numbersOf(t *testing.T, records []*kgo.Record, inOrder bool) []int {
	t.Helper()
	slices.SortStableFunc(records, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	var all []int
	last := map[string]int{}
	for _, r := range records {
		var frame struct {
			Payload   string
			Encrypted bool
		}
		var payload struct{ N int }
		if err := json.Unmarshal(r.Value, &frame); err != nil || frame.Encrypted {
			t.Fatalf("%s: %v", r.Value, err)
		}
		if err := json.Unmarshal([]byte(frame.Payload), &payload); err != nil {
			t.Fatalf("%s: %v", r.Value, err)
		}
		if before, ok := last[string(r.Key)]; inOrder && ok && len(r.Key) > 0 && payload.N < before {
			t.Fatalf("of %s, %d comes after %d", r.Key, payload.N, before)
		}
		last[string(r.Key)] = payload.N
		all = append(all, payload.N)
	}
	slices.Sort(all)
	return all
}

func TestEveryKindOfDeliveryArrives(t *testing.T) {
	t.Parallel()
	cases := map[string]func(*Options){
		"acks 0":              func(o *Options) { o.RequiredAcks = 0 },
		"acks 1":              nil,
		"acks all":            func(o *Options) { o.RequiredAcks = -1 },
		"idempotent":          func(o *Options) { o.RequiredAcks = -1; o.Idempotent = true },
		"one open request":    func(o *Options) { o.MaxOpenRequests = 1 },
		"no retries":          func(o *Options) { o.RetryMax = 0 },
		"version 2.8.0":       func(o *Options) { o.Version = "2.8.0" },
		"version of tomorrow": func(o *Options) { o.Version = "99.0.0" },
		"version 0.11.0.2":    func(o *Options) { o.Version = "0.11.0.2" },
		"murmur2":             func(o *Options) { o.Partitioner = Murmur2 },
		"verbose":             func(o *Options) { o.Verbose = true },
		"compression gzip":    func(o *Options) { o.Compression = 1 },
		"compression snappy":  func(o *Options) { o.Compression = 2 },
		"compression lz4":     func(o *Options) { o.Compression = 3 },
		"compression zstd":    func(o *Options) { o.Compression = 4 },
		"compression, old":    func(o *Options) { o.Compression = 1; o.Version = "1.0.0" },
		"idempotent and zstd": func(o *Options) { o.RequiredAcks = -1; o.Idempotent = true; o.Compression = 4 },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			f := setup(t, c.ListenAddrs(), change)
			f.record(0, 1000)
			delivered(t, f.finish(t), 1000)
			records := consume(t, c.ListenAddrs(), 1000)
			if diff := gocmp.Diff(recordertest.UpTo(1000), numbers(t, records)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, r := range records {
				if len(r.Key) == 0 {
					t.Fatalf("no key in %+v", r)
				}
			}
		})
	}
}

func TestCompressionIsThatOfTheCode(t *testing.T) {
	t.Parallel()
	for code := range int8(5) {
		c := cluster(t)
		var mu sync.Mutex
		seen := map[int16]bool{}
		c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			for _, topic := range r.(*kmsg.ProduceRequest).Topics {
				for _, p := range topic.Partitions {
					var batch kmsg.RecordBatch
					if err := batch.ReadFrom(p.Records); err != nil {
						t.Error(err)
					}
					mu.Lock()
					seen[batch.Attributes&7] = true
					mu.Unlock()
				}
			}
			return nil, nil, false
		})
		f := setup(t, c.ListenAddrs(), func(o *Options) { o.Compression = code })
		for i := range 200 {
			// The client leaves as it is what does not get smaller, so each must be worth it alone.
			f.AsyncRecord(recorder.NewRecord(entity(i), 1200, f.framing, recordertest.Text(1000)))
		}
		delivered(t, f.finish(t), 200)
		if len(seen) != 1 || !seen[int16(code)] {
			t.Errorf("code %d gives batches with %v", code, seen)
		}
	}
}

// The wanted partitions were computed with sarama 1.50 itself.
func TestPartitionsAreThoseOfSarama(t *testing.T) {
	t.Parallel()
	partitions := []int{1, 3, 12, 50, 1000}
	for _, tc := range []struct {
		key  string
		want []int
	}{
		{"a", []int{0, 0, 0, 26, 76}},
		{"user-1001", []int{0, 1, 1, 31, 81}},
		{"randomly_generated_1298498081", []int{0, 0, 6, 14, 714}},
		{"日本語", []int{0, 1, 1, 45, 945}},
		{"00000000-0000-4000-8000-000000000001", []int{0, 2, 2, 24, 774}},
		{"x y z", []int{0, 1, 10, 2, 402}},
		{"entity7", []int{0, 0, 3, 27, 927}},
		{"entity42", []int{0, 1, 4, 46, 896}},
		{" ", []int{0, 1, 7, 9, 159}},
		{"A very long entity id that goes on and on, for more than sixty-four bytes in total", []int{0, 1, 1, 21, 221}},
	} {
		for i, n := range partitions {
			if got := fnv1aPartition([]byte(tc.key), n); got != tc.want[i] {
				t.Errorf("%q goes to %d of %d, want %d", tc.key, got, n, tc.want[i])
			}
		}
	}
}

// The file has what sarama 1.61.1 says of 1,000 entity IDs: each with its partition of 3, 12 and
// 50.
func TestPartitionsOfManyEntitiesAreThoseOfSarama(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/partitions.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 1000 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		fields := strings.Split(line, "\t")
		id, want := fields[0], fields[1:]
		var got []string
		for _, n := range []int{3, 12, 50} {
			got = append(got, strconv.Itoa(fnv1aPartition([]byte(id), n)))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q goes to %v, want %v", id, got, want)
		}
	}
}

func TestRecordsLandOnThePartitionOfTheirKey(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.SeedTopics(12, topic))
	f := setup(t, c.ListenAddrs(), nil)
	f.record(0, 200)
	delivered(t, f.finish(t), 200)
	for _, r := range consume(t, c.ListenAddrs(), 200) {
		if want := fnv1aPartition(r.Key, 12); int(r.Partition) != want {
			t.Errorf("%s is on %d, want %d", r.Key, r.Partition, want)
		}
	}
}

func TestWithoutPartitionKey(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	f := setup(t, c.ListenAddrs(), func(o *Options) { o.KeyEnabled = false })
	f.record(0, 100)
	delivered(t, f.finish(t), 100)
	for _, r := range consume(t, c.ListenAddrs(), 100) {
		if r.Key != nil {
			t.Fatalf("key is %q", r.Key)
		}
	}
}

func TestSealedFramesAreSent(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	f := setup(t, c.ListenAddrs(), func(o *Options) { o.Sealed = true })
	f.record(0, 10)
	delivered(t, f.finish(t), 10)
	for _, r := range consume(t, c.ListenAddrs(), 10) {
		if !bytes.HasSuffix(r.Value, []byte(`","encrypted":true}`)) {
			t.Fatalf("value is %s", r.Value)
		}
	}
}

// certificates are an authority and what it signed for a server and its clients, in files.
type certificates struct {
	caFile, certFile, keyFile string
	server                    *tls.Config
	pool                      *x509.CertPool
}

// makeCertificates makes those of 127.0.0.1 and of further hosts.
func makeCertificates(t *testing.T, hosts ...net.IP) certificates {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           append(hosts, net.IPv4(127, 0, 0, 1)),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := certificates{certFile: write("cert.pem", "CERTIFICATE", der), keyFile: write("key.pem", "PRIVATE KEY", keyDER)}
	c.caFile = c.certFile
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.pool = x509.NewCertPool()
	c.pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	c.server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	return c
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := makeCertificates(t)
	mutual := certs.server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, certs.pool
	for _, tc := range []struct {
		name          string
		server        *tls.Config
		cert, key, ca string
		verify        bool
		trouble       string // "" if it works
	}{
		{name: "simple", server: certs.server},
		{name: "verified", server: certs.server, ca: certs.caFile, verify: true},
		{name: "unknown authority", server: certs.server, verify: true, trouble: "certificate"},
		{name: "client certificate", server: mutual, cert: certs.certFile, key: certs.keyFile, ca: certs.caFile, verify: true},
		{name: "no client certificate", server: mutual, ca: certs.caFile, verify: true, trouble: "certificate required"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, kfake.TLS(tc.server))
			config, err := NewTLS(tc.cert, tc.key, tc.ca, tc.verify)
			if err != nil {
				t.Fatal(err)
			}
			f := setup(t, c.ListenAddrs(), func(o *Options) { o.TLS = config })
			f.record(0, 10)
			if tc.trouble != "" {
				awaitTrouble(t, f, tc.trouble)
				return
			}
			delivered(t, f.finish(t), 10)
			consumerConfig, _ := config.current()
			if consumerConfig.Certificates == nil {
				consumerConfig = &tls.Config{InsecureSkipVerify: true}
			}
			consume(t, c.ListenAddrs(), 10, kgo.DialTLSConfig(consumerConfig))
		})
	}
}

func TestTLSFilesThatAreWrong(t *testing.T) {
	t.Parallel()
	certs := makeCertificates(t)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tc := range []struct{ name, cert, key, ca, want string }{
		{"key alone", "", certs.keyFile, "", "needs both"},
		{"certificate alone", certs.certFile, "", "", "needs both"},
		{"no such certificate", missing, certs.keyFile, "", "no such file"},
		{"no such authority", "", "", missing, "no such file"},
		{"no authority in it", "", "", certs.keyFile, "no certificate in PEM"},
		{"not a key", certs.certFile, certs.certFile, "", "client certificate"},
	} {
		if _, err := NewTLS(tc.cert, tc.key, tc.ca, true); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error is %v", tc.name, err)
		}
	}
}

// awaitTrouble waits until the recorder fails with a text, and checks that the records are still
// there.
func awaitTrouble(t *testing.T, f *fixture, want string) {
	t.Helper()
	wait(t, "trouble with "+want, func() bool {
		stats := f.Stats()
		return stats.State == recorder.Failing && strings.Contains(stats.LastError, want)
	}, func() string { return fmt.Sprintf("%+v", f.Stats()) })
	if stats := f.Stats(); stats.Delivered != 0 || uint64(stats.Pending) != stats.Recorded {
		t.Errorf("%+v", stats)
	}
}

// wait polls until done. The deadline is for a machine that starts a broker and other things at the
// same time.
func wait(t *testing.T, what string, done func() bool, state func() string) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("timed out waiting for %s: %s", what, state())
		case <-tick.C:
		}
	}
}

func TestSASL(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, method, mechanism, password, trouble string }{
		{"plain", Plain, Plain, "pw", ""},
		{"plain by default", Plain, "", "pw", ""},
		{"scram 256", ScramSHA256, ScramSHA256, "pw", ""},
		{"scram 512", ScramSHA512, ScramSHA512, "pw", ""},
		// This broker hangs up; a real one says why.
		{"wrong password", Plain, Plain, "wrong", "EOF"},
		{"wrong password, scram", ScramSHA256, ScramSHA256, "wrong", "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, kfake.EnableSASL(), kfake.Superuser(tc.method, "flagr", "pw"))
			f := setup(t, c.ListenAddrs(), func(o *Options) {
				o.SASLUsername, o.SASLPassword, o.SASLMechanism = "flagr", tc.password, tc.mechanism
			})
			f.record(0, 10)
			if tc.trouble != "" {
				awaitTrouble(t, f, tc.trouble)
				return
			}
			delivered(t, f.finish(t), 10)
		})
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Options){
		"compression 9":      func(o *Options) { o.Compression = 9 },
		"required acks 2":    func(o *Options) { o.RequiredAcks = 2 },
		"idempotent":         func(o *Options) { o.Idempotent = true },
		`partitioner "x"`:    func(o *Options) { o.Partitioner = "x" },
		`SASL mechanism "x"`: func(o *Options) { o.SASLUsername, o.SASLMechanism = "u", "x" },
		`version "0.0.1"`:    func(o *Options) { o.Version = "0.0.1" },
		"no brokers":         func(o *Options) { o.Brokers = nil },
		`version "3.99.0"`:   func(o *Options) { o.Version = "3.99.0" },
		`broker "host:port"`: func(o *Options) { o.Brokers = []string{"good:9092", "host:port"} },
		`broker "host:1:2"`:  func(o *Options) { o.Brokers = []string{"host:1:2"} },
	} {
		o := Options{Brokers: []string{"localhost:9092"}, Topic: topic, RequiredAcks: 1}
		change(&o)
		transport, err := New(o)
		if err == nil {
			_ = transport.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestATopicThatIsMissingAtFirst(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	f := setup(t, c.ListenAddrs(), nil)
	f.record(0, 50)
	awaitTrouble(t, f, "UNKNOWN_TOPIC_OR_PARTITION")
	if err := c.CreateTopic(topic, 3, nil); err != nil {
		t.Fatal(err)
	}
	delivered(t, f.finish(t), 50)
	if diff := gocmp.Diff(recordertest.UpTo(50), numbers(t, consume(t, c.ListenAddrs(), 50))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestATopicThatTheBrokerCreates(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	f := setup(t, c.ListenAddrs(), nil)
	f.record(0, 50)
	delivered(t, f.finish(t), 50)
}

// messages has a broker take so many bytes.
func messages(most string) kfake.Opt {
	return kfake.BrokerConfigs(map[string]string{"message.max.bytes": most})
}

func TestOnlyTheRecordsThatAreTooLargeAreDropped(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		large recordertest.Text
		opts  []kfake.Opt
	}{
		{"for the client", 2 << 20, []kfake.Opt{messages("20000000")}},
		{"for the broker", 50_000, []kfake.Opt{messages("20000")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, append(tc.opts, kfake.SeedTopics(1, topic))...)
			f := setup(t, c.ListenAddrs(), nil)
			f.record(0, 300) // more than one request of the small broker takes
			f.AsyncRecord(recorder.NewRecord("large", int(tc.large), f.framing, tc.large))
			f.record(300, 600)
			stats := f.finish(t)
			if stats.Delivered != 600 || stats.Dropped[recorder.TooLarge] != 1 || len(stats.Dropped) != 1 {
				t.Errorf("%+v", stats)
			}
			// What a broker refused goes in again after what it took of the same batch, so there is
			// no order to check. With several open requests, what was behind it may go in twice.
			if diff := gocmp.Diff(recordertest.UpTo(600), slices.Compact(numbersOf(t, consume(t, c.ListenAddrs(), 600), false))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorsOfABrokerExhaustRetries(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	var mu sync.Mutex
	failures := 0
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		failures++
		mu.Unlock()
		return notEnoughReplicas(r.(*kmsg.ProduceRequest)), nil, true
	})
	f := setup(t, c.ListenAddrs(), func(o *Options) { o.RetryMax = 2 })
	f.AsyncRecord(recorder.NewRecord("a", 100, f.framing, number(0)))
	stats := f.finish(t)
	if stats.Dropped[recorder.RetriesExhausted] != 1 || stats.State != recorder.Failing {
		t.Errorf("%+v", stats)
	}
	if failures != 3 {
		t.Errorf("sent %d times, want once and twice again", failures)
	}
}

// notEnoughReplicas refuses a request for a reason that may pass.
func notEnoughReplicas(request *kmsg.ProduceRequest) *kmsg.ProduceResponse {
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, rt := range request.Topics {
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = rt.Topic, rt.TopicID
		for _, rp := range rt.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.ErrorCode = rp.Partition, kerr.NotEnoughReplicas.Code
			answer.Partitions = append(answer.Partitions, p)
		}
		response.Topics = append(response.Topics, answer)
	}
	return response
}

// long is a payload of which some thousands need several requests.
type long int

func (n long) MarshalPayload() ([]byte, error) {
	return json.Marshal(map[string]any{"n": int(n), "text": strings.Repeat("x", 1000)})
}

// With several open requests, what is behind one that was refused is taken before that is sent
// again, and then comes again.
func TestOrderWhenARequestIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		change  func(*Options)
		inOrder bool
	}{
		{"several open requests", nil, false},
		{"one open request", func(o *Options) { o.MaxOpenRequests = 1 }, true},
		{"idempotent", func(o *Options) { o.RequiredAcks, o.Idempotent = -1, true }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t, kfake.SeedTopics(1, topic))
			requests := 0
			c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				requests++ // one at a time
				if requests != 2 {
					return nil, nil, false
				}
				return notEnoughReplicas(r.(*kmsg.ProduceRequest)), nil, true
			})
			f := setup(t, c.ListenAddrs(), tc.change)
			const total = 3000
			for i := range total {
				f.AsyncRecord(recorder.NewRecord(entity(i), 1100, f.framing, long(i)))
			}
			delivered(t, f.finish(t), total)
			got := numbersOf(t, consume(t, c.ListenAddrs(), total), tc.inOrder)
			if !tc.inOrder {
				got = slices.Compact(got)
			}
			if diff := gocmp.Diff(recordertest.UpTo(total), got); diff != "" {
				t.Errorf("(-want +got):\n%.3000s", diff)
			}
		})
	}
}

// at has a broker listen at an address, which it tells its clients.
func at(address string) kfake.Opt {
	return kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, address) })
}

func TestABrokerThatIsDownAtStart(t *testing.T) {
	t.Parallel()
	address := testaddress.Unused(t)
	f := setup(t, []string{address}, nil)
	awaitTrouble(t, f, "connection refused") // before the first record
	f.record(0, 100)
	c := cluster(t, at(address))
	delivered(t, f.finish(t), 100)
	if diff := gocmp.Diff(recordertest.UpTo(100), numbers(t, consume(t, c.ListenAddrs(), 100))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(f.log.String(), "\n"); n != 3 {
		t.Errorf("%d log lines, want one for the outage, one for its end, and the last words:\n%s", n, f.log)
	}
}

// The broker goes away under load, for longer than the client's own retries last, and comes back
// with what it had.
func TestABrokerThatIsRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := []kfake.Opt{at(testaddress.Unused(t)), kfake.DataDir(t.TempDir()), kfake.SyncWrites()}
			c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.SeedTopics(3, topic))...)
			if err != nil {
				t.Fatal(err)
			}
			f := setup(t, c.ListenAddrs(), func(o *Options) { o.RequiredAcks, o.Idempotent, o.RetryMax = -1, idempotent, 1 })
			const total = 20_000
			stop := make(chan struct{})
			var load sync.WaitGroup
			load.Go(func() {
				defer close(stop)
				for i := 0; i < total; i += 20 {
					f.record(i, i+20)
					<-time.After(2 * time.Millisecond) // a steady load, not a wait for something
				}
			})
			deliveredSome := func(n uint64) func() bool { return func() bool { return f.Stats().Delivered >= n } }
			state := func() string { return fmt.Sprintf("%+v\n%s", f.Stats(), f.log) }
			wait(t, "the first records", deliveredSome(2000), state)
			c.Close()
			wait(t, "the outage to be noticed", func() bool { return f.Stats().State == recorder.Failing }, state)
			c = cluster(t, opts...)
			load.Wait()
			delivered(t, f.finish(t), total)
			// Without idempotence, what was taken but not answered comes again.
			got := numbersOf(t, consume(t, c.ListenAddrs(), total), idempotent)
			if idempotent {
				if diff := gocmp.Diff(recordertest.UpTo(total), got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			} else if got = slices.Compact(got); len(got) != total {
				t.Errorf("%d of %d records arrived", len(got), total)
			}
		})
	}
}

func TestCloseWithADeadBrokerKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			f := setup(t, c.ListenAddrs(), func(o *Options) { o.RequiredAcks, o.Idempotent = -1, idempotent })
			f.record(0, 100)
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.Close()
			f.record(100, 160)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			if err := f.Close(ctx); err == nil {
				t.Error("no error")
			}
			// Some seconds at most; on a busy machine more, but not for ever.
			if took := time.Since(start); took > time.Minute {
				t.Errorf("close took %s", took)
			}
			// There, too, Close may leave before the last call of Send has seen that it is over.
			wait(t, "the end of all records", func() bool { return f.Stats().Pending == 0 }, func() string { return fmt.Sprintf("%+v", f.Stats()) })
			stats := f.Stats()
			if stats.Delivered != 100 || stats.Dropped[recorder.Undelivered] != 60 || stats.Pending != 0 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

// missing skips a test, or fails it where servers are required.
func missing(t *testing.T, message string) {
	t.Helper()
	if os.Getenv("FLAGR_TEST_REQUIRE_SERVERS") != "" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// realBroker gives the address of an Apache Kafka broker.
func realBroker(t *testing.T) string {
	t.Helper()
	address := os.Getenv("FLAGR_TEST_KAFKA")
	if address == "" {
		missing(t, "FLAGR_TEST_KAFKA names no broker: run with integration_tests/brokers/kafka.sh")
	}
	return address
}

// control does something to a real broker, the first one unless a number follows: kafka.sh says
// what there is.
func control(t *testing.T, action ...string) {
	t.Helper()
	command := strings.Fields(os.Getenv("FLAGR_TEST_KAFKA_CONTROL"))
	if len(command) == 0 {
		missing(t, "FLAGR_TEST_KAFKA_CONTROL is empty: run with integration_tests/brokers/kafka.sh")
	}
	command = append(command, action...)
	if output, err := exec.CommandContext(context.WithoutCancel(t.Context()), command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", action, err, output)
	}
}

// newTopic creates a topic of a real broker.
func newTopic(t *testing.T, address string, partitions int32, configs map[string]string) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	name := fmt.Sprintf("flagr-%d", time.Now().UnixNano())
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	for key, value := range configs {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, &value
		topic.Configs = append(topic.Configs, config)
	}
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestApacheKafkaTakesEveryKindOfDelivery(t *testing.T) {
	t.Parallel()
	address := realBroker(t)
	for name, change := range map[string]func(*Options){
		"acks 0":     func(o *Options) { o.RequiredAcks = 0 },
		"acks 1":     func(*Options) {},
		"idempotent": func(o *Options) { o.RequiredAcks = -1; o.Idempotent = true },
		"gzip":       func(o *Options) { o.Compression = 1 },
		"snappy":     func(o *Options) { o.Compression = 2 },
		"lz4":        func(o *Options) { o.Compression = 3 },
		"zstd":       func(o *Options) { o.Compression = 4 },
		"2.8.0":      func(o *Options) { o.Version = "2.8.0" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := newTopic(t, address, 12, nil)
			// Without acknowledgements, what arrives before the new partitions are ready would be
			// lost.
			first := setup(t, []string{address}, func(o *Options) { o.Topic, o.RequiredAcks = topic, -1 })
			first.record(0, 200)
			delivered(t, first.finish(t), 200)
			f := setup(t, []string{address}, func(o *Options) { o.Topic = topic; change(o) })
			f.record(200, 1000)
			delivered(t, f.finish(t), 800)
			records := consume(t, []string{address}, 1000, kgo.ConsumeTopics(topic))
			if diff := gocmp.Diff(recordertest.UpTo(1000), numbers(t, records)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, r := range records {
				if want := fnv1aPartition(r.Key, 12); int(r.Partition) != want {
					t.Errorf("%s is on %d, want %d", r.Key, r.Partition, want)
				}
			}
		})
	}
}

func TestApacheKafkaCreatesTheTopic(t *testing.T) {
	t.Parallel()
	address := realBroker(t)
	f := setup(t, []string{address}, func(o *Options) { o.Topic = fmt.Sprintf("flagr-missing-%d", time.Now().UnixNano()) })
	f.record(0, 100)
	delivered(t, f.finish(t), 100)
}

func TestApacheKafkaRefusesOnlyTheRecordThatIsTooLarge(t *testing.T) {
	t.Parallel()
	address := realBroker(t)
	topic := newTopic(t, address, 1, map[string]string{"max.message.bytes": "20000"})
	f := setup(t, []string{address}, func(o *Options) { o.Topic = topic })
	f.record(0, 300)
	f.AsyncRecord(recorder.NewRecord("large", 50_000, f.framing, recordertest.Text(50_000)))
	f.record(300, 600)
	stats := f.finish(t)
	if stats.Delivered != 600 || stats.Dropped[recorder.TooLarge] != 1 || len(stats.Dropped) != 1 {
		t.Errorf("%+v", stats)
	}
	// As above, there is no order to check, and some may be there twice.
	if diff := gocmp.Diff(recordertest.UpTo(600), slices.Compact(numbersOf(t, consume(t, []string{address}, 600, kgo.ConsumeTopics(topic)), false))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// It is not parallel, so that no other test loses its broker.
func TestApacheKafkaIsKilledUnderLoad(t *testing.T) {
	address := realBroker(t)
	topic := newTopic(t, address, 3, nil)
	f := setup(t, []string{address}, func(o *Options) { o.Topic, o.RequiredAcks, o.Idempotent = topic, -1, true })
	const total = 40_000
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; i < total; i += 20 {
			f.record(i, i+20)
			<-time.After(2 * time.Millisecond) // a steady load, not a wait for something
		}
	})
	state := func() string { return fmt.Sprintf("%+v\n%s", f.Stats(), f.log) }
	wait(t, "the first records", func() bool { return f.Stats().Delivered >= 5000 }, state)
	control(t, "bounce")
	load.Wait()
	wait(t, "all records", func() bool { return f.Stats().Delivered >= total }, state)
	delivered(t, f.finish(t), total)
	if diff := gocmp.Diff(recordertest.UpTo(total), numbers(t, consume(t, []string{address}, total, kgo.ConsumeTopics(topic)))); diff != "" {
		t.Errorf("(-want +got):\n%.3000s", diff)
	}
}

// Older brokers let only those write idempotently who may do so in the whole cluster. Whoever is
// given that right later must not have to restart the server.
func TestAnIdempotentProducerThatIsNotAllowedAtFirst(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	var allowed atomic.Bool
	c.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if allowed.Load() {
			return nil, nil, false
		}
		response := r.ResponseKind().(*kmsg.InitProducerIDResponse)
		response.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return response, nil, true
	})
	f := setup(t, c.ListenAddrs(), func(o *Options) { o.RequiredAcks, o.Idempotent = -1, true })
	f.record(0, 100)
	awaitTrouble(t, f, "CLUSTER_AUTHORIZATION_FAILED")
	allowed.Store(true)
	delivered(t, f.finish(t), 100)
	if diff := gocmp.Diff(recordertest.UpTo(100), numbers(t, consume(t, c.ListenAddrs(), 100))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
