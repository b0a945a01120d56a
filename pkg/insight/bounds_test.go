package insight_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// seriesOf returns a series of 2,000 hours of a flag with that many segments, which have one
// evaluation each in the last hour.
func seriesOf(t *testing.T, segments int, description string) (*insight.Series, error) {
	t.Helper()
	now := at(t, "2026-03-01T00:00:00Z")
	c := insight.Calendar{Unit: insight.UnitHour, Zone: time.UTC}
	to := datar.HourOf(now)
	w, _, err := c.Windows(to-2000, to, "", now)
	if err != nil {
		t.Fatal(err)
	}
	flag := &entity.Flag{}
	var rows []datar.Row
	for i := range segments {
		s := entity.Segment{Description: description}
		s.ID = uint(i + 1)
		flag.Segments = append(flag.Segments, s)
		rows = append(rows, datar.Row{Key: datar.Key{Hour: to - 1, SegmentID: int64(s.ID), Outcome: datar.HeldOut}, Count: 1})
	}
	b, err := w.Fill(time.UTC, insight.BySegment, rows, nil, insight.NewNames(flag), now, nil)
	return &insight.Series{Unit: c.Unit, Zone: c.Zone, By: insight.BySegment, Buckets: b}, err
}

// TestSeriesAreBounded: a series has a count for each line and bucket, so that a few rows could
// need gigabytes.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	if s, err := seriesOf(t, 500, "s"); err != nil || s.Total() != 500 || s.Check() != nil {
		t.Errorf("1,000,000 counts: %v", err)
	}
	if _, err := seriesOf(t, 501, "s"); !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), "at most 1,000,000 counts") {
		t.Errorf("1,002,000 counts: %v", err)
	}
}

// TestTablesAreBounded: a table repeats the names of segments in its rows.
func TestTablesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 300_000)
	s, err := seriesOf(t, 5, long)
	if err != nil || s.CheckTable() != nil {
		t.Fatal(err, s.CheckTable())
	}
	var b strings.Builder
	if err := s.Table().WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	if name := rows[1][4]; err != nil || len(rows) != 10_001 || len(name) > 1000 || !strings.HasPrefix(name, "üüü") || !strings.HasSuffix(name, "ü...") {
		t.Errorf("%d rows, %d bytes, %v", len(rows), b.Len(), err)
	}
	if s, err = seriesOf(t, 40, long); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckTable(); !errors.Is(err, datar.ErrInvalidQuery) || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("80,000 rows of 1,070 bytes: %v", err)
	}
	reasons := insight.Reasons{Segments: []insight.SegmentReasons{{Description: long, Constraints: make([]insight.ConstraintReasons, 900)}}}
	outcomes := insight.Outcomes{Segments: []insight.SegmentOutcome{{Description: long, HeldOut: 1, Variants: make([]insight.VariantOutcome, 100)}}}
	for name, table := range map[string]*insight.Table{"reasons": reasons.Table(), "outcomes": outcomes.Table()} {
		b.Reset()
		if err := table.WriteCSV(&b); err != nil || b.Len() > 1_000_000 || b.Len() < 90_000 {
			t.Errorf("%s: %d bytes, %v", name, b.Len(), err)
		}
	}
}

// TestTablesEndWithTheClient: rows are made while they are written, and no more after an error.
func TestTablesEndWithTheClient(t *testing.T) {
	t.Parallel()
	made := 0
	table := insight.Table{Header: []string{"n"}, Rows: func(yield func([]string) bool) {
		for made = range 1_000_000 {
			if !yield([]string{fmt.Sprint(made)}) {
				return
			}
		}
	}}
	if err := table.WriteCSV(&disconnected{}); !errors.Is(err, errDisconnected) || made > 10_000 {
		t.Errorf("%d rows, error %v", made, err)
	}
}

// TestTablesOfRolloutsEndWithTheClient is not parallel, because AllocsPerRun includes all
// goroutines.
func TestTablesOfRolloutsEndWithTheClient(t *testing.T) {
	rollout := insight.Rollout{Versions: []insight.VersionRollout{{Segments: []insight.SegmentRollout{{Given: make([]insight.Given, 10_000)}}}}}
	if n := testing.AllocsPerRun(1, func() { _ = rollout.Table().WriteCSV(&disconnected{}) }); n > 10_000 {
		t.Errorf("a table of 10,000 shares: %.0f allocations", n)
	}
}

var errDisconnected = errors.New("disconnected")

type disconnected struct{}

func (disconnected) Write([]byte) (int, error) { return 0, errDisconnected }
