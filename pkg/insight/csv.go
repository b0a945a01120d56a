package insight

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// Table is a list that can be written as CSV.
type Table struct {
	Header []string
	Rows   [][]string
}

// WriteCSV writes the table as a CSV.
func (t *Table) WriteCSV(w io.Writer) error {
	out := NewCSV(w, t.Header)
	for _, row := range t.Rows {
		out.Row(row)
	}
	return out.Close()
}

// CSV writes lines of RFC 4180 CSV in UTF-8 with CR LF line endings, for lists that are not Tables.
type CSV struct {
	out  *csv.Writer
	safe []string
}

// NewCSV returns a CSV that begins with a header line.
func NewCSV(w io.Writer, header []string) *CSV {
	c := &CSV{out: csv.NewWriter(w)}
	c.out.UseCRLF = true
	c.Row(header)
	return c
}

// Row writes a line. It prefixes a ' to a text that a spreadsheet would run as a formula. Close
// returns the error of writing.
func (c *CSV) Row(cells []string) {
	c.safe = c.safe[:0]
	for _, cell := range cells {
		c.safe = append(c.safe, safeCell(cell))
	}
	_ = c.out.Write(c.safe) // the writer keeps its error
}

// Close ends the last line. It does not close the underlying writer.
func (c *CSV) Close() error {
	c.out.Flush()
	return c.out.Error()
}

// safeCell prefixes a ' to a text that begins like a formula.
func safeCell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

// SummaryTable has one row for each flag that was evaluated.
func SummaryTable(flags []datar.FlagSummary) *Table {
	t := &Table{Header: []string{"flagID", "flagKey", "description", "enabled", "deleted", "totalEvalCount", "lastEvaluatedAt"}}
	for i := range flags {
		f := &flags[i]
		t.add(number(f.FlagID), f.Key, f.Description, fmt.Sprint(f.Enabled), fmt.Sprint(f.Deleted), number(f.Total), timeText(f.LastEvaluatedAt))
	}
	return t
}

// FleetTable has one row for each server, with the sum of its dropped evaluations. text returns the
// description of a server.
func FleetTable(fleet *datar.Fleet, text func(*datar.FleetServer) string) *Table {
	t := &Table{Header: []string{"name", "kind", "state", "lastFlushAt", "recorded", "stored", "pending", "dropped", "text"}}
	for i := range fleet.Servers {
		s := &fleet.Servers[i]
		var dropped int64
		for _, n := range s.Dropped {
			dropped += n
		}
		t.add(s.Name, string(s.Kind), string(s.State), timeText(s.LastFlush), number(s.Recorded), number(s.Stored), number(s.Pending), number(dropped), text(s))
	}
	return t
}
