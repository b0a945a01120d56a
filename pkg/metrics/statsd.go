package metrics

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// Statsd sends metrics to a StatsD or Datadog agent, over UDP. Counts are added up in memory, and sent every two
// seconds; nothing ever waits for the agent.
type Statsd struct {
	client    *statsd.Client
	exchanges series[exchangeKey, []string]
}

// NewStatsd makes a client. The error is about the host's name only: whether an agent listens is not known.
func NewStatsd(host, port, prefix string) (*Statsd, error) {
	client, err := statsd.New(net.JoinHostPort(host, port),
		statsd.WithNamespace(prefix),
		statsd.WithoutTelemetry(),
		statsd.WithoutOriginDetection()) // which not every agent understands
	if err != nil {
		return nil, fmt.Errorf("statsd: %w", err)
	}
	return &Statsd{client: client}, nil
}

// Close sends what is left.
func (s *Statsd) Close(context.Context) error { return s.client.Close() }

func (s *Statsd) evaluations(l evaluationLabels) (count func()) {
	tags := []string{"FlagID:" + l.flagID, "FlagKey:" + tag(l.flagKey), "Reason:" + l.reason}
	if l.decided {
		tags = append(tags, "EntityType:"+tag(l.entityType), "VariantID:"+l.variantID, "VariantKey:"+tag(l.variantKey))
	}
	return func() { _ = s.client.Incr("evaluation", tags, 1) } // fails only after Close
}

// ObserveRequest counts a request and sends how long it took.
func (s *Statsd) ObserveRequest(e *web.Exchange) {
	key := exchangeKeyOf(e)
	tags := s.exchanges.get(key, func() ([]string, bool) {
		return []string{"status:" + key.statusLabel(), "path:" + tag(key.route), "method:" + key.method}, true
	})
	_ = s.client.Incr("http.requests.count", tags, 1)
	_ = s.client.Timing("http.requests.duration", e.Duration, tags, 1)
}

// tag replaces what has a meaning in the protocol. Entity types are chosen by clients.
func tag(value string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == '|' || r == ',' || r == '#' {
			return '_'
		}
		return r
	}, value)
}
