package chstore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Scalar subqueries for the days that Maintain has marked, and for their first hours. They return 0
// while no days are marked. ClickHouse evaluates them before it selects partitions.
const (
	// reducedHour is the first hour that the retention has not reduced to totals.
	reducedHour = "(SELECT max(value) * 24 FROM datar_meta WHERE name = '" + reducedMark + "')"
	// purgedBefore is the first day whose rows are in datar_counts. The totals of earlier days are
	// in datar_days.
	purgedBefore = "(SELECT max(value) FROM datar_meta WHERE name = '" + purgedMark + "')"
	purgedHour   = "(SELECT max(value) * 24 FROM datar_meta WHERE name = '" + purgedMark + "')"
	// detailed selects rows that the retention has not reduced. stillThere selects rows of reduced
	// days that are not purged.
	detailed   = " AND hour >= " + reducedHour
	stillThere = " AND hour < " + reducedHour + " AND hour >= " + purgedHour
)

// rowsOnce returns a subquery for rows of datar_counts. It counts each row once, however often it
// was inserted.
func rowsOnce(condition string) string {
	return "(SELECT day, hour, flag_id, variant_id, segment_id, outcome, version, asked, " +
		"max(n) AS c, max(ingested) AS i, min(first_ms) AS f, max(last_ms) AS l FROM datar_counts WHERE " + condition +
		" GROUP BY day, hour, flag_id, variant_id, segment_id, outcome, version, asked, writer, counter)"
}

// inWindow returns the condition for the hours of a window. It names hours and days, because they
// select the partitions.
func inWindow(from, to datar.Hour) string {
	return fmt.Sprintf("day >= %d AND day <= %d AND hour >= %d AND hour < %d", dayOf(from), dayOf(to-1), from, to)
}

// ofFlag returns the condition for one flag. It returns "" if the ID is 0, which selects all flags.
func ofFlag(id int64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf(" AND flag_id = %d", id)
}

// isEvent returns the condition for the outcomes that Totals adds up.
func isEvent() string {
	var events []string
	for o := range datar.NotFound {
		if o.IsEvent() {
			events = append(events, fmt.Sprint(uint8(o)))
		}
	}
	return " AND outcome IN (" + strings.Join(events, ", ") + ")"
}

// eventSegment returns the segment under which an event is counted.
func eventSegment() string { return fmt.Sprintf("if(outcome = %d, 0, segment_id)", datar.HeldOut) }

// Totals implements datar.Store. A reduced day counts as a whole if the window contains a part of
// it.
func (s *Store) Totals(ctx context.Context, q datar.TotalsQuery) ([]datar.Total, error) {
	var a, b string
	switch q.GroupBy {
	case datar.ByFlag:
		a, b = "flag_id", "toInt64(0)"
	case datar.ByDay:
		a, b = "toInt64(day)", "toInt64(0)"
	case datar.ByOutcome:
		a, b = "variant_id", eventSegment()
	default:
		return nil, fmt.Errorf("chstore: totals: unknown dimension %d", q.GroupBy)
	}
	if q.From >= q.To {
		return nil, ctx.Err()
	}
	firstDay, lastDay := dayOf(q.From), dayOf(q.To-1)
	// A server that has not yet read which days are reduced still adds up their rows. They are kept
	// for long enough.
	reduced := q.GroupBy == datar.ByOutcome || s.reduced.any()
	rollups, err := s.rolledUp(ctx, q.From.DayStart(), datar.Hour(lastDay+1)*hoursPerDay)
	if err != nil {
		return nil, fmt.Errorf("chstore: totals: %w", err)
	}
	condition := isEvent() + ofFlag(q.FlagID)
	newer := condition
	if reduced {
		newer += detailed
	}
	from := "SELECT " + a + " AS a, " + b + " AS b, c, i, l FROM " + rollups.rows(q.From, q.To, newer)
	if reduced && q.GroupBy != datar.ByOutcome {
		from += " UNION ALL SELECT " + a + " AS a, " + b + " AS b, c, i, l FROM " +
			rollups.rows(q.From.DayStart(), datar.Hour(lastDay+1)*hoursPerDay, stillThere+condition) +
			" UNION ALL SELECT " + a + " AS a, " + b + " AS b, c, i, l FROM " + daysOnce(firstDay, lastDay, q.FlagID)
	}
	rows, err := s.client.integers(ctx, "SELECT toInt64(a), toInt64(b), toInt64(sum(c)), toInt64(sum(i)), toInt64(max(l)) FROM ("+from+") GROUP BY a, b")
	if err != nil {
		return nil, fmt.Errorf("chstore: totals: %w", err)
	}
	totals := make([]datar.Total, len(rows))
	for i, r := range rows {
		t := datar.Total{Count: r[2], Ingested: r[3], Last: r[4]}
		switch q.GroupBy {
		case datar.ByFlag:
			t.FlagID = r[0]
		case datar.ByDay:
			t.Day = datar.Hour(r[0] * hoursPerDay)
		case datar.ByOutcome:
			t.VariantID, t.SegmentID = r[0], r[1]
		}
		totals[i] = t
	}
	return totals, nil
}

