package datar_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// campaigns is a Catalog over what a host calls its flags.
type campaigns map[int64]string

func (c campaigns) Flags(_ context.Context, ids []int64) (map[int64]datar.FlagInfo, error) {
	found := make(map[int64]datar.FlagInfo, len(ids))
	for _, id := range ids {
		if name, ok := c[id]; ok {
			found[id] = datar.FlagInfo{Key: name, Enabled: true}
		}
	}
	return found, nil
}

// example is the time of the examples.
var example = time.Date(2026, 3, 31, 14, 30, 0, 0, time.UTC)

func newEngine() *datar.Engine {
	engine, err := datar.New(datar.Options{
		Store:   &memstore.Store{},
		Catalog: campaigns{1: "spring-sale"},
		Now:     func() time.Time { return example },
	})
	if err != nil {
		log.Fatal(err)
	}
	return engine
}

func ExampleNew() {
	engine, err := datar.New(datar.Options{
		Store:         &memstore.Store{}, // or gormstore.New, or one of your own
		Catalog:       campaigns{1: "spring-sale"},
		FlushInterval: 10 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	engine.Start()
	engine.Record(datar.Event{FlagID: 1, VariantID: 2, Time: time.Now()})
	if err := engine.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(engine.Stats().Stored, "stored")
	// Output: 1 stored
}

// Options that are out of range are refused by name.
func ExampleNew_refused() {
	_, err := datar.New(datar.Options{Store: &memstore.Store{}, Catalog: campaigns{}, FlushInterval: time.Millisecond})
	fmt.Println(err)
	// Output: datar: Options.FlushInterval is 1ms, want 50ms to 1h0m0s
}

func ExampleEngine_Start() {
	engine := newEngine()
	engine.Start() // flushes in the background from now on
	defer func() { _ = engine.Close(context.Background()) }()
	fmt.Println(engine.Stats().FlushInterval)
	// Output: 1m0s
}

func ExampleEngine_Record() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()
	engine.Record(datar.Event{FlagID: 1, VariantID: 2, SegmentID: 3, Time: example})
	engine.Record(datar.Event{FlagID: 1, Time: example}) // no variant was assigned
	engine.Record(datar.Event{Time: example})            // no flag: dropped, and counted as such
	stats := engine.Stats()
	fmt.Println(stats.Recorded, "recorded,", stats.Pending, "pending,", stats.Dropped[datar.DropInvalid], "invalid")
	// Output: 3 recorded, 2 pending, 1 invalid
}

func ExampleEngine_Close() {
	engine := newEngine()
	engine.Record(datar.Event{FlagID: 1, Time: example})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	fmt.Println(engine.Close(ctx))
	engine.Record(datar.Event{FlagID: 1, Time: example}) // too late
	stats := engine.Stats()
	fmt.Println(stats.Stored, "stored,", stats.Dropped[datar.DropClosed], "too late")
	// Output:
	// <nil>
	// 1 stored, 1 too late
}

// Recorded is always the sum of the others.
func ExampleEngine_Stats() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()
	engine.Record(datar.Event{FlagID: 1, Time: example})
	before := engine.Stats()
	if err := engine.Flush(context.Background()); err != nil {
		log.Fatal(err)
	}
	after := engine.Stats()
	fmt.Println("before a flush:", before.Recorded, "=", before.Stored, "stored +", before.Pending, "pending")
	fmt.Println("after it:", after.Recorded, "=", after.Stored, "stored +", after.Pending, "pending")
	// Output:
	// before a flush: 1 = 0 stored + 1 pending
	// after it: 1 = 1 stored + 0 pending
}

func ExampleEngine_QuerySummary() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()
	for range 3 {
		engine.Record(datar.Event{FlagID: 1, VariantID: 2, Time: example})
	}
	flags, err := engine.QuerySummary(context.Background(), datar.SummaryQuery{})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range flags {
		fmt.Println(f.Key, f.Total, f.LastEvaluatedAt.Format(time.RFC3339))
	}
	// Output: spring-sale 3 2026-03-31T14:30:00Z
}

func ExampleEngine_QueryFlagSummaryBreakdown() {
	engine := newEngine()
	defer func() { _ = engine.Close(context.Background()) }()
	for variant := range int64(3) {
		engine.Record(datar.Event{FlagID: 1, VariantID: variant, Time: example})
	}
	b, err := engine.QueryFlagSummaryBreakdown(context.Background(), 1, datar.BreakdownQuery{})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range b.ByVariant {
		fmt.Println("variant", v.VariantID, "was assigned", v.Count, "time(s)")
	}
	fmt.Println(b.ByDay[0].Day.Format(time.DateOnly), b.ByDay[0].Count)
	// Output:
	// variant 0 was assigned 1 time(s)
	// variant 1 was assigned 1 time(s)
	// variant 2 was assigned 1 time(s)
	// 2026-03-31 3
}

// A Catalog says what ids mean. It may be a map, a table of the host, or a call to another service;
// ids that it does not know are left out, and their counts are shown without a name.
func ExampleCatalog() {
	var catalog datar.Catalog = campaigns{1: "spring-sale", 2: "newsletter"}
	flags, err := catalog.Flags(context.Background(), []int64{2, 3})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(flags), flags[2].Key)
	// Output: 1 newsletter
}

func ExampleStaticCatalog() {
	catalog := datar.StaticCatalog{1: {Key: "spring-sale", Enabled: true}, 2: {Key: "newsletter"}}
	flags, err := catalog.Flags(context.Background(), []int64{2, 3})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(flags), flags[2].Key)
	// Output: 1 newsletter
}
