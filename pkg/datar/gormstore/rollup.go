package gormstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Rollups are totals of one flag over a whole hour, a quarter of a day, or a whole day of UTC, and of its outcomes over
// quarters and days, made from the hourly events after the span is over. They only save work: a batch that adds to a span
// deletes its rollup in the same transaction, and the span is rolled up again later. Whoever rolls up has the exclusive
// lock, whoever adds the shared one; so there is never a rollup that misses a count.
//
// The exception are days before the retention: of a purged day the rollup is all there is, and counts that come late
// are moved into it.

const (
	rollupsTable  = "datar_rollups"
	totalsTable   = "datar_rollup_totals"
	outcomesTable = "datar_rollup_outcomes"

	spanDay = 24

	// lockName is the row of datar_meta that serialises rolling up with adding.
	lockName = "rollup lock"

	// A span is rolled up when it has been over for so long: by then nearly all late batches have come, also those of
	// Flagr on the same database, which does not know of rollups and flushes once an hour at the least.
	settleTime = 2 * time.Hour
	// What is shorter than a day is rolled up to make windows that begin or end within a day fast, which few do that are
	// older.
	hoursKept = 32 * spanDay
	// maxPurges is the most that one call of Maintain does, so that it ends soon, as is kind.most.
	maxPurges = 50
	// Of one flag, events are read by a query for each range if there are no more of these: SQLite would look at all events of
	// the flag to find those in one of two ranges.
	rangesApart = 8
	// rowsPerPurge is small, so that a transaction that purges holds up a flush for milliseconds only.
	rowsPerPurge = 1000
)

// kind is a kind of rollup.
type kind struct {
	span  int64 // of the columns of that name, another one for each kind
	hours int64 // how long its spans are
	// most is how many are made at once, so that Maintain ends soon, and no kind waits for all of another.
	most int
	detail
}

// detail is what the totals of a rollup are of.
type detail struct {
	table string // where they are
	by    string // the columns that they are grouped by
	sums  string // the columns of the totals, and
	add   string // what they are made of, in the events and in other totals
	// ingested reads how much was sent in.
	ingested string
}

var (
	perFlag = detail{
		table: totalsTable, by: "flag_id", ingested: "0",
		sums: "eval_count, last_evaluated_ms", add: "SUM(eval_count), MAX(last_evaluated_ms)",
	}
	perOutcome = detail{
		table: outcomesTable, by: "flag_id, variant_id, segment_id", ingested: "COALESCE(SUM(ingested_count), 0)",
		sums: "eval_count, ingested_count, last_evaluated_ms",
		add:  "SUM(eval_count), COALESCE(SUM(ingested_count), 0), MAX(last_evaluated_ms)",
	}

	dayTotals       = kind{span: 24, hours: spanDay, most: 20, detail: perFlag}
	quarterTotals   = kind{span: 6, hours: 6, most: 50, detail: perFlag}
	hourTotals      = kind{span: 1, hours: 1, most: 100, detail: perFlag}
	dayOutcomes     = kind{span: 124, hours: spanDay, most: 10, detail: perOutcome}
	quarterOutcomes = kind{span: 106, hours: 6, most: 25, detail: perOutcome}

	// kinds are all of them, in the order in which they are made: small ones first, of which larger ones are.
	kinds = []kind{hourTotals, quarterTotals, dayTotals, quarterOutcomes, dayOutcomes}
	// ofFlags and ofOutcomes are those that queries use, the larger ones first.
	ofFlags, ofOutcomes = []kind{dayTotals, quarterTotals, hourTotals}, []kind{dayOutcomes, quarterOutcomes}
)

// spansOf gives the spans of the kinds that keep says yes to.
func spansOf(keep func(kind) bool) (spans []int64) {
	for _, k := range kinds {
		if keep(k) {
			spans = append(spans, k.span)
		}
	}
	return spans
}

func shorterThanDay(k kind) bool { return k.hours < spanDay }

// rollup says that a span is rolled up.
type rollup struct {
	Span      int16 `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour int64 `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	// Purged: the span's hourly events were moved into the rollup.
	Purged bool `gorm:"column:purged;not null;default:false"`
}

