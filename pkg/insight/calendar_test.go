package insight_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

func starts(t *testing.T, unit insight.Unit, zone, from, to string) (starts []string, hours []int) {
	t.Helper()
	location, err := insight.LoadZone(zone)
	if err != nil {
		t.Fatal(err)
	}
	buckets, err := insight.Calendar{Unit: unit, Zone: location}.Buckets(datar.HourOf(at(t, from)), datar.HourOf(at(t, to)))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		starts = append(starts, b.Start.Time().In(location).Format("01-02T15:04Z07:00"))
		hours = append(hours, int(b.End-b.Start))
	}
	return starts, hours
}

func TestBucketsOfZones(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		unit           insight.Unit
		zone, from, to string
		starts         string
		hours          []int
	}{
		"days of UTC": {insight.UnitDay, "UTC", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z", "03-28T00:00Z 03-29T00:00Z", []int{24, 24}},
		"a day of 23 hours": {insight.UnitDay, "Europe/Berlin", "2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z",
			"03-28T00:00+01:00 03-29T00:00+01:00 03-30T00:00+02:00", []int{24, 23, 24}},
		"a day of 25 hours": {insight.UnitDay, "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-26T23:00:00Z",
			"10-25T00:00+02:00 10-26T00:00+01:00", []int{25, 24}},
		"half an hour off": {insight.UnitDay, "Asia/Kolkata", "2026-01-01T19:00:00Z", "2026-01-03T19:00:00Z",
			"01-02T00:30+05:30 01-03T00:30+05:30", []int{24, 24}},
		"45 minutes off":            {insight.UnitDay, "Asia/Kathmandu", "2026-01-01T19:00:00Z", "2026-01-02T19:00:00Z", "01-02T00:45+05:45", []int{24}},
		"half an hour of DST":       {insight.UnitDay, "Australia/Lord_Howe", "2026-04-03T13:00:00Z", "2026-04-06T13:00:00Z", "04-04T00:00+11:00 04-05T00:00+11:00 04-06T00:30+10:30 04-06T23:30+10:30", nil},
		"midnight does not exist":   {insight.UnitDay, "Asia/Beirut", "2026-03-27T22:00:00Z", "2026-03-29T21:00:00Z", "03-28T00:00+02:00 03-29T01:00+03:00", []int{24, 23}},
		"a day that was left out":   {insight.UnitDay, "Pacific/Apia", "2011-12-29T10:00:00Z", "2011-12-31T10:00:00Z", "12-29T00:00-10:00 12-31T00:00+14:00", []int{24, 24}},
		"two hours of DST":          {insight.UnitDay, "Antarctica/Troll", "2026-03-28T00:00:00Z", "2026-03-29T22:00:00Z", "03-28T00:00Z 03-29T00:00Z", []int{24, 22}},
		"weeks from Monday":         {insight.UnitWeek, "Europe/Berlin", "2026-03-25T12:00:00Z", "2026-04-01T12:00:00Z", "03-23T00:00+01:00 03-30T00:00+02:00", []int{167, 168}},
		"hours of a half-hour zone": {insight.UnitHour, "Asia/Kolkata", "2026-01-01T18:00:00Z", "2026-01-01T20:00:00Z", "01-01T23:30+05:30 01-02T00:30+05:30", []int{1, 1}},
		"an empty window":           {insight.UnitDay, "UTC", "2026-03-28T00:00:00Z", "2026-03-28T00:00:00Z", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, hours := starts(t, test.unit, test.zone, test.from, test.to)
			if name == "half an hour of DST" {
				if len(got) < 3 || got[0] != "04-04T00:00+11:00" || got[1] != "04-05T00:00+11:00" || got[2] != "04-06T00:30+10:30" {
					t.Errorf("got %v", got)
				}
				return
			}
			if text := strings.Join(got, " "); text != test.starts {
				t.Errorf("got %s, want %s", text, test.starts)
			}
			for i := range test.hours {
				if hours[i] != test.hours[i] {
					t.Errorf("got hours %v, want %v", hours, test.hours)
				}
			}
		})
	}
}

