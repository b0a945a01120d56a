// Package kafka sends records to a Kafka topic.
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The limits of one call of Send.
const (
	BatchRecords = 10_000
	BatchBytes   = 8 << 20
)

// Names of SASL mechanisms.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// Names of partitioners.
const (
	// FNV1a selects the same partitions as sarama's hash partitioner, which Flagr uses.
	FNV1a = "fnv1a"
	// Murmur2 selects the same partitions as Kafka's Java clients.
	Murmur2 = "murmur2"
)

// NoMaxVersion is the version without a limit: the client uses the newest protocol that the brokers
// support. It is the default of the version variable, because such old brokers are no longer in
// use.
const NoMaxVersion = "0.8.2.0"

// newestMajor is the first part of the newest version of Kafka.
const newestMajor = 4

const (
	// defaultSilence is the default of Options.Silence.
	defaultSilence = 4 * time.Second
	// probeTimeout limits the first check of a broker.
	probeTimeout = 5 * time.Second
	// dialTimeout limits opening a connection.
	dialTimeout = 10 * time.Second
	// clientLinger lets the client batch the records that one call of Send passes one by one.
	clientLinger = 5 * time.Millisecond
	// metadataMinAge is the minimum time between two requests for the leaders of partitions, which
	// the client makes before a retry. The client's default of 5 s would be as long as a complete
	// change of leaders.
	metadataMinAge = 500 * time.Millisecond
	// metadataMaxAge is the maximum time until added partitions, or a recreated topic, are noticed
	// while nothing fails.
	metadataMaxAge = 15 * time.Second
	// nameMetadata is the newest version of metadata requests without topic IDs in their responses.
	nameMetadata = 9
	// idProduce is the first version of produce requests with topic IDs.
	idProduce = 13
)

// errUnsettled is the result of a record that the client still had when it was closed.
var errUnsettled = errors.New("not acknowledged yet")

// Options configure the connection to the brokers and the writes.
type Options struct {
	// Brokers are the initial addresses as host:port; without a host, this machine.
	Brokers []string
	Topic   string
	// Version is the newest protocol version to use, such as 2.8.0; "" or NoMaxVersion means the
	// newest.
	Version string
	// Compression is 0 none, 1 gzip, 2 snappy, 3 lz4 or 4 zstd.
	Compression int8
	// RequiredAcks is which replicas must confirm a record: 0 none, 1 the leader, -1 all in sync.
	// Idempotent requires -1.
	RequiredAcks int
	Idempotent   bool
	// RetryMax is the maximum number of retries of a record after retriable error responses. While
	// no broker can be reached, retries continue.
	RetryMax int
	// MaxOpenRequests is the maximum number of requests in flight to one broker; Idempotent has its
	// own limits.
	MaxOpenRequests int
	// TLS is from NewTLS; nil means no TLS.
	TLS *TLS
	// Resolver resolves the addresses of brokers; nil means the system's resolver.
	Resolver *net.Resolver
	// SASLUsername is the user name; "" means no SASL. SASLMechanism is one of the constants.
	SASLUsername, SASLPassword, SASLMechanism string
	// KeyEnabled sets the entity ID as the key of the record, which selects its partition.
	KeyEnabled bool
	// Partitioner is FNV1a or Murmur2, "" means FNV1a.
	Partitioner string
	// Sealed sends encrypted frames.
	Sealed bool
	// Silence is how long a batch may wait without any acknowledgment before the recorder is
	// failing. 0 means 4 s.
	Silence time.Duration
	// Verbose logs the client's messages to Logger, at level debug.
	Verbose bool
	// Health and Logger are required.
	Health *recorder.Health
	Logger *slog.Logger
}

// Transport is a Kafka producer.
type Transport struct {
	session       atomic.Pointer[session] // replaced by Send
	clientOptions []kgo.Opt
	options       Options
}

// session is a client and the state of its connections.
type session struct {
	*kgo.Client
	links links
}

func newSession(opts []kgo.Opt) (*session, error) {
	s := &session{}
	client, err := kgo.NewClient(append(slices.Clone(opts), kgo.WithHooks(&s.links))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	s.Client = client
	return s, nil
}

// New returns a Transport. It does not connect yet: errors are about the options.
func New(o Options) (*Transport, error) {
	o.Silence = cmp.Or(o.Silence, defaultSilence)
	t := &Transport{options: o}
	brokers, err := seeds(o.Brokers)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.ClientID("flagr"),
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(o.Topic),
		// Ask brokers that create missing topics to create it.
		kgo.AllowAutoTopicCreation(),
		kgo.RecordRetries(o.RetryMax),
		kgo.ProducerLinger(clientLinger),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.MaxBufferedRecords(2 * BatchRecords),
		kgo.Dialer(t.dial),
	}
	versions, err := versionsOf(o.Version)
	if err != nil {
		return nil, err
	}
	if versions != nil {
		opts = append(opts, kgo.MaxVersions(versions))
	}
	codec, err := codecOf(o.Compression)
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.ProducerBatchCompression(codec))
	acks, err := acksOf(o.RequiredAcks)
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.RequiredAcks(acks))
	if o.Idempotent {
		if o.RequiredAcks != -1 {
			return nil, fmt.Errorf("idempotent delivery needs the acknowledgement of all replicas (-1), not %d", o.RequiredAcks)
		}
	} else {
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(max(1, o.MaxOpenRequests)))
	}
	partitioner, err := partitionerOf(o.Partitioner)
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.RecordPartitioner(partitioner))
	if o.SASLUsername != "" {
		mechanism, err := mechanismOf(o)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	if o.Verbose {
		opts = append(opts, kgo.WithLogger(clientLogger{o.Logger}))
	}
	s, err := newSession(opts)
	if err != nil {
		return nil, err
	}
	t.clientOptions = opts
	t.session.Store(s)
	return t, nil
}