// countedTwice returns a subquery for the batches that are in both datar_days and datar_counts.
// Such a batch was sent again while its first insert, from before the day was reduced, was still
// running. The condition is about rows of datar_counts.
func countedTwice(firstDay, lastDay int32, condition string) string {
	return fmt.Sprintf("(SELECT day, writer, sequence FROM (SELECT DISTINCT day, writer, sequence FROM datar_days WHERE sequence > 0 AND day >= %d AND day <= %d) AS late "+
		"ALL INNER JOIN (SELECT day, writer, max(sequence) AS newest FROM datar_counts WHERE %s GROUP BY day, writer) AS written USING day, writer "+
		"WHERE sequence <= newest)", firstDay, lastDay, inWindow(datar.Hour(firstDay)*hoursPerDay, datar.Hour(lastDay+1)*hoursPerDay)+condition)
}

// daysOnce returns a subquery for totals of days. Totals that a purge writes have the sequence 0,
// and count after the purge.
func daysOnce(firstDay, lastDay int32, flagID int64) string {
	days := fmt.Sprintf("day >= %d AND day <= %d", firstDay, lastDay)
	return "(SELECT day, flag_id, max(n) AS c, max(ingested) AS i, max(last_ms) AS l FROM datar_days WHERE " + days + ofFlag(flagID) +
		" AND if(sequence = 0, day < " + purgedBefore + ", day < " + purgedBefore + " OR (day, writer, sequence) NOT IN " + countedTwice(firstDay, lastDay, stillThere) + ")" +
		" GROUP BY day, flag_id, writer, sequence)"
}

// part is a part of a key that Details groups by.
type part struct {
	by     datar.Parts
	column string
	set    func(k *datar.Key, value int64)
}

// parts returns all parts. Unattributed counts have neither version nor asked.
func parts() []part {
	return []part{
		{datar.GroupFlag, "flag_id", func(k *datar.Key, v int64) { k.FlagID = v }},
		{datar.GroupOutcome, "outcome", func(k *datar.Key, v int64) { k.Outcome = datar.Outcome(v) }},
		{datar.GroupVariant, "variant_id", func(k *datar.Key, v int64) { k.VariantID = v }},
		{datar.GroupSegment, "segment_id", func(k *datar.Key, v int64) { k.SegmentID = v }},
		{datar.GroupVersion, "if(outcome = 0, 0, version)", func(k *datar.Key, v int64) { k.Version = uint16(v) }},
		{datar.GroupAsked, "if(outcome = 0, 0, asked)", func(k *datar.Key, v int64) { k.Asked = datar.Asked(v) }},
		{datar.GroupHour, "hour", func(k *datar.Key, v int64) { k.Hour = datar.Hour(v) }},
		{datar.GroupDay, "day", func(k *datar.Key, v int64) { k.Hour = datar.Hour(v * hoursPerDay) }},
	}
}

