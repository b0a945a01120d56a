package insight

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// By is the division of a series into lines.
type By string

// The divisions.
const (
	ByOutcome By = "outcome"
	ByVariant By = "variant"
	BySegment By = "segment"
	ByVersion By = "version"
	// ByTotal is the division of a series of UTC days. Requests cannot select it.
	ByTotal By = "total"
)

const (
	// maxSeriesCounts limits the counts of a series, which has one for each line and bucket, also
	// where it is 0.
	maxSeriesCounts = 1_000_000
	// maxTableBytes limits the table of a series.
	maxTableBytes = 64 << 20
)

// ParseBy returns the division with that name. The empty name is ByOutcome.
func ParseBy(name string) (By, error) {
	switch b := By(name); b {
	case ByOutcome, ByVariant, BySegment, ByVersion:
		return b, nil
	case "":
		return ByOutcome, nil
	default:
		return "", invalidWindow("api.window.by", "by", strconv.Quote(cut(name)))
	}
}

// parts returns what counts are grouped by for the lines.
func (b By) parts() datar.Parts {
	switch b {
	case ByVariant:
		return datar.GroupVariant | datar.GroupOutcome
	case BySegment:
		return datar.GroupSegment
	case ByVersion:
		return datar.GroupOutcome | datar.GroupVersion
	default:
		return datar.GroupOutcome
	}
}

// Series is the traffic of one flag over time.
type Series struct {
	FlagID int64
	Unit   Unit
	Zone   *time.Location
	By     By
	// UTCDays is true if the window begins before the oldest details. Then the buckets are UTC days
	// or weeks, By is ByTotal, and there is one line with all assignments and all evaluations
	// without an assignment.
	UTCDays bool
	Buckets
	// Comparison has the same number of buckets at another time. It is nil if the request has no
	// comparison, or if it is missing.
	Comparison *Buckets
	// ComparisonMissing is set if the details of the comparison are deleted, and those of the
	// series are not.
	ComparisonMissing catalog.Message
	// Changes are the changes of the window, newest first, at most 100.
	Changes  []Change
	Complete *Complete
}

// Buckets are a part of a Series.
type Buckets struct {
	// Starts are the start times of the buckets, in the time zone of the series. End is the end of
	// the last bucket, or of the window if there are no buckets.
	Starts []time.Time
	End    time.Time
	// Lines have one count for each bucket. The sum of all lines is the number of all evaluations.
	Lines []Line
	// Nothing divides the line of evaluations without a variant by outcome, if the lines are
	// variants. The sum of its lines is that line.
	Nothing []Line
	// Whole is false for a bucket that the window truncates, that has not ended, or in which some
	// evaluations were not counted.
	Whole []bool
}

// Line is one line of a series. Depending on By, it has an outcome, a variant, a segment or a
// version. 0 means none or unknown.
type Line struct {
	Outcome    datar.Outcome
	VariantID  int64
	SegmentID  int64
	SnapshotID int64
	// Name is the key of the variant or the description of the segment.
	Name   string
	Counts []int64
}

