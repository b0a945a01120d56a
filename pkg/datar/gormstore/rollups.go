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

// Rollups are totals over a whole hour, a quarter of a day, or a whole day of UTC, made from the hourly events after that
// span is over. They only save work: a batch that adds to a span deletes its rollups in the same transaction, and they are
// made again later. Who makes rollups has the exclusive lock, who adds events the shared one; so there is never a rollup
// that misses a count.
//
// The exception are days before the retention: of a purged day the rollup is all there is, and counts that come late
// are moved into it.

const (
	hoursPerDay = 24

	// lockName is the row of datar_meta that keeps making rollups and adding events apart.
	lockName = "rollup lock"

	// A rollup is made when its span has been over for so long: by then nearly all late batches have come, also those of
	// Flagr on the same database, which does not know of rollups and flushes once an hour at the least.
	settleTime = 2 * time.Hour
	// Rollups that are shorter than a day make windows fast that begin or end within a day, which few do that are older.
	// Those of details also answer series by the hour.
	shortKept, detailsKept = 32 * hoursPerDay, 92 * hoursPerDay
)

// kind is a kind of rollup: what it adds up, and over how many hours.
type kind struct {
	// id is what the columns named span have. They are from a time when there was one kind for each length.
	id    int64
	hours int64
	// most is how many are made at once, so that Maintain ends soon, and no kind waits for all of another.
	most int
	// kept is for how many hours they are useful. 0: forever.
	kept int64
	// byHour: its rows have their hours.
	byHour bool
	source
}

// source is where the totals of a kind are.
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

	dayTotals       = kind{id: 24, hours: hoursPerDay, most: 20, source: perFlag}
	quarterTotals   = kind{id: 6, hours: 6, most: 50, kept: shortKept, source: perFlag}
	hourTotals      = kind{id: 1, hours: 1, most: 100, kept: shortKept, source: perFlag}
	dayOutcomes     = kind{id: 124, hours: hoursPerDay, most: 10, source: perOutcome}
	quarterOutcomes = kind{id: 106, hours: 6, most: 25, kept: shortKept, source: perOutcome}
	dayDetails      = kind{id: 224, hours: hoursPerDay, most: 10, source: perDetail}
	hourDetails     = kind{id: 201, hours: 1, most: 100, kept: detailsKept, source: perDetail}
	// dayHours are the hours of a day. They have the number of the dayDetails of that day, and count only as long as these exist: a
	// version that does not know of them deletes only those.
	dayHours = kind{id: 225, hours: hoursPerDay, most: 10, kept: detailsKept, byHour: true, source: perDetail}

	// kinds are all of them, in the order in which they are made: small ones first, of which larger ones are made.
	kinds = []kind{hourTotals, quarterTotals, dayTotals, quarterOutcomes, dayOutcomes, hourDetails, dayDetails, dayHours}
	// ofFlags and ofOutcomes are those that queries use, the larger ones first.
	ofFlags, ofOutcomes = []kind{dayTotals, quarterTotals, hourTotals}, []kind{dayOutcomes, quarterOutcomes}

	// rollupTables are the tables with columns span and start_hour.
	rollupTables = []string{"datar_rollups", "datar_rollup_totals", "datar_rollup_outcomes", packTable}
)

// kindIDs returns the ids of all kinds.
func kindIDs() []int64 {
	ids := make([]int64, len(kinds))
	for i, k := range kinds {
		ids[i] = k.id
	}
	return ids
}

// startOf is the start of the rollup that an hour belongs to.
func (k kind) startOf(hour int64) int64 {
	midnight := dayOf(hour)
	return midnight + (hour-midnight)/k.hours*k.hours
}

func dayOf(hour int64) int64 { return int64(datar.Hour(hour).DayStart()) }

// lock takes the row that keeps making rollups and adding events apart, until the transaction ends. It is the first
// statement of a transaction: on SQLite one that reads first cannot become a writer while another writes.
func (s *Store) lock(tx *gorm.DB, statement string) error {
	if err := tx.Exec(s.sql(statement), lockName).Error; err != nil {
		return fmt.Errorf("lock the rollups: %w", err)
	}
	return nil
}