// rollupTotal is the total of one flag over a span.
type rollupTotal struct {
	Span            int16  `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour       int64  `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	FlagID          int64  `gorm:"column:flag_id;primaryKey;autoIncrement:false"`
	EvalCount       int64  `gorm:"column:eval_count;not null"`
	LastEvaluatedMs *int64 `gorm:"column:last_evaluated_ms"`
}

// rollupOutcome is the total of one outcome of a flag over a span.
type rollupOutcome struct {
	Span            int16  `gorm:"column:span;primaryKey;autoIncrement:false"`
	StartHour       int64  `gorm:"column:start_hour;primaryKey;autoIncrement:false"`
	FlagID          int64  `gorm:"column:flag_id;primaryKey;autoIncrement:false"`
	VariantID       int64  `gorm:"column:variant_id;primaryKey;autoIncrement:false"`
	SegmentID       int64  `gorm:"column:segment_id;primaryKey;autoIncrement:false"`
	EvalCount       int64  `gorm:"column:eval_count;not null"`
	IngestedCount   int64  `gorm:"column:ingested_count;not null"`
	LastEvaluatedMs *int64 `gorm:"column:last_evaluated_ms"`
}

// lock takes the row that serialises rolling up with adding, until the transaction ends. It is the first statement of
// a transaction: on SQLite one that reads first cannot become a writer while another writes.
func lock(tx *gorm.DB, statement string) error {
	if err := tx.Exec(statement, lockName).Error; err != nil {
		return fmt.Errorf("lock the rollups: %w", err)
	}
	return nil
}

// invalidate deletes the rollups of the hours that the rows add to. The shared lock must be held.
func (s *Store) invalidate(tx *gorm.DB, rows []datar.Row) error {
	var either []string
	values := []any{false}
	for _, k := range kinds {
		starts := map[int64]bool{}
		for _, r := range rows {
			starts[k.startOf(int64(r.Hour))] = true
		}
		either = append(either, "(span = ? AND start_hour IN ?)")
		values = append(values, k.span, keys(starts))
	}
	where := "purged = ? AND (" + strings.Join(either, " OR ") + ")"
	var found int64
	if err := s.prefix.table(tx, rollupsTable).Where(where, values...).Count(&found).Error; err != nil {
		return fmt.Errorf("look for rollups: %w", err)
	}
	if found == 0 { // as nearly always: no need to lock anything
		return nil
	}
	if err := s.prefix.table(tx, rollupsTable).Where(where, values...).Delete(&rollup{}).Error; err != nil {
		return fmt.Errorf("delete rollups: %w", err)
	}
	return nil
}

func dayOf(hour int64) int64 { return int64(datar.Hour(hour).DayStart()) }

// startOf is when the span begins that an hour is in.
func (k kind) startOf(hour int64) int64 {
	midnight := dayOf(hour)
	return midnight + (hour-midnight)/k.hours*k.hours
}

