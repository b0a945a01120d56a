package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// Statsd sends metrics to a StatsD or Datadog agent over UDP. Counts are added up in memory and
// sent every two seconds. Nothing waits for the agent.
type Statsd struct {
	client    *statsd.Client
	exchanges series[exchangeKey, []string]
}

// NewStatsd creates a client. If the host name cannot be resolved, this is logged and retried
// later. Whether an agent listens is unknown.
func NewStatsd(ctx context.Context, host, port, prefix string, logger *slog.Logger) (*Statsd, error) {
	to := &agent{address: net.JoinHostPort(host, port), logger: logger}
	to.dial(ctx)
	client, err := statsd.NewWithWriter(to,
		statsd.WithNamespace(prefix),
		statsd.WithoutTelemetry(),
		statsd.WithoutOriginDetection()) // some agents do not support it
	if err != nil {
		return nil, fmt.Errorf("statsd: %w", err)
	}
	return &Statsd{client: client}, nil
}

const (
	// agentRetryInterval is the time between two attempts to resolve the host.
	agentRetryInterval = 30 * time.Second
	// agentDialTimeout limits such an attempt.
	agentDialTimeout = 5 * time.Second
)

// agent is the connection to the agent. The client writes to it from one goroutine.
type agent struct {
	address string
	logger  *slog.Logger

	conn   net.Conn  // nil until the address is resolved
	dialed time.Time // the last attempt
}

func (a *agent) dial(ctx context.Context) {
	first := a.dialed.IsZero()
	a.dialed = time.Now()
	dialer := net.Dialer{Timeout: agentDialTimeout}
	var err error
	a.conn, err = dialer.DialContext(ctx, "udp", a.address)
	switch {
	case err != nil && first:
		a.logger.Warn("metrics are not sent to StatsD until its host can be resolved", "address", a.address, "error", err)
	case err == nil && !first:
		a.logger.Info("metrics are sent to StatsD", "address", a.address)
	}
}

// Write sends a packet, or drops it while the address is not resolved.
func (a *agent) Write(packet []byte) (int, error) {
	if a.conn == nil && time.Since(a.dialed) >= agentRetryInterval {
		a.dial(context.Background())
	}
	if a.conn == nil {
		return len(packet), nil
	}
	return a.conn.Write(packet)
}

// Close closes the socket.
func (a *agent) Close() error {
	if a.conn == nil {
		return nil
	}
	return a.conn.Close()
}

// Close sends the remaining metrics.
func (s *Statsd) Close(context.Context) error { return s.client.Close() }

func (s *Statsd) evaluations(l evaluationLabels) (count func()) {
	tags := []string{"FlagID:" + l.flagID, "FlagKey:" + tag(l.flagKey), "Reason:" + l.reason}
	if l.decided {
		tags = append(tags, "EntityType:"+tag(l.entityType), "VariantID:"+l.variantID, "VariantKey:"+tag(l.variantKey))
	}
	return func() { _ = s.client.Incr("evaluation", tags, 1) } // fails only after Close
}

// ObserveRequest counts a request and sends its duration.
func (s *Statsd) ObserveRequest(e *web.Exchange) {
	key := exchangeKeyOf(e)
	tags := s.exchanges.get(key, func(key exchangeKey) ([]string, bool) {
		return []string{"status:" + key.statusLabel(), "path:" + tag(key.route), "method:" + key.method}, true
	})
	_ = s.client.Incr("http.requests.count", tags, 1)
	_ = s.client.Timing("http.requests.duration", e.Duration, tags, 1)
}

// tag replaces characters with a meaning in the protocol, because clients choose entity types.
func tag(value string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == '|' || r == ',' || r == '#' {
			return '_'
		}
		return r
	}, value)
}