// Details implements datar.DetailStore.
func (s *Store) Details(ctx context.Context, q datar.DetailsQuery) ([]datar.Row, error) {
	if q.From >= q.To {
		return nil, ctx.Err()
	}
	rollups, err := s.rolledUp(ctx, q.From, q.To)
	if err != nil {
		return nil, fmt.Errorf("chstore: add up details: %w", err)
	}
	var groups []string
	var setters []func(*datar.Key, int64)
	for _, p := range parts() {
		if q.GroupBy&p.by != 0 {
			groups = append(groups, fmt.Sprintf("toInt64(%s) AS g%d", p.column, len(groups)))
			setters = append(setters, p.set)
		}
	}
	groups = append(groups, fmt.Sprintf("toInt64(0) AS g%d", len(groups))) // there is always a column to group by
	names := make([]string, len(groups))
	for i := range names {
		names[i] = fmt.Sprintf("g%d", i)
	}
	grouped := strings.Join(names, ", ")
	rows, err := s.client.integers(ctx, "SELECT "+grouped+", toInt64(sum(c)), toInt64(sum(i)), toInt64(minIf(f, f != 0)), toInt64(max(l)) FROM "+
		"(SELECT "+strings.Join(groups, ", ")+", c, i, if(outcome = 0, 0, f) AS f, if(outcome = 0, 0, l) AS l FROM "+
		rollups.rows(q.From, q.To, ofFlag(q.FlagID)+detailed)+") GROUP BY "+grouped)
	if err != nil {
		return nil, fmt.Errorf("chstore: add up details: %w", err)
	}
	details := make([]datar.Row, len(rows))
	for i, values := range rows {
		for j, set := range setters {
			set(&details[i].Key, values[j])
		}
		values = values[len(groups):]
		details[i].Count, details[i].Ingested, details[i].First, details[i].Last = values[0], values[1], values[2], values[3]
	}
	slices.SortFunc(details, func(a, b datar.Row) int { return a.Compare(b.Key) })
	return details, nil
}

// DetailedFrom implements datar.DetailStore.
func (s *Store) DetailedFrom(ctx context.Context) (datar.Hour, error) {
	m, err := s.readMarks(ctx)
	if err != nil {
		return 0, fmt.Errorf("chstore: %w", err)
	}
	return datar.Hour(m.reduced * hoursPerDay), nil
}

// Unknown implements datar.DetailStore.
func (s *Store) Unknown(ctx context.Context, q datar.UnknownQuery) ([]datar.UnknownRow, error) {
	if q.From >= q.To {
		return nil, ctx.Err()
	}
	rows, err := s.client.query(ctx, fmt.Sprintf("SELECT asked, toString(sum(c)), toString(min(f)), toString(max(l)) FROM "+
		"(SELECT asked, max(n) AS c, min(first_ms) AS f, max(last_ms) AS l FROM datar_unknown "+
		"WHERE %s GROUP BY hour, asked, writer, sequence) "+
		"GROUP BY asked ORDER BY sum(c) DESC, asked LIMIT %d, %d", inWindow(q.From, q.To), q.Offset, q.Limit))
	if err != nil {
		return nil, fmt.Errorf("chstore: requests for flags that do not exist: %w", err)
	}
	unknown := make([]datar.UnknownRow, len(rows))
	for i, r := range rows {
		unknown[i].Asked = r[0]
		if _, err := fmt.Sscan(strings.Join(r[1:], " "), &unknown[i].Count, &unknown[i].First, &unknown[i].Last); err != nil {
			return nil, fmt.Errorf("chstore: requests for flags that do not exist: %w", err)
		}
	}
	return unknown, nil
}

// Servers implements datar.DetailStore.
func (s *Store) Servers(ctx context.Context) ([]datar.ServerRecord, error) {
	rows, err := s.client.query(ctx, "SELECT argMax(record, at_ms) FROM datar_servers GROUP BY name, run")
	if err != nil {
		return nil, fmt.Errorf("chstore: read the records of servers: %w", err)
	}
	records := make([]datar.ServerRecord, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal([]byte(r[0]), &records[i]); err != nil {
			return nil, fmt.Errorf("chstore: read the record of a server: %w", err)
		}
	}
	return records, nil
}
