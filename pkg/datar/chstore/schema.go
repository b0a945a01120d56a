package chstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// schemaVersion is the version of the tables that this package creates and reads. It rejects a
// database with a newer version.
const schemaVersion = 2

// table describes a table of the store. Its columns and engine are those for a single server. On a
// cluster, the engine is replicated.
type table struct {
	name, columns string
	// engine is MergeTree or one of its family, arguments are those of the engine, and layout is
	// the rest of the statement.
	engine, arguments, layout string
	// sharded is true if on a cluster each shard contains a part of the rows. Every host contains
	// all rows of other tables.
	sharded bool
	// single is true if the table is not used on a cluster.
	single bool
}

// A row of datar_counts is either the total of one counter of one writer, or an increment of one
// batch. In the second case, its counter is the number of the batch. The whole sorting key
// identifies a row. Of rows with the same key, the greatest n wins: in queries immediately, and on
// disk when parts are merged. So a row that is inserted again, or late, changes nothing. A
// partition contains the hours of a quarter of a day.
var tables = []table{
	{
		name: "datar_counts", sharded: true,
		columns: "day Int32, hour Int32, flag_id Int64, variant_id Int64, segment_id Int64, outcome UInt8, version UInt16, asked UInt8, " +
			"writer UUID, counter UInt64, sequence UInt64, n UInt64, ingested UInt64, first_ms Int64, last_ms Int64",
		engine: "ReplacingMergeTree", arguments: "n",
		layout: fmt.Sprintf("PARTITION BY intDiv(hour, %d) ORDER BY (flag_id, hour, variant_id, segment_id, outcome, version, asked, writer, counter)", hoursPerSpan),
	},
	{
		name: rollupsTable, single: true,
		columns: "build Int64, day Int32, hour Int32, flag_id Int64, variant_id Int64, segment_id Int64, outcome UInt8, version UInt16, asked UInt8, " +
			"n UInt64, ingested UInt64, first_ms Int64, last_ms Int64",
		engine: "MergeTree",
		layout: fmt.Sprintf("PARTITION BY intDiv(day, %d) ORDER BY (flag_id, hour)", daysPerRollupPart),
	},
	{
		name: buildsTable, single: true,
		columns: "span Int32, block Int64, build Int64, at DateTime DEFAULT now()",
		engine:  "MergeTree",
		layout:  fmt.Sprintf("PARTITION BY intDiv(span, %d) ORDER BY (span, block, build)", daysPerRollupPart*spansPerDay),
	},
	{
		name:    "datar_days",
		columns: "day Int32, flag_id Int64, writer UUID, sequence UInt64, n UInt64, ingested UInt64, last_ms Int64",
		engine:  "ReplacingMergeTree", arguments: "n",
		layout: "PARTITION BY intDiv(day, 365) ORDER BY (flag_id, day, writer, sequence)",
	},
	{
		name:    "datar_unknown",
		columns: "day Int32, hour Int32, asked String, writer UUID, sequence UInt64, n UInt64, first_ms Int64, last_ms Int64",
		engine:  "ReplacingMergeTree", arguments: "n",
		layout: "PARTITION BY day ORDER BY (hour, asked, writer, sequence)",
	},
	{
		name:    "datar_servers",
		columns: "name String, run String, at_ms UInt64, record String",
		engine:  "ReplacingMergeTree", arguments: "at_ms",
		layout: "PARTITION BY intDiv(at_ms, 2592000000) ORDER BY (name, run)",
	},
	{
		name:    "datar_batches",
		columns: "day Int32, writer UUID, sequence UInt64",
		engine:  "ReplacingMergeTree",
		layout:  "PARTITION BY intDiv(day, 30) ORDER BY (writer, sequence, day)",
	},
	{
		name:    "datar_receipts",
		columns: "day Int32, key_hash String, digest String, done UInt8, answer String",
		engine:  "ReplacingMergeTree",
		layout:  "PARTITION BY day ORDER BY (key_hash, digest, done)",
	},
}

// metaTable contains properties of the whole database. Its identity and the version of the tables
// are column defaults. Creating a table is atomic, so if several servers start at once, the first
// one sets them.
const metaTable = "datar_meta"

// localSuffix is appended to the names of the tables behind a sharded one.
const localSuffix = "_local"

// engineOf returns the engine of a table. On a cluster it is replicated. Tables that are not
// sharded use the same path on all hosts.
func (s *Store) engineOf(t table) string {
	if s.client.options.Cluster == "" {
		return fmt.Sprintf("%s(%s)", t.engine, t.arguments)
	}
	path := "'/clickhouse/tables/all/" + s.client.options.Database + "/" + t.name + "', '{shard}-{replica}'"
	if t.sharded {
		path = "'/clickhouse/tables/{shard}/" + s.client.options.Database + "/" + t.name + "', '{replica}'"
	}
	if t.arguments != "" {
		path += ", " + t.arguments
	}
	return "Replicated" + t.engine + "(" + path + ")"
}

