package gormstore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// hourRange is a half-open range of hours.
type hourRange struct{ from, to int64 }

// hoursOf returns the total number of hours in ranges.
func hoursOf(ranges []hourRange) (hours int64) {
	for _, r := range ranges {
		hours += r.to - r.from
	}
	return hours
}

// contain reports whether an hour is in one of the ranges.
func contain(ranges []hourRange, hour datar.Hour) bool {
	return slices.ContainsFunc(ranges, func(r hourRange) bool { return int64(hour) >= r.from && int64(hour) < r.to })
}

// without returns the rest of the range after removing pieces of the given size. starts are in
// ascending order.
func (r hourRange) without(starts []int64, size int64) []hourRange {
	var left []hourRange
	next := r.from
	for _, start := range starts {
		if start+size <= r.from || start >= r.to {
			continue
		}
		if start > next {
			left = append(left, hourRange{next, start})
		}
		next = start + size
	}
	if next < r.to {
		left = append(left, hourRange{next, r.to})
	}
	return left
}

// eventHours is the condition that the hour of an event is in a range.
type eventHours struct {
	condition string
	bindHour  func(datar.Hour) any
	// offsets is true if the condition also finds hours with offsets, which it compares as
	// instants.
	offsets bool
}

// Hours in UTC are compared as text. The others have a separate index.
const (
	hourInUTC     = "bucket_hour >= {at} AND bucket_hour < {at}"
	hourInAnyZone = "((substr(bucket_hour, -6) = '+00:00' AND bucket_hour >= ? AND bucket_hour < ?)" +
		" OR (" + sqliteOffset + " AND " + sqliteHour + " >= ? AND " + sqliteHour + " < ?))"
)

// eventHours returns the condition for the events that the database contains now.
func (s *Store) eventHours(tx *gorm.DB) (eventHours, error) {
	utc := eventHours{condition: s.sql(hourInUTC), bindHour: s.dialect.bindHour}
	if s.dialect.offsets == "" {
		return utc, nil
	}
	var found []int64
	if err := tx.Raw(s.sql(s.dialect.offsets)).Scan(&found).Error; err != nil {
		return utc, fmt.Errorf("look for hours with offsets: %w", err)
	}
	if len(found) == 0 {
		return utc, nil
	}
	return eventHours{condition: hourInAnyZone, bindHour: s.dialect.bindHour, offsets: true}, nil
}

// in inserts the condition for one range into a statement.
func (e eventHours) in(statement string) string {
	return strings.Replace(statement, "{within}", e.condition, 1)
}

// bind returns the parameters of the condition.
func (e eventHours) bind(r hourRange) []any {
	values := []any{e.bindHour(datar.Hour(r.from)), e.bindHour(datar.Hour(r.to))}
	if e.offsets {
		values = append(values, r.from, r.to)
	}
	return values
}

// anyOf returns the condition that the hour is in one of the ranges, and its parameters.
func (e eventHours) anyOf(ranges []hourRange) (condition string, values []any) {
	ranges = padded(ranges)
	for _, r := range ranges {
		values = append(values, e.bind(r)...)
	}
	each := "(" + e.condition + ")"
	return "(" + each + strings.Repeat(" OR "+each, len(ranges)-1) + ")", values
}

// oldest returns the hour of the oldest event or detail.
func (s *Store) oldest(db *gorm.DB) (hour int64, found bool, err error) {
	statements := []string{
		"SELECT {hour} FROM datar_hourly_events ORDER BY bucket_hour LIMIT 1",
		"SELECT {hour} FROM datar_hourly_details ORDER BY bucket_hour LIMIT 1",
	}
	if s.dialect.offsets != "" {
		statements[0] = "SELECT {hour} FROM datar_hourly_events WHERE substr(bucket_hour, -6) = '+00:00' ORDER BY bucket_hour LIMIT 1"
		statements = append(statements, "SELECT {hour} FROM datar_hourly_events WHERE "+sqliteOffset+" ORDER BY {hour} LIMIT 1")
	}
	for _, statement := range statements {
		var hours []int64
		if err := db.Raw(s.sql(statement)).Scan(&hours).Error; err != nil {
			return 0, false, fmt.Errorf("look for the oldest count: %w", err)
		}
		if len(hours) > 0 && (!found || hours[0] < hour) {
			hour, found = hours[0], true
		}
	}
	return hour, found, nil
}

// pieces splits ranges into parts of at most a day, without the hours before the oldest count.
// Hours after the present day are one part. A query of all flags reads the parts one by one, so
// that it can end between them: SQLite's driver does not interrupt a statement that has not found
// its first row yet.
func (s *Store) pieces(tx *gorm.DB, ranges []hourRange) ([]hourRange, error) {
	if hoursOf(ranges) <= hoursPerDay {
		return ranges, nil
	}
	oldest, found, err := s.oldest(tx)
	if err != nil || !found {
		return nil, err
	}
	tomorrow := dayOf(int64(datar.HourOf(time.Now()))) + hoursPerDay
	var pieces []hourRange
	for _, r := range ranges {
		for from := max(r.from, oldest); from < r.to; {
			to := r.to
			if from < tomorrow {
				to = min(dayOf(from)+hoursPerDay, r.to)
			}
			pieces = append(pieces, hourRange{from, to})
			from = to
		}
	}
	return pieces, nil
}

// together groups ranges into those that one query reads. For all flags, one query reads all
// ranges. For one flag, each query reads one range if there are few.
func together(ranges []hourRange, flagID int64) [][]hourRange {
	switch {
	case len(ranges) == 0:
		return nil
	case flagID != 0 && len(ranges) <= rangesApart:
		return slices.Collect(slices.Chunk(ranges, 1))
	default:
		return [][]hourRange{ranges}
	}
}