// TestBucketsOfManyZonesAreWhole checks that buckets are adjacent, and begin where a simple check
// of each hour finds the start of a day or week.
func TestBucketsOfManyZonesAreWhole(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca",
		"Pacific/Chatham", "Asia/Tehran", "America/St_Johns", "Asia/Gaza", "Pacific/Apia"} {
		zone, err := insight.LoadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		from := datar.HourOf(at(t, "2010-01-01T00:00:00Z"))
		for _, unit := range []insight.Unit{insight.UnitDay, insight.UnitWeek} {
			buckets, err := insight.Calendar{Unit: unit, Zone: zone}.Buckets(from, from+1900*24)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range buckets {
				if i > 0 && buckets[i-1].End != b.Start || b.End <= b.Start {
					t.Fatalf("%s: bucket %d is %v after %v", name, i, b, buckets[max(i-1, 0)])
				}
				first, last, before := b.Start.Time().In(zone), (b.End - 1).Time().In(zone), (b.Start - 1).Time().In(zone)
				inOne := func(a, b time.Time) bool {
					if unit == insight.UnitDay {
						return a.YearDay() == b.YearDay() && a.Year() == b.Year()
					}
					yearA, weekA := a.ISOWeek()
					yearB, weekB := b.ISOWeek()
					return yearA == yearB && weekA == weekB
				}
				if !inOne(first, last) || inOne(before, first) {
					t.Fatalf("%s: bucket from %s to %s, before it %s", name, first, last, before)
				}
			}
		}
	}
}

func TestTooManyBuckets(t *testing.T) {
	t.Parallel()
	from := datar.HourOf(at(t, "2020-01-01T00:00:00Z"))
	for name, test := range map[string]struct {
		unit  insight.Unit
		hours datar.Hour
		want  string // part of the error; empty means no error
	}{
		"as many hours as may be": {insight.UnitHour, 2000, ""},
		"one hour more":           {insight.UnitHour, 2001, "want day or week"},
		"hours of years":          {insight.UnitHour, 20 * 366 * 24, "want week"},
		"as many days as may be":  {insight.UnitDay, 2000 * 24, ""},
		"one day more":            {insight.UnitDay, 2001 * 24, "want week"},
		"hours of centuries":      {insight.UnitHour, 1 << 28, "want a shorter window"},
		"weeks of centuries":      {insight.UnitWeek, 1 << 28, "want a shorter window"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := insight.Calendar{Unit: test.unit, Zone: time.UTC}.Buckets(from, from+test.hours)
			if (err == nil) != (test.want == "") || err != nil && (!errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestParametersOfSeries(t *testing.T) {
	t.Parallel()
	from, to := at(t, "2026-01-01T00:00:00Z"), at(t, "2026-01-04T00:00:00Z")
	if u, err := insight.ParseUnit("", from, to); u != insight.UnitHour || err != nil {
		t.Errorf("3 days: %s, %v", u, err)
	}
	if u, err := insight.ParseUnit("", from, to.Add(time.Hour)); u != insight.UnitDay || err != nil {
		t.Errorf("more: %s, %v", u, err)
	}
	for _, zone := range []string{"Local", "local", "Mars/Olympus", "../etc/passwd", "Europe", strings.Repeat("x", 1000)} {
		if _, err := insight.LoadZone(zone); !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), "tz is") || len(err.Error()) > 400 {
			t.Errorf("zone %.20s: %v", zone, err)
		}
	}
	for name, err := range map[string]error{
		"bucket is": func() error { _, err := insight.ParseUnit(strings.Repeat("month", 600), from, to); return err }(),
		"by is":     func() error { _, err := insight.ParseBy("country"); return err }(),
		"compare is": func() error {
			_, _, err := insight.Calendar{Unit: insight.UnitDay, Zone: time.UTC}.Windows(datar.HourOf(from), datar.HourOf(to), "yesterday", to)
			return err
		}(),
	} {
		if !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), name) || len(err.Error()) > 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWindowsOfComparisons(t *testing.T) {
	t.Parallel()
	berlin, err := insight.LoadZone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	c := insight.Calendar{Unit: insight.UnitDay, Zone: berlin}
	from, to := datar.HourOf(at(t, "2026-03-28T00:00:00+01:00")), datar.HourOf(at(t, "2026-03-31T00:00:00+02:00"))
	for compare, want := range map[string]string{
		"previous":             "2026-03-25T00:00:00+01:00",
		"week":                 "2026-03-21T00:00:00+01:00",
		"2025-10-25T12:00:00Z": "2025-10-25T00:00:00+02:00",
	} {
		w, other, err := c.Windows(from, to, compare, to.Time())
		if err != nil || len(w.Buckets) != 3 || len(other.Buckets) != 3 {
			t.Fatalf("%s: %v", compare, err)
		}
		if got := other.Buckets[0].Start.Time().In(berlin).Format(time.RFC3339); got != want || other.From != other.Buckets[0].Start || other.To != other.Buckets[2].End {
			t.Errorf("%s: got %s, want %s", compare, got, want)
		}
	}
	for _, compare := range []string{"9999-12-31T23:59:59Z", "2026-03-31T00:00:01+02:00", "1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z"} {
		if _, _, err := c.Windows(from, to, compare, to.Time()); !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), "from 1970 until now") {
			t.Errorf("%s: %v", compare, err)
		}
	}
	if _, other, err := c.Windows(from, to, "", to.Time()); other != nil || err != nil {
		t.Errorf("no comparison: %v, %v", other, err)
	}
}