func (l *Line) total() (n int64) {
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// SeriesWindow is a range of hours with the buckets that contain it.
type SeriesWindow struct {
	From, To datar.Hour // To is exclusive
	Buckets  []Bucket
}

// Windows returns the buckets of a series and, unless compare is empty, of its comparison. compare
// is "previous" for the same number of buckets before, "week" for the same time a week before, or
// an RFC 3339 time in the first bucket, from 1970 until now. The error matches
// datar.ErrInvalidQuery.
func (c Calendar) Windows(from, to datar.Hour, compare string, now time.Time) (SeriesWindow, *SeriesWindow, error) {
	buckets, err := c.Buckets(from, to)
	if err != nil {
		return SeriesWindow{}, nil, err
	}
	w := SeriesWindow{from, to, buckets}
	first, err := c.compared(&w, compare, now)
	if compare == "" || len(buckets) == 0 || err != nil {
		return w, nil, err
	}
	other := c.count(first, len(buckets))
	return w, &SeriesWindow{other[0].Start, other[len(other)-1].End, other}, nil
}

// compared returns an hour in the first bucket of a comparison with w.
func (c Calendar) compared(w *SeriesWindow, compare string, now time.Time) (datar.Hour, error) {
	start := w.From
	if len(w.Buckets) > 0 {
		start = w.Buckets[0].Start
	}
	switch compare {
	case "":
		return 0, nil
	case "previous":
		return c.before(start, len(w.Buckets)), nil
	case "week":
		const daysPerWeek = 7
		return max(0, datar.HourOf(start.Time().In(c.Zone).AddDate(0, 0, -daysPerWeek))), nil
	default:
		at, err := time.Parse(time.RFC3339, compare)
		if err != nil || at.After(now) || at.Unix() < 0 {
			return 0, invalidWindow("api.window.compare", "compare", strconv.Quote(cut(compare)))
		}
		return datar.HourOf(at), nil
	}
}

// Fill adds up rows. They are grouped by what by selects, and by hour, or by day if IsWholeDays
// returns true. now decides which buckets have not ended. holes are periods in which some
// evaluations were not counted. The error matches datar.ErrInvalidQuery if there are more than
// maxSeriesCounts.
func (w *SeriesWindow) Fill(zone *time.Location, by By, rows []datar.Row, timeline Timeline, names *Names, now time.Time, holes []Hole) (Buckets, error) {
	b := Buckets{Starts: make([]time.Time, len(w.Buckets)), End: w.To.Time().In(zone), Whole: make([]bool, len(w.Buckets)), Lines: []Line{}}
	for i, bucket := range w.Buckets {
		start, end := bucket.Start.Time(), bucket.End.Time()
		b.Starts[i], b.End = start.In(zone), end.In(zone)
		b.Whole[i] = bucket.Start >= w.From && bucket.End <= w.To && !end.After(now) &&
			!slices.ContainsFunc(holes, func(h Hole) bool { return h.From.Before(end) && h.To.After(start) })
	}
	places := map[lineKey]int{} // of lines in b.Lines, and of those with an outcome in b.Nothing if the lines are variants
	mostLines := maxSeriesCounts / max(1, len(w.Buckets))
	add := func(lines *[]Line, key lineKey, at int, count int64) bool {
		place, ok := places[key]
		if !ok {
			if len(places) == mostLines {
				return false
			}
			place = len(*lines)
			places[key] = place
			*lines = append(*lines, key.line(names, len(w.Buckets)))
		}
		(*lines)[place].Counts[at] += count
		return true
	}
	at := -1
	for i := range rows {
		r := &rows[i]
		if at < 0 || !w.Buckets[at].contains(r.Hour) { // rows are in the order of hours
			at = w.bucket(r.Hour)
		}
		if at < 0 {
			continue
		}
		fits := add(&b.Lines, keyOf(by, r, timeline), at, r.Count)
		if by == ByVariant && r.VariantID == 0 {
			fits = fits && add(&b.Nothing, lineKey{outcome: r.Outcome, ofNothing: true}, at, r.Count)
		}
		if !fits {
			return b, invalidWindow("api.series.long", "by", string(by), "lines", mostLines, "buckets", len(w.Buckets), "most", maxSeriesCounts)
		}
	}
	for _, lines := range [][]Line{b.Lines, b.Nothing} {
		slices.SortFunc(lines, func(a, b Line) int { return compareLines(by, names, &a, &b) })
	}
	return b, nil
}

// bucket returns the index of the bucket that contains an hour, or -1.
func (w *SeriesWindow) bucket(h datar.Hour) int {
	i := sort.Search(len(w.Buckets), func(i int) bool { return w.Buckets[i].End > h })
	if i == len(w.Buckets) || !w.Buckets[i].contains(h) {
		return -1
	}
	return i
}

// IsWholeDays reports whether every bucket consists of whole UTC days, so that counts by day are
// enough. The window may truncate the first and the last of these days. Their counts then cover
// only the hours within the window.
func (w *SeriesWindow) IsWholeDays() bool { return isWholeDays(w.Buckets) }

// lineKey identifies a line.
type lineKey struct {
	outcome                          datar.Outcome
	variantID, segmentID, snapshotID int64
	ofNothing                        bool // in Buckets.Nothing
}

func keyOf(by By, r *datar.Row, timeline Timeline) lineKey {
	switch by {
	case ByTotal:
		return lineKey{}
	case ByVariant:
		return lineKey{variantID: r.VariantID}
	case BySegment:
		return lineKey{segmentID: r.SegmentID}
	case ByVersion:
		if i := timeline.resolveRow(r); i >= 0 {
			return lineKey{snapshotID: timeline[i].SnapshotID}
		}
		return lineKey{}
	default:
		return lineKey{outcome: r.Outcome}
	}
}

func (k lineKey) line(names *Names, buckets int) Line {
	l := Line{Outcome: k.outcome, VariantID: k.variantID, SegmentID: k.segmentID, SnapshotID: k.snapshotID, Counts: make([]int64, buckets)}
	switch {
	case k.variantID != 0:
		l.Name = names.variants[k.variantID]
	case k.segmentID != 0:
		l.Name = names.segments[k.segmentID].description
	}
	return l
}

func compareLines(by By, names *Names, a, b *Line) int {
	switch by {
	case BySegment:
		return names.compareSegments(a.SegmentID, b.SegmentID)
	case ByVersion:
		return cmp.Compare(a.SnapshotID, b.SnapshotID)
	default: // colors are assigned by index, so the order must not depend on counts
		return cmp.Or(cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.VariantID, b.VariantID))
	}
}

