package gormstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Rollups are totals over an hour, a quarter of a day, or a day of UTC. They are computed from the
// hourly events after the span is over. They only save work: a batch that adds to a span deletes
// its rollups in the same transaction, and they are computed again later. Making rollups and adding
// events takes the same lock, so no rollup ever misses a count.
//
// Days before the retention are the exception. The rollup of a purged day is the only remaining
// data, and late counts are moved into it.

const (
	hoursPerDay = 24

	// A rollup is made when its span has been over for this long. By then, nearly all late batches
	// have arrived. This includes those of Flagr on the same database, which does not delete
	// rollups and flushes at least once an hour.
	settleTime = 2 * time.Hour
	// Rollups over less than a day speed up windows that begin or end within a day. Few older
	// windows do. Rollups of details also serve series by hour.
	shortKept, detailsKept = 32 * hoursPerDay, 92 * hoursPerDay
)

// kind is a kind of rollup: what it adds up, and over how many hours.
type kind struct {
	// id is the value of the span column. The column was named when there was one kind for each
	// length.
	id    int64
	hours int64
	// most is the maximum number of rollups of this kind per Maintain call, so that the call ends
	// soon and all kinds make progress. One call makes a month of those that queries of all flags
	// need: before that, they are slow on the database of another server.
	most int
	// kept is the number of hours for which the rollups are useful. 0 means forever.
	kept int64
	// byHour is true if the rows contain their hours.
	byHour bool
	source
}

// source describes where the totals of a kind are stored and what they are computed from.
type source struct {
	table                   string
	fromEvents, fromSmaller string // statements that make a rollup
}

var (
	perFlag = source{"datar_rollup_totals", `INSERT INTO datar_rollup_totals (span, start_hour, flag_id, eval_count, last_evaluated_ms)
		SELECT ?, ?, flag_id, SUM(eval_count), MAX(last_evaluated_ms) FROM datar_hourly_events WHERE {within} GROUP BY flag_id`,
		`INSERT INTO datar_rollup_totals (span, start_hour, flag_id, eval_count, last_evaluated_ms)
		SELECT ?, ?, flag_id, SUM(eval_count), MAX(last_evaluated_ms) FROM datar_rollup_totals
		WHERE span = ? AND start_hour >= ? AND start_hour < ? GROUP BY flag_id`}
	perOutcome = source{"datar_rollup_outcomes", `INSERT INTO datar_rollup_outcomes
		(span, start_hour, flag_id, variant_id, segment_id, eval_count, ingested_count, last_evaluated_ms)
		SELECT ?, ?, flag_id, variant_id, segment_id, SUM(eval_count), COALESCE(SUM(ingested_count), 0), MAX(last_evaluated_ms)
		FROM datar_hourly_events WHERE {within} GROUP BY flag_id, variant_id, segment_id`,
		`INSERT INTO datar_rollup_outcomes
		(span, start_hour, flag_id, variant_id, segment_id, eval_count, ingested_count, last_evaluated_ms)
		SELECT ?, ?, flag_id, variant_id, segment_id, SUM(eval_count), SUM(ingested_count), MAX(last_evaluated_ms)
		FROM datar_rollup_outcomes WHERE span = ? AND start_hour >= ? AND start_hour < ? GROUP BY flag_id, variant_id, segment_id`}

	dayTotals       = kind{id: 24, hours: hoursPerDay, most: 30, source: perFlag}
	quarterTotals   = kind{id: 6, hours: 6, most: 16, kept: shortKept, source: perFlag}
	hourTotals      = kind{id: 1, hours: 1, most: 48, kept: shortKept, source: perFlag}
	dayOutcomes     = kind{id: 124, hours: hoursPerDay, most: 10, source: perOutcome}
	quarterOutcomes = kind{id: 106, hours: 6, most: 16, kept: shortKept, source: perOutcome}
	dayDetails      = kind{id: 224, hours: hoursPerDay, most: 30, source: perDetail}
	hourDetails     = kind{id: 201, hours: 1, most: 48, kept: detailsKept, source: perDetail}
	// dayHours contains the hours of a day. It has the number of the dayDetails of that day, and is
	// valid only while those exist: a version without dayHours deletes only dayDetails.
	dayHours = kind{id: 225, hours: hoursPerDay, most: 10, kept: detailsKept, byHour: true, source: perDetail}

	// kinds are all kinds in the order in which they are made. Smaller ones come first, because
	// larger ones are computed from them.
	kinds = []kind{hourTotals, quarterTotals, dayTotals, quarterOutcomes, dayOutcomes, hourDetails, dayDetails, dayHours}
	// ofFlags and ofOutcomes are the kinds that queries use, larger ones first.
	ofFlags, ofOutcomes = []kind{dayTotals, quarterTotals, hourTotals}, []kind{dayOutcomes, quarterOutcomes}

	// rollupTables are the tables with the columns span and start_hour.
	rollupTables = []string{"datar_rollups", "datar_rollup_totals", "datar_rollup_outcomes", packTable}
)

