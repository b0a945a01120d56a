package gormstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const (
	// maxPurges is the most transactions of one call of Maintain, so that it ends soon, as is kind.most.
	maxPurges = 50
	// rowsPerPurge is small, so that a transaction that purges delays a flush by milliseconds only.
	rowsPerPurge = 1000
)

// purge moves the events of whole days before the given time into the rollups of these days, some at a time.
func (s *Store) purge(ctx context.Context, before time.Time) error {
	end := dayOf(int64(datar.HourOf(before)))
	for range maxPurges {
		oldest, found, err := s.oldestEvent(s.db.WithContext(ctx))
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

// purgeSome moves some events of a day into its rollup.
func (s *Store) purgeSome(ctx context.Context, day int64) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.lock(tx, s.dialect.lockExclusive); err != nil {
			return err
		}
		if err := s.markPurged(tx, day); err != nil {
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

// markPurged makes the day's rollup one that has only what was moved into it.
func (s *Store) markPurged(tx *gorm.DB, day int64) error {
	var purged []bool
	if err := tx.Raw(s.sql("SELECT purged FROM datar_rollups WHERE span = ? AND start_hour = ?"), dayTotals.id, day).Scan(&purged).Error; err != nil {
		return err
	}
	if len(purged) == 1 && purged[0] {
		return nil
	}
	if err := s.deleteRollups(tx, allKinds, hourRange{day, day + hoursPerDay}); err != nil {
		return err
	}
	return tx.Exec(s.sql("INSERT INTO datar_rollups (span, start_hour, purged) VALUES (?, ?, ?)"), dayTotals.id, day, true).Error
}

var addDayTotals = insertion{
	table:   "datar_rollup_totals",
	columns: "span, start_hour, flag_id, eval_count, last_evaluated_ms",
	arrays: `SELECT kind, start_hour, flag_id, eval_count, last_ms
		FROM unnest(?::smallint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) AS added(kind, start_hour, flag_id, eval_count, last_ms)`,
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