// Check returns an error if a line does not have one count for each bucket.
func (b *Buckets) Check() error {
	if len(b.Starts) != len(b.Whole) {
		return fmt.Errorf("%d starts and %d marks of whole buckets", len(b.Starts), len(b.Whole))
	}
	for i := range b.Lines {
		if n := len(b.Lines[i].Counts); n != len(b.Starts) {
			return fmt.Errorf("line %d has %d counts for %d buckets", i, n, len(b.Starts))
		}
	}
	for i := 1; i < len(b.Starts); i++ {
		if !b.Starts[i].After(b.Starts[i-1]) {
			return fmt.Errorf("bucket %d does not begin after the one before", i)
		}
	}
	return nil
}

// Total returns the sum of all lines.
func (b *Buckets) Total() (n int64) {
	for i := range b.Lines {
		n += b.Lines[i].total()
	}
	return n
}

// Table has one row for each bucket and line.
func (s *Series) Table() *Table {
	header := []string{"start", "end", "whole", string(s.By), "name", "count"}
	if s.UTCDays {
		header[3] = "line"
	}
	return &Table{header, func(yield func([]string) bool) {
		for i, start := range s.Starts {
			end := s.End
			if i+1 < len(s.Starts) {
				end = s.Starts[i+1]
			}
			from, to, whole := start.Format(time.RFC3339), end.Format(time.RFC3339), strconv.FormatBool(s.Whole[i])
			for l := range s.Lines {
				line := &s.Lines[l]
				if !yield([]string{from, to, whole, s.lineText(line), rowName(line.Name), number(line.Counts[i])}) {
					return
				}
			}
		}
	}}
}

// CheckTable returns an error that matches datar.ErrInvalidQuery if the table would have more than
// maxTableBytes.
func (s *Series) CheckTable() error {
	const fixed = 70 // times, numbers and separators of a row
	size := 0
	for i := range s.Lines {
		size += len(s.Starts) * (fixed + len(rowName(s.Lines[i].Name)))
	}
	if size > maxTableBytes {
		return invalidWindow("api.series.table", "lines", len(s.Lines), "buckets", len(s.Starts), "most", catalog.Digits(maxTableBytes>>20))
	}
	return nil
}

func (s *Series) lineText(l *Line) string {
	switch {
	case s.UTCDays:
		return "total"
	case s.By == ByVariant:
		return id(l.VariantID)
	case s.By == BySegment:
		return id(l.SegmentID)
	case s.By == ByVersion:
		return id(l.SnapshotID)
	default:
		return l.Outcome.String()
	}
}
