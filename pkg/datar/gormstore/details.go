package gormstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

const allParts = datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked

var addDetails = insertion{
	table: detailsTable,
	columns: "flag_id, bucket_hour, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, " +
		"first_evaluated_ms, last_evaluated_ms",
	arrays: `SELECT flag_id, to_timestamp(seconds), outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_ms, last_ms
		FROM unnest(?::text::bigint[], ?::text::bigint[], ?::text::smallint[], ?::text::bigint[], ?::text::bigint[], ?::text::int[], ?::text::smallint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[])
		AS added(flag_id, seconds, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_ms, last_ms)`,
	width: 11,
}

// insertDetails inserts the rows with a known outcome.
func (s *Store) insertDetails(tx *gorm.DB, rows []datar.Row) error {
	known := make([]*datar.Row, 0, len(rows))
	for i := range rows {
		if hasDetail(rows[i]) {
			known = append(known, &rows[i])
		}
	}
	return s.insert(tx, addDetails, len(known), func(values []any, i int) []any {
		r := known[i]
		return append(values, r.FlagID, s.dialect.bindHour(r.Hour), int64(r.Outcome), r.VariantID, r.SegmentID, int64(r.Version), int64(r.Asked),
			r.Count, r.Ingested, r.First, r.Last)
	})
}

// groups adds up rows by parts of their keys. Packs of hours have their rows in the order of hours,
// with a few rows per hour. As long as rows come in such an order, a row is compared only with the
// last sums. This is several times faster than a map.
type groups struct {
	by     datar.Parts
	places map[datar.Key]int // indexes in sums; nil as long as rows come in order
	sums   []datar.Row       // in the order of keys as long as places is nil
	last   int               // index of the first sum with the flag and hour of the last sum
}

// maxLastSums is the maximum number of sums with which a row is compared without a map.
const maxLastSums = 16

func (g *groups) add(r datar.Row) {
	r.Key = g.by.Of(r.Key)
	if g.places == nil && g.addInOrder(&r) {
		return
	}
	if g.places == nil {
		g.places = make(map[datar.Key]int, 2*len(g.sums))
		for i := range g.sums {
			g.places[g.sums[i].Key] = i
		}
	}
	if place, ok := g.places[r.Key]; ok {
		addRow(&g.sums[place], &r)
		return
	}
	g.places[r.Key] = len(g.sums)
	g.sums = appendRow(g.sums, r)
}

// addInOrder adds a row. It returns false if the row must be compared with more than the last sums.
func (g *groups) addInOrder(r *datar.Row) bool {
	if len(g.sums) > 0 {
		switch last := &g.sums[len(g.sums)-1]; {
		case r.FlagID < last.FlagID, r.FlagID == last.FlagID && r.Hour < last.Hour:
			return false
		case r.FlagID > last.FlagID, r.Hour > last.Hour:
			g.last = len(g.sums)
		}
	}
	place := len(g.sums) // from the end, because rows within an hour often come in order, too
	for ; place > g.last; place-- {
		switch order := g.sums[place-1].Compare(r.Key); {
		case order == 0:
			addRow(&g.sums[place-1], r)
			return true
		case order > 0:
			continue
		}
		break
	}
	if len(g.sums)-g.last == maxLastSums {
		return false
	}
	g.sums = appendRow(g.sums, *r)
	copy(g.sums[place+1:], g.sums[place:])
	g.sums[place] = *r
	return true
}

// addRow adds a row to another row with the same key.
func addRow(sum, r *datar.Row) {
	sum.Count += r.Count
	sum.Ingested += r.Ingested
	if sum.First == 0 || r.First != 0 && r.First < sum.First {
		sum.First = r.First
	}
	sum.Last = max(sum.Last, r.Last)
}

