package datar_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// TestTally compares a Tally with an engine that gets each event.
func TestTally(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var events []datar.Event
	at := noon
	for range 20_000 {
		switch random.IntN(100) {
		case 0:
			at = at.Add(time.Duration(random.IntN(300)) * time.Microsecond)
		case 1:
			at = at.Add(-500 * time.Microsecond)
		case 2:
			at = at.Add(7 * time.Minute)
		}
		event := datar.Event{
			FlagID: random.Int64N(4), VariantID: random.Int64N(3), SegmentID: 10 + random.Int64N(3), Time: at,
			Asked: datar.Asked(random.IntN(3)), Version: uint16(random.IntN(2)),
		}
		if event.VariantID == 0 {
			event.Outcome = datar.HeldOut
		}
		switch random.IntN(500) {
		case 0:
			event.Count = random.Int64N(1_000_000_000)
		case 1:
			event.Count = 1_000_000_001 // dropped
		case 2:
			event.Count = -1 // dropped
		case 3:
			event.Time = time.Time{}
		}
		events = append(events, event)
	}
	type outcome struct {
		Rows    []string
		Dropped map[datar.DropReason]int64
	}
	count := func(record func(*datar.Engine) func(datar.Event), flush func()) outcome {
		store := &faultyStore{}
		engine, err := datar.New(datar.Options{
			Store: store, Catalog: datar.StaticCatalog{}, Logger: slog.New(slog.DiscardHandler),
			Now: func() time.Time { return noon.AddDate(1, 0, 0) },
		})
		if err != nil {
			t.Fatal(err)
		}
		add := record(engine)
		for _, event := range events {
			add(event)
		}
		flush()
		stats := engine.Stats()
		if err := engine.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		o := outcome{Dropped: stats.Dropped}
		for _, batch := range store.sent() {
			for _, row := range batch.Rows {
				o.Rows = append(o.Rows, fmt.Sprintf("%+v", row))
			}
		}
		slices.Sort(o.Rows)
		return o
	}
	want := count(func(e *datar.Engine) func(datar.Event) { return e.Record }, func() {})
	var tally *datar.Tally
	got := count(func(e *datar.Engine) func(datar.Event) {
		tally = e.NewTally()
		return func(event datar.Event) { tally.Record(&event) }
	}, func() { tally.Flush() })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-each +tally):\n%s", diff)
	}
	if len(want.Rows) < 100 || want.Dropped[datar.DropInvalid] == 0 {
		t.Errorf("%d rows, dropped %v: the events are not varied", len(want.Rows), want.Dropped)
	}
}

func BenchmarkTally(b *testing.B) {
	engine, err := datar.New(datar.Options{Store: &faultyStore{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = engine.Close(context.Background()) }()
	for b.Loop() { // a batch of 500 evaluations
		tally := engine.NewTally()
		for i := range int64(500) {
			tally.Record(&datar.Event{FlagID: 1, VariantID: 1 + i%3, SegmentID: 1 + i%2, Time: noon})
		}
		tally.Flush()
	}
}
