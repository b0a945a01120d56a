package insight

import (
	"encoding/csv"
	"io"
	"strings"
)

// Table is a list in the form of a CSV file.
type Table struct {
	Header []string
	Rows   [][]string
}

// WriteCSV writes the table as RFC 4180 has it, in UTF-8, with a header line and lines that end in CR LF. A text that a
// spreadsheet would run as a formula gets a ' in front.
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

// safeCell puts a ' in front of a text that begins like a formula.
func safeCell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
