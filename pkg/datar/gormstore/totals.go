package gormstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// rangesApart is the maximum number of ranges that are read by separate queries. With two ranges in
// one query for the events of a flag, SQLite would read all events of the flag.
const rangesApart = 8

// plan lists the sources of the totals of a window.
type plan struct {
	rollups []chosen
	events  []hourRange // ranges in which hourly events are added up
}

// chosen are rollups of a kind, by their starts.
type chosen struct {
	kind
	starts []int64
	made   []int64     // the number of each rollup, 0 if it has none
	within []hourRange // for a kind by hour: the hours to use
}

// equal reports whether two choices contain the same rollups with the same numbers.
func (c chosen) equal(other chosen) bool {
	return c.id == other.id && slices.Equal(c.starts, other.starts) && slices.Equal(c.made, other.made)
}

// plan reads which rollups exist, and chooses those that lie within the window. It prefers the
// first kind, and uses later kinds for the rest of the window. Rollups by hour need only overlap
// the window. A purged day, which has no other data, is used if it overlaps the window.
func (s *Store) plan(tx *gorm.DB, kinds []kind, window hourRange) (plan, error) {
	p := plan{events: []hourRange{window}}
	for _, k := range kinds {
		within := p.events
		switch {
		case k.id == dayTotals.id, k.byHour:
			within = []hourRange{{window.from - k.hours + 1, window.to}}
		case len(within) > rangesApart:
			within = []hourRange{window}
		}
		var found []rollup
		for _, r := range within {
			some, err := s.rollups(tx, k, r)
			if err != nil {
				return p, err
			}
			found = append(found, some...)
		}
		use := chosen{kind: k, within: p.events}
		var whole []int64
		for _, r := range found {
			inside := slices.ContainsFunc(p.events, func(gap hourRange) bool {
				if k.byHour {
					return r.StartHour < gap.to && r.StartHour+k.hours > gap.from
				}
				return r.StartHour >= gap.from && r.StartHour+k.hours <= gap.to
			})
			if inside || r.Purged {
				use.starts, use.made = append(use.starts, r.StartHour), append(use.made, r.Made)
			}
			if inside && !r.Purged {
				whole = append(whole, r.StartHour)
			}
		}
		if len(use.starts) > 0 {
			p.rollups = append(p.rollups, use)
		}
		var left []hourRange
		for _, gap := range p.events {
			left = append(left, gap.without(whole, k.hours)...)
		}
		p.events = left
	}
	return p, nil
}

// currentHours selects the rollups of dayHours whose day exists with the same number.
const currentHours = `SELECT start_hour, purged, made FROM datar_rollups WHERE span = ? AND start_hour >= ? AND start_hour < ?
	AND EXISTS (SELECT 1 FROM datar_rollups AS d WHERE d.span = ? AND d.start_hour = datar_rollups.start_hour AND d.made = datar_rollups.made)
	ORDER BY start_hour`

// rollups returns the rollups of a kind that start within the range, in order.
func (s *Store) rollups(tx *gorm.DB, k kind, within hourRange) ([]rollup, error) {
	var found []rollup
	statement, values := "SELECT start_hour, purged, made FROM datar_rollups WHERE span = ? AND start_hour >= ? AND start_hour < ? ORDER BY start_hour", []any{k.id, within.from, within.to}
	if k.id == dayHours.id {
		statement, values = currentHours, []any{k.id, within.from, within.to, dayDetails.id}
	}
	if err := tx.Raw(s.sql(statement), values...).Scan(&found).Error; err != nil {
		return nil, fmt.Errorf("read rollups: %w", err)
	}
	return found, nil
}

// group is the key by which totals are added up: flag, or variant and segment, or day.
type group struct{ a, b int64 }

// sums contains totals by group.
type sums map[group]datar.Total

func (s sums) add(g group, t datar.Total) {
	sum := s[g]
	s[g] = datar.Total{Count: sum.Count + t.Count, Ingested: sum.Ingested + t.Ingested, Last: max(sum.Last, t.Last)}
}

// grouping describes how a dimension is read.
type grouping struct {
	// kinds are the rollups to use. rollups is the query for them, and events is the query for
	// hourly events. Both return two columns of the group, and the totals.
	kinds           []kind
	rollups, events string
	// name sets the fields of the group in a total. A day can be given as any of its hours.
	name func(t *datar.Total, g group)
}