// dial opens a connection to a broker.
func (t *Transport) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: t.options.Resolver}
	if t.options.TLS == nil {
		return dialer.DialContext(ctx, network, address)
	}
	config, stale := t.options.TLS.current()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // including the handshake
	defer cancel()
	conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
	if err != nil && stale != nil {
		err = fmt.Errorf("%w (with the previous contents of the files: %w)", err, stale)
	}
	return conn, err
}

// seeds completes addresses without a host or a port.
func seeds(brokers []string) ([]string, error) {
	if len(brokers) == 0 {
		return nil, errors.New("no brokers are given")
	}
	completed := make([]string, len(brokers))
	for i, b := range brokers {
		if !strings.Contains(b, ":") {
			b += ":9092"
		}
		host, port, err := net.SplitHostPort(b)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return nil, fmt.Errorf("broker %q is not host:port", brokers[i])
		}
		completed[i] = net.JoinHostPort(cmp.Or(host, "localhost"), port)
	}
	return completed, nil
}

// versionsOf returns the newest requests to use; nil means no limit, as for a version that is newer
// than this code.
func versionsOf(version string) (*kversion.Versions, error) {
	if version == "" || version == NoMaxVersion {
		return nil, nil
	}
	versions := kversion.FromString(version)
	major, _, _ := strings.Cut(version, ".")
	if versions == nil {
		if n, err := strconv.Atoi(major); err != nil || n < newestMajor {
			return nil, fmt.Errorf("version %q is not one of Kafka", version)
		}
		return nil, nil
	}
	// If a topic's ID changes, a client that uses IDs fails the requests in flight. Requests by
	// name may arrive in the new topic, and would be sent twice.
	if newest, ok := versions.LookupMaxKeyVersion(int16(kmsg.Produce)); ok && newest < idProduce {
		if newest, ok := versions.LookupMaxKeyVersion(int16(kmsg.Metadata)); ok {
			versions.SetMaxKeyVersion(int16(kmsg.Metadata), min(newest, nameMetadata))
		}
	}
	return versions, nil
}

func codecOf(code int8) (kgo.CompressionCodec, error) {
	switch code {
	case 0:
		return kgo.NoCompression(), nil
	case 1:
		return kgo.GzipCompression(), nil
	case 2:
		return kgo.SnappyCompression(), nil
	case 3:
		return kgo.Lz4Compression(), nil
	case 4:
		return kgo.ZstdCompression(), nil
	default:
		return kgo.CompressionCodec{}, fmt.Errorf("compression %d is not known", code)
	}
}

func acksOf(n int) (kgo.Acks, error) {
	switch n {
	case 0:
		return kgo.NoAck(), nil
	case 1:
		return kgo.LeaderAck(), nil
	case -1:
		return kgo.AllISRAcks(), nil
	default:
		return kgo.Acks{}, fmt.Errorf("required acks %d are not known", n)
	}
}

func mechanismOf(o Options) (sasl.Mechanism, error) {
	scramAuth := scram.Auth{User: o.SASLUsername, Pass: o.SASLPassword}
	switch o.SASLMechanism {
	case Plain, "":
		return plain.Auth{User: o.SASLUsername, Pass: o.SASLPassword}.AsMechanism(), nil
	case ScramSHA256:
		return scramAuth.AsSha256Mechanism(), nil
	case ScramSHA512:
		return scramAuth.AsSha512Mechanism(), nil
	default:
		return nil, fmt.Errorf("SASL mechanism %q is not known", o.SASLMechanism)
	}
}

// Probe sends a request to any broker.
func (t *Transport) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	s := t.session.Load()
	if err := s.Ping(ctx); err != nil {
		return s.links.explain(err)
	}
	return nil
}

// Send produces a batch and waits for all acknowledgments.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	s := t.session.Load()
	failuresBefore := s.links.failures.Load()
	errs := t.produce(ctx, s, batch)
	if errs == nil {
		return nil
	}
	// A broker rejects a request as a whole if it is too large. Smaller requests with the same
	// records succeed.
	recorder.Isolate(batch, errs, tooLarge, func(part []*recorder.Record) []error { return t.produce(ctx, s, part) })
	reachable := s.links.failures.Load() == failuresBefore
	again := false
	for i, err := range errs {
		switch {
		case err == nil || recorder.DropReason(err) != "":
		case tooLarge(err):
			errs[i] = recorder.Drop(recorder.TooLarge, err)
		case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.InvalidTimestamp):
			errs[i] = recorder.Drop(recorder.Rejected, err)
		case reachable && answeredTooOften(err):
			errs[i] = recorder.Drop(recorder.RetriesExhausted, err)
		default:
			errs[i] = s.links.explain(err)
			again = true
		}
	}
	if again && ctx.Err() == nil {
		t.renew()
	}
	return errs
}

