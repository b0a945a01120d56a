package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	_ "github.com/glebarez/go-sqlite" // the driver sqlite
)

const (
	manyFlags = 10_000
	// pace is the time between two requests of a connection. The server must not be busy, or every
	// response waits.
	pace = 2 * time.Millisecond
	// phase is the duration of a phase, in which flags change or do not. turns is the number of
	// phases of each kind.
	phase, turns = 5 * time.Second, 6
	sampleEvery  = 50 * time.Millisecond
	// wantSlower is the factor by which slow responses may be slower while flags change.
	wantSlower = 2.0
)

// copies are the statements that multiply runs, each with the number of flags.
var copies = []string{
	`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
	INSERT INTO flags (id, created_at, updated_at, key, description, enabled, snapshot_id, notes, data_records_enabled, entity_type)
	SELECT 1000*i, created_at, updated_at, 'copy-' || i, description, enabled, snapshot_id, notes, data_records_enabled, entity_type
	FROM flags, n WHERE id = 1`,
	`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
	INSERT INTO variants (id, created_at, updated_at, flag_id, key, attachment)
	SELECT 1000*i+id, created_at, updated_at, 1000*i, key, attachment FROM variants, n WHERE flag_id = 1`,
	`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
	INSERT INTO segments (id, created_at, updated_at, flag_id, description, rank, rollout_percent)
	SELECT 1000*i+id, created_at, updated_at, 1000*i, description, rank, rollout_percent FROM segments, n WHERE flag_id = 1`,
	`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
	INSERT INTO constraints (id, created_at, updated_at, segment_id, property, operator, value)
	SELECT 1000*i+id, created_at, updated_at, 1000*i+segment_id, property, operator, value FROM constraints, n WHERE id < 1000`,
	`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
	INSERT INTO distributions (id, created_at, updated_at, segment_id, variant_id, variant_key, percent, bitmap)
	SELECT 1000*i+id, created_at, updated_at, 1000*i+segment_id, 1000*i+variant_id, variant_key, percent, bitmap FROM distributions, n WHERE id < 1000`,
}

// measureRefresh compares latency and memory of a server with many flags while nothing changes and
// while one flag changes every second.
func measureRefresh(o options, dir string, out io.Writer) (err error) {
	var running fleet
	defer func() { running.stop() }()
	database := filepath.Join(dir, "many.sqlite")
	env := append([]string{"FLAGR_DB_DBCONNECTIONSTR=" + database, "FLAGR_MIDDLEWARE_VERBOSE_LOGGER_ENABLED=false"}, o.env...)
	p, err := running.startFlagr(o.server, dir, env...)
	if err != nil {
		return err
	}
	if err := createFlag(p.url); err != nil {
		return err
	}
	running.stop()
	if err := multiply("sqlite", database, manyFlags); err != nil {
		return err
	}
	if p, err = running.startFlagr(o.server, dir, env...); err != nil {
		return err
	}
	l, err := newLoad(p.url+"/evaluation", singleBody(), o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()

	n := 0
	change := func() error {
		n++
		_, err := send(p.url+"/flags/1", http.MethodPut, object{"description": fmt.Sprintf("change %d", n)})
		return err
	}
	if err := new(observation).add(p, l, nil); err != nil { // warms up
		return err
	}
	var quiet, busy observation
	for range turns {
		if err := quiet.add(p, l, nil); err != nil {
			return err
		}
		if err := busy.add(p, l, change); err != nil {
			return err
		}
	}
	slices.Sort(quiet.latencies)
	slices.Sort(busy.latencies)

	_, _ = fmt.Fprintf(out, "\n%d flags, %d connections, a request each %s; %d changes\n\n", manyFlags, o.connections, pace, n)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "\tp50 ms\tp99 ms\tlongest ms\tserver CPU %\tmemory MB\tat most MB\t")
	for _, row := range []struct {
		name string
		*observation
	}{{"unchanged", &quiet}, {"reloading", &busy}} {
		_, _ = fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t\n", row.name, milli(row.quantile(0.5)), milli(row.quantile(0.99)), milli(row.quantile(1)),
			100*row.cpu.Seconds()/(turns*phase).Seconds(), mega(median(row.resident)), mega(slices.Max(row.resident)))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	slower := float64(busy.quantile(0.99)) / float64(quiet.quantile(0.99))
	_, err = fmt.Fprintf(out, "\np99 while reloading is %.2f times that of before, %s\n", slower, verdict(slower, wantSlower))
	return err
}

// multiply copies the flag with the ID 1 of a database until there are that many flags. Then it
// runs the statements in more.
func multiply(driver, database string, flags int, more ...string) (err error) {
	db, err := sql.Open(driver, database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, statement := range copies {
		if _, err := db.Exec(strings.Replace(statement, "?", strconv.Itoa(flags), 1)); err != nil { //nolint:noctx // only this command waits for it
			return fmt.Errorf("copy flags: %w", err)
		}
	}
	for _, statement := range more {
		if _, err := db.Exec(statement); err != nil { //nolint:noctx // as above
			return fmt.Errorf("add parts: %w", err)
		}
	}
	return nil
}

// observation contains the measurements of some phases.
type observation struct {
	latencies []time.Duration
	resident  []int64
	cpu       time.Duration
}

// quantile returns a quantile of the latencies, which must be sorted.
func (o *observation) quantile(q float64) time.Duration {
	return o.latencies[min(int(q*float64(len(o.latencies))), len(o.latencies)-1)]
}

// add sends requests at a pace for one phase. If change is not nil, add calls it every second.
func (o *observation) add(p *process, l *load, change func() error) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	end := time.Now().Add(phase)
	done := make(chan error, 1)
	go func() {
		var mu sync.Mutex // guards o.latencies
		done <- l.each(func(c *connection) error {
			latencies, err := paced(c, l.request, end)
			mu.Lock()
			defer mu.Unlock()
			o.latencies = append(o.latencies, latencies...)
			return err
		})
	}()
	next := time.Now()
	for time.Now().Before(end) && err == nil {
		if change != nil && time.Now().After(next) {
			next = next.Add(time.Second)
			err = change()
		}
		resident, residentErr := p.resident()
		err = errors.Join(err, residentErr)
		o.resident = append(o.resident, resident)
		time.Sleep(sampleEvery)
	}
	err = errors.Join(err, <-done)
	after, cpuErr := p.cpu()
	o.cpu += after - before
	return errors.Join(err, cpuErr)
}

// paced sends requests until end and returns the duration of each.
func paced(c *connection, request []byte, end time.Time) ([]time.Duration, error) {
	var latencies []time.Duration
	for time.Now().Before(end) {
		start := time.Now()
		if _, err := c.exchange(request); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(start))
		time.Sleep(pace)
	}
	return latencies, nil
}

func milli(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mega(bytes int64) float64 { return float64(bytes) / (1 << 20) }
