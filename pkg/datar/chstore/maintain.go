package chstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// The retention works in steps. Any server may run or repeat each step:
//
//  1. Days before the retention are marked as reduced. From then on, queries return only their
//     totals, and late rows go to datar_days.
//  2. A day later, no insert into such a day can still be running. The last batch of each writer is
//     stored, the totals of the day are written to datar_days, and the day is marked as purged.
//     From then on, the totals are read from datar_days.
//  3. When no query can still be reading the rows, their partition is dropped.
const (
	reducedMark = "reduced"
	purgedMark  = "purged"

	// maxPurges is the maximum number of days that one call of Maintain purges.
	maxPurges = 10
	// receiptLifetime is one day longer than ingest.ReceiptLifetime, because days are dropped as a
	// whole.
	receiptLifetime = 3 * 24 * time.Hour
)

// marks are days since 1970.
type marks struct {
	reduced int64 // queries return earlier days as totals
	settled int64 // earlier days were marked as reduced more than purgeGrace ago
	purged  int64 // earlier days are in datar_days
	unread  int64 // earlier days were marked as purged more than dropGrace ago
}

func (s *Store) readMarks(ctx context.Context) (marks, error) {
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(maxIf(value, name = '%[1]s')), "+
		"toInt64(maxIf(value, name = '%[1]s' AND at + %[3]d <= now())), toInt64(maxIf(value, name = '%[2]s')), "+
		"toInt64(maxIf(value, name = '%[2]s' AND at + %[4]d <= now())) FROM datar_meta",
		reducedMark, purgedMark, int64(s.purgeGrace/time.Second), int64(s.dropGrace/time.Second)))
	if err != nil {
		return marks{}, fmt.Errorf("read how far days are reduced: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 4 {
		return marks{}, errors.New("read how far days are reduced: ClickHouse has returned no row")
	}
	s.reduced.set(rows[0][0])
	return marks{reduced: rows[0][0], settled: rows[0][1], purged: rows[0][2], unread: rows[0][3]}, nil
}

func (s *Store) mark(ctx context.Context, name string, day int64) error {
	b := appendText([]byte{'{'}, "name", name)
	b = appendNumber(append(b, ','), "value", day)
	if err := s.client.insert(ctx, metaTable, "name, value", append(b, "}\n"...)); err != nil {
		return fmt.Errorf("mark days as %s: %w", name, err)
	}
	return nil
}

// any reports whether days may be reduced.
func (r *reducedDays) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.read.IsZero() || r.mu.day > 0
}

// Maintain implements datar.Maintainer. It applies the retention and removes data that is no longer
// needed. Several processes may call it at the same time.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep time.Duration) error {
	if err := s.maintain(ctx, now, keep); err != nil {
		return fmt.Errorf("chstore: %w", err)
	}
	return nil
}

func (s *Store) maintain(ctx context.Context, now time.Time, keep time.Duration) error {
	if keep != 0 {
		if err := s.reduce(ctx, int64(dayOf(datar.HourOf(now.Add(-keep))))); err != nil {
			return err
		}
	}
	if err := s.purge(ctx); err != nil {
		return err
	}
	day := func(age time.Duration) int64 { return int64(dayOf(datar.HourOf(now.Add(-age)))) }
	for _, old := range []struct {
		table  string
		before int64 // in the unit of the partition
	}{
		{"datar_unknown", day(cmp.Or(keep, datar.RecordLifetime))},
		{"datar_receipts", day(receiptLifetime)},
		{"datar_servers", day(datar.RecordLifetime) / 30},
		{"datar_batches", day(datar.RecordLifetime) / 30},
	} {
		if err := s.dropBefore(ctx, old.table, old.before); err != nil {
			return err
		}
	}
	return s.rollUp(ctx, now)
}

// reduce marks the days before a day as reduced, if there are any.
func (s *Store) reduce(ctx context.Context, before int64) error {
	m, err := s.readMarks(ctx)
	if err != nil || m.reduced >= before {
		return err
	}
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(count()) FROM (SELECT 1 FROM datar_counts WHERE hour < %d LIMIT 1)", before*hoursPerDay))
	if err != nil {
		return fmt.Errorf("look for days to reduce: %w", err)
	}
	if rows[0][0] == 0 {
		return nil
	}
	if err := s.mark(ctx, reducedMark, before); err != nil {
		return err
	}
	_, err = s.readMarks(ctx)
	return err
}

// purge moves the totals of days whose rows no longer change to datar_days, and drops rows that are
// no longer read.
func (s *Store) purge(ctx context.Context) error {
	m, err := s.readMarks(ctx)
	if err != nil || m.reduced == 0 {
		return err
	}
	if err := s.dropCounts(ctx, m.unread); err != nil {
		return err
	}
	if err := s.dropRollups(ctx, m.unread); err != nil {
		return err
	}
	for range maxPurges {
		rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(min(day)), toInt64(count()) FROM datar_counts WHERE hour < %d AND hour >= %d", m.settled*hoursPerDay, m.purged*hoursPerDay))
		if err != nil {
			return fmt.Errorf("look for days to purge: %w", err)
		}
		if rows[0][1] == 0 {
			return nil
		}
		if err := s.purgeDay(ctx, rows[0][0]); err != nil {
			return fmt.Errorf("purge %s: %w", datar.Hour(rows[0][0]*hoursPerDay).Time().Format(time.DateOnly), err)
		}
		m.purged = rows[0][0] + 1
	}
	return nil
}

