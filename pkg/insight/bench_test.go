package insight_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

var (
	benchDays = flag.Int("bench.days", 90, "days of history for BenchmarkAnswers, with 56,400 details each")
	benchDSN  = flag.String("bench.dsn", "", "connection string of a database for BenchmarkAnswers, which is kept, and filled unless it is: choose its kind with -bench")
)

// benchNow is the time of the requests, in the middle of a day.
var benchNow = time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)

// storedCounts reads the counts of a server without pending counts.
type storedCounts struct {
	*gormstore.Store
	sequence int64
}

func (*storedCounts) Refresh(context.Context) {}

// flush stores a count of the current hour, as servers do between two requests.
func (c *storedCounts) flush(b *testing.B) {
	b.Helper()
	c.sequence++
	key := datar.Key{FlagID: 1, Hour: datar.HourOf(benchNow), Outcome: datar.NoMatch}
	batch := datar.Batch{Writer: fmt.Sprint("flush of ", os.Getpid()), Sequence: c.sequence,
		Rows: []datar.Row{{Key: key, Count: 1, First: benchNow.UnixMilli(), Last: benchNow.UnixMilli()}}}
	if err := c.Apply(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
}

type fixedFlags struct{ snapshot *eval.Snapshot }

func (f fixedFlags) Snapshot() *eval.Snapshot { return f.snapshot }

// benchFlags saves the flags of the history, with one snapshot for each version.
func benchFlags(b *testing.B, db *store.Store, days int) {
	b.Helper()
	begin := benchNow.Truncate(time.Hour).Add(time.Duration(1-days*24) * time.Hour)
	flags := make([]entity.Flag, testdb.HistoryFlags)
	var snapshots []entity.FlagSnapshot
	for i := range flags {
		id := uint(i + 1)
		blue, green := entity.Variant{FlagID: id, Key: "blue"}, entity.Variant{FlagID: id, Key: "green"}
		blue.ID, green.ID = 2*id-1, 2*id
		segment := entity.Segment{FlagID: id, Description: "Adults in France", RolloutPercent: 50,
			Constraints: []entity.Constraint{{SegmentID: id, Property: "country", Operator: "EQ", Value: `"FR"`}, {SegmentID: id, Property: "age", Operator: "GTE", Value: "18"}},
			Distributions: []entity.Distribution{
				{SegmentID: id, VariantID: blue.ID, VariantKey: "blue", Percent: 50}, {SegmentID: id, VariantID: green.ID, VariantKey: "green", Percent: 50}}}
		segment.ID = id
		flags[i] = entity.Flag{Key: fmt.Sprint("flag-", id), Description: "made by a benchmark", Enabled: true, DataRecordsEnabled: true,
			Variants: []entity.Variant{blue, green}, Segments: []entity.Segment{segment}}
		flags[i].ID, flags[i].CreatedAt, flags[i].UpdatedAt = id, begin, begin
	}
	if err := db.DB().CreateInBatches(flags, 50).Error; err != nil {
		b.Fatal(err)
	}
	for version := range (days*24 + testdb.HistoryVersionHours - 1) / testdb.HistoryVersionHours {
		at := begin.Add(time.Duration(version*testdb.HistoryVersionHours) * time.Hour)
		for i := range flags {
			flags[i].Segments[0].RolloutPercent = uint(50 + version%2)
			text, err := json.Marshal(&flags[i])
			if err != nil {
				b.Fatal(err)
			}
			flags[i].SnapshotID = flags[i].ID + uint(version*testdb.HistoryFlags)
			snapshots = append(snapshots, entity.FlagSnapshot{Model: entity.Model{ID: flags[i].SnapshotID, CreatedAt: at, UpdatedAt: at}, FlagID: flags[i].ID, Flag: text})
		}
	}
	if err := db.DB().CreateInBatches(snapshots, 100).Error; err != nil {
		b.Fatal(err)
	}
}

// fillAnswers writes the flags and their history, and makes the rollups.
func fillAnswers(b *testing.B, kind testdb.Kind, db *store.Store, counts *gormstore.Store, pool *sql.DB) {
	b.Helper()
	started := time.Now()
	benchFlags(b, db, *benchDays)
	kind.FillHistory(b, pool, *benchDays, benchNow)
	b.Logf("wrote %d days in %v", *benchDays, time.Since(started))
	started = time.Now()
	testdb.RollUp(b, counts, benchNow)
	b.Logf("rolled up in %v", time.Since(started))
	for _, statement := range []string{"ANALYZE", "CREATE TABLE bench_filled (at int)"} {
		if _, err := pool.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnswers measures responses about 1,000 flags over 90 days with 5,076,000 details.
// cpu-ms/op is the CPU time of the process and of PostgreSQL. The targets are 15 ms for each of one
// flag's outcomes, series and rollout, 80 ms for the states of all flags, and 30 ms for the first
// 100 of them.
func BenchmarkAnswers(b *testing.B) {
	for _, kind := range testdb.Kinds() {
		b.Run(kind.Name, func(b *testing.B) {
			if kind.Driver == "mysql" {
				b.Skip("the aims are for PostgreSQL and SQLite")
			}
			dsn := *benchDSN
			if dsn == "" {
				dsn = kind.Fresh(b)
			}
			db, err := store.Open(b.Context(), store.Options{Driver: kind.Driver, DSN: dsn, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			counts, err := gormstore.New(b.Context(), db.DB(), gormstore.Options{UnpacedRollups: true})
			if err != nil {
				b.Fatal(err)
			}
			pool, err := db.DB().DB()
			if err != nil {
				b.Fatal(err)
			}
			pool.SetMaxOpenConns(1) // the connection whose CPU time is measured
			if !db.DB().Migrator().HasTable("bench_filled") {
				fillAnswers(b, kind, db, counts, pool)
			}
			if err := counts.Maintain(b.Context(), benchNow, 0); err != nil {
				b.Fatal(err)
			}
			flags, err := db.EvalFlags(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			stored := &storedCounts{Store: counts}
			options := insight.Options{Counts: stored, Flags: db, Snapshots: fixedFlags{eval.Compile(flags)},
				Refresh: 3 * time.Second, Now: func() time.Time { return benchNow }}
			newService := func() *insight.Service { return insight.NewService(options) }
			s := newService()
			from := benchNow.AddDate(0, 0, -min(90, *benchDays))
			window := insight.Window{From: &from}
			id := func(i int) int64 { return int64(i%testdb.HistoryFlags) + 1 }
			all, hundred := int64(testdb.HistoryFlags), int64(100)
			first100 := func(ctx context.Context, _ int) error {
				_, err := s.States(ctx, insight.StatesQuery{Limit: &hundred})
				return err
			}
			for _, test := range []struct {
				name   string
				answer func(ctx context.Context, i int) error
			}{
				{"outcomes=90d", func(ctx context.Context, i int) error { _, err := s.Outcomes(ctx, id(i), window); return err }},
				{"series=90d", func(ctx context.Context, i int) error {
					_, err := s.Series(ctx, id(i), insight.SeriesQuery{Window: window, Bucket: "day"})
					return err
				}},
				{"series=90d,Berlin", func(ctx context.Context, i int) error {
					_, err := s.Series(ctx, id(i), insight.SeriesQuery{Window: window, Bucket: "day", Zone: "Europe/Berlin"})
					return err
				}},
				{"rollout=90d", func(ctx context.Context, i int) error { _, err := s.Rollout(ctx, id(i), window); return err }},
				{"state", func(ctx context.Context, i int) error { _, err := s.State(ctx, id(i), nil); return err }},
				{"states=all", func(ctx context.Context, _ int) error {
					states, err := s.States(ctx, insight.StatesQuery{Limit: &all})
					if err == nil && len(states.Flags) != testdb.HistoryFlags {
						err = fmt.Errorf("%d flags", len(states.Flags))
					}
					return err
				}},
				{"states=first 100", first100},
				{"states=first 100,counts not kept", first100},
				{"states=first 100,after a start", first100},
			} {
				b.Run(test.name, func(b *testing.B) {
					b.ReportAllocs()
					if err := test.answer(b.Context(), 0); err != nil { // fills the caches
						b.Fatal(err)
					}
					var spent time.Duration
					i := 0
					for b.Loop() {
						i++
						b.StopTimer()
						stored.flush(b)
						switch test.name {
						case "states=first 100,after a start":
							s = newService()
							fallthrough
						case "states=first 100,counts not kept":
							if stored.Store, err = gormstore.New(b.Context(), db.DB(), gormstore.Options{}); err != nil {
								b.Fatal(err)
							}
						}
						before := kind.CPUTime(b, pool)
						b.StartTimer()
						if err := test.answer(b.Context(), i); err != nil {
							b.Fatal(err)
						}
						spent += kind.CPUTime(b, pool) - before
					}
					b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
				})
			}
		})
	}
}