func keys(set map[int64]bool) []int64 {
	list := make([]int64, 0, len(set))
	for k := range set {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// span is a half-open range of hours.
type span struct{ from, to int64 }

// plan says where the totals of a window are.
type plan struct {
	rollups []chosen
	events  []span // where hourly events are to be added up
}

// chosen are rollups of a kind, by when they start.
type chosen struct {
	kind
	starts []int64
}

// plan reads what is rolled up, and chooses the rollups that lie within the window: of the first kind, of the second where
// there is none of the first, and so on. Purged days, which are nowhere else, count as soon as they overlap with it.
func (s *Store) plan(tx *gorm.DB, kinds []kind, from, to datar.Hour) (plan, error) {
	window := span{int64(from), int64(to)}
	p := plan{events: []span{window}}
	for _, k := range kinds {
		within := p.events
		if k.span == spanDay {
			within = []span{{window.from - spanDay + 1, window.to}}
		}
		found, err := s.rollups(tx, k, within)
		if err != nil {
			return p, err
		}
		use := chosen{kind: k}
		var whole []int64
		for _, r := range found {
			inside := slices.ContainsFunc(p.events, func(gap span) bool { return r.StartHour >= gap.from && r.StartHour+k.hours <= gap.to })
			if inside || r.Purged {
				use.starts = append(use.starts, r.StartHour)
			}
			if inside && !r.Purged {
				whole = append(whole, r.StartHour)
			}
		}
		if len(use.starts) > 0 {
			p.rollups = append(p.rollups, use)
		}
		var left []span
		for _, gap := range p.events {
			left = append(left, gap.without(whole, k.hours)...)
		}
		p.events = left
	}
	return p, nil
}

// rollups reads the rollups of a kind that start within the ranges, in their order.
func (s *Store) rollups(tx *gorm.DB, k kind, within []span) ([]rollup, error) {
	if len(within) == 0 {
		return nil, nil
	}
	var found []rollup
	where, values := anyOf("start_hour", within, func(hour int64) any { return hour })
	if err := s.prefix.table(tx, rollupsTable).Where("span = ?", k.span).Where(where, values...).Order("start_hour").Find(&found).Error; err != nil {
		return nil, fmt.Errorf("read rollups: %w", err)
	}
	return found, nil
}

// without returns what is left of the span without pieces of a size, given by their starts in their order. Pieces lie
// within the span or outside of it.
func (s span) without(starts []int64, size int64) []span {
	var left []span
	next := s.from
	for _, start := range starts {
		if start < s.from || start >= s.to {
			continue
		}
		if start > next {
			left = append(left, span{next, start})
		}
		next = start + size
	}
	if next < s.to {
		left = append(left, span{next, s.to})
	}
	return left
}

// anyOf renders the condition that a column lies in one of the ranges, whose bounds bind makes.
func anyOf(column string, ranges []span, bind func(hour int64) any) (where string, values []any) {
	var either []string
	for _, r := range ranges {
		either = append(either, "("+column+" >= ? AND "+column+" < ?)")
		values = append(values, bind(r.from), bind(r.to))
	}
	return "(" + strings.Join(either, " OR ") + ")", values
}

// group is what totals are added up by: flag, or variant and segment, or day.
type group struct{ a, b int64 }

// sums adds totals up by group.
type sums map[group]datar.Total

func (s sums) add(g group, t datar.Total) {
	sum := s[g]
	s[g] = datar.Total{Count: sum.Count + t.Count, Ingested: sum.Ingested + t.Ingested, Last: max(sum.Last, t.Last)}
}

// grouping is how a dimension is read.
type grouping struct {
	// events and rollups are the columns to group by, of the two tables.
	events, rollups string
	// kinds of rollups to use.
	kinds []kind
	// scan reads what was grouped.
	scan scanner
	// name puts the group into a total.
	name func(t *datar.Total, g group)
}

// scanner reads a group and its totals.
type scanner func(rows *sql.Rows, t *datar.Total) (group, error)

var groupings = map[datar.Dimension]grouping{
	datar.ByFlag: {
		events: "flag_id", rollups: "flag_id", kinds: ofFlags, scan: scanID,
		name: func(t *datar.Total, g group) { t.FlagID = g.a },
	},
	datar.ByOutcome: {
		events: "variant_id, segment_id", rollups: "variant_id, segment_id", kinds: ofOutcomes,
		scan: func(rows *sql.Rows, t *datar.Total) (g group, err error) {
			err = rows.Scan(&g.a, &g.b, &t.Count, &t.Ingested, &t.Last)
			return g, err
		},
		name: func(t *datar.Total, g group) { t.VariantID, t.SegmentID = g.a, g.b },
	},
	datar.ByDay: {
		events: "bucket_hour", rollups: "start_hour", kinds: ofFlags,
		scan: func(rows *sql.Rows, t *datar.Total) (group, error) {
			var hour time.Time
			err := rows.Scan(&hour, &t.Count, &t.Ingested, &t.Last)
			return group{a: dayOf(int64(datar.HourOf(hour)))}, err
		},
		name: func(t *datar.Total, g group) { t.Day = datar.Hour(g.a) },
	},
}

func scanID(rows *sql.Rows, t *datar.Total) (g group, err error) {
	err = rows.Scan(&g.a, &t.Count, &t.Ingested, &t.Last)
	return g, err
}

// addUp runs a query for totals and adds them.
func (s sums) addUp(query *gorm.DB, columns, ingested string, flagID int64, scan scanner) error {
	if flagID != 0 {
		query = query.Where("flag_id = ?", flagID)
	}
	rows, err := query.Select(columns + ", SUM(eval_count), " + ingested + ", COALESCE(MAX(last_evaluated_ms), 0)").Group(columns).Rows()
	if err != nil {
		return fmt.Errorf("totals: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var t datar.Total
		g, err := scan(rows, &t)
		if err != nil {
			return fmt.Errorf("totals: %w", err)
		}
		s.add(g, t)
	}
	return rows.Err()
}

// addRollups adds rollups of a kind. Several kinds in one statement would be slower on PostgreSQL.
func (s sums) addRollups(tx *gorm.DB, p prefix, use chosen, q datar.TotalsQuery) error {
	by := groupings[q.GroupBy]
	scan := by.scan
	if q.GroupBy == datar.ByDay {
		scan = func(rows *sql.Rows, t *datar.Total) (group, error) {
			g, err := scanID(rows, t)
			return group{a: dayOf(g.a)}, err
		}
	}
	query := p.table(tx, use.table).Where("span = ? AND start_hour IN ?", use.span, use.starts)
	return s.addUp(query, by.rollups, use.ingested, q.FlagID, scan)
}

// addEvents adds the hourly events within the ranges.
func (s sums) addEvents(tx *gorm.DB, p prefix, ranges []span, q datar.TotalsQuery) error {
	if len(ranges) == 0 {
		return nil
	}
	together := [][]span{ranges}
	if q.FlagID != 0 && len(ranges) <= rangesApart {
		together = slices.Collect(slices.Chunk(ranges, 1))
	}
	by := groupings[q.GroupBy]
	for _, some := range together {
		where, values := anyOf("bucket_hour", some, func(hour int64) any { return datar.Hour(hour).Time() })
		query := p.table(tx, eventsTable).Where(where, values...)
		if err := s.addUp(query, by.events, "COALESCE(SUM(ingested_count), 0)", q.FlagID, by.scan); err != nil {
			return err
		}
	}
	return nil
}

// Maintain implements datar.Maintainer. It rolls up what is over, and reduces days before keep to their rollups; a call
// does a bounded amount of it, of each kind the newest first. It may run in several processes at once.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep time.Duration) error {
	if err := s.forgetReceipts(ctx, now); err != nil {
		return err
	}
	// Each process that sends counts in is a writer, so they come while a server runs, too.
	if err := s.forget(s.db.WithContext(ctx)); err != nil {
		return fmt.Errorf("forget old writers: %w", err)
	}
	if err := s.rollUp(ctx, now); err != nil {
		return err
	}
	if keep == 0 {
		return nil
	}
	return s.purge(ctx, now.Add(-keep))
}

func (s *Store) rollUp(ctx context.Context, now time.Time) error {
	db := s.db.WithContext(ctx)
	oldest, found, err := s.oldestEvent(db)
	if err != nil || !found {
		return err
	}
	end := int64(datar.HourOf(now.Add(-settleTime))) // the hour that is not over for long enough
	var have []rollup
	if err := s.prefix.table(db, rollupsTable).Find(&have).Error; err != nil {
		return fmt.Errorf("read rollups: %w", err)
	}
	done, purged := map[[2]int64]bool{}, map[int64]bool{}
	for _, r := range have {
		done[[2]int64{int64(r.Span), r.StartHour}] = true
		if r.Purged {
			purged[r.StartHour] = true
		}
	}
	for _, k := range kinds {
		first := k.startOf(oldest)
		if shorterThanDay(k) {
			first = max(first, end-hoursKept)
		}
		left := k.most
		for start := k.startOf(end) - k.hours; start >= first && left > 0; start -= k.hours {
			if done[[2]int64{k.span, start}] || purged[dayOf(start)] {
				continue
			}
			left--
			if err := s.rollUpSpan(ctx, k, start); err != nil {
				return err
			}
		}
	}
	return s.dropOldSpans(ctx, end-hoursKept)
}

// oldestEvent returns the hour of the oldest event.
func (s *Store) oldestEvent(db *gorm.DB) (hour int64, found bool, err error) {
	var events []hourlyEvent
	if err := s.prefix.table(db, eventsTable).Select("bucket_hour").Order("bucket_hour").Limit(1).Find(&events).Error; err != nil {
		return 0, false, fmt.Errorf("look for the oldest event: %w", err)
	}
	if len(events) == 0 {
		return 0, false, nil
	}
	return int64(datar.HourOf(events[0].BucketHour)), true, nil
}

// rollUpSpan makes the rollup of one span, unless somebody else just did, or has begun to purge the day.
func (s *Store) rollUpSpan(ctx context.Context, k kind, start int64) error {
	end := start + k.hours
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lock(tx, s.dialect.lockExclusive); err != nil {
			return err
		}
		var found int64
		if err := s.prefix.table(tx, rollupsTable).Where("(span = ? AND start_hour = ?) OR (span = ? AND start_hour = ? AND purged = ?)",
			k.span, start, spanDay, dayOf(start), true).Count(&found).Error; err != nil || found > 0 {
			return err
		}
		if err := tx.Exec(s.prefix.in("DELETE FROM "+k.table+" WHERE span = ? AND start_hour = ?"), k.span, start).Error; err != nil {
			return err
		}
		parts, err := s.partsOf(tx, k, start)
		if err != nil {
			return err
		}
		insert := "INSERT INTO " + k.table + " (span, start_hour, " + k.by + ", " + k.sums + ") SELECT ?, ?, " + k.by + ", " + k.add + " FROM "
		values := []any{k.span, start}
		if parts != 0 {
			insert += k.table + " WHERE span = ? AND start_hour >= ? AND start_hour < ?"
			values = append(values, parts, start, end)
		} else {
			insert += eventsTable + " WHERE bucket_hour >= ? AND bucket_hour < ?"
			values = append(values, datar.Hour(start).Time(), datar.Hour(end).Time())
		}
		if err := tx.Exec(s.prefix.in(insert+" GROUP BY "+k.by), values...).Error; err != nil {
			return err
		}
		return s.prefix.table(tx, rollupsTable).Create(&rollup{Span: int16(k.span), StartHour: start}).Error
	}, s.dialect.writeTx)
	if err != nil {
		return fmt.Errorf("roll up %d h of %s from %s: %w", k.hours, k.by, datar.Hour(start).Time().Format(time.RFC3339), err)
	}
	return nil
}

