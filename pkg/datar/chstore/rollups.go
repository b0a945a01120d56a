package chstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// A rollup contains the rows of a partition of datar_counts without writers and counters, each
// counted once. It is the result of one build.
//
// It is read only while the newest block of the partition has the same number as before the build.
// Every insert gives a partition a higher number, and merges keep the number. So a late row
// immediately makes the rollup unused, and a later build replaces it.
const (
	rollupsTable = "datar_rollups"
	buildsTable  = "datar_builds"
	buildMark    = "build"

	// hoursPerSpan is the length of a partition of datar_counts.
	hoursPerSpan = 6
	spansPerDay  = hoursPerDay / hoursPerSpan
	// maxBuilds is the maximum number of rollups that one call of Maintain builds.
	maxBuilds = 4
	// buildEvery is the interval at which a store looks for partitions to roll up. During a build,
	// it is also how long other servers do not build.
	buildEvery = 5 * time.Minute
	// buildQuiet is how long a partition must be over and without inserts. It is far longer than
	// the delay of a flush, and than an operating system needs to write files to disk. If a power
	// failure lost a block, another block would get its number.
	buildQuiet = 15 * time.Minute
	// buildTimeout bounds a statement of a build.
	buildTimeout = 10 * time.Minute
	// wholeRows is the maximum number of rows that one statement rolls up, which takes at most 1 GB
	// of memory.
	wholeRows = 2_000_000
)

// builder is the state of a store's rollups.
type builder struct {
	// usable is true if block numbers increase with each insert. It is set before the first
	// concurrent use.
	usable bool
	every  time.Duration
	quiet  time.Duration
	most   int // builds per call of Maintain

	mu struct {
		sync.Mutex
		looked time.Time // when this store last looked for partitions to roll up
	}
}

// spanOf returns the number of the partition of datar_counts that contains an hour.
func spanOf(h datar.Hour) int64 { return int64(h) / hoursPerSpan }

// newestBlocks returns a subquery for the number of the newest block of each partition.
func (s *Store) newestBlocks() string {
	return fmt.Sprintf("(SELECT toInt32(partition) AS span, toInt64(max(max_block_number)) AS block FROM system.parts "+
		"WHERE database = '%s' AND table = 'datar_counts' AND active GROUP BY partition)", s.client.options.Database)
}

// rolled maps numbers of partitions to the builds to read instead of rows.
type rolled map[int64]int64

// rolledUp returns the rollups that currently contain all rows of their partitions.
func (s *Store) rolledUp(ctx context.Context, from, to datar.Hour) (rolled, error) {
	if !s.builds.usable {
		return nil, nil
	}
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(span), toInt64(max(build)) FROM %s WHERE span >= %d AND span <= %d AND (span, block) IN "+
		"(SELECT span, block FROM %s) GROUP BY span", buildsTable, spanOf(from), spanOf(to-1), s.newestBlocks()))
	if err != nil {
		return nil, fmt.Errorf("look for rollups: %w", err)
	}
	r := make(rolled, len(rows))
	for _, row := range rows {
		r[row[0]] = row[1]
	}
	return r, nil
}

// rows returns a subquery for the rows of some hours that meet a condition, each counted once. It
// reads rollups, and datar_counts for partitions without a rollup.
func (r rolled) rows(from, to datar.Hour, condition string) string {
	if len(r) == 0 {
		return rowsOnce(inWindow(from, to) + condition)
	}
	builds := make([]string, 0, len(r))
	for _, span := range slices.Sorted(maps.Keys(r)) {
		builds = append(builds, fmt.Sprint(r[span]))
	}
	parts := []string{"SELECT day, hour, flag_id, variant_id, segment_id, outcome, version, asked, n AS c, ingested AS i, first_ms AS f, last_ms AS l FROM " +
		rollupsTable + " WHERE " + inWindow(from, to) + condition + " AND build IN (" + strings.Join(builds, ", ") + ")"}
	if rest := r.rest(from, to); len(rest) > 0 {
		parts = append(parts, "SELECT day, hour, flag_id, variant_id, segment_id, outcome, version, asked, c, i, f, l FROM "+
			rowsOnce(inWindow(from, to)+" AND ("+strings.Join(rest, " OR ")+")"+condition))
	}
	return "(" + strings.Join(parts, " UNION ALL ") + ")"
}

// rest returns a condition for each range of hours in a window without rollups.
func (r rolled) rest(from, to datar.Hour) []string {
	spans := slices.DeleteFunc(slices.Sorted(maps.Keys(r)), func(span int64) bool { return span < spanOf(from) || span > spanOf(to-1) })
	var stretches []string
	begin := int64(from)
	for _, span := range spans {
		if end := span * hoursPerSpan; begin < end {
			stretches = append(stretches, fmt.Sprintf("hour >= %d AND hour < %d", begin, end))
		}
		begin = (span + 1) * hoursPerSpan
	}
	if begin < int64(to) {
		stretches = append(stretches, fmt.Sprintf("hour >= %d AND hour < %d", begin, to))
	}
	return stretches
}