// rows returns the sums in the order of their keys. Do not call add after it.
func (g *groups) rows() []datar.Row {
	rows := slices.DeleteFunc(g.sums, func(r datar.Row) bool { return r.Count == 0 })
	if g.places != nil {
		slices.SortFunc(rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
	}
	return rows
}

// Details implements datar.DetailStore.
func (s *Store) Details(ctx context.Context, query datar.DetailsQuery) ([]datar.Row, error) {
	var rows []datar.Row
	kinds := kindsOfDetails(query)
	err := s.read(ctx, query.FlagID, kinds[0], func(tx *gorm.DB) error {
		first, err := s.detailedFrom(tx)
		if err != nil {
			return err
		}
		window := hourRange{max(int64(query.From), int64(firstHour), first), int64(min(query.To, lastHour))}
		if window.from >= window.to {
			return nil
		}
		p, err := s.plan(tx, kinds, window)
		if err != nil {
			return err
		}
		if query.FlagID == 0 {
			rows, err = s.detailsOfAll(tx, p, query.GroupBy)
			return err
		}
		g := groups{by: query.GroupBy}
		for _, use := range p.rollups {
			if err := s.addPacks(tx, &g, use, query.FlagID); err != nil {
				return err
			}
		}
		err = s.addLive(tx, &g, p.events, query.FlagID)
		rows = g.rows()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("details: %w", err)
	}
	return rows, nil
}

// kindsOfDetails returns the rollups that a query uses, in the order of preference.
func kindsOfDetails(query datar.DetailsQuery) []kind {
	kinds := []kind{dayDetails, hourDetails}
	if query.FlagID != 0 {
		kinds = []kind{dayDetails, dayHours, hourDetails}
	}
	if query.GroupBy&datar.GroupHour != 0 {
		kinds = kinds[1:]
	}
	return kinds
}

// packsApart is the maximum gap, in hours, between two chosen packs that one query reads. It also
// reads the other packs in the gap, which is cheaper than another query.
const packsApart = 24

// runsOf splits the ascending starts of packs, which span that many hours each, at gaps of more
// than packsApart hours.
func runsOf(starts []int64, hours int64) (runs [][]int64) {
	first := 0
	for i := 1; i <= len(starts); i++ {
		if i == len(starts) || starts[i]-starts[i-1] > hours+packsApart {
			runs = append(runs, starts[first:i])
			first = i
		}
	}
	return runs
}

// addPacks adds the chosen packs. They are often days, plus hours at both ends of the window with
// all those days between them.
func (s *Store) addPacks(tx *gorm.DB, g *groups, use chosen, flagID int64) error {
	if flagID != 0 {
		if use.byHour && g.by&datar.GroupHour != 0 {
			const rowsPerHour = 3 // of most flags; a list that grows is copied
			g.sums = slices.Grow(g.sums, rowsPerHour*hoursPerDay*len(use.starts))
		}
		return s.readPacksOfFlag(tx, use.kind, use.starts, flagID, func(r datar.Row) {
			if !use.byHour || contain(use.within, r.Hour) {
				g.add(r)
			}
		})
	}
	starts := make(map[int64]bool, len(use.starts))
	for _, start := range use.starts {
		starts[start] = true
	}
	for _, run := range runsOf(use.starts, use.hours) {
		err := s.readPacks(tx, use.id, hourRange{run[0], run[len(run)-1] + 1}, func(start int64, r datar.Row) {
			if starts[start] {
				g.add(r)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addLive adds details and events of the ranges.
func (s *Store) addLive(tx *gorm.DB, g *groups, ranges []hourRange, flagID int64) error {
	details, err := s.detailRows(tx, g.by, ranges, flagID)
	if err != nil {
		return err
	}
	events, err := s.eventRows(tx, g.by, ranges, flagID)
	if err != nil {
		return err
	}
	for _, r := range datar.WithUnattributed(details, events, g.by) {
		g.add(r)
	}
	return nil
}

// part is a column of a key: its expressions in SELECT and in GROUP BY.
type part struct {
	bits              datar.Parts
	selected, grouped string
}

// The columns of detailRows and eventRows.
var (
	detailParts = []part{
		{datar.GroupFlag, "flag_id", "flag_id"},
		{datar.GroupHour | datar.GroupDay, "MIN({hour})", "bucket_hour"},
		{0, "outcome", "outcome"},
		{datar.GroupVariant, "variant_id", "variant_id"},
		{datar.GroupSegment, "segment_id", "segment_id"},
		{datar.GroupVersion, "version", "version"},
		{datar.GroupAsked, "asked", "asked"},
	}
	eventParts = []part{
		{datar.GroupFlag, "flag_id", "flag_id"},
		{datar.GroupHour | datar.GroupDay, "MIN({hour})", "bucket_hour"},
		{datar.GroupVariant, "variant_id", "variant_id"},
		{datar.GroupSegment, "segment_id", "segment_id"},
	}
)

// selectParts returns the columns of a key and the GROUP BY. A column that the query does not group
// by is 0.
func selectParts(parts []part, by datar.Parts) (columns, groupBy string) {
	var selected, grouped []string
	for _, p := range parts {
		if p.bits != 0 && by&p.bits == 0 {
			selected = append(selected, "0")
			continue
		}
		selected, grouped = append(selected, p.selected), append(grouped, p.grouped)
	}
	if len(grouped) > 0 {
		groupBy = " GROUP BY " + strings.Join(grouped, ", ")
	}
	return strings.Join(selected, ", "), groupBy
}

// detailRows adds up details of the ranges by outcome and the given parts.
func (s *Store) detailRows(tx *gorm.DB, by datar.Parts, ranges []hourRange, flagID int64) (all []datar.Row, err error) {
	columns, groupBy := selectParts(detailParts, by)
	statement := "SELECT " + columns + ", SUM(eval_count), SUM(ingested_count), MIN(first_evaluated_ms), MAX(last_evaluated_ms) " +
		"FROM datar_hourly_details WHERE {within} {flag}" + groupBy
	each := appendEach(&all, func(r *datar.Row) []any {
		return append([]any{integer(&r.FlagID), integer(&r.Hour)}, detailTargets(r)...)
	})
	if flagID == 0 || hoursOf(ranges) > maxHoursOfFlag {
		inUTC := eventHours{condition: s.sql(hourInUTC), bindHour: s.dialect.bindHour}
		err = s.eachRow(tx, statement, inUTC, ranges, flagID, each)
		return all, err
	}
	// The primary key begins with the hour, so a range of hours would read all flags.
	var hours []any
	for _, r := range ranges {
		for h := r.from; h < r.to; h++ {
			hours = append(hours, s.dialect.bindHour(datar.Hour(h)))
		}
	}
	statement = s.ofFlag(statement, flagID)
	for some := range slices.Chunk(hours, hoursTogether) {
		some = padded(some)
		condition := "bucket_hour IN (" + s.dialect.at + strings.Repeat(", "+s.dialect.at, len(some)-1) + ")"
		if err := scanRows(tx, strings.Replace(statement, "{within}", condition, 1), append(some, flagID), each); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const (
	// hoursTogether is the maximum number of hours of one flag that one query reads.
	hoursTogether = 128
	// maxHoursOfFlag is the maximum number of hours of one flag that are looked up one by one. A
	// query without a start has half a million hours, nearly all without a row. A range is cheaper
	// then: older counts are in the rollups.
	maxHoursOfFlag = 366 * 24
)

// eventRows adds up events of the ranges by the given parts, except those that events do not have.
func (s *Store) eventRows(tx *gorm.DB, by datar.Parts, ranges []hourRange, flagID int64) (all []datar.Row, err error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	columns, groupBy := selectParts(eventParts, by)
	statement := "SELECT " + columns + ", COALESCE(SUM(eval_count), 0), COALESCE(SUM(ingested_count), 0) FROM datar_hourly_events WHERE {within} {flag}" + groupBy
	within, err := s.eventHours(tx)
	if err != nil {
		return nil, err
	}
	err = s.eachRow(tx, statement, within, ranges, flagID, appendEach(&all, func(r *datar.Row) []any {
		return []any{integer(&r.FlagID), integer(&r.Hour), integer(&r.VariantID), integer(&r.SegmentID), integer(&r.Count), integer(&r.Ingested)}
	}))
	return all, err
}

// detailTargets returns the targets of the columns of a detail after its flag and hour.
func detailTargets(r *datar.Row) []any {
	return []any{integer(&r.Outcome), integer(&r.VariantID), integer(&r.SegmentID), integer(&r.Version), integer(&r.Asked),
		integer(&r.Count), integer(&r.Ingested), integer(&r.First), integer(&r.Last)}
}

// appendEach returns a function that scans a row and appends it. columns returns the targets of all
// columns, which are the same for all rows.
func appendEach(all *[]datar.Row, columns func(r *datar.Row) []any) func(scan func(...any) error) error {
	var r datar.Row
	targets := columns(&r)
	return func(scan func(...any) error) error {
		if err := scan(targets...); err != nil {
			return err
		}
		*all = appendRow(*all, r)
		return nil
	}
}

// appendRow is append for large lists. append itself would copy them several times as often.
func appendRow(all []datar.Row, r datar.Row) []datar.Row {
	const fewest = 16
	if len(all) == cap(all) {
		all = slices.Grow(all, max(len(all), fewest))
	}
	return append(all, r)
}

// eachRow runs a query for ranges of hours and for one flag or all flags, and calls each for every
// row.
func (s *Store) eachRow(tx *gorm.DB, statement string, within eventHours, ranges []hourRange, flagID int64, each func(scan func(...any) error) error) error {
	statement = s.ofFlag(statement, flagID)
	for _, some := range together(ranges, flagID) {
		condition, values := within.anyOf(some)
		if flagID != 0 {
			values = append(values, flagID)
		}
		if err := scanRows(tx, strings.Replace(statement, "{within}", condition, 1), values, each); err != nil {
			return err
		}
	}
	return nil
}

func scanRows(tx *gorm.DB, statement string, values []any, each func(scan func(...any) error) error) error {
	rows, err := tx.Raw(statement, values...).Rows()
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err reports errors
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// DetailedFrom implements datar.DetailStore.
func (s *Store) DetailedFrom(ctx context.Context) (datar.Hour, error) {
	hour, err := s.detailedFrom(s.db.WithContext(ctx))
	if err != nil {
		return 0, fmt.Errorf("find the first hour with details: %w", err)
	}
	return datar.Hour(hour), nil
}

// detailedFrom returns the first hour after the last day that is purged or being purged. It returns
// 0 if there is no such day.
func (s *Store) detailedFrom(tx *gorm.DB) (int64, error) {
	var days []int64
	err := tx.Raw(s.sql("SELECT start_hour FROM datar_rollups WHERE span = ? AND purged ORDER BY start_hour DESC LIMIT 1"), dayTotals.id).Scan(&days).Error
	if err != nil || len(days) == 0 {
		return 0, err
	}
	return days[0] + hoursPerDay, nil
}

var addUnknown = insertion{
	table:   unknownTable,
	columns: "bucket_hour, asked, eval_count, first_evaluated_ms, last_evaluated_ms",
	arrays: `SELECT to_timestamp(seconds), asked, eval_count, first_ms, last_ms
		FROM unnest(?::text::bigint[], ?::text::text[], ?::text::bigint[], ?::text::bigint[], ?::text::bigint[]) AS added(seconds, asked, eval_count, first_ms, last_ms)`,
	width: 5,
}

// insertUnknown inserts requests for flags that do not exist. Like all writers, it inserts in key
// order.
func (s *Store) insertUnknown(tx *gorm.DB, unknown []datar.UnknownRow) error {
	rows := slices.SortedFunc(slices.Values(unknown), func(a, b datar.UnknownRow) int {
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Asked, b.Asked))
	})
	return s.insert(tx, addUnknown, len(rows), func(values []any, i int) []any {
		r := &rows[i]
		return append(values, s.dialect.bindHour(r.Hour), r.Asked, r.Count, r.First, r.Last)
	})
}

// Unknown implements datar.DetailStore.
func (s *Store) Unknown(ctx context.Context, query datar.UnknownQuery) ([]datar.UnknownRow, error) {
	from, to := max(query.From, firstHour), min(query.To, lastHour)
	all := []datar.UnknownRow{}
	err := scanRows(s.db.WithContext(ctx), s.sql(`SELECT asked, SUM(eval_count), MIN(first_evaluated_ms), MAX(last_evaluated_ms) FROM datar_unknown_hourly
		WHERE `+hourInUTC+` GROUP BY asked ORDER BY SUM(eval_count) DESC, asked LIMIT ? OFFSET ?`),
		[]any{s.dialect.bindHour(from), s.dialect.bindHour(to), query.Limit, query.Offset},
		func(scan func(...any) error) error {
			var r datar.UnknownRow
			err := scan(&r.Asked, &r.Count, &r.First, &r.Last)
			all = append(all, r)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("requests for flags that do not exist: %w", err)
	}
	return all, nil
}