// partsOf gives the span of smaller rollups that are all there and together make one of this kind; 0 if there are none.
func (s *Store) partsOf(tx *gorm.DB, k kind, start int64) (parts int64, err error) {
	for _, part := range slices.Backward(kinds) {
		if k.table != part.table || part.hours >= k.hours {
			continue
		}
		var found int64
		if err := s.prefix.table(tx, rollupsTable).Where("span = ? AND start_hour >= ? AND start_hour < ?", part.span, start, start+k.hours).Count(&found).Error; err != nil {
			return 0, err
		}
		if found == k.hours/part.hours {
			return part.span, nil
		}
	}
	return 0, nil
}

// dropOldSpans removes rollups that are shorter than a day and so old that the days serve better.
func (s *Store) dropOldSpans(ctx context.Context, before int64) error {
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lock(tx, s.dialect.lockExclusive); err != nil {
			return err
		}
		return s.deleteRollups(tx, shorterThanDay, "start_hour < ?", before)
	}, s.dialect.writeTx)
	if err != nil {
		return fmt.Errorf("drop old rollups: %w", err)
	}
	return nil
}

// deleteRollups deletes rollups of some kinds, and their totals. That the spans are named lets it find them by the primary key.
func (s *Store) deleteRollups(tx *gorm.DB, of func(kind) bool, where string, hours ...any) error {
	values := append([]any{spansOf(of)}, hours...)
	for _, table := range []string{rollupsTable, totalsTable, outcomesTable} {
		if err := tx.Exec(s.prefix.in("DELETE FROM "+table+" WHERE span IN ? AND "+where), values...).Error; err != nil {
			return err
		}
	}
	return nil
}

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