// kindIDs returns the IDs of all kinds.
func kindIDs() []int64 {
	ids := make([]int64, len(kinds))
	for i, k := range kinds {
		ids[i] = k.id
	}
	return ids
}

// startOf returns the start of the rollup that contains an hour.
func (k kind) startOf(hour int64) int64 {
	midnight := dayOf(hour)
	return midnight + (hour-midnight)/k.hours*k.hours
}

func dayOf(hour int64) int64 { return int64(datar.Hour(hour).DayStart()) }

// lock waits until no other transaction adds events or makes rollups. It must come first in a
// transaction: on SQLite, a transaction that reads first cannot write while another one writes, and
// on PostgreSQL, one that waits must not have a snapshot.
func (s *Store) lock(tx *gorm.DB) error {
	for _, statement := range s.dialect.lock {
		if err := tx.Exec(s.sql(statement)).Error; err != nil {
			return fmt.Errorf("lock the counts: %w", err)
		}
	}
	return nil
}

// invalidate deletes the rollups that contain the hours of the rows. The caller must hold the lock.
func (s *Store) invalidate(tx *gorm.DB, rows []datar.Row) error {
	hours := map[int64]bool{}
	for _, r := range rows {
		hours[int64(r.Hour)] = true
	}
	added := slices.Sorted(maps.Keys(hours))
	var have []rollup
	if err := tx.Raw(s.sql("SELECT span, start_hour FROM datar_rollups WHERE span IN ? AND start_hour >= ? AND start_hour <= ? AND NOT purged"),
		kindIDs(), dayOf(added[0]), added[len(added)-1]).Scan(&have).Error; err != nil {
		return fmt.Errorf("look for rollups: %w", err)
	}
	if len(have) == 0 {
		return nil
	}
	exist := map[rollup]bool{}
	for _, r := range have {
		exist[r] = true
	}
	for _, k := range kinds {
		var starts []int64
		for _, hour := range added {
			start := k.startOf(hour)
			if r := (rollup{Kind: int16(k.id), StartHour: start}); exist[r] {
				starts = append(starts, start)
				delete(exist, r)
			}
		}
		if len(starts) == 0 { // the usual case, which needs no lock
			continue
		}
		if err := tx.Exec(s.sql("DELETE FROM datar_rollups WHERE span = ? AND start_hour IN ? AND NOT purged"), k.id, padded(starts)).Error; err != nil {
			return fmt.Errorf("delete rollups: %w", err)
		}
	}
	return nil
}

// Maintain implements datar.Maintainer. It makes due rollups, and reduces days before the retention
// to their rollups. One call does a bounded amount of work, for each kind the newest first. Several
// processes may call it at the same time.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep time.Duration) error {
	s.kept.dropUnused(time.Now().Add(-keptUnused))
	if err := s.forgetReceipts(ctx, now); err != nil {
		return err
	}
	if err := s.forgetServers(ctx, now); err != nil {
		return err
	}
	// Each process that sends counts in is a writer, so writers are also added while a server runs.
	if err := s.forget(s.db.WithContext(ctx)); err != nil {
		return fmt.Errorf("forget old writers: %w", err)
	}
	if err := s.makeRollups(ctx, now); err != nil {
		return err
	}
	if keep != 0 {
		if err := s.purge(ctx, now.Add(-keep)); err != nil {
			return err
		}
	}
	return s.purgeUnknown(ctx, now.Add(-cmp.Or(keep, datar.RecordLifetime)))
}

