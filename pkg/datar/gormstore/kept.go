package gormstore

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Lists of flags need the sums of the details of all flags again and again, and most of the details
// do not change. So a store caches what it has read. Each query checks whether the cached values
// are still current:
//
//   - The sum of packs is current if the numbers of their rollups are the same. The query that
//     finds the rollups reads them.
//   - The rows of an hour without a rollup are current if the sums of the counts of its details and
//     of its events are the same. Counts only increase, so equal sums mean equal rows. If the sums
//     differ, only the details that were evaluated lately are read, unless the others have changed
//     as well.
//
// Only a FlagEditor reduces counts. It changes a value in datar_meta, which invalidates the cache.

const (
	// maxKeptRows bounds the memory of the cache, at 72 bytes per row. With 1,000 flags, a list of
	// their states has some 50,000 rows.
	maxKeptRows = 200_000
	// maxKeptSums and maxKeptHours bound the time of a lookup. About three hours have no rollups
	// yet.
	maxKeptSums, maxKeptHours = 16, 8
	// keptUnused is how long an unused value is cached.
	keptUnused = 15 * time.Minute

	// editedName is the row of datar_meta that each edit changes.
	editedName = "edited"
)

// kept is the cache of a store.
type kept struct {
	most int // rows of sums, and rows of hours
	mu   struct {
		sync.Mutex
		edited string // the value of editedName at the time
		// sums and hours are in the order of their last use, latest first.
		sums  []packSum
		hours []liveHour
	}
}

// packSum is the sum of rollups of some kinds by parts of keys, in key order.
type packSum struct {
	of   []chosen
	by   datar.Parts
	rows []datar.Row // shared with queries, which do not change them
	used time.Time
}

// liveHour contains the details of an hour, and the part of its events that they do not explain.
type liveHour struct {
	hour datar.Hour
	sums hourSums
	rows []datar.Row // in key order, and shared as well
	used time.Time
}

// hourSums are the sums of the counts of an hour.
type hourSums struct{ details, events int64 }

// sinceLocked clears the cache if there was an edit.
func (k *kept) sinceLocked(edited string) {
	if k.mu.edited != edited {
		k.mu.edited, k.mu.sums, k.mu.hours = edited, nil, nil
	}
}

// findSum returns the cached sum of rollups, if any.
func (k *kept) findSum(edited string, of []chosen, by datar.Parts) ([]datar.Row, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sinceLocked(edited)
	i := slices.IndexFunc(k.mu.sums, func(s packSum) bool { return s.by == by && slices.EqualFunc(s.of, of, chosen.equal) })
	if i < 0 {
		return nil, false
	}
	toFront(k.mu.sums, i)
	k.mu.sums[0].used = time.Now()
	return k.mu.sums[0].rows, true
}

// keepSum caches a sum of rollups that have numbers.
func (k *kept) keepSum(edited string, of []chosen, by datar.Parts, rows []datar.Row) {
	if slices.ContainsFunc(of, func(c chosen) bool { return slices.Contains(c.made, 0) }) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sinceLocked(edited)
	k.mu.sums = bounded(slices.Insert(k.mu.sums, 0, packSum{of, by, rows, time.Now()}), maxKeptSums, k.most, func(s *packSum) int { return len(s.rows) })
}

// findHour returns what is cached of an hour, if anything. Its rows are current only if its sums
// are.
func (k *kept) findHour(edited string, hour datar.Hour) (liveHour, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sinceLocked(edited)
	i := slices.IndexFunc(k.mu.hours, func(h liveHour) bool { return h.hour == hour })
	if i < 0 {
		return liveHour{}, false
	}
	toFront(k.mu.hours, i)
	k.mu.hours[0].used = time.Now()
	return k.mu.hours[0], true
}

// keepHour caches the rows of an hour and replaces its previous ones.
func (k *kept) keepHour(edited string, h liveHour) {
	h.used = time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sinceLocked(edited)
	k.mu.hours = slices.DeleteFunc(k.mu.hours, func(other liveHour) bool { return other.hour == h.hour })
	k.mu.hours = bounded(slices.Insert(k.mu.hours, 0, h), maxKeptHours, k.most, func(h *liveHour) int { return len(h.rows) })
}

// dropUnused removes values that were last used before a time.
func (k *kept) dropUnused(before time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.sums = slices.DeleteFunc(k.mu.sums, func(s packSum) bool { return s.used.Before(before) })
	k.mu.hours = slices.DeleteFunc(k.mu.hours, func(h liveHour) bool { return h.used.Before(before) })
}

// toFront moves an element to the front of a list.
func toFront[E any](list []E, i int) {
	found := list[i]
	copy(list[1:i+1], list[:i])
	list[0] = found
}

