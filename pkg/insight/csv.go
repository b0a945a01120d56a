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

// WriteCSV writes the table as RFC 4180 CSV in UTF-8, with a header line and CR LF line endings. It
// prefixes a ' to a text that a spreadsheet would run as a formula.
func (t *Table) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(t.Header); err != nil {
		return err
	}
	safe := make([]string, len(t.Header))
	for _, row := range t.Rows {
		safe = safe[:0]
		for _, cell := range row {
			safe = append(safe, safeCell(cell))
		}
		if err := out.Write(safe); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
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