// makeRollups makes the due rollups that do not exist.
func (s *Store) makeRollups(ctx context.Context, now time.Time) error {
	db := s.db.WithContext(ctx)
	oldest, found, err := s.oldest(db)
	if err != nil || !found {
		return err
	}
	end := int64(datar.HourOf(now.Add(-settleTime))) // the first hour that has not been over for long enough
	var all []rollup
	if err := db.Raw(s.sql("SELECT span, start_hour, purged, made FROM datar_rollups")).Scan(&all).Error; err != nil {
		return fmt.Errorf("read rollups: %w", err)
	}
	have, purged := numbers{}, map[int64]bool{}
	for _, r := range all {
		have[rollup{Kind: r.Kind, StartHour: r.StartHour}] = r.Made
		if r.Purged {
			purged[r.StartHour] = true
		}
	}
	due := dueRollups(oldest, end, purged)
	s.rollupProgress.begin(due, have)
	work := s.newPace()
	for i, k := range kinds {
		left := k.most
		for _, start := range due[i] {
			if left == 0 {
				break
			}
			if have.isDone(k, start, end) {
				continue
			}
			left--
			if err := work.do(ctx, func() error { return s.makeRollup(ctx, k, start) }); err != nil {
				return err
			}
			s.rollupProgress.made(k, start)
		}
	}
	return s.dropOld(ctx, end)
}

// dueRollups returns the starts of the rollups that must exist, for each kind the newest first.
// oldest is the first hour with counts, and end the first hour that has not been over for long
// enough.
func dueRollups(oldest, end int64, purged map[int64]bool) [][]int64 {
	due := make([][]int64, len(kinds))
	for i, k := range kinds {
		first := k.startOf(oldest)
		if k.kept != 0 {
			first = max(first, end-k.kept)
		}
		for start := k.startOf(end) - k.hours; start >= first; start -= k.hours {
			if !purged[dayOf(start)] {
				due[i] = append(due[i], start)
			}
		}
	}
	return due
}

// numbers maps rollups, by kind and start, to their numbers. A rollup of an older version has the
// number 0.
type numbers map[rollup]int64

// isDone reports whether there is nothing to make as of an hour. While the hours of a day are kept,
// the day needs a number.
func (n numbers) isDone(k kind, start, now int64) bool {
	number, found := n[rollup{Kind: int16(k.id), StartHour: start}]
	switch k.id {
	case dayDetails.id:
		return found && (number != 0 || start < now-detailsKept)
	case dayHours.id:
		day := n[rollup{Kind: int16(dayDetails.id), StartHour: start}]
		return day == 0 || number == day // without a day, the hours must wait for it
	default:
		return found
	}
}

// drawNumber returns a random number for a rollup.
func drawNumber() int64 { return mathrand.Int64N(math.MaxInt64) + 1 }

// makeRollup makes one rollup, unless another process has just made it or has begun to purge the
// day.
func (s *Store) makeRollup(ctx context.Context, k kind, start int64) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx); err != nil {
			return err
		}
		number, due, err := s.numberOf(tx, k, start)
		if !due || err != nil {
			return err
		}
		for _, table := range []string{"datar_rollups", k.table} {
			if err := tx.Exec(s.sql("DELETE FROM "+table+" WHERE span = ? AND start_hour = ?"), k.id, start).Error; err != nil {
				return err
			}
		}
		if err := s.fillRollup(tx, k, start); err != nil {
			return err
		}
		return tx.Exec(s.sql("INSERT INTO datar_rollups (span, start_hour, purged, made) VALUES (?, ?, ?, ?)"), k.id, start, false, number).Error
	}, s.dialect.writeTx)
	if err != nil {
		return fmt.Errorf("roll up %d h from %s into %s: %w", k.hours, datar.Hour(start).Time().Format(time.RFC3339), k.table, err)
	}
	return nil
}