// bounded truncates a list to most elements, and so that their rows do not exceed mostRows.
func bounded[E any](list []E, most, mostRows int, rows func(*E) int) []E {
	total := 0
	for i := range list {
		if total += rows(&list[i]); i == most || total > mostRows {
			return slices.Delete(list, i, len(list))
		}
	}
	return list
}

// edited returns a value that each edit changes.
func (s *Store) edited(tx *gorm.DB) (string, error) {
	var values []string
	err := tx.Raw(s.sql("SELECT value FROM datar_meta WHERE name = ?"), editedName).Scan(&values).Error
	return strings.Join(values, ""), err
}

// detailsOfAll adds up the details of all flags according to the plan.
func (s *Store) detailsOfAll(tx *gorm.DB, p plan, by datar.Parts) ([]datar.Row, error) {
	edited, err := s.edited(tx)
	if err != nil {
		return nil, err
	}
	var live []datar.Row
	if hoursOf(p.events) > maxKeptHours {
		live, err = s.sumOfPieces(tx, by, p.events)
	} else {
		live, err = s.sumOfHours(tx, edited, by, p.events)
	}
	if err != nil {
		return nil, err
	}
	sum, err := s.sumOfPacks(tx, edited, p.rollups, by)
	if err != nil {
		return nil, err
	}
	return datar.MergeRows(live, sum), nil
}

// sumOfPieces adds up details and events of all flags, day by day.
func (s *Store) sumOfPieces(tx *gorm.DB, by datar.Parts, ranges []hourRange) ([]datar.Row, error) {
	pieces, err := s.pieces(tx, ranges)
	if err != nil {
		return nil, err
	}
	g := groups{by: by}
	for _, piece := range pieces {
		if err := s.addLive(tx, &g, []hourRange{piece}, 0); err != nil {
			return nil, err
		}
	}
	return g.rows(), nil
}

// sumOfPacks adds up the chosen packs of all flags, unless their sum is cached. It also caches the
// sum of each kind: the rollups of days stay the same for longer than those of hours. If the sum of
// all kinds does not fit beside those, it is not cached: merging them again takes less time than
// reading the packs of a month. Callers must not change the rows.
func (s *Store) sumOfPacks(tx *gorm.DB, edited string, uses []chosen, by datar.Parts) (rows []datar.Row, err error) {
	if len(uses) == 0 {
		return nil, nil
	}
	if rows, ok := s.kept.findSum(edited, uses, by); ok {
		return rows, nil
	}
	keptRows := 0
	if len(uses) == 1 {
		g := groups{by: by}
		if err := s.addPacks(tx, &g, uses[0], 0); err != nil {
			return nil, err
		}
		rows = g.rows()
	} else {
		for _, use := range uses {
			sum, err := s.sumOfPacks(tx, edited, []chosen{use}, by)
			if err != nil {
				return nil, err
			}
			keptRows += len(sum)
			rows = datar.MergeRows(rows, sum)
		}
	}
	if keptRows == 0 || keptRows+len(rows) <= s.kept.most {
		s.kept.keepSum(edited, uses, by, rows)
	}
	return rows, nil
}

// sumOfHours adds up the details and events of a few hours of all flags.
func (s *Store) sumOfHours(tx *gorm.DB, edited string, by datar.Parts, ranges []hourRange) (sum []datar.Row, err error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	within, err := s.eventHours(tx)
	if err != nil {
		return nil, err
	}
	var hours []datar.Hour
	for _, r := range ranges {
		for hour := r.from; hour < r.to; hour++ {
			hours = append(hours, datar.Hour(hour))
		}
	}
	sums, err := s.sumsOfHours(tx, within, hours)
	if err != nil {
		return nil, err
	}
	var spare []datar.Row
	for i, hour := range hours {
		rows, err := s.rowsOfHour(tx, edited, hour, sums[i])
		if err != nil {
			return nil, err
		}
		// The rows of one hour are in key order. Adding up all hours at once would need a map.
		g := groups{by: by, sums: make([]datar.Row, 0, len(rows))}
		for _, r := range rows {
			g.add(r)
		}
		sum, spare = datar.AppendMergedRows(spare[:0], sum, g.rows()), sum
	}
	return sum, nil
}

// rowsOfHour returns the details of an hour, and the part of its events that they do not explain,
// in key order. sums are those of the hour. Callers must not change the rows.
func (s *Store) rowsOfHour(tx *gorm.DB, edited string, hour datar.Hour, sums hourSums) ([]datar.Row, error) {
	before, found := s.kept.findHour(edited, hour)
	if found && before.sums == sums {
		return before.rows, nil
	}
	h := liveHour{hour: hour, sums: sums}
	var err error
	if h.rows, err = s.changedDetails(tx, before, sums); err != nil {
		return nil, err
	}
	if h.rows == nil {
		if h.rows, err = s.detailsOfHour(tx, hour, math.MinInt64); err != nil {
			return nil, err
		}
	}
	if countEvents(h.rows) != sums.events { // equal sums mean that details explain all events: no event is less than its details
		events, err := s.eventRows(tx, allParts, []hourRange{{int64(hour), int64(hour) + 1}}, 0)
		if err != nil {
			return nil, err
		}
		h.rows = datar.WithUnattributed(h.rows, events, allParts)
		for i := range h.rows {
			h.rows[i].Hour = hour // the grouping removed it
		}
	}
	s.kept.keepHour(edited, h)
	return h.rows, nil
}

