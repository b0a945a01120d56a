package gormstore

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// maxPurges is the maximum number of transactions per Maintain call, so that the call ends
	// soon. See also kind.most.
	maxPurges = 50
	// rowsPerPurge is small, so that a purge transaction delays a flush by milliseconds only.
	rowsPerPurge = 1000
)

// purge moves the events of whole days before the given time into the rollups of these days, and
// deletes their details, in small transactions.
func (s *Store) purge(ctx context.Context, before time.Time) error {
	end := dayOf(int64(datar.HourOf(before)))
	for range maxPurges {
		oldest, found, err := s.oldest(s.db.WithContext(ctx))
		if err != nil {
			return err
		}
		if !found || dayOf(oldest) >= end {
			return nil
		}
		if err := s.purgeSome(ctx, dayOf(oldest)); err != nil {
			return fmt.Errorf("purge %s: %w", datar.Hour(oldest).Time().Format(time.DateOnly), err)
		}
	}
	return nil
}

// purgeSome deletes some details of a day. If there are no more details, it moves some events into
// the day's rollup.
func (s *Store) purgeSome(ctx context.Context, day int64) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx); err != nil {
			return err
		}
		if err := s.markPurged(tx, day); err != nil {
			return err
		}
		if found, err := s.deleteDetails(tx, day); found || err != nil {
			return err
		}
		within, err := s.eventHours(tx)
		if err != nil {
			return err
		}
		var events []struct{ ID, FlagID, EvalCount, Last int64 }
		if err := tx.Raw(within.in(s.sql("SELECT id, flag_id, eval_count, COALESCE(last_evaluated_ms, 0) AS last FROM datar_hourly_events WHERE {within} ORDER BY bucket_hour, id LIMIT ?")),
			append(within.bind(hourRange{day, day + hoursPerDay}), rowsPerPurge)...).Scan(&events).Error; err != nil {
			return err
		}
		if len(events) == 0 {
			return nil
		}
		moved := sums{}
		ids := make([]int64, len(events))
		for i, e := range events {
			ids[i] = e.ID
			moved.add(group{a: e.FlagID}, datar.Total{Count: e.EvalCount, Last: e.Last})
		}
		if err := tx.Exec(s.sql("DELETE FROM datar_hourly_events WHERE id IN ?"), padded(ids)).Error; err != nil {
			return err
		}
		return s.addToDay(tx, day, moved)
	}, s.dialect.writeTx)
}

// deleteDetails deletes details of the first hour of a day that has any: those of the first flags
// that together have rowsPerPurge rows.
func (s *Store) deleteDetails(tx *gorm.DB, day int64) (found bool, err error) {
	var hours []int64
	if err := tx.Raw(s.sql("SELECT {hour} FROM datar_hourly_details WHERE "+hourInUTC+" ORDER BY bucket_hour LIMIT 1"),
		s.dialect.bindHour(datar.Hour(day)), s.dialect.bindHour(datar.Hour(day+hoursPerDay))).Scan(&hours).Error; err != nil || len(hours) == 0 {
		return false, err
	}
	hour := s.dialect.bindHour(datar.Hour(hours[0]))
	last := int64(math.MaxInt64)
	var flags []int64
	if err := tx.Raw(s.sql("SELECT flag_id FROM datar_hourly_details WHERE bucket_hour = {at} ORDER BY flag_id LIMIT 1 OFFSET ?"), hour, rowsPerPurge-1).Scan(&flags).Error; err != nil {
		return true, err
	}
	if len(flags) > 0 {
		last = flags[0]
	}
	return true, tx.Exec(s.sql("DELETE FROM datar_hourly_details WHERE bucket_hour = {at} AND flag_id <= ?"), hour, last).Error
}

// purgeUnknown deletes the oldest hours of requests for flags that do not exist.
func (s *Store) purgeUnknown(ctx context.Context, before time.Time) error {
	db, end := s.db.WithContext(ctx), dayOf(int64(datar.HourOf(before)))
	for range maxPurges {
		var hours []int64
		if err := db.Raw(s.sql("SELECT {hour} FROM datar_unknown_hourly ORDER BY bucket_hour LIMIT 1")).Scan(&hours).Error; err != nil {
			return fmt.Errorf("look for the oldest unknown flag: %w", err)
		}
		if len(hours) == 0 || hours[0] >= end {
			return nil
		}
		if err := db.Exec(s.sql("DELETE FROM datar_unknown_hourly WHERE bucket_hour = {at}"), s.dialect.bindHour(datar.Hour(hours[0]))).Error; err != nil {
			return fmt.Errorf("purge unknown flags: %w", err)
		}
	}
	return nil
}

// markPurged replaces the day's rollup with an empty one, into which events are moved.
func (s *Store) markPurged(tx *gorm.DB, day int64) error {
	var purged []bool
	if err := tx.Raw(s.sql("SELECT purged FROM datar_rollups WHERE span = ? AND start_hour = ?"), dayTotals.id, day).Scan(&purged).Error; err != nil {
		return err
	}
	if len(purged) == 1 && purged[0] {
		return nil
	}
	if err := s.deleteRollups(tx, kindIDs(), hourRange{day, day + hoursPerDay}); err != nil {
		return err
	}
	return tx.Exec(s.sql("INSERT INTO datar_rollups (span, start_hour, purged) VALUES (?, ?, ?)"), dayTotals.id, day, true).Error
}

var addDayTotals = insertion{
	table:   "datar_rollup_totals",
	columns: "span, start_hour, flag_id, eval_count, last_evaluated_ms",
	arrays: `SELECT kind, start_hour, flag_id, eval_count, last_ms
		FROM unnest(?::text::smallint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[]) AS added(kind, start_hour, flag_id, eval_count, last_ms)`,
	width: 5,
}

// addToDay adds the sums of flags to the rollup of a day.
func (s *Store) addToDay(tx *gorm.DB, day int64, moved sums) error {
	flags := make([]int64, 0, len(moved))
	for g := range maps.Keys(moved) {
		flags = append(flags, g.a)
	}
	slices.Sort(flags)
	named := padded(flags)
	if err := moved.addUp(tx, s.sql(`SELECT flag_id, 0, eval_count, 0, COALESCE(last_evaluated_ms, 0) FROM datar_rollup_totals
		WHERE span = ? AND start_hour = ? AND flag_id IN ?`), datar.TotalsQuery{}, dayTotals.id, day, named); err != nil {
		return err
	}
	if err := tx.Exec(s.sql("DELETE FROM datar_rollup_totals WHERE span = ? AND start_hour = ? AND flag_id IN ?"), dayTotals.id, day, named).Error; err != nil {
		return err
	}
	return s.insert(tx, addDayTotals, len(flags), func(values []any, i int) []any {
		sum := moved[group{a: flags[i]}]
		return append(values, dayTotals.id, day, flags[i], sum.Count, sum.Last)
	})
}
