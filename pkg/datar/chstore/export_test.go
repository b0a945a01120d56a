package chstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// SetGrace sets the waiting times of a purge.
func (s *Store) SetGrace(purge, drop time.Duration) { s.purgeGrace, s.dropGrace = purge, drop }

// PurgeDay runs one step of a purge.
func (s *Store) PurgeDay(ctx context.Context, day int64) error { return s.purgeDay(ctx, day) }

// SetBuilds sets how often a store looks for partitions to roll up, and how long they must be
// quiet. The store then looks immediately.
func (s *Store) SetBuilds(every, quiet time.Duration) {
	s.builds.every, s.builds.quiet, s.builds.mu.looked = every, quiet, time.Time{}
}

// BuildAtOnce makes each call of Maintain build a rollup of a partition that is over.
func (s *Store) BuildAtOnce() { s.builds.every, s.builds.quiet, s.builds.most = 0, 0, 1 }

// WithoutRollups makes queries read rows only.
func (s *Store) WithoutRollups() { s.builds.usable = false }

// UsesRollups reports whether queries may read rollups.
func (s *Store) UsesRollups() bool { return s.builds.usable }

// Rolled returns the number of partitions of a window that are read from rollups.
func (s *Store) Rolled(ctx context.Context, from, to datar.Hour) (int, error) {
	rollups, err := s.rolledUp(ctx, from, to)
	return len(rollups), err
}

// KeyHash returns the hash of a sender's key.
func KeyHash(key string) string { return keyHash(key) }

// NewTrusting is New with the root certificates for verification.
func NewTrusting(ctx context.Context, o Options, roots *x509.CertPool) (*Store, error) {
	c := newClient(o)
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return connect(ctx, c)
}

// ForgetClock sets the clock to no difference.
func (s *Store) ForgetClock() { s.client.clock.offset.Store(0) }

// ForgetLag makes the next Lag read the delays.
func (s *Store) ForgetLag() {
	s.replicas.mu.Lock()
	defer s.replicas.mu.Unlock()
	s.replicas.mu.checked = time.Time{}
}
