package chstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// SetGrace shortens the times that a purge waits.
func (s *Store) SetGrace(purge, drop time.Duration) { s.purgeGrace, s.dropGrace = purge, drop }

// PurgeDay is one step of a purge.
func (s *Store) PurgeDay(ctx context.Context, day int64) error { return s.purgeDay(ctx, day) }

// SetBuilds sets how often a store looks for partitions to roll up, and how long they must be quiet, and lets it look at once.
func (s *Store) SetBuilds(every, quiet time.Duration) {
	s.builds.every, s.builds.quiet, s.builds.looked = every, quiet, time.Time{}
}

// BuildAtOnce has each call of Maintain build a rollup of what is over.
func (s *Store) BuildAtOnce() { s.builds.every, s.builds.quiet, s.builds.most = 0, 0, 1 }

// WithoutRollups reads rows only.
func (s *Store) WithoutRollups() { s.builds.usable = false }

// Rolled returns how many partitions of a window are read from rollups.
func (s *Store) Rolled(ctx context.Context, from, to datar.Hour) (int, error) {
	rollups, err := s.rolledUp(ctx, from, to)
	return len(rollups), err
}

// KeyHash is the hash of a sender's key.
func KeyHash(key string) string { return keyHash(key) }

// NewTrusting is New with the roots that certificates are verified against.
func NewTrusting(ctx context.Context, o Options, roots *x509.CertPool) (*Store, error) {
	c := newClient(o)
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return connect(ctx, c)
}