func (s *Store) purgeSome(ctx context.Context, day int64) error {
	return s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lock(tx, s.dialect.lockExclusive); err != nil {
			return err
		}
		if err := s.markPurged(tx, day); err != nil {
			return err
		}
		var events []hourlyEvent
		if err := s.prefix.table(tx, eventsTable).Where("bucket_hour >= ? AND bucket_hour < ?", datar.Hour(day).Time(), datar.Hour(day+spanDay).Time()).
			Order("bucket_hour, id").Limit(rowsPerPurge).Find(&events).Error; err != nil {
			return err
		}
		if len(events) == 0 {
			return nil
		}
		moved := sums{}
		ids := make([]uint, len(events))
		for i, e := range events {
			ids[i] = e.ID
			var last int64
			if e.LastEvaluatedMs != nil {
				last = *e.LastEvaluatedMs
			}
			moved.add(group{a: e.FlagID}, datar.Total{Count: e.EvalCount, Last: last})
		}
		if err := s.prefix.table(tx, eventsTable).Where("id IN ?", ids).Delete(&hourlyEvent{}).Error; err != nil {
			return err
		}
		return s.addToDay(tx, day, moved)
	}, s.dialect.writeTx)
}

// markPurged makes the day's rollup one that has only what was moved into it.
func (s *Store) markPurged(tx *gorm.DB, day int64) error {
	var found []rollup
	if err := s.prefix.table(tx, rollupsTable).Where("span = ? AND start_hour = ?", spanDay, day).Find(&found).Error; err != nil {
		return err
	}
	if len(found) == 1 && found[0].Purged {
		return nil
	}
	every := func(kind) bool { return true }
	if err := s.deleteRollups(tx, every, "start_hour >= ? AND start_hour < ?", day, day+spanDay); err != nil {
		return err
	}
	return s.prefix.table(tx, rollupsTable).Create(&rollup{Span: spanDay, StartHour: day, Purged: true}).Error
}