// invalidate deletes the rollups of the hours that the rows add to. The shared lock must be held.
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
		if len(starts) == 0 { // as nearly always: no need to lock anything
			continue
		}
		if err := tx.Exec(s.sql("DELETE FROM datar_rollups WHERE span = ? AND start_hour IN ? AND NOT purged"), k.id, padded(starts)).Error; err != nil {
			return fmt.Errorf("delete rollups: %w", err)
		}
	}
	return nil
}

// Maintain implements datar.Maintainer. It makes the rollups that are due, and reduces days before keep to their rollups; a
// call does a bounded amount of it, of each kind the newest first. It may run in several processes at once.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep time.Duration) error {
	s.kept.dropUnused(time.Now().Add(-keptUnused))
	if err := s.forgetReceipts(ctx, now); err != nil {
		return err
	}
	if err := s.forgetServers(ctx, now); err != nil {
		return err
	}
	// Each process that sends counts in is a writer, so they come while a server runs, too.
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
	return s.purgeUnknown(ctx, now.Add(-cmp.Or(keep, unknownLifetime)))
}

// makeRollups makes rollups that are due and do not exist.
func (s *Store) makeRollups(ctx context.Context, now time.Time) error {
	db := s.db.WithContext(ctx)
	oldest, found, err := s.oldest(db)
	if err != nil || !found {
		return err
	}
	end := int64(datar.HourOf(now.Add(-settleTime))) // the hour that is not over for long enough
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
	for _, k := range kinds {
		first := k.startOf(oldest)
		if k.kept != 0 {
			first = max(first, end-k.kept)
		}
		left := k.most
		for start := k.startOf(end) - k.hours; start >= first && left > 0; start -= k.hours {
			if purged[dayOf(start)] || have.isDone(k, start, end) {
				continue
			}
			left--
			if err := s.makeRollup(ctx, k, start); err != nil {
				return err
			}
		}
	}
	return s.dropOld(ctx, end)
}

// numbers are those of rollups, by kind and start. One that an older version made has the number 0.
type numbers map[rollup]int64

// isDone tells at an hour whether there is nothing to make. Days of which the hours are kept need a number.
func (n numbers) isDone(k kind, start, now int64) bool {
	number, found := n[rollup{Kind: int16(k.id), StartHour: start}]
	switch k.id {
	case dayDetails.id:
		return found && (number != 0 || start < now-detailsKept)
	case dayHours.id:
		day := n[rollup{Kind: int16(dayDetails.id), StartHour: start}]
		return day == 0 || number == day // without a day they have to wait for it
	default:
		return found
	}
}

// drawNumber returns the number of a rollup.
func drawNumber() int64 { return mathrand.Int64N(math.MaxInt64) + 1 }

// makeRollup makes one rollup, unless another process just did, or has begun to purge the day.
func (s *Store) makeRollup(ctx context.Context, k kind, start int64) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx, s.dialect.lockExclusive); err != nil {
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

// numberOf returns the number for a rollup, and false if it is there, cannot be made yet, or must not be made any more.
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

// fillRollup writes the totals of a rollup: the sums of smaller ones if they are all there, else those of the events.
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

// smallerRollups returns the id of a kind of rollups that exist for the whole span and add up to one of kind k; 0 if there
// is no such kind.
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

// dropOld removes rollups that are not useful any more at an hour.
func (s *Store) dropOld(ctx context.Context, now int64) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx, s.dialect.lockExclusive); err != nil {
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

// deleteRollups deletes the rollups of some kinds that start within a range, and their totals. It names the kinds, so that the
// database finds them by the primary key.
func (s *Store) deleteRollups(tx *gorm.DB, ids []int64, within hourRange) error {
	for _, table := range rollupTables {
		if err := tx.Exec(s.sql("DELETE FROM "+table+" WHERE span IN ? AND start_hour >= ? AND start_hour < ?"), ids, within.from, within.to).Error; err != nil {
			return err
		}
	}
	return nil
}
