package insight

import (
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for systems without a time zone database

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// MaxBuckets is the maximum number of buckets of a series.
const MaxBuckets = 2_000

// Unit is the length of the buckets of a series.
type Unit string

// The units. Days begin at midnight and weeks on Monday, in the time zone of the series.
const (
	UnitHour Unit = "hour"
	UnitDay  Unit = "day"
	UnitWeek Unit = "week"
)

// ParseUnit returns the unit with that name. The empty name is UnitHour for windows of up to 3
// days, and UnitDay for longer ones.
func ParseUnit(name string, from, to time.Time) (Unit, error) {
	const longestOfHours = 72 * time.Hour
	switch u := Unit(name); u {
	case UnitHour, UnitDay, UnitWeek:
		return u, nil
	case "":
		if to.Sub(from) <= longestOfHours {
			return UnitHour, nil
		}
		return UnitDay, nil
	default:
		return "", invalidWindow("api.window.bucket", "bucket", strconv.Quote(cut(name)))
	}
}

// LoadZone returns the time zone with a name of the IANA database. The empty name is UTC.
func LoadZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") || len(name) > 64 {
		return nil, invalidWindow("api.window.zone", "zone", strconv.Quote(cut(name)))
	}
	return zone, nil
}

// Bucket is a range of whole UTC hours that belong to one hour, day or week of a time zone.
type Bucket struct {
	// Start is the first hour and End the hour after the last.
	Start, End datar.Hour
}

func (b Bucket) contains(h datar.Hour) bool { return b.Start <= h && h < b.End }

// Calendar divides time into the buckets of a time zone. Counts are kept by UTC hour, and no count
// is split: an hour belongs to the day or week in which it begins. If the time zone's offset is not
// a whole number of hours, a day begins with the first UTC hour that begins in it.
type Calendar struct {
	Unit Unit
	Zone *time.Location
}

// number identifies the bucket in which an hour begins. It increases with time.
func (c Calendar) number(h datar.Hour) int64 {
	if c.Unit == UnitHour {
		return int64(h)
	}
	const secondsPerDay, daysPerWeek = 24 * 3600, 7
	year, month, day := h.Time().In(c.Zone).Date()
	days := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay
	if c.Unit == UnitDay {
		return days
	}
	const mondayBefore1970 = 3 // days
	return (days + mondayBefore1970 + 100_000*daysPerWeek) / daysPerWeek
}

// shortest returns a number of hours in which no bucket begins twice, unless the offset of the time
// zone changes.
func (c Calendar) shortest() datar.Hour {
	switch c.Unit {
	case UnitDay:
		return 20
	case UnitWeek:
		return 160
	default:
		return 1
	}
}

// next returns the first hour after h that begins another bucket. The hour h must be the first one
// of its bucket.
func (c Calendar) next(h datar.Hour) datar.Hour {
	number := c.number(h)
	// The bucket may be shorter than expected if the time zone skips part of a day or week.
	step := c.shortest()
	for step > 1 && c.number(h+step) != number {
		step /= 2
	}
	h += step
	for c.number(h) <= number {
		h++
	}
	return h
}

// start returns the first hour of the bucket that contains h.
func (c Calendar) start(h datar.Hour) datar.Hour {
	number := c.number(h)
	for h > 0 && c.number(h-1) >= number {
		h--
	}
	return h
}

// Buckets returns the buckets that overlap the hours from, inclusive, to, exclusive. The first and
// the last bucket can extend beyond the window. The error matches datar.ErrInvalidQuery if there
// are more than MaxBuckets.
func (c Calendar) Buckets(from, to datar.Hour) ([]Bucket, error) {
	if n := int64(to-from) / (int64(c.shortest()) * 2); n > MaxBuckets { // reject much longer windows without counting
		return nil, c.tooMany(from, to)
	}
	var buckets []Bucket
	for h := c.start(from); h < to; {
		if len(buckets) == MaxBuckets {
			return nil, c.tooMany(from, to)
		}
		next := c.next(h)
		buckets = append(buckets, Bucket{h, next})
		h = next
	}
	return buckets, nil
}

func (c Calendar) tooMany(from, to datar.Hour) error {
	hours := int64(to - from)
	switch {
	case c.Unit == UnitHour && hours <= (MaxBuckets-1)*24:
		return invalidWindow("api.window.hours", "most", catalog.Digits(MaxBuckets))
	case c.Unit != UnitWeek && hours <= (MaxBuckets-1)*7*24:
		return invalidWindow("api.window.buckets", "unit", c.Unit, "most", catalog.Digits(MaxBuckets))
	default:
		return invalidWindow("api.window.long", "most", catalog.Digits(MaxBuckets), "unit", c.Unit)
	}
}

// count returns n buckets. The first one contains h.
func (c Calendar) count(h datar.Hour, n int) []Bucket {
	buckets := make([]Bucket, 0, n)
	for h = c.start(h); len(buckets) < n; {
		next := c.next(h)
		buckets = append(buckets, Bucket{h, next})
		h = next
	}
	return buckets
}

// before returns the first hour of the bucket that is n buckets before the bucket that begins with
// h.
func (c Calendar) before(h datar.Hour, n int) datar.Hour {
	for range n {
		if h <= 0 {
			break
		}
		h = c.start(h - 1)
	}
	return max(h, 0)
}

// isWholeDays reports whether every bucket consists of whole UTC days.
func isWholeDays(buckets []Bucket) bool {
	for _, b := range buckets {
		if b.Start != b.Start.DayStart() || b.End != b.End.DayStart() {
			return false
		}
	}
	return true
}
