package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	lightFlags       = 1_500
	lightConnections = 32
	// lightLoad is how long evaluations run before memory is read. lightSettle is how long a server
	// is idle before them.
	lightLoad, lightSettle = 8 * time.Second, 8 * time.Second
	// smallLimit is a GOMEMLIMIT with which the server must evaluate at full load.
	smallLimit = "64MiB"
	// exportedStates is the number of snapshots of exportedBytes each. The exported file has 94 MB.
	exportedStates, exportedBytes = 1_400, 64_000
)

// lightList is a request for a list. It is sent repeat times.
type lightList struct {
	name, path string
	repeat     int
	want       float64 // milliseconds of CPU time on a machine where a request of the bare server takes referenceMicro
}

// lightBare is the number of requests to the bare server before each request for a list.
const lightBare = 200

var lightLists = []lightList{ //nolint:gochecknoglobals // a table that is only read
	{"GET /flags", "/flags", 30, 14},
	{"GET /flags?tags=, 75 flags", "/flags?tags=rare", 50, 1.5},
	{"GET /flags?descriptionLike=", "/flags?descriptionLike=benchmark", 30, 12},
	{"GET /flags?preload=true", "/flags?preload=true", 10, 110},
	{"GET /export/eval_cache/json", "/export/eval_cache/json", 20, 30},
	{"GET /flags/{id}/snapshots", "/flags/1/snapshots", 50, 1},
	{"GET /export/sqlite, 94 MB", "/export/sqlite", 2, 3_000},
}

// figure is one line of the report: a measurement of the server, and of the peer if there is one.
type figure struct {
	name, unit string
	want       float64
	seen       []float64
	// scaled is the first of seen in proportion, if the bare server took referenceMicro; 0 for
	// other figures than CPU times of lists.
	scaled float64
}

// judged is the value that want limits.
func (f *figure) judged() float64 { return cmp.Or(f.scaled, f.seen[0]) }

// measureLight measures memory and lists of the server, and of the peer if the options name one.
func measureLight(o options, dir string, out io.Writer) (err error) {
	binaries, names := []string{o.server}, "server"
	if o.peer != "" {
		binaries, names = append(binaries, o.peer), "server\tpeer"
	}
	var running fleet
	defer func() { running.stop() }()
	bare, err := startBareTarget(&running, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.load.close()) }()
	var figures []figure
	for _, binary := range binaries {
		of, err := measureOne(o, binary, dir, bare)
		if err != nil {
			return fmt.Errorf("%s: %w", binary, err)
		}
		for i, f := range of {
			if i == len(figures) {
				figures = append(figures, f)
				continue
			}
			figures[i].seen = append(figures[i].seen, f.seen...)
		}
	}
	limited, err := measureLimited(o, dir)
	if err != nil {
		return fmt.Errorf("with GOMEMLIMIT=%s: %w", smallLimit, err)
	}
	figures = append(figures, limited)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "\nmemory and lists, SQLite\t%s\t\tif bare took %.1f µs\twanted\n", names, referenceMicro)
	for _, f := range figures {
		_, _ = fmt.Fprintf(w, "%s", f.name)
		for _, seen := range f.seen {
			_, _ = fmt.Fprintf(w, "\t%.1f", seen)
		}
		scaled := ""
		if f.scaled > 0 {
			scaled = fmt.Sprintf("%.1f", f.scaled)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", strings.Repeat("\t", len(binaries)-len(f.seen)), f.unit, scaled, lightVerdict(f.judged(), f.want))
	}
	return w.Flush()
}

func lightVerdict(got, want float64) string {
	if got <= want {
		return fmt.Sprintf("at most %g: yes", want)
	}
	return fmt.Sprintf("at most %g: NO", want)
}

// startBareTarget starts the bare server for short rounds of single requests.
func startBareTarget(running *fleet, connections int) (*target, error) {
	p, err := running.startBare(len(singleBody()))
	if err != nil {
		return nil, err
	}
	l, err := newLoad(p.url, singleBody(), connections)
	if err != nil {
		return nil, err
	}
	return &target{name: "bare server", process: p, load: l, perRequest: 1, requests: lightBare}, nil
}

func measureOne(o options, binary, dir string, bare *target) ([]figure, error) {
	var running fleet
	defer func() { running.stop() }()
	database := filepath.Join(dir, filepath.Base(binary)+"-light.sqlite")
	env := append([]string{"FLAGR_DB_DBDRIVER=sqlite3", "FLAGR_DB_DBCONNECTIONSTR=" + database}, o.env...)
	p, err := running.startFlagr(binary, dir, env...)
	if err != nil {
		return nil, err
	}
	var figures []figure
	add := func(name, unit string, want, seen float64) {
		figures = append(figures, figure{name: name, unit: unit, want: want, seen: []float64{seen}})
	}
	time.Sleep(lightSettle)
	idle, err := p.resident()
	if err != nil {
		return nil, err
	}
	add("memory, idle, empty", "MB", 42, mega(idle))
	if err := createFlag(p.url); err != nil {
		return nil, err
	}
	loaded, peak, err := evaluate(p)
	if err != nil {
		return nil, err
	}
	add("memory after 8 s of evaluations, 32 connections", "MB", 55, mega(loaded))
	add("the same, peak", "MB", 65, mega(peak))
	running.stop()

	if err := multiplyLight(database); err != nil {
		return nil, err
	}
	if p, err = running.startFlagr(binary, dir, env...); err != nil {
		return nil, err
	}
	time.Sleep(lightSettle)
	before, err := p.cpu()
	if err != nil {
		return nil, err
	}
	time.Sleep(lightSettle)
	after, err := p.cpu()
	if err != nil {
		return nil, err
	}
	if idle, err = p.resident(); err != nil {
		return nil, err
	}
	add("memory, idle, 1,500 flags", "MB", 60, mega(idle))
	add("CPU, idle, 1,500 flags", "ms/s", 4, milli(after-before)/lightSettle.Seconds())
	for _, list := range lightLists {
		spent, scaled, err := list.measure(p, bare)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", list.name, err)
		}
		figures = append(figures, figure{name: list.name, unit: "ms CPU", want: list.want, seen: []float64{milli(spent)}, scaled: scaled})
	}
	return figures, nil
}