// purgeDay writes the totals of a day. If it is repeated, both inserts write the same rows again.
func (s *Store) purgeDay(ctx context.Context, day int64) error {
	first := datar.Hour(day * hoursPerDay)
	written, of := inWindow(first, first+hoursPerDay), fmt.Sprintf("day = %d", day)
	if err := s.client.exec(ctx, "INSERT INTO datar_batches (day, writer, sequence) SELECT day, writer, max(sequence) FROM datar_counts WHERE "+written+" GROUP BY day, writer"); err != nil {
		return err
	}
	// This subtracts batches that are counted twice, because their rows in datar_days stay.
	if err := s.client.exec(ctx, "INSERT INTO datar_days (day, flag_id, writer, sequence, n, ingested, last_ms) "+
		"SELECT day, flag_id, toUUID('00000000-0000-0000-0000-000000000000'), 0, toUInt64(sum(c)), toUInt64(sum(i)), max(l) FROM ("+
		"SELECT day, flag_id, toInt64(c) AS c, toInt64(i) AS i, l FROM "+rowsOnce(written+isEvent())+
		" UNION ALL SELECT day, flag_id, -toInt64(max(n)) AS c, -toInt64(max(ingested)) AS i, toInt64(0) AS l FROM datar_days WHERE "+of+
		" AND (day, writer, sequence) IN "+countedTwice(int32(day), int32(day), "")+" GROUP BY day, flag_id, writer, sequence) GROUP BY day, flag_id"); err != nil {
		return err
	}
	return s.mark(ctx, purgedMark, day+1)
}

// addLate adds rows of a reduced day to its totals, unless they were counted before the day was
// reduced.
func (s *Store) addLate(ctx context.Context, from source, day int32, rows []datar.Row) error {
	first := datar.Hour(day) * hoursPerDay
	known, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(max(s)) FROM "+
		"(SELECT max(sequence) AS s FROM datar_counts WHERE %[3]s AND writer = toUUID('%[2]s') "+
		"UNION ALL SELECT max(sequence) AS s FROM datar_batches WHERE day = %[1]d AND writer = toUUID('%[2]s'))", day, from.writer, inWindow(first, first+hoursPerDay)))
	if err != nil {
		return fmt.Errorf("look for a batch of a reduced day: %w", err)
	}
	if known[0][0] >= from.sequence { // a writer sends a batch only after the previous one
		return nil
	}
	for i := range rows {
		rows[i].Hour = first
	}
	var b []byte
	for _, r := range datar.GroupRows(datar.EventRows(rows), datar.GroupFlag) {
		b = appendNumber(append(b, '{'), "day", int64(day))
		b = appendNumber(append(b, ','), "flag_id", r.FlagID)
		b = from.appendTo(append(b, ','))
		b = appendNumber(append(b, ','), "n", r.Count)
		b = appendNumber(append(b, ','), "ingested", r.Ingested)
		b = appendNumber(append(b, ','), "last_ms", r.Last)
		b = append(b, "}\n"...)
	}
	if len(b) == 0 {
		return nil
	}
	return s.client.insert(ctx, "datar_days", "day, flag_id, writer, sequence, n, ingested, last_ms", b)
}

// dropCounts drops the partitions of datar_counts before a day. On a cluster, it tells all shards
// to drop them, and does not wait until they did.
func (s *Store) dropCounts(ctx context.Context, beforeDay int64) error {
	if s.client.options.Cluster == "" {
		return s.dropBefore(ctx, "datar_counts", beforeDay*spansPerDay)
	}
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(intDiv(hour, %d)) AS span FROM datar_counts WHERE hour < %d GROUP BY span", hoursPerSpan, beforeDay*hoursPerDay))
	if err != nil {
		return fmt.Errorf("look for old partitions of datar_counts: %w", err)
	}
	for _, row := range rows {
		if err := s.client.exec(ctx, fmt.Sprintf("ALTER TABLE %s.%s ON CLUSTER %s DROP PARTITION %d",
			s.client.options.Database, s.localName("datar_counts"), s.client.options.Cluster, row[0])); err != nil {
			return fmt.Errorf("drop a partition of datar_counts: %w", err)
		}
	}
	return nil
}

// dropBefore drops the partitions of a table whose number is less than before.
func (s *Store) dropBefore(ctx context.Context, name string, before int64) error {
	rows, err := s.client.query(ctx, fmt.Sprintf("SELECT DISTINCT partition FROM system.parts "+
		"WHERE database = '%s' AND table = '%s' AND active AND toInt64(partition) < %d", s.client.options.Database, name, before))
	if err != nil {
		return fmt.Errorf("look for old partitions of %s: %w", name, err)
	}
	for _, row := range rows {
		if err := s.client.exec(ctx, fmt.Sprintf("ALTER TABLE %s DROP PARTITION %s", name, row[0])); err != nil {
			return fmt.Errorf("drop a partition of %s: %w", name, err)
		}
	}
	return nil
}

// localName returns the name of the table that contains the rows.
func (s *Store) localName(name string) string {
	if s.client.options.Cluster == "" {
		return name
	}
	return name + localSuffix
}

// isConnection reports whether ClickHouse was unreachable or not ready.
func isConnection(err error) bool {
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return refused.mayWorkElsewhere()
	}
	var network interface{ Timeout() bool }
	return errors.As(err, &network)
}