// addToDay adds the sums of flags to the rollup of a day.
func (s *Store) addToDay(tx *gorm.DB, day int64, moved sums) error {
	flags := make([]int64, 0, len(moved))
	for g := range moved {
		flags = append(flags, g.a)
	}
	slices.Sort(flags)
	var have []rollupTotal
	if err := s.prefix.table(tx, totalsTable).Where("span = ? AND start_hour = ? AND flag_id IN ?", spanDay, day, flags).Find(&have).Error; err != nil {
		return err
	}
	for _, t := range have {
		var last int64
		if t.LastEvaluatedMs != nil {
			last = *t.LastEvaluatedMs
		}
		moved.add(group{a: t.FlagID}, datar.Total{Count: t.EvalCount, Last: last})
	}
	if err := s.prefix.table(tx, totalsTable).Where("span = ? AND start_hour = ? AND flag_id IN ?", spanDay, day, flags).Delete(&rollupTotal{}).Error; err != nil {
		return err
	}
	totals := make([]rollupTotal, len(flags))
	for i, id := range flags {
		sum := moved[group{a: id}]
		totals[i] = rollupTotal{Span: spanDay, StartHour: day, FlagID: id, EvalCount: sum.Count}
		if last := sum.Last; last > 0 {
			totals[i].LastEvaluatedMs = &last
		}
	}
	return s.prefix.table(tx, totalsTable).CreateInBatches(totals, s.dialect.rowsPerStatement).Error
}

// Totals implements datar.Store.
func (s *Store) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	by, ok := groupings[query.GroupBy]
	if !ok {
		return nil, fmt.Errorf("totals: unknown dimension %d", query.GroupBy)
	}
	query.From, query.To = max(query.From, firstHour), min(query.To, lastHour)
	groups := sums{}
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		p, err := s.plan(tx, by.kinds, query.From, query.To)
		if err != nil {
			return err
		}
		for _, use := range p.rollups {
			if err := groups.addRollups(tx, s.prefix, use, query); err != nil {
				return err
			}
		}
		return groups.addEvents(tx, s.prefix, p.events, query)
	}, &sql.TxOptions{Isolation: s.dialect.oneMoment, ReadOnly: true})
	if err != nil {
		return nil, err
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
