// Package kafka sends records to a Kafka topic.
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
)

// The bounds of one call of Send.
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
	// FNV1a puts an entity where sarama's hash partitioner does, which Flagr uses.
	FNV1a = "fnv1a"
	// Murmur2 puts an entity where Kafka's own clients in Java do.
	Murmur2 = "murmur2"
)

// NoMaxVersion is the version that sets no limit: the client speaks the newest protocol that the brokers know. It is the
// default of the variable for the version, and nobody has such a broker any more.
const NoMaxVersion = "0.8.2.0"

// newestMajor is the first part of the newest version of Kafka.
const newestMajor = 4

const (
	// slowAfter is how long brokers that cannot be reached may hold up a batch before the recorder is said to fail.
	slowAfter = 3 * time.Second
	// probeTimeout bounds the first look for a broker.
	probeTimeout = 5 * time.Second
	// clientLinger lets the client gather what one call of Send gives it record by record.
	clientLinger = 5 * time.Millisecond
	// metadataMinAge is how soon the client may ask again who leads a partition, which it does before it sends again. Its
	// own 5 s would be as long as a whole change of leaders.
	metadataMinAge = 500 * time.Millisecond
)

// errUnsettled is the result of a record that the client still had when it was given up.
var errUnsettled = errors.New("not acknowledged yet")

// Options describe the brokers and how to write to them.
type Options struct {
	// Brokers are addresses host:port to connect to first; without a host it is this machine.
	Brokers []string
	Topic   string
	// Version is the newest protocol version to use, such as 2.8.0; "" or NoMaxVersion: the newest.
	Version string
	// Compression is 0 none, 1 gzip, 2 snappy, 3 lz4 or 4 zstd.
	Compression int8
	// RequiredAcks is who must confirm a record: 0 nobody, 1 the leader, -1 all replicas in sync. Idempotent needs -1.
	RequiredAcks int
	Idempotent   bool
	// RetryMax is how often a record is sent again when a broker has answered with an error that may pass. While no broker
	// can be reached, attempts go on.
	RetryMax int
	// MaxOpenRequests is how many requests to one broker may be unanswered; Idempotent has its own limits.
	MaxOpenRequests int
	// TLS is made by NewTLS; nil means no TLS.
	TLS *tls.Config
	// SASLUsername signs in; "" means no SASL. SASLMechanism is one of the constants.
	SASLUsername, SASLPassword, SASLMechanism string
	// KeyEnabled writes the entity id as the key of the record, which decides on its partition.
	KeyEnabled bool
	// Partitioner is FNV1a or Murmur2, "" means FNV1a.
	Partitioner string
	// Sealed sends encrypted frames.
	Sealed bool
	// Verbose passes what the client logs to Logger, at level debug.
	Verbose bool
	// Health and Logger are mandatory.
	Health *recorder.Health
	Logger *slog.Logger
}

// Transport is a Kafka producer.
type Transport struct {
	client        atomic.Pointer[kgo.Client] // replaced by Send
	clientOptions []kgo.Opt
	options       Options
	links         links
}

// New makes a transport. It connects to nobody yet: errors are about the options.
func New(o Options) (*Transport, error) {
	t := &Transport{options: o}
	brokers, err := seeds(o.Brokers)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.ClientID("flagr"),
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(o.Topic),
		// A broker that creates missing topics is asked to.
		kgo.AllowAutoTopicCreation(),
		kgo.RecordRetries(o.RetryMax),
		kgo.ProducerLinger(clientLinger),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.MaxBufferedRecords(2 * BatchRecords),
		kgo.WithHooks(&t.links),
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
	if o.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(o.TLS))
	}
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
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	t.clientOptions = opts
	t.client.Store(client)
	return t, nil
}

// NewTLS makes a configuration for TLS of PEM files. The certificate and its key come together or not at all; "" for the
// authority means those of the system. Without verify, any certificate of a broker is taken.
func NewTLS(certFile, keyFile, caFile string, verify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("a client certificate needs both its certificate file and its key file")
	}
	if certFile != "" {
		certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: %s has no certificate in PEM", caFile)
		}
	}
	return c, nil
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

