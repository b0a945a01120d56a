package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
)

const (
	wantPageMilli = 50
	wantPageKB    = 200
	pageRepeats   = 30
	// countedPerBatch is the number of flags that one batch evaluates, so that each flag has
	// counts.
	countedPerBatch = 1_000
)

// pages are parts of the list of flags.
var pages = []struct{ name, path string }{ //nolint:gochecknoglobals // a table that is only read
	{"first page of 100 flags", "/ui/"},
	{"the last page", "/ui/?page=100"},
	{"search for a key and words", "/ui/?q=copy-77,benchmark&sort=key"},
	{"most evaluations first", "/ui/?sort=traffic"},
}

// benchDatabase is a database for the server's flags and counts.
type benchDatabase struct {
	name, driver, sqlDriver, dsn string
}

// benchDatabases returns an SQLite file, and a new database on the server of the options if they
// name one. drop removes that.
func benchDatabases(o options, file string) (_ []benchDatabase, drop func() error, err error) {
	databases := []benchDatabase{{"SQLite", "sqlite3", "sqlite", file}}
	if o.postgres == "" {
		return databases, func() error { return nil }, nil
	}
	dsn, drop, err := freshPostgres(o.postgres)
	return append(databases, benchDatabase{"PostgreSQL", "postgres", "pgx", dsn}), drop, err
}

// env returns the environment of a server that uses the database.
func (d *benchDatabase) env(o options) []string {
	return append([]string{"FLAGR_DB_DBDRIVER=" + d.driver, "FLAGR_DB_DBCONNECTIONSTR=" + d.dsn, "FLAGR_RECORDER_DATAR_FLUSH_INTERVAL=1s"}, o.env...)
}

// createFlags creates flags in an empty database.
func (d *benchDatabase) createFlags(o options, dir string, flags int) error {
	var running fleet
	defer func() { running.stop() }()
	p, err := running.startFlagr(o.server, dir, d.env(o)...)
	if err != nil {
		return err
	}
	if err := createFlag(p.url); err != nil {
		return err
	}
	running.stop()
	return multiply(d.sqlDriver, d.dsn, flags)
}

// measurePages measures the server's CPU time for pages of the list, with 10,000 flags that all
// have counts.
func measurePages(o options, dir string, out io.Writer) (err error) {
	databases, drop, err := benchDatabases(o, filepath.Join(dir, "pages.sqlite"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "\npages, %d flags\tdatabase\tms CPU\twanted\tkB\twanted\n", manyFlags)
	for _, d := range databases {
		if err := measurePagesOf(o, dir, d, w); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return w.Flush()
}

func measurePagesOf(o options, dir string, d benchDatabase, w io.Writer) error {
	var running fleet
	defer func() { running.stop() }()
	if err := d.createFlags(o, dir, manyFlags); err != nil {
		return err
	}
	p, err := running.startFlagr(o.server, dir, d.env(o)...)
	if err != nil {
		return err
	}
	if err := countAll(p); err != nil {
		return err
	}
	site := &process{cmd: p.cmd, url: strings.TrimSuffix(p.url, "/api/v1")}
	err = poll("the numbers of the list", func() bool {
		body, err := fetch(site.url + "/ui/?state=never_evaluated")
		return err == nil && !bytes.Contains(body, []byte(`class="key"`))
	})
	if err != nil {
		return err
	}
	for _, page := range pages {
		list := lightList{path: page.path, repeat: pageRepeats}
		spent, _, err := list.measure(site, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", page.path, err)
		}
		body, err := fetch(site.url + page.path)
		if err != nil {
			return err
		}
		kb := float64(len(body)) / 1_000
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.1f\t%s\t%.0f\t%s\n", page.name, d.name, milli(spent), lightVerdict(milli(spent), wantPageMilli), kb, lightVerdict(kb, wantPageKB))
	}
	return nil
}

// countAll evaluates every flag.
func countAll(p *process) error {
	for from := 1; from <= manyFlags; from += countedPerBatch {
		keys := make([]string, countedPerBatch)
		for i := range keys {
			keys[i] = fmt.Sprintf("copy-%d", from+i)
		}
		entities := []object{{"entityID": "a", "entityContext": object{"country": "DE", "age": 42}}, {"entityID": "b", "entityContext": object{"country": "FR", "age": 12}}}
		if _, err := send(p.url+"/evaluation/batch", http.MethodPost, object{"flagKeys": keys, "entities": entities}); err != nil {
			return err
		}
	}
	return nil
}

func fetch(target string) ([]byte, error) {
	response, err := http.Get(target) //nolint:noctx // the servers are on this machine
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	return body, errors.Join(err, response.Body.Close())
}

// freshPostgres creates a database on the server of a DSN. drop removes it. It fails while a server
// is connected to it.
func freshPostgres(dsn string) (fresh string, drop func() error, err error) {
	address, err := url.Parse(dsn)
	if err != nil {
		return "", nil, err
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return "", nil, err
	}
	name := fmt.Sprintf("flagr_bench_%d", time.Now().UnixNano())
	if _, err := db.ExecContext(context.Background(), "CREATE DATABASE "+name); err != nil {
		return "", nil, errors.Join(err, db.Close())
	}
	address.Path = "/" + name
	return address.String(), func() error {
		_, err := db.ExecContext(context.Background(), "DROP DATABASE "+name)
		return errors.Join(err, db.Close())
	}, nil
}
