package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"text/tabwriter"
	"time"
)

const (
	// The counts of a month are 5,040,000 rows.
	monthFlags, monthVariants, monthHours = 1_000, 7, 720
	// monthSummaries and monthOfOne are how often the month of all flags is read, and of how many
	// flags the month is read after it.
	monthSummaries, monthOfOne = 3, 4
	// monthDeadline is how long the server may refuse to read the month because sums of old counts
	// do not exist yet.
	monthDeadline = 5 * time.Minute
)

// monthFill writes one hour, with the driver of database/sql as the key. Its parameters are the
// hour, and the hour in Unix milliseconds.
var monthFill = map[string]string{ //nolint:gochecknoglobals // a table that is only read
	"sqlite": fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d)
	INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, last_evaluated_ms, updated_at)
	SELECT 1000*(i/%d+1), $1, i%%%d+1, 1, i%%13+1, $2, $1 FROM n`, monthFlags*monthVariants-1, monthVariants, monthVariants),
	"pgx": fmt.Sprintf(`INSERT INTO datar_hourly_events (flag_id, bucket_hour, variant_id, segment_id, eval_count, last_evaluated_ms, updated_at)
	SELECT 1000*(i/%d+1), $1, i%%%d+1, 1, i%%13+1, $2, $1 FROM generate_series(0, %d) AS i`, monthVariants, monthVariants, monthFlags*monthVariants-1),
}

// measureMonth measures the memory of a server that reads the counts of a month, as another server
// leaves them: without sums of days.
func measureMonth(o options, dir string, out io.Writer) (err error) {
	databases, drop, err := benchDatabases(o, filepath.Join(dir, "month.sqlite"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	want := map[string]float64{"SQLite": 75, "PostgreSQL": 60}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "\nmemory, a month of %d rows\tidle before, MB\tafter reading it\twanted\tpeak\n", monthFlags*monthVariants*monthHours)
	for _, d := range databases {
		before, after, peak, err := measureMonthOf(o, dir, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		_, _ = fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%.1f\n", d.name, mega(before), mega(after), lightVerdict(mega(after), want[d.name]), mega(peak))
	}
	return w.Flush()
}

// measureMonthOf returns the resident memory in bytes: while the server is idle, after it has read
// the month, and the peak.
func measureMonthOf(o options, dir string, d benchDatabase) (before, after, peak int64, err error) {
	var running fleet
	defer func() { running.stop() }()
	if err := d.createFlags(o, dir, monthFlags); err != nil {
		return 0, 0, 0, err
	}
	if err := fillMonth(d); err != nil {
		return 0, 0, 0, err
	}
	p, err := running.startFlagr(o.server, dir, d.env(o)...)
	if err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(lightSettle)
	before, residentErr := p.resident()
	readErr := readMonth(p)
	after, afterErr := p.resident()
	peak, peakErr := p.peak()
	return before, after, peak, errors.Join(residentErr, readErr, afterErr, peakErr)
}

// fillMonth writes the hours of the last 30 days.
func fillMonth(d benchDatabase) (err error) {
	db, err := sql.Open(d.sqlDriver, d.dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // without effect after the commit
	last := time.Now().UTC().Truncate(time.Hour)
	for h := range monthHours {
		at := last.Add(-time.Duration(h) * time.Hour)
		if _, err := tx.ExecContext(context.Background(), monthFill[d.sqlDriver], at, at.UnixMilli()); err != nil {
			return fmt.Errorf("write counts: %w", err)
		}
	}
	return tx.Commit()
}

// readMonth reads the month of all flags, as soon as the server answers, and then the months of
// some flags.
func readMonth(p *process) error {
	window := "?from=" + url.QueryEscape(time.Now().UTC().Add(-(monthHours-1)*time.Hour).Format(time.RFC3339))
	all := lightList{path: "/datar/summary" + window}
	deadline := time.Now().Add(monthDeadline)
	for range monthSummaries {
		for err := all.request(p); err != nil; err = all.request(p) {
			if time.Now().After(deadline) {
				return fmt.Errorf("the month of all flags was not answered within %v: %w", monthDeadline, err)
			}
			time.Sleep(time.Second)
		}
	}
	for i := range monthOfOne {
		one := lightList{path: fmt.Sprintf("/datar/flags/%d/summary%s", 1000*(i+1), window)}
		if err := one.request(p); err != nil {
			return err
		}
	}
	return nil
}