// create returns the statements that create a table that does not exist.
func (s *Store) create(t table) []string {
	cluster := s.client.options.Cluster
	if cluster != "" && t.single {
		return nil
	}
	on := ""
	if cluster != "" {
		on = " ON CLUSTER " + cluster
	}
	local := t.name
	if cluster != "" && t.sharded {
		local += localSuffix
	}
	statements := []string{fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s%s (%s) ENGINE = %s %s",
		s.client.options.Database, local, on, t.columns, s.engineOf(t), t.layout)}
	if local != t.name {
		statements = append(statements, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s%s (%s) ENGINE = Distributed(%s, %s, %s, cityHash64(toString(writer)))",
			s.client.options.Database, t.name, on, t.columns, cluster, s.client.options.Database, local))
	}
	return statements
}

// prepare creates missing tables and reads the identity. It rejects tables of a newer version
// before it changes anything.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.adjust(ctx); err != nil {
		return err
	}
	found, err := s.readMeta(ctx)
	if err != nil {
		return err
	}
	if !found {
		meta := table{
			name: metaTable,
			columns: fmt.Sprintf("name String, value Int64, at DateTime DEFAULT now(), identity String DEFAULT '%s', version UInt16 DEFAULT %d",
				strings.ToLower(rand.Text()), schemaVersion),
			engine: "MergeTree", layout: "ORDER BY name",
		}
		if err := s.createTables(ctx, meta); err != nil {
			return err
		}
		if found, err = s.readMeta(ctx); err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%s was created, and is not there", metaTable)
		}
	}
	if err := s.createTables(ctx, tables...); err != nil {
		return err
	}
	if s.client.options.Cluster != "" {
		// The tables exist on all hosts. Later statements do not wait for hosts that are down.
		s.client.settings.Set("distributed_ddl_task_timeout", "0")
	}
	return s.detectEngine(ctx)
}

func (s *Store) createTables(ctx context.Context, tables ...table) error {
	for _, t := range tables {
		for _, statement := range s.create(t) {
			if err := s.client.exec(ctx, statement); err != nil {
				return fmt.Errorf("create %s: %w", t.name, err)
			}
		}
	}
	return nil
}

// majorVersion matches the beginning of ClickHouse's version, such as 18.16.1.
var majorVersion = regexp.MustCompile(`^(\d+)\.`)

// maxDelay is the delay of a replica, in seconds, from which queries read another one with less.
const maxDelay = 10

// adjust adds settings that some versions need and others reject.
func (s *Store) adjust(ctx context.Context) error {
	rows, err := s.client.query(ctx, "SELECT version()")
	if err != nil {
		return err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return fmt.Errorf("the answer to SELECT version() has %d rows, want 1", len(rows))
	}
	match := majorVersion.FindStringSubmatch(rows[0][0])
	if match == nil {
		return fmt.Errorf("the version of ClickHouse is %q, want a number", rows[0][0])
	}
	if major, _ := strconv.Atoi(match[1]); major >= 22 {
		// A profile may turn this on. An insert would then return before it is stored.
		s.client.settings.Set("async_insert", "0")
	}
	if s.client.options.Cluster != "" {
		s.client.settings.Set("insert_distributed_sync", "1") // return when the shard has the rows
		s.client.settings.Set("load_balancing", "in_order")   // read from the replica of the last write
		// Read from another replica only if that one lags. A replica that has just written may
		// have a delay of some seconds, while others have none because they do not know of it yet.
		s.client.settings.Set("max_replica_delay_for_distributed_queries", strconv.Itoa(maxDelay))
	}
	return nil
}

var (
	identityDefault = regexp.MustCompile(`[0-9a-z]{26}`)
	versionDefault  = regexp.MustCompile(`\d+`)
)

// readMeta reads identity and version, and reports whether the tables exist.
func (s *Store) readMeta(ctx context.Context) (found bool, err error) {
	rows, err := s.client.query(ctx, fmt.Sprintf(
		"SELECT name, default_expression FROM system.columns WHERE database = '%s' AND table = '%s' AND name IN ('identity', 'version') ORDER BY name",
		s.client.options.Database, metaTable))
	if err != nil {
		return false, fmt.Errorf("read identity and version of the tables: %w", err)
	}
	if len(rows) == 0 {
		return false, nil
	}
	if len(rows) != 2 {
		return false, fmt.Errorf("%s.%s is not a table of this store: it has no identity or no version", s.client.options.Database, metaTable)
	}
	s.identity = identityDefault.FindString(rows[0][1])
	version, err := strconv.Atoi(versionDefault.FindString(rows[1][1])) // 1, or CAST(1, 'UInt16')
	switch {
	case s.identity == "" || err != nil:
		return false, fmt.Errorf("%s.%s is not a table of this store: identity is %q and version %q", s.client.options.Database, metaTable, rows[0][1], rows[1][1])
	case version < schemaVersion:
		return false, fmt.Errorf("the tables are of version %d, which this server does not use any more: name another database, and see docs/clickhouse.md for how to copy the counts", version)
	case version > schemaVersion:
		return false, fmt.Errorf("the tables are of version %d, and this server knows version %d: use a newer server, or another database", version, schemaVersion)
	}
	return true, nil
}
