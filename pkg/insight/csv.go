package insight

import (
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// maxRowName limits names in bytes that a table can have in many rows, such as the description of a
// segment.
const maxRowName = 1000

// rowName shortens a name that a table can have in many rows.
func rowName(name string) string { return cutTo(name, maxRowName) }

// Table is a list that can be written as CSV. Its rows are made one by one, because they can be
// many times as long as what they are made from.
type Table struct {
	Header []string
	Rows   iter.Seq[[]string]
}

// tableOf returns a table with the rows that fill passes to add. After an error of the writer, fill
// runs to its end and the rows are dropped, so it must be fast.
func tableOf(header []string, fill func(add func(cells ...string))) *Table {
	return &Table{header, func(yield func([]string) bool) {
		open := true
		fill(func(cells ...string) { open = open && yield(cells) })
	}}
}

// WriteCSV writes the table as a CSV, until an error.
func (t *Table) WriteCSV(w io.Writer) error {
	out := newCSV(w, t.Header)
	for row := range t.Rows {
		if !out.row(row) {
			break
		}
	}
	return out.close()
}

// csvWriter writes lines of RFC 4180 CSV in UTF-8 with CR LF line endings.
type csvWriter struct {
	out  *csv.Writer
	safe []string
}

// newCSV returns a csvWriter that begins with a header line.
func newCSV(w io.Writer, header []string) *csvWriter {
	c := &csvWriter{out: csv.NewWriter(w)}
	c.out.UseCRLF = true
	c.row(header)
	return c
}

// row writes a line. It prefixes a ' to a text that a spreadsheet would run as a formula. It
// returns false after an error, which close returns.
func (c *csvWriter) row(cells []string) bool {
	c.safe = c.safe[:0]
	for _, cell := range cells {
		c.safe = append(c.safe, safeCell(cell))
	}
	return c.out.Write(c.safe) == nil
}

// close ends the last line. It does not close the underlying writer.
func (c *csvWriter) close() error {
	c.out.Flush()
	return c.out.Error()
}

// safeCell prefixes a ' to a text that begins like a formula. A line feed is written as return and
// line feed.
func safeCell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r\n", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

// SummaryTable has one row for each flag that was evaluated.
func SummaryTable(flags []datar.FlagSummary) *Table {
	return tableOf([]string{"flagID", "flagKey", "description", "enabled", "deleted", "totalEvalCount", "lastEvaluatedAt"}, func(add func(cells ...string)) {
		for i := range flags {
			f := &flags[i]
			add(number(f.FlagID), f.Key, f.Description, fmt.Sprint(f.Enabled), fmt.Sprint(f.Deleted), number(f.Total), timeText(f.LastEvaluatedAt))
		}
	})
}

// FlagSummaryTable has one row for each entry of the lists of a breakdown. by names the list:
// variant, segment or day. A row without a variantID has the evaluations without a variant. Each
// list adds up for itself.
func FlagSummaryTable(b *datar.FlagBreakdown) *Table {
	return tableOf([]string{"by", "variantID", "variantName", "segmentID", "segmentName", "date", "count"}, func(add func(cells ...string)) {
		for _, v := range b.ByVariant {
			add("variant", id(v.VariantID), v.Name, "", "", "", number(v.Count))
		}
		for _, s := range b.BySegment {
			add("segment", "", "", id(s.SegmentID), s.Name, "", number(s.Count))
		}
		for _, d := range b.ByDay {
			add("day", "", "", "", "", d.Day.Format(time.DateOnly), number(d.Count))
		}
	})
}

// FleetTable has one row for each server, with the sum of its dropped evaluations.
func FleetTable(fleet *datar.Fleet, now time.Time) *Table {
	return tableOf([]string{"name", "kind", "state", "lastFlushAt", "recorded", "stored", "pending", "dropped", "text"}, func(add func(cells ...string)) {
		for i := range fleet.Servers {
			s := &fleet.Servers[i]
			var dropped int64
			for _, n := range s.Dropped {
				dropped += n
			}
			add(s.Name, string(s.Kind), string(s.State), timeText(s.LastFlush), number(s.Recorded), number(s.Stored), number(s.Pending), number(dropped), SilentText(s, now).String())
		}
	})
}

// ListedFlag is a flag of a list.
type ListedFlag struct {
	*entity.Flag
	// State is nil if the flag has no numbers. Otherwise Evaluations is the number of evaluations
	// in the period of the list.
	State       *FlagState
	Evaluations int64
}

// WriteFlagsCSV writes one line for each flag.
func WriteFlagsCSV(w io.Writer, flags iter.Seq[ListedFlag]) error {
	out := newCSV(w, []string{"id", "key", "description", "tags", "enabled", "updated_at", "updated_by",
		"state", "evaluations", "last_asked_at", "contradictions", "warnings", "notes"})
	for f := range flags {
		tags := make([]string, len(f.Tags))
		for i := range f.Tags {
			tags[i] = f.Tags[i].Value
		}
		cells := []string{
			number(int64(f.ID)), f.Key, f.Description, strings.Join(tags, ","), strconv.FormatBool(f.Enabled),
			f.UpdatedAt.UTC().Format(time.RFC3339), f.UpdatedBy, "", "", "", "", "", "",
		}
		if s := f.State; s != nil {
			cells[7], cells[8] = string(s.State.State), number(f.Evaluations)
			if !s.Evidence.Last.IsZero() {
				cells[9] = s.Evidence.Last.UTC().Format(time.RFC3339)
			}
			if s.State.State != "" { // without a state, the findings are unknown as well
				notes := s.Findings - s.Contradictions - s.Warnings
				cells[10], cells[11], cells[12] = strconv.Itoa(s.Contradictions), strconv.Itoa(s.Warnings), strconv.Itoa(notes)
			}
		}
		if !out.row(cells) {
			break
		}
	}
	return out.close()
}