// numberOf returns the number for a rollup. It returns false if the rollup exists, cannot be made
// yet, or must not be made any more.
func (s *Store) numberOf(tx *gorm.DB, k kind, start int64) (number int64, due bool, err error) {
	var found []rollup
	if err := tx.Raw(s.sql("SELECT span, start_hour, purged, made FROM datar_rollups WHERE (span IN ? AND start_hour = ?) OR (span = ? AND start_hour = ?)"),
		[]int64{k.id, dayDetails.id}, start, dayTotals.id, dayOf(start)).Scan(&found).Error; err != nil {
		return 0, false, err
	}
	have := numbers{}
	for _, r := range found {
		if r.Purged {
			return 0, false, nil
		}
		have[rollup{Kind: r.Kind, StartHour: r.StartHour}] = r.Made
	}
	if have.isDone(k, start, start) {
		return 0, false, nil
	}
	if k.id == dayHours.id {
		return have[rollup{Kind: int16(dayDetails.id), StartHour: start}], true, nil
	}
	return drawNumber(), true, nil
}

// fillRollup writes the totals of a rollup. They are the sums of smaller rollups if all of those
// exist, and otherwise the sums of events.
func (s *Store) fillRollup(tx *gorm.DB, k kind, start int64) error {
	span := hourRange{start, start + k.hours}
	if k.table == packTable {
		return s.fillPacks(tx, k, span)
	}
	smaller, err := s.smallerRollups(tx, k, span)
	if err != nil {
		return err
	}
	if smaller != 0 {
		return tx.Exec(s.sql(k.fromSmaller), k.id, start, smaller, span.from, span.to).Error
	}
	within, err := s.eventHours(tx)
	if err != nil {
		return err
	}
	return tx.Exec(within.in(s.sql(k.fromEvents)), append([]any{k.id, start}, within.bind(span)...)...).Error
}

// smallerRollups returns the ID of a kind whose rollups cover the whole span and add up to one of
// kind k, or 0 if there is no such kind.
func (s *Store) smallerRollups(tx *gorm.DB, k kind, span hourRange) (id int64, err error) {
	for _, part := range slices.Backward(kinds) {
		if k.table != part.table || part.hours >= k.hours {
			continue
		}
		var found int64
		if err := tx.Raw(s.sql("SELECT COUNT(*) FROM datar_rollups WHERE span = ? AND start_hour >= ? AND start_hour < ?"),
			part.id, span.from, span.to).Scan(&found).Error; err != nil {
			return 0, err
		}
		if found == k.hours/part.hours {
			return part.id, nil
		}
	}
	return 0, nil
}

// dropOld deletes rollups that are no longer useful as of an hour.
func (s *Store) dropOld(ctx context.Context, now int64) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx); err != nil {
			return err
		}
		for _, k := range kinds {
			if k.kept == 0 {
				continue
			}
			if err := s.deleteRollups(tx, []int64{k.id}, hourRange{int64(firstHour), now - k.kept}); err != nil {
				return err
			}
		}
		return nil
	}, s.dialect.writeTx)
	if err != nil {
		return fmt.Errorf("drop old rollups: %w", err)
	}
	return nil
}

// deleteRollups deletes the rollups of some kinds that start within a range, and their totals. The
// statement names the kinds, so that the database uses the primary key.
func (s *Store) deleteRollups(tx *gorm.DB, ids []int64, within hourRange) error {
	for _, table := range rollupTables {
		if err := tx.Exec(s.sql("DELETE FROM "+table+" WHERE span IN ? AND start_hour >= ? AND start_hour < ?"), ids, within.from, within.to).Error; err != nil {
			return err
		}
	}
	return nil
}