// lately is how long before the last known evaluation the evaluations of other servers may be that
// changedDetails finds. Servers flush once a minute by default.
const lately = int64(time.Minute / time.Millisecond)

// changedDetails returns the details of an hour that has the given sums now, by reading only those
// that were evaluated lately. It returns nil if others have changed, or if nothing is known of the
// hour. Counts only increase, so all details are right if their sum is.
func (s *Store) changedDetails(tx *gorm.DB, before liveHour, sums hourSums) ([]datar.Row, error) {
	known := make([]datar.Row, 0, len(before.rows))
	var last int64
	for i := range before.rows {
		if r := &before.rows[i]; r.Outcome != datar.Unattributed {
			known, last = append(known, *r), max(last, r.Last)
		}
	}
	if len(known) == 0 {
		return nil, nil
	}
	if before.sums.details == sums.details {
		return known, nil
	}
	changed, err := s.detailsOfHour(tx, before.hour, last-lately)
	if err != nil {
		return nil, err
	}
	all := replaced(known, changed)
	var count int64
	for i := range all {
		count += all[i].Count
	}
	if count != sums.details {
		return nil, nil
	}
	return all, nil
}

// replaced returns the rows, and in place of those with the same key the changed ones. Both are in
// key order.
func replaced(rows, changed []datar.Row) []datar.Row {
	all := make([]datar.Row, 0, len(rows)+len(changed))
	for _, c := range changed {
		for len(rows) > 0 && rows[0].Compare(c.Key) < 0 {
			all, rows = append(all, rows[0]), rows[1:]
		}
		if len(rows) > 0 && rows[0].Key == c.Key {
			rows = rows[1:]
		}
		all = append(all, c)
	}
	return append(all, rows...)
}

// countEvents adds up the counts of details whose outcome is an event.
func countEvents(details []datar.Row) (n int64) {
	for i := range details {
		if details[i].Outcome.IsEvent() {
			n += details[i].Count
		}
	}
	return n
}

// detailsOfHour reads the details of an hour that were last evaluated since a time, in Unix
// milliseconds. They are in key order. It does not group them in the database, which would take
// longer.
func (s *Store) detailsOfHour(tx *gorm.DB, hour datar.Hour, since int64) (rows []datar.Row, err error) {
	err = scanRows(tx, s.sql(`SELECT flag_id, outcome, variant_id, segment_id, version, asked, eval_count, ingested_count, first_evaluated_ms, last_evaluated_ms
		FROM datar_hourly_details WHERE bucket_hour = {at} AND last_evaluated_ms >= ?`), []any{s.dialect.bindHour(hour), since}, appendEach(&rows, func(r *datar.Row) []any {
		return append([]any{integer(&r.FlagID)}, detailTargets(r)...)
	}))
	for i := range rows {
		rows[i].Hour = hour
	}
	inOrder := func(a, b datar.Row) int { return a.Compare(b.Key) }
	if !slices.IsSortedFunc(rows, inOrder) { // the order of the primary key, in which databases usually read them
		slices.SortFunc(rows, inOrder)
	}
	return rows, err
}

// sumsOfHours adds up the counts of a few hours, each by itself.
func (s *Store) sumsOfHours(tx *gorm.DB, within eventHours, hours []datar.Hour) ([]hourSums, error) {
	inUTC := eventHours{condition: s.sql(hourInUTC), bindHour: s.dialect.bindHour}
	var each []string
	var values []any
	for i, hour := range hours {
		alone := hourRange{int64(hour), int64(hour) + 1}
		each = append(each,
			inUTC.in(fmt.Sprintf("SELECT %d, COALESCE(SUM(eval_count), 0), 0 FROM datar_hourly_details WHERE {within}", i)),
			within.in(fmt.Sprintf("SELECT %d, 0, COALESCE(SUM(eval_count), 0) FROM datar_hourly_events WHERE {within}", i)))
		values = append(append(values, inUTC.bind(alone)...), within.bind(alone)...)
	}
	sums := make([]hourSums, len(hours))
	var i, details, events int64
	err := scanRows(tx, s.sql(strings.Join(each, " UNION ALL ")), values, func(scan func(...any) error) error {
		if err := scan(integer(&i), integer(&details), integer(&events)); err != nil {
			return err
		}
		sums[i].details += details
		sums[i].events += events
		return nil
	})
	return sums, err
}
