package gormstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

var _ datar.FlagEditor = (*Store)(nil)

// DeleteFlag implements datar.FlagEditor. It also deletes the flag from rollups, and from the
// totals that remain after retention. It runs in one transaction, for which flushes wait.
func (s *Store) DeleteFlag(ctx context.Context, flagID int64) error {
	if err := s.edit(ctx, func(tx *gorm.DB) error { return s.removeFlag(tx, flagID) }); err != nil {
		return fmt.Errorf("delete flag %d: %w", flagID, err)
	}
	return nil
}

// MergeFlag implements datar.FlagEditor, in one transaction like DeleteFlag. It holds all rows of
// the flag from in memory, at 100 to 200 bytes each.
func (s *Store) MergeFlag(ctx context.Context, from, to int64) error {
	err := s.edit(ctx, func(tx *gorm.DB) error {
		rows, err := s.rowsOfFlag(tx, from)
		if err != nil {
			return err
		}
		days, err := s.purgedTotals(tx, from)
		if err != nil {
			return err
		}
		if err := s.removeFlag(tx, from); err != nil {
			return err
		}
		for i := range rows {
			rows[i].FlagID = to
		}
		if err := s.addRows(tx, rows, time.Now()); err != nil {
			return err
		}
		for _, d := range days {
			if err := s.addToDay(tx, d.StartHour, sums{{a: to}: {Count: d.EvalCount, Last: d.Last}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("merge flag %d into %d: %w", from, to, err)
	}
	return nil
}

// edit runs a transaction during which no other transaction adds events or makes rollups.
func (s *Store) edit(ctx context.Context, change func(tx *gorm.DB) error) error {
	return s.again(ctx, 0, func() error {
		return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if err := s.lock(tx); err != nil {
				return err
			}
			if err := tx.Exec(s.sql("UPDATE datar_meta SET value = ? WHERE name = ?"), newIdentity(), editedName).Error; err != nil {
				return err
			}
			return change(tx)
		}, s.dialect.writeTx)
	})
}

// removeFlag deletes a flag from all tables. The rollups stay correct, because the flag no longer
// has counts.
func (s *Store) removeFlag(tx *gorm.DB, flagID int64) error {
	for _, table := range []string{"datar_hourly_events", "datar_hourly_details", "datar_rollup_totals", "datar_rollup_outcomes"} {
		if err := tx.Exec(s.sql("DELETE FROM "+table+" WHERE flag_id = ?"), flagID).Error; err != nil {
			return err
		}
	}
	return s.removeFromPacks(tx, flagID)
}

// removeFromPacks rewrites the packs that may contain the flag, without it.
func (s *Store) removeFromPacks(tx *gorm.DB, flagID int64) error {
	for _, k := range kinds {
		if k.table != packTable {
			continue
		}
		if err := s.removeFromKind(tx, k, flagID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) removeFromKind(tx *gorm.DB, k kind, flagID int64) error {
	var packs []struct {
		StartHour int64
		Details   []byte
	}
	if err := tx.Raw(s.sql("SELECT start_hour, details FROM datar_rollup_details WHERE span = ? AND pack = ?"), k.id, k.packOf(flagID)).Scan(&packs).Error; err != nil {
		return err
	}
	for _, p := range packs {
		var others []datar.Row
		found := false
		if err := unpack(p.Details, p.StartHour, 0, func(r datar.Row) {
			if found = found || r.FlagID == flagID; r.FlagID != flagID {
				others = append(others, r)
			}
		}); err != nil {
			return err
		}
		if !found {
			continue
		}
		if err := tx.Exec(s.sql("UPDATE datar_rollup_details SET details = ? WHERE span = ? AND start_hour = ? AND pack = ?"),
			k.pack(others, p.StartHour), k.id, p.StartHour, k.packOf(flagID)).Error; err != nil {
			return err
		}
	}
	return nil
}

// rowsOfFlag returns the rows that add the details and events of this flag to another one, in key
// order.
func (s *Store) rowsOfFlag(tx *gorm.DB, flagID int64) ([]datar.Row, error) {
	const by = allParts | datar.GroupHour
	details, events := groups{by: by}, groups{by: by}
	if err := scanRows(tx, s.sql(`SELECT {hour}, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms
		FROM datar_hourly_details WHERE flag_id = ?`), []any{flagID}, func(scan func(...any) error) error {
		r := datar.Row{Key: datar.Key{FlagID: flagID}}
		err := scan(&r.Hour, &r.Outcome, &r.VariantID, &r.SegmentID, &r.Version, &r.Asked, &r.Count, &r.Ingested, &r.First, &r.Last)
		details.add(r)
		return err
	}); err != nil {
		return nil, err
	}
	if err := scanRows(tx, s.sql(`SELECT {hour}, variant_id, segment_id, eval_count, COALESCE(ingested_count, 0), COALESCE(first_evaluated_ms, 0), COALESCE(last_evaluated_ms, 0)
		FROM datar_hourly_events WHERE flag_id = ?`), []any{flagID}, func(scan func(...any) error) error {
		r := datar.Row{Key: datar.Key{FlagID: flagID}}
		err := scan(&r.Hour, &r.VariantID, &r.SegmentID, &r.Count, &r.Ingested, &r.First, &r.Last)
		events.add(r)
		return err
	}); err != nil {
		return nil, err
	}
	rows := datar.WithUnattributed(details.rows(), events.rows(), by)
	for i := range rows {
		if r := &rows[i]; r.Outcome == datar.Unattributed {
			event := events.sums[events.places[r.Key]]
			r.First, r.Last = event.First, event.Last
			if r.First == 0 {
				r.First = r.Hour.Time().UnixMilli()
			}
			r.Last = max(r.Last, r.First)
		}
	}
	return slices.DeleteFunc(rows, func(r datar.Row) bool { return r.Count < 1 }), nil
}

// purgedTotal is the total of a day after retention.
type purgedTotal struct{ StartHour, EvalCount, Last int64 }

func (s *Store) purgedTotals(tx *gorm.DB, flagID int64) (days []purgedTotal, err error) {
	err = tx.Raw(s.sql(`SELECT start_hour, eval_count, COALESCE(last_evaluated_ms, 0) AS last FROM datar_rollup_totals
		WHERE span = ? AND flag_id = ? AND start_hour IN (SELECT start_hour FROM datar_rollups WHERE span = ? AND purged)`),
		dayTotals.id, flagID, dayTotals.id).Scan(&days).Error
	return days, err
}
