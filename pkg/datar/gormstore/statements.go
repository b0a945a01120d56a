package gormstore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// The columns of DetailsSQL, with their expressions in the details, in the events, and in the
// events that the details are part of. A column that events do not have is 0 there.
var statementParts = []struct {
	bits                   datar.Parts
	name                   string
	detail, event, counted string
}{
	{datar.GroupFlag, "flag_id", "flag_id", "flag_id", "flag_id"},
	{datar.GroupHour | datar.GroupDay, "bucket_hour", "bucket_hour", "bucket_hour", "bucket_hour"},
	{datar.GroupOutcome, "outcome", "outcome", "0", "0"},
	{datar.GroupVariant, "variant_id", "variant_id", "variant_id", "variant_id"},
	{datar.GroupSegment, "segment_id", "segment_id", "segment_id", "CASE WHEN outcome = " + heldOut + " THEN 0 ELSE segment_id END"},
	{datar.GroupVersion, "version", "version", "0", "0"},
	{datar.GroupAsked, "asked", "asked", "0", "0"},
}

// DetailsSQL returns a statement, for users who query the tables themselves, that returns the
// counts of Details with the same query. It reads no rollups, so it is slower, and it is right for
// hours with details: see DetailedFrom. A To of 0 means no end, and GroupDay groups by hour.
//
// On SQLite, it misses hours that Flagr wrote in another time zone than UTC.
func (s *Store) DetailsSQL(query datar.DetailsQuery) string {
	var names, details, events, counted []string
	for _, p := range statementParts {
		if query.GroupBy&p.bits == 0 {
			continue
		}
		names, details = append(names, p.name), append(details, p.detail)
		events, counted = append(events, p.event), append(counted, p.counted)
	}
	conditions := []string{s.hourSQL(">=", query.From)}
	if query.To != 0 {
		conditions = append(conditions, s.hourSQL("<", query.To))
	}
	if query.FlagID != 0 {
		conditions = slices.Insert(conditions, 0, fmt.Sprintf("flag_id = %d", query.FlagID))
	}
	where := strings.Join(conditions, " AND ")
	source := func(table table, columns []string, count, where string) string {
		return fmt.Sprintf("  SELECT %s\n  FROM %s\n  WHERE %s", strings.Join(append(columns, count), ", "), table, where)
	}
	inDetails := eventOutcomes()[1:] // all but Unattributed, which details never are
	ofEvents := strings.Trim(strings.ReplaceAll(fmt.Sprint(inDetails), " ", ", "), "[]")
	grouped := ""
	if by := strings.Join(names, ", "); by != "" {
		grouped = fmt.Sprintf("\nGROUP BY %[1]s\nHAVING SUM(eval_count) <> 0\nORDER BY %[1]s", by)
	}
	return s.sql(fmt.Sprintf("SELECT %s\nFROM (\n%s\n) AS counts%s;",
		strings.Join(append(names, "SUM(eval_count) AS total"), ", "),
		strings.Join([]string{
			source(detailsTable, details, "eval_count", where),
			source(eventsTable, events, "eval_count", where),
			source(detailsTable, counted, "-eval_count", where+" AND outcome IN ("+ofEvents+")"),
		}, "\n  UNION ALL\n"), grouped))
}

// UnknownSQL returns a statement, for users, that returns the requests for flags that do not exist
// since an hour.
func (s *Store) UnknownSQL(from datar.Hour) string {
	return s.sql(fmt.Sprintf("SELECT asked, SUM(eval_count) AS total\nFROM %s\nWHERE %s\nGROUP BY asked\nORDER BY total DESC, asked;",
		unknownTable, s.hourSQL(">=", from)))
}

// ServersSQL returns a statement, for users, that returns the statistics of all runs of servers.
func (s *Store) ServersSQL() string {
	return s.sql(fmt.Sprintf("SELECT *\nFROM %s\nORDER BY name, started_ms;", serversTable))
}

// hourSQL returns a condition on the hour of a row.
func (s *Store) hourSQL(operator string, h datar.Hour) string {
	return fmt.Sprintf("bucket_hour %s '%s'", operator, s.dialect.hourText(h))
}