// rollUp builds missing rollups of partitions that are over, unless another server is building.
func (s *Store) rollUp(ctx context.Context, now time.Time) error {
	if !s.builds.usable || !s.builds.due() {
		return nil
	}
	patience := ""
	if s.builds.every > 0 { // a partition that gets late rows all the time is rebuilt after a tenth of its age
		patience = fmt.Sprintf("AND span NOT IN (SELECT span FROM %s GROUP BY span HAVING %s * 10 < %d - (span + 1) * %d) ",
			buildsTable, secondsSince("max(at)"), now.Unix(), hoursPerSpan*3600)
	}
	rows, err := s.client.integers(ctx, fmt.Sprintf("SELECT toInt64(span), block, size FROM (SELECT toInt32(partition) AS span, toInt64(max(max_block_number)) AS block, toInt64(sum(rows)) AS size, "+
		"%s AS quiet FROM system.parts WHERE database = '%s' AND table = 'datar_counts' AND active GROUP BY partition) "+
		"WHERE span > 0 AND span < %d AND quiet >= %d AND (span, block) NOT IN (SELECT span, block FROM %s) %sORDER BY span DESC LIMIT %d",
		secondsSince("max(modification_time)"), s.client.options.Database, spanOf(datar.HourOf(now.Add(-s.builds.quiet))), int64(s.builds.quiet/time.Second), buildsTable, patience, s.builds.most))
	if err != nil {
		return fmt.Errorf("look for partitions to roll up: %w", err)
	}
	if len(rows) == 0 {
		return nil
	}
	if ok, err := s.claimBuild(ctx); !ok || err != nil {
		return err
	}
	for _, row := range rows {
		if err := s.build(ctx, row[0], row[1], row[2]); err != nil {
			return fmt.Errorf("roll up the hours from %s on: %w", datar.Hour(row[0]*hoursPerSpan).Time().Format(time.RFC3339), err)
		}
	}
	return nil
}

// secondsSince returns an expression for the age of a time. A time in the future, from before
// ClickHouse's clock was set back, is as old as it is ahead. Otherwise nothing would be built until
// the clock reaches it.
func secondsSince(at string) string {
	return "toInt64(abs(toInt64(toUInt32(now())) - toInt64(toUInt32(" + at + "))))"
}

// due reports whether it is time to look for partitions again.
func (b *builder) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.mu.looked) < b.every {
		return false
	}
	b.mu.looked = time.Now()
	return true
}

// claimBuild reports whether this server may build now. If two servers build the same rollup, the
// result is still correct.
func (s *Store) claimBuild(ctx context.Context) (bool, error) {
	recent := fmt.Sprintf("FROM datar_meta WHERE name = '%s' AND %s < %d", buildMark, secondsSince("at"), int64(s.builds.every/time.Second))
	others, err := s.client.integers(ctx, "SELECT toInt64(count()) "+recent)
	if err != nil || others[0][0] > 0 {
		return false, err
	}
	mine := rand.Int64()
	if err := s.mark(ctx, buildMark, mine); err != nil {
		return false, err
	}
	first, err := s.client.integers(ctx, "SELECT toInt64(min(value)), toInt64(count()) "+recent)
	return err == nil && (first[0][1] == 0 || first[0][0] == mine), err
}

// build rolls up a partition whose newest block is given. The number of the build is random. Rows
// are read under this number only after the build is stored in datar_builds. So a statement that
// failed, or may have failed, is not repeated under the same number.
func (s *Store) build(ctx context.Context, span, block, size int64) error {
	build := rand.Int64()
	step := int64(hoursPerSpan)
	if size > wholeRows {
		step = 1
	}
	for hour := span * hoursPerSpan; hour < (span+1)*hoursPerSpan; hour += step {
		statement := fmt.Sprintf("INSERT INTO %s (build, day, hour, flag_id, variant_id, segment_id, outcome, version, asked, n, ingested, first_ms, last_ms) "+
			"SELECT toInt64(%d), day, hour, flag_id, variant_id, segment_id, outcome, version, asked, toUInt64(sum(c)), toUInt64(sum(i)), minIf(f, f != 0), max(l) FROM %s "+
			"GROUP BY day, hour, flag_id, variant_id, segment_id, outcome, version, asked",
			rollupsTable, build, rowsOnce(inWindow(datar.Hour(hour), datar.Hour(hour+step))))
		if err := s.client.execOnce(ctx, statement, buildTimeout); err != nil {
			return err
		}
	}
	b := appendNumber([]byte{'{'}, "span", span)
	b = appendNumber(append(b, ','), "block", block)
	b = appendNumber(append(b, ','), "build", build)
	return s.client.insert(ctx, buildsTable, "span, block, build", append(b, "}\n"...))
}

// dropRollups drops rollups of months that are no longer read.
func (s *Store) dropRollups(ctx context.Context, beforeDay int64) error {
	if !s.builds.usable {
		return nil
	}
	return errors.Join(
		s.dropBefore(ctx, rollupsTable, beforeDay/daysPerRollupPart),
		s.dropBefore(ctx, buildsTable, beforeDay/daysPerRollupPart))
}

// daysPerRollupPart is the length of a partition of the rollups, in days.
const daysPerRollupPart = 30
