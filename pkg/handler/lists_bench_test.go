package handler_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// benchmarkFlags is the number of flags of BenchmarkLists. Each has 3 variants and 3 segments, with
// a constraint and 3 distributions each.
const benchmarkFlags = 1_500

// BenchmarkLists measures requests for lists of flags, from the middleware to the last byte,
// without network and compression. cpu-ms/op is CPU time of the process.
func BenchmarkLists(b *testing.B) {
	file := filepath.Join(b.TempDir(), "flagr.sqlite")
	fillLists(b, file)
	s := setup(b, map[string]string{"FLAGR_DB_DBCONNECTIONSTR": file, "FLAGR_EVALCACHE_REFRESHINTERVAL": "1h"})
	testwait.Until(b, "all flags to be evaluated", func() bool {
		return len(must(b, s, http.MethodGet, "/export/eval_cache/json", nil)["Flags"].([]any)) == benchmarkFlags
	})
	for _, list := range []struct{ name, path string }{
		{"Flags", "/flags"},
		{"Tags", "/flags?tags=rare"},
		{"DescriptionLike", "/flags?descriptionLike=BENCHMARK"},
		{"Preload", "/flags?preload=true"},
		{"EvalCache", "/export/eval_cache/json"},
		{"Snapshots", "/flags/1/snapshots"},
	} {
		b.Run(list.name, func(b *testing.B) {
			b.ReportAllocs()
			size, before := 0, testdb.SQLite().CPUTime(b, nil)
			for b.Loop() {
				rw := &discarded{header: http.Header{}}
				s.ServeHTTP(rw, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1"+list.path, nil))
				if rw.status != http.StatusOK {
					b.Fatal(list.path, rw.status)
				}
				size = rw.size
			}
			b.ReportMetric(float64((testdb.SQLite().CPUTime(b, nil)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// fillLists creates a database with benchmarkFlags flags.
func fillLists(b *testing.B, file string) {
	b.Helper()
	db, err := store.Open(b.Context(), store.Options{Driver: "sqlite3", DSN: file})
	if err != nil {
		b.Fatal(err)
	}
	const (
		times = "created_at, updated_at"
		now   = "'2026-11-28 10:00:00.123456789+00:00', '2026-11-28 11:00:00.123456789+00:00'"
	)
	flags := fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) ", benchmarkFlags)
	parts := flags + ", p(j) AS (VALUES (1), (2), (3)) "
	for _, statement := range []string{
		"INSERT INTO tags (id, " + times + ", value) VALUES (1, " + now + ", 'common'), (2, " + now + ", 'rare')",
		flags + "INSERT INTO flags (id, " + times + ", key, description, created_by, updated_by, enabled, snapshot_id, notes, data_records_enabled, entity_type)" +
			"SELECT i, " + now + ", 'benchmark_' || i, 'a flag of the benchmark, number ' || i, 'somebody', 'somebody', 1, i, '', 1, '' FROM n",
		flags + "INSERT INTO flags_tags (flag_id, tag_id) SELECT i, 1 FROM n UNION ALL SELECT i, 2 FROM n WHERE i % 20 = 0",
		parts + "INSERT INTO variants (id, " + times + ", flag_id, key, attachment) SELECT 3*i+j, " + now + `, i, 'variant_' || j, '{"color":"red","size":' || j || '}' FROM n, p`,
		parts + "INSERT INTO segments (id, " + times + ", flag_id, description, rank, rollout_percent) SELECT 3*i+j, " + now + ", i, 'segment ' || j, j, 100 FROM n, p",
		parts + "INSERT INTO constraints (id, " + times + ", segment_id, property, operator, value) SELECT 3*i+j, " + now + `, 3*i+j, 'country', 'EQ', '"NL"' FROM n, p`,
		parts + ", q(k) AS (VALUES (1), (2), (3)) INSERT INTO distributions (" + times + ", segment_id, variant_id, variant_key, percent, bitmap)" +
			"SELECT " + now + ", 3*i+j, 3*i+k, 'variant_' || k, 20*k-6, '' FROM n, p, q",
		flags + "INSERT INTO flag_snapshots (id, " + times + ", flag_id, updated_by, flag) SELECT i, " + now + ", i, 'somebody', '{}' FROM n",
	} {
		if err := db.DB().Exec(statement).Error; err != nil {
			b.Fatal(err)
		}
	}
	flag, err := db.Flag(b.Context(), 1)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 12 { // 20 KB of history
		if _, err := db.SetFlagEnabled(b.Context(), "somebody", int64(flag.ID), i%2 == 1); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// discarded counts the bytes of a response.
type discarded struct {
	header       http.Header
	status, size int
}

func (d *discarded) Header() http.Header { return d.header }

func (d *discarded) WriteHeader(status int) { d.status = status }

func (d *discarded) Write(p []byte) (int, error) {
	d.status = cmp.Or(d.status, http.StatusOK)
	d.size += len(p)
	return len(p), nil
}