// versionsOf gives the newest requests to use; nil means no limit, as for a version that is too new to be known here.
func versionsOf(version string) (*kversion.Versions, error) {
	if version == "" || version == NoMaxVersion {
		return nil, nil
	}
	versions := kversion.FromString(version)
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); versions == nil && (err != nil || n < newestMajor) {
		return nil, fmt.Errorf("version %q is not one of Kafka", version)
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

// Probe asks any broker for a sign of life.
func (t *Transport) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := t.client.Load().Ping(ctx); err != nil {
		return t.links.explain(err)
	}
	return nil
}

// Send produces a batch and waits for all acknowledgements.
func (t *Transport) Send(ctx context.Context, batch []*recorder.Record) []error {
	failuresBefore := t.links.failures.Load()
	errs := t.produce(ctx, batch)
	if errs == nil {
		return nil
	}
	// A broker refuses a request as a whole if it is larger than it allows. What is small enough goes in with less.
	recorder.Isolate(batch, errs, tooLarge, func(part []*recorder.Record) []error { return t.produce(ctx, part) })
	reachable := t.links.failures.Load() == failuresBefore
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
			errs[i] = t.links.explain(err)
		}
	}
	if t.options.Idempotent && ctx.Err() == nil && slices.ContainsFunc(errs, notAllowed) {
		t.renew()
	}
	return errs
}

// notAllowed is the answer of older brokers to who asks for the id of an idempotent producer and lacks the right.
func notAllowed(err error) bool { return errors.Is(err, kerr.ClusterAuthorizationFailed) }

// renew replaces the client. One that was refused an id does not ask again. It holds nothing: Send has waited for all.
func (t *Transport) renew() {
	client, err := kgo.NewClient(t.clientOptions...)
	if err != nil {
		return // the options were good before; the old client goes on to say what is wrong
	}
	t.client.Swap(client).Close()
}

func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// answeredTooOften tells whether the client gave up on a record because brokers kept answering with an error. A topic that
// is missing is not meant: that can be mended, and the record was never taken by anybody.
func answeredTooOften(err error) bool {
	return errors.Is(err, kgo.ErrRecordRetries) ||
		kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID)
}

// produce gives a batch to the client and waits. It returns nil if all records were acknowledged.
func (t *Transport) produce(ctx context.Context, batch []*recorder.Record) []error {
	var (
		mu     sync.Mutex
		left   = len(batch)
		failed bool
		done   = make(chan struct{})
	)
	client := t.client.Load()
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
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { settle(i, err) })
	}
	failures := t.links.failures.Load()
	slow := time.NewTimer(slowAfter)
	defer slow.Stop()
	for {
		select {
		case <-done:
			if !failed {
				return nil
			}
			return errs
		case <-slow.C:
			// The client tries again by itself, and for an idempotent producer without end; nobody else would say so.
			if t.links.failures.Load() != failures {
				t.options.Health.Failed(t.links.explain(errors.New("waiting for a broker")))
			}
			slow.Reset(slowAfter)
		case <-ctx.Done():
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(errs) // the client may go on to settle
		}
	}
}

// Close ends the client, and with it everything that waits.
func (t *Transport) Close() error {
	t.client.Load().Close()
	return nil
}

// links counts failures of connections: while there are some, errors say nothing about records.
type links struct {
	failures atomic.Int64
	last     atomic.Pointer[error]
}

// OnBrokerConnect notes connections that were not made.
func (l *links) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		l.last.Store(nil)
		return
	}
	l.failures.Add(1)
	l.last.Store(&err)
}

// OnBrokerDisconnect notes connections that ended.
func (l *links) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { l.failures.Add(1) }

// explain adds why the last connection failed, which the client's own errors leave out.
func (l *links) explain(err error) error {
	if last := l.last.Load(); last != nil && !errors.Is(err, *last) {
		return fmt.Errorf("%w: %w", err, *last)
	}
	return err
}

// clientLogger passes on what the client says. All of it is detail: what operators need to know is in the health.
type clientLogger struct{ logger *slog.Logger }

func (clientLogger) Level() kgo.LogLevel { return kgo.LogLevelInfo }

func (c clientLogger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	c.logger.Debug("kafka client: "+message, append(keyvals, "client_level", level.String())...)
}
