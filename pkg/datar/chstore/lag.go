package chstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// lagFresh is how long the lag of replicas is cached.
	lagFresh = 2 * time.Second
	// lagUnit is the precision of ClickHouse's delays.
	lagUnit = time.Second
	// lagRows is the number of rows after which a shard stops to read for the lag. It needs one.
	lagRows = 100_000
)

// replicas caches how far the replicas lag that queries read.
type replicas struct {
	// statement returns the delay of these replicas in seconds. It is empty if tables are not
	// replicated. It is set before the first concurrent use.
	statement string

	mu struct {
		sync.Mutex
		checked time.Time
		lag     time.Duration // at that time
		denied  bool          // whether a warning was logged
	}
}

// detectEngine checks which engine datar_counts has, which may differ from that of this package if
// the tables were created by hand.
func (s *Store) detectEngine(ctx context.Context) error {
	if s.client.options.Cluster != "" {
		s.replicas.statement = s.lagOfCluster()
		return nil
	}
	rows, err := s.client.query(ctx, fmt.Sprintf("SELECT engine FROM system.tables WHERE database = '%s' AND name = 'datar_counts'", s.client.options.Database))
	if err != nil {
		return fmt.Errorf("read the engine of datar_counts: %w", err)
	}
	if len(rows) != 1 {
		return fmt.Errorf("read the engine of datar_counts: %d rows, want 1", len(rows))
	}
	// Only in this engine do block numbers increase with each insert. In replicated tables, a block
	// gets its number before the insert is visible.
	s.builds.usable = rows[0][0] == "ReplacingMergeTree"
	if strings.HasPrefix(rows[0][0], "Replicated") {
		s.replicas.statement = "SELECT toInt64(max(absolute_delay)) FROM " + s.delays("")
	}
	return nil
}

// delays returns a subquery for the delays of a host's replicas of the tables, in seconds: the age
// of the oldest insert that a replica does not have.
func (s *Store) delays(condition string) string {
	return fmt.Sprintf("(SELECT absolute_delay FROM system.replicas WHERE database = '%s'%s)", s.client.options.Database, condition)
}

// lagOfCluster returns the statement for the greatest delay of the replicas that queries read: of
// datar_counts those that ClickHouse selects for the shards, and of other tables those of the
// current host. Each shard runs the right side of the join on the selected replica.
func (s *Store) lagOfCluster() string {
	counts := s.localName("datar_counts")
	return "SELECT toInt64(max(delay)) FROM (" +
		"SELECT toUInt64(max(absolute_delay)) AS delay FROM " + s.delays(" AND table != '"+counts+"'") +
		" UNION ALL SELECT toUInt64(max(seconds)) AS delay FROM datar_counts ANY INNER JOIN " +
		"(SELECT toUInt8(arrayJoin(range(256))) AS outcome, absolute_delay AS seconds FROM " + s.delays(" AND table = '"+counts+"'") + ") USING outcome)" +
		fmt.Sprintf(" SETTINGS max_rows_to_read = %d, read_overflow_mode = 'break'", lagRows)
}

// Lag implements datar.LagReporter. The result is at most 2 s old. A delay of less than one second
// counts as 0, and so does every delay if the user may not read system.replicas.
func (s *Store) Lag(ctx context.Context) (time.Duration, error) {
	r := &s.replicas
	if r.statement == "" {
		return 0, nil
	}
	if lag, ok := r.cached(); ok {
		return lag, nil
	}
	now := time.Now()
	rows, err := s.client.integers(ctx, r.statement)
	if refused := (*Error)(nil); errors.As(err, &refused) && refused.Code == codeAccessDenied {
		s.warnOfDenial(ctx, refused)
		r.keep(now, 0)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("chstore: read the delay of replicas from system.replicas: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, errors.New("chstore: read the delay of replicas: ClickHouse has returned no row")
	}
	lag := time.Duration(0)
	if rows[0][0] > 0 {
		lag = time.Duration(rows[0][0])*time.Second + lagUnit
	}
	r.keep(now, lag)
	return lag, nil
}

// warnOfDenial logs once that the user may not read the delays.
func (s *Store) warnOfDenial(ctx context.Context, cause error) {
	s.replicas.mu.Lock()
	first := !s.replicas.mu.denied
	s.replicas.mu.denied = true
	s.replicas.mu.Unlock()
	if first {
		cmp.Or(s.client.options.Logger, slog.Default()).WarnContext(ctx, "chstore: the database user may not read the delay of replicas, so upTo does not take lag into account; "+
			"run GRANT SELECT ON system.replicas TO user, with the name of this user", "error", cause)
	}
}

// keep caches the lag at a time.
func (r *replicas) keep(checked time.Time, lag time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.checked, r.mu.lag = checked, lag
}

// cached returns the lag if it was read recently.
func (r *replicas) cached() (lag time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := time.Since(r.mu.checked)
	if r.mu.checked.IsZero() || age >= lagFresh {
		return 0, false
	}
	if r.mu.lag == 0 {
		return 0, true
	}
	return r.mu.lag + age, true
}