var groupings = map[datar.Dimension]grouping{
	datar.ByFlag: {
		kinds: ofFlags,
		rollups: `SELECT flag_id, 0, SUM(eval_count), 0, COALESCE(MAX(last_evaluated_ms), 0) FROM datar_rollup_totals
			WHERE span = ? AND start_hour IN ? {flag} GROUP BY flag_id`,
		events: `SELECT flag_id, 0, SUM(eval_count), COALESCE(SUM(ingested_count), 0), COALESCE(MAX(last_evaluated_ms), 0) FROM datar_hourly_events
			WHERE {within} {flag} GROUP BY flag_id`,
		name: func(t *datar.Total, g group) { t.FlagID = g.a },
	},
	datar.ByOutcome: {
		kinds: ofOutcomes,
		rollups: `SELECT variant_id, segment_id, SUM(eval_count), SUM(ingested_count), COALESCE(MAX(last_evaluated_ms), 0) FROM datar_rollup_outcomes
			WHERE span = ? AND start_hour IN ? {flag} GROUP BY variant_id, segment_id`,
		events: `SELECT variant_id, segment_id, SUM(eval_count), COALESCE(SUM(ingested_count), 0), COALESCE(MAX(last_evaluated_ms), 0) FROM datar_hourly_events
			WHERE {within} {flag} GROUP BY variant_id, segment_id`,
		name: func(t *datar.Total, g group) { t.VariantID, t.SegmentID = g.a, g.b },
	},
	datar.ByDay: {
		kinds: ofFlags,
		rollups: `SELECT start_hour, 0, SUM(eval_count), 0, COALESCE(MAX(last_evaluated_ms), 0) FROM datar_rollup_totals
			WHERE span = ? AND start_hour IN ? {flag} GROUP BY start_hour`,
		events: `SELECT MIN({hour}), 0, SUM(eval_count), COALESCE(SUM(ingested_count), 0), COALESCE(MAX(last_evaluated_ms), 0) FROM datar_hourly_events
			WHERE {within} {flag} GROUP BY bucket_hour`,
		name: func(t *datar.Total, g group) { t.Day = datar.Hour(g.a) },
	},
}

// Totals implements datar.Store.
func (s *Store) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	by, ok := groupings[query.GroupBy]
	if !ok {
		return nil, fmt.Errorf("totals: unknown dimension %d", query.GroupBy)
	}
	window := hourRange{int64(max(query.From, firstHour)), int64(min(query.To, lastHour))}
	groups := sums{}
	err := s.read(ctx, query.FlagID, by.kinds[0], func(tx *gorm.DB) error {
		p, err := s.plan(tx, by.kinds, window)
		if err != nil {
			return err
		}
		for _, use := range p.rollups { // a statement for several kinds would be slower on PostgreSQL
			if err := groups.addUp(tx, s.ofFlag(by.rollups, query.FlagID), query, use.id, padded(use.starts)); err != nil {
				return err
			}
		}
		return s.addEvents(tx, groups, p.events, query)
	})
	if err != nil {
		return nil, fmt.Errorf("totals: %w", err)
	}
	totals := make([]datar.Total, 0, len(groups))
	for g, total := range groups {
		if total.Count > 0 {
			by.name(&total, g)
			totals = append(totals, total)
		}
	}
	return totals, nil
}

// atOneMoment runs queries that see the same state of the database.
func (s *Store) atOneMoment(ctx context.Context, queries func(tx *gorm.DB) error) error {
	return s.db.WithContext(ctx).Transaction(queries, &sql.TxOptions{Isolation: s.dialect.oneMoment, ReadOnly: true})
}

// read runs queries for one flag, or for all flags if the ID is 0, which prefer a kind of rollup.
func (s *Store) read(ctx context.Context, flagID int64, prefer kind, queries func(tx *gorm.DB) error) error {
	if flagID == 0 {
		return s.ofAllFlags(ctx, prefer, queries)
	}
	return s.atOneMoment(ctx, queries)
}

// ofFlag returns a query for one flag, or for all flags if the ID is 0.
func (s *Store) ofFlag(query string, id int64) string {
	condition := ""
	if id != 0 {
		condition = "AND flag_id = ?"
	}
	return strings.Replace(s.sql(query), "{flag}", condition, 1)
}

// addEvents adds the hourly events within the ranges.
func (s *Store) addEvents(tx *gorm.DB, groups sums, ranges []hourRange, q datar.TotalsQuery) error {
	if len(ranges) == 0 {
		return nil
	}
	within, err := s.eventHours(tx)
	if err != nil {
		return err
	}
	parts := together(ranges, q.FlagID)
	if q.FlagID == 0 {
		pieces, err := s.pieces(tx, ranges)
		if err != nil {
			return err
		}
		parts = slices.Collect(slices.Chunk(pieces, 1))
	}
	statement := s.ofFlag(groupings[q.GroupBy].events, q.FlagID)
	for _, some := range parts {
		condition, values := within.anyOf(some)
		if err := groups.addUp(tx, strings.Replace(statement, "{within}", condition, 1), q, values...); err != nil {
			return err
		}
	}
	return nil
}

// addUp runs a query for totals and adds them.
func (s sums) addUp(tx *gorm.DB, statement string, q datar.TotalsQuery, values ...any) error {
	if q.FlagID != 0 {
		values = append(values, q.FlagID)
	}
	rows, err := tx.Raw(statement, values...).Rows()
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err reports errors
	for rows.Next() {
		var g group
		var t datar.Total
		if err := rows.Scan(&g.a, &g.b, &t.Count, &t.Ingested, &t.Last); err != nil {
			return err
		}
		if q.GroupBy == datar.ByDay {
			g.a = dayOf(g.a)
		}
		s.add(g, t)
	}
	return rows.Err()
}