// evaluate sends evaluations at full load. It returns the memory at the end, and the process's peak
// memory.
func evaluate(p *process) (loaded, peak int64, err error) {
	l, err := newLoad(p.url+"/evaluation", singleBody(), lightConnections)
	if err != nil {
		return 0, 0, err
	}
	end := time.Now().Add(lightLoad)
	for time.Now().Before(end) && err == nil {
		err = l.run(2_000)
	}
	loaded, residentErr := p.resident()
	peak, peakErr := p.peak()
	return loaded, peak, errors.Join(err, residentErr, peakErr, l.close())
}

// measureLimited evaluates at full load with a small GOMEMLIMIT, and returns the process's peak
// memory.
func measureLimited(o options, dir string) (figure, error) {
	var running fleet
	defer func() { running.stop() }()
	p, err := running.startFlagr(o.server, dir, append([]string{"GOMEMLIMIT=" + smallLimit}, o.env...)...)
	if err != nil {
		return figure{}, err
	}
	if err := createFlag(p.url); err != nil {
		return figure{}, err
	}
	_, peak, err := evaluate(p)
	return figure{name: "peak with GOMEMLIMIT=" + smallLimit, unit: "MB", want: 64, seen: []float64{mega(peak)}}, err
}

// measure returns the median of the server's CPU time for one request, and the median in
// milliseconds in proportion, if the bare server took referenceMicro. The bare server takes turns
// with it; it may be nil.
func (l *lightList) measure(p *process, bare *target) (time.Duration, float64, error) {
	var spent []time.Duration
	var scaled []float64
	for range l.repeat + 1 { // the first one warms up
		of := 0.0
		if bare != nil {
			var err error
			if of, err = bare.measure(); err != nil {
				return 0, 0, err
			}
		}
		before, err := p.cpu()
		if err != nil {
			return 0, 0, err
		}
		if err := l.request(p); err != nil {
			return 0, 0, err
		}
		after, err := p.cpu()
		if err != nil {
			return 0, 0, err
		}
		spent = append(spent, after-before)
		scaled = append(scaled, milli(after-before)*referenceMicro/of)
	}
	return median(spent[1:]), median(scaled[1:]), nil
}

// request sends the request once and reads the response.
func (l *lightList) request(p *process) error {
	response, err := http.Get(p.url + l.path) //nolint:noctx // the servers are on this machine
	if err != nil {
		return err
	}
	var start bytes.Buffer
	_, err = io.CopyN(&start, response.Body, 200)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	_, restErr := io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, restErr, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s: %s", response.Status, start.String())
	}
	return nil
}

// lightCopies run after the statements that copy the flag. They add a third segment to each flag,
// tags, and snapshots as large as those of a database that has been in use for years.
var lightCopies = []string{ //nolint:gochecknoglobals // a table that is only read
	`INSERT INTO tags (id, created_at, updated_at, value) SELECT 1, created_at, updated_at, 'common' FROM flags WHERE id = 1`,
	`INSERT INTO tags (id, created_at, updated_at, value) SELECT 2, created_at, updated_at, 'rare' FROM flags WHERE id = 1`,
	`INSERT INTO flags_tags (flag_id, tag_id) SELECT id, 1 FROM flags`,
	`INSERT INTO flags_tags (flag_id, tag_id) SELECT id, 2 FROM flags WHERE id % 20000 = 0`,
	`INSERT INTO segments (id, created_at, updated_at, flag_id, description, rank, rollout_percent)
	SELECT 10000000+flag_id, created_at, updated_at, flag_id, 'third', 1000, rollout_percent FROM segments WHERE flag_id >= 1000 AND id % 1000 = 1`,
	`INSERT INTO distributions (id, created_at, updated_at, segment_id, variant_id, variant_key, percent, bitmap)
	SELECT 10000000+id, created_at, updated_at, 10000000 + segment_id - 1, variant_id, variant_key, percent, bitmap FROM distributions WHERE segment_id >= 1000 AND segment_id % 1000 = 1`,
}

// multiplyLight creates lightFlags flags with the parts of lightCopies, and snapshots for the
// export.
func multiplyLight(database string) error {
	states := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)
	INSERT INTO flag_snapshots (created_at, updated_at, flag_id, updated_by, flag)
	SELECT flags.created_at, flags.updated_at, 1000, '', '{"Notes":"' || printf('%%.*c', %d, 'x') || '"}' FROM flags, n WHERE flags.id = 1`,
		exportedStates, exportedBytes)
	return multiply("sqlite", database, lightFlags, append(slices.Clone(lightCopies), states)...)
}