// renew replaces a client after it failed records that must be sent again. The client may keep
// state that brokers have replaced: the ID of a topic that was recreated, removed partitions, a
// rejected producer ID. It has no records, because Send has waited for all of them, and the
// sequence numbers of failed records are lost anyway.
func (t *Transport) renew() {
	s, err := newSession(t.clientOptions)
	if err != nil {
		return // the options were valid before; the old client reports the error
	}
	t.session.Swap(s).Close()
}

func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// answeredTooOften reports whether the client failed a record because brokers kept returning
// errors. Missing topics and leaders do not count: both can return, and the record was not
// accepted.
func answeredTooOften(err error) bool {
	return errors.Is(err, kgo.ErrRecordRetries) || kerr.IsRetriable(err) && !misdirected(err)
}

// misdirected reports whether a broker does not have the topic, or does not lead the partition.
func misdirected(err error) bool {
	return slices.ContainsFunc([]error{
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
	}, func(e error) bool { return errors.Is(err, e) })
}

// produce passes a batch to the client and waits. It returns nil if all records were acknowledged.
func (t *Transport) produce(ctx context.Context, s *session, batch []*recorder.Record) []error {
	var (
		mu     sync.Mutex
		left   = len(batch)
		failed bool
		done   = make(chan struct{})
	)
	errs := recorder.FailAll(len(batch), errUnsettled)
	settle := func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		errs[i] = err
		failed = failed || err != nil
		if left--; left == 0 {
			close(done)
		}
	}
	records := make([]kgo.Record, len(batch))
	for i, r := range batch {
		frame := r.Frame
		if t.options.Sealed {
			frame = r.SealedFrame
		}
		value, err := frame()
		if err != nil {
			settle(i, recorder.Drop(recorder.Unencodable, err))
			continue
		}
		record := &records[i]
		record.Value = value
		if t.options.KeyEnabled {
			record.Key = []byte(r.Key())
		}
		s.Produce(ctx, record, func(_ *kgo.Record, err error) { settle(i, err) })
	}
	silence := time.NewTicker(t.options.Silence)
	defer silence.Stop()
	silent := len(batch)
	for {
		select {
		case <-done:
			if !failed {
				return nil
			}
			return errs
		case <-silence.C:
			// The client retries by itself, without limit for an idempotent producer, and does not
			// report it.
			mu.Lock()
			now := left
			mu.Unlock()
			t.reportWait(s, now < silent)
			silent = now
		case <-ctx.Done():
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(errs) // the client may still settle records
		}
	}
}

// reportWait reports a batch that waits, with or without progress. A broker that enforces a quota
// is not an outage.
func (t *Transport) reportWait(s *session, progress bool) {
	switch {
	case progress:
		t.options.Health.Succeeded()
	case !s.links.throttled(t.options.Silence):
		t.options.Health.Failed(s.links.explain(fmt.Errorf("no acknowledgement for %s", t.options.Silence)))
	}
}

// Close closes the client and fails all waiting records.
func (t *Transport) Close() error {
	t.session.Load().Close()
	return nil
}

// links counts failed connections. While there are any, errors do not depend on records.
type links struct {
	failures       atomic.Int64
	last           atomic.Pointer[error]
	throttledUntil atomic.Int64 // Unix time in nanoseconds
}

// OnBrokerThrottle records how long a broker delays the client because of a quota.
func (l *links) OnBrokerThrottle(_ kgo.BrokerMetadata, interval time.Duration, _ bool) {
	l.throttledUntil.Store(time.Now().Add(interval).UnixNano())
}

// throttled reports whether a quota delayed the client during the last d.
func (l *links) throttled(d time.Duration) bool {
	return l.throttledUntil.Load() > time.Now().Add(-d).UnixNano()
}

// OnBrokerConnect records failed connections.
func (l *links) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		l.last.Store(nil)
		return
	}
	l.failures.Add(1)
	l.last.Store(&err)
}

// OnBrokerDisconnect records connections that ended.
func (l *links) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { l.failures.Add(1) }

// explain adds the error of the last connection, which the client's own errors omit.
func (l *links) explain(err error) error {
	if last := l.last.Load(); last != nil && !errors.Is(err, *last) {
		return fmt.Errorf("%w: %w", err, *last)
	}
	return err
}

// clientLogger logs the client's messages at level debug. The health has what operators need.
type clientLogger struct{ logger *slog.Logger }

func (clientLogger) Level() kgo.LogLevel { return kgo.LogLevelInfo }

func (c clientLogger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	c.logger.Debug("kafka client: "+message, append(keyvals, "client_level", level.String())...)
}
