package storetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

// detailTests run on stores that are a datar.DetailStore.
var detailTests = []struct {
	name string
	run  func(*testing.T, datar.DetailStore)
}{
	{"details by each part", detailsByPart},
	{"only some outcomes are events", onlySomeAreEvents},
	{"events without details are unattributed", unattributed},
	{"details at random", detailsAtRandom},
	{"details are applied once", detailsOnce},
	{"an ended context applies no details", endedContextDetails},
	{"unknown flags add up", unknownAddsUp},
	{"unknown flags in any text", unknownTexts},
	{"servers write their records", serverRecords},
	{"writers share details", sharedDetails},
	{"retention keeps recent details", detailRetention},
}

// detail returns a row of one evaluation with all parts.
func detail(key datar.Key, count int64) datar.Row {
	ms := key.Hour.Time().UnixMilli() + 1
	return datar.Row{Key: key, Count: count, First: ms, Last: ms}
}

func details(t *testing.T, s datar.DetailStore, query datar.DetailsQuery) []datar.Row {
	t.Helper()
	rows, err := s.Details(t.Context(), query)
	if err != nil {
		t.Fatalf("details of %+v: %v", query, err)
	}
	return rows
}

func wantDetails(t *testing.T, s datar.DetailStore, query datar.DetailsQuery, want ...datar.Row) {
	t.Helper()
	if got := details(t, s, query); !slices.Equal(got, want) {
		t.Errorf("details of %+v:\n got %+v\nwant %+v", query, got, want)
	}
}

func allDetails(by datar.Parts) datar.DetailsQuery {
	return datar.DetailsQuery{From: 0, To: hour + 1_000_000, GroupBy: by}
}

func detailsByPart(t *testing.T, s datar.DetailStore) {
	day := hour.DayStart()
	matched := detail(datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: day + 1, Outcome: datar.Matched, Version: 65_535, Asked: datar.AskedByTag}, 1)
	other := detail(datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: day + 1, Outcome: datar.Matched, Version: 7}, 2)
	held := detail(datar.Key{FlagID: 1, SegmentID: 3, Hour: day + 25, Outcome: datar.HeldOut, Version: 7, Asked: datar.AskedWithoutEntityID}, 4)
	off := detail(datar.Key{FlagID: 2, Hour: day + 25, Outcome: datar.Disabled, Asked: datar.AskedByTag | datar.AskedUnevaluable}, 8)
	apply(t, s, "w", 1, matched, other, held, off)
	wantDetails(t, s, datar.DetailsQuery{From: day, To: day + 2, GroupBy: datar.GroupOutcome},
		datar.Row{Key: datar.Key{Outcome: datar.Matched}, Count: 3, First: matched.First, Last: matched.Last})
	wantDetails(t, s, datar.DetailsQuery{From: day + 2, To: day + 25, GroupBy: datar.GroupOutcome})
	every := datar.GroupFlag | datar.GroupOutcome | datar.GroupVariant | datar.GroupSegment | datar.GroupVersion | datar.GroupAsked | datar.GroupHour
	wantDetails(t, s, allDetails(every), other, matched, held, off)
	for name, test := range map[string]struct {
		by   datar.Parts
		want map[datar.Key]int64
	}{
		"nothing": {0, map[datar.Key]int64{{}: 15}},
		"flag":    {datar.GroupFlag, map[datar.Key]int64{{FlagID: 1}: 7, {FlagID: 2}: 8}},
		"outcome": {datar.GroupOutcome, map[datar.Key]int64{{Outcome: datar.Matched}: 3, {Outcome: datar.HeldOut}: 4, {Outcome: datar.Disabled}: 8}},
		"variant": {datar.GroupVariant, map[datar.Key]int64{{VariantID: 2}: 3, {}: 12}},
		"segment": {datar.GroupSegment, map[datar.Key]int64{{SegmentID: 3}: 7, {}: 8}},
		"version": {datar.GroupVersion, map[datar.Key]int64{{Version: 7}: 6, {Version: 65_535}: 1, {}: 8}},
		"asked": {datar.GroupAsked, map[datar.Key]int64{{}: 2, {Asked: datar.AskedByTag}: 1, {Asked: datar.AskedWithoutEntityID}: 4,
			{Asked: datar.AskedByTag | datar.AskedUnevaluable}: 8}},
		"hour": {datar.GroupHour, map[datar.Key]int64{{Hour: day + 1}: 3, {Hour: day + 25}: 12}},
		"day and outcome": {datar.GroupDay | datar.GroupOutcome, map[datar.Key]int64{
			{Hour: day, Outcome: datar.Matched}: 3, {Hour: day + 24, Outcome: datar.HeldOut}: 4, {Hour: day + 24, Outcome: datar.Disabled}: 8,
		}},
	} {
		got := map[datar.Key]int64{}
		for _, r := range details(t, s, allDetails(test.by)) {
			if _, twice := got[r.Key]; twice {
				t.Errorf("by %s: the group %+v comes twice", name, r.Key)
			}
			got[r.Key] = r.Count
		}
		for key, n := range test.want {
			if got[key] != n {
				t.Errorf("by %s: %+v has %d, want %d", name, key, got[key], n)
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("by %s: %d groups, want %d", name, len(got), len(test.want))
		}
	}
	one := allDetails(datar.GroupFlag)
	one.FlagID = 2
	wantDetails(t, s, one, datar.Row{Key: datar.Key{FlagID: 2}, Count: 8, First: off.First, Last: off.Last})
}

func onlySomeAreEvents(t *testing.T, s datar.DetailStore) {
	var rows []datar.Row
	var events int64
	for outcome := range datar.NotFound {
		key := datar.Key{FlagID: 1, Hour: hour, Outcome: outcome}
		if outcome == datar.Matched {
			key.VariantID = 1
		}
		n := int64(1) << outcome
		rows = append(rows, detail(key, n))
		if outcome.IsEvent() {
			events += n
		}
	}
	apply(t, s, "w", 1, rows...)
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: events})
	got := details(t, s, allDetails(datar.GroupOutcome))
	if len(got) != int(datar.NotFound) {
		t.Fatalf("details have %d outcomes, want %d: %+v", len(got), datar.NotFound, got)
	}
	for _, r := range got {
		if r.Count != 1<<r.Outcome {
			t.Errorf("%v has %d, want %d", r.Outcome, r.Count, 1<<r.Outcome)
		}
	}
}

// unattributed adds counts without an outcome in addition to others of the same flag, variant and
// hour.
func unattributed(t *testing.T, s datar.DetailStore) {
	old := row(1, 2, 3, hour, 100)
	old.Ingested = 10
	now := detail(datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: hour, Outcome: datar.Matched, Version: 9}, 7)
	off := detail(datar.Key{FlagID: 1, Hour: hour, Outcome: datar.Disabled}, 5)
	apply(t, s, "w", 1, old, now, off)
	apply(t, s, "w", 2, row(1, 2, 3, hour, 1), row(2, 0, 0, hour+1, 50))
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 108, 2: 50})
	wantDetails(t, s, allDetails(datar.GroupFlag|datar.GroupOutcome),
		datar.Row{Key: datar.Key{FlagID: 1}, Count: 101, Ingested: 10},
		datar.Row{Key: datar.Key{FlagID: 1, Outcome: datar.Matched}, Count: 7, First: now.First, Last: now.Last},
		datar.Row{Key: datar.Key{FlagID: 1, Outcome: datar.Disabled}, Count: 5, First: off.First, Last: off.Last},
		datar.Row{Key: datar.Key{FlagID: 2}, Count: 50})
	wantDetails(t, s, allDetails(datar.GroupFlag|datar.GroupVariant|datar.GroupHour),
		datar.Row{Key: datar.Key{FlagID: 1, Hour: hour}, Count: 5, First: off.First, Last: off.Last},
		datar.Row{Key: datar.Key{FlagID: 1, VariantID: 2, Hour: hour}, Count: 108, Ingested: 10, First: now.First, Last: now.Last},
		datar.Row{Key: datar.Key{FlagID: 2, Hour: hour + 1}, Count: 50})
}

// randomKey returns a key with few different values, so that groups contain several rows.
func randomKey(random *rand.Rand, h datar.Hour) datar.Key {
	key := datar.Key{FlagID: random.Int64N(3) + 1, Hour: h, Outcome: datar.Outcome(random.IntN(int(datar.NotFound))), SegmentID: random.Int64N(3)}
	if key.Outcome == datar.Matched {
		key.VariantID = random.Int64N(2) + 1
	}
	if key.Outcome != datar.Unattributed {
		key.Version, key.Asked = uint16(random.IntN(3)), datar.Asked(random.IntN(8))
	}
	return key
}

// detailsAtRandom compares random queries with those of memstore, between batches and maintenance.
func detailsAtRandom(t *testing.T, s datar.DetailStore) {
	m, _ := s.(datar.Maintainer)
	reference := &memstore.Store{}
	random := rand.New(rand.NewPCG(3, 4))
	day := hour.DayStart()
	now := day
	for sequence := int64(1); sequence <= 60; sequence++ {
		now += datar.Hour(random.IntN(4))
		added := map[datar.Key]datar.Row{}
		for range random.IntN(60) {
			r := detail(randomKey(random, max(day, now-datar.Hour(random.IntN(50)))), random.Int64N(9)+1)
			r.Ingested = random.Int64N(r.Count + 1)
			r.Last += random.Int64N(1000)
			added[r.Key] = r
		}
		var rows []datar.Row
		for _, r := range added {
			rows = append(rows, r)
		}
		apply(t, s, "w", sequence, rows...)
		apply(t, reference, "w", sequence, rows...)
		if m != nil && random.IntN(3) == 0 {
			maintain(t, m, now, 0)
		}
		for range 5 {
			from := day + datar.Hour(random.IntN(100)) - 5
			query := datar.DetailsQuery{From: from, To: from + datar.Hour(random.IntN(100)), FlagID: random.Int64N(4), GroupBy: datar.Parts(random.IntN(128))}
			if random.IntN(2) == 0 {
				query.GroupBy = query.GroupBy&^datar.GroupHour | datar.GroupDay
			}
			got, want := details(t, s, query), details(t, reference, query)
			if !slices.Equal(got, want) {
				t.Fatalf("details of %+v:\n got %+v\nwant %+v", query, got, want)
			}
		}
	}
}

// detailsOnce sends all parts of a batch twice.
func detailsOnce(t *testing.T, s datar.DetailStore) {
	record := datar.ServerRecord{Name: "a", Run: "r", Kind: datar.KindServer, Start: hour.Time(), At: hour.Time(), FlushInterval: time.Minute}
	batch := datar.Batch{
		Writer: "w", Sequence: 1,
		Rows:    []datar.Row{detail(datar.Key{FlagID: 1, Hour: hour, Outcome: datar.NoMatch}, 3)},
		Unknown: []datar.UnknownRow{{Asked: "nothing", Hour: hour, Count: 5, First: 1, Last: 2}},
		Server:  &record,
	}
	for range 2 {
		if err := send(t.Context(), s, batch); err != nil {
			t.Fatal(err)
		}
	}
	wantCounts(t, s, all(datar.ByFlag), map[int64]int64{1: 3})
	if got := details(t, s, allDetails(datar.GroupOutcome)); len(got) != 1 || got[0].Count != 3 {
		t.Errorf("details are %+v, want 3 once", got)
	}
	wantUnknown(t, s, datar.UnknownQuery{From: 0, To: hour + 1, Limit: 10}, datar.UnknownRow{Asked: "nothing", Count: 5, First: 1, Last: 2})
	// A batch may contain only a record.
	record.At = record.At.Add(time.Minute)
	if err := send(t.Context(), s, datar.Batch{Writer: "w", Sequence: 2, Server: &record}); err != nil {
		t.Fatal(err)
	}
	if got := servers(t, s); len(got) != 1 || !got[0].At.Equal(record.At) {
		t.Errorf("servers are %+v, want one of %v", got, record.At)
	}
}

func endedContextDetails(t *testing.T, s datar.DetailStore) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := datar.Batch{
		Writer: "w", Sequence: 1,
		Rows:    []datar.Row{detail(datar.Key{FlagID: 1, Hour: hour, Outcome: datar.Disabled}, 3)},
		Unknown: []datar.UnknownRow{{Asked: "nothing", Hour: hour, Count: 5, First: 1, Last: 2}},
		Server:  &datar.ServerRecord{Name: "a", Run: "r", Kind: datar.KindServer, Start: hour.Time(), At: hour.Time()},
	}
	if err := send(ctx, s, batch); err == nil {
		t.Error("Apply with an ended context succeeded")
	}
	if got := details(t, s, allDetails(datar.GroupOutcome)); len(got) != 0 {
		t.Errorf("details are %+v, want none", got)
	}
	wantUnknown(t, s, datar.UnknownQuery{From: 0, To: hour + 1, Limit: 10})
	if got := servers(t, s); len(got) != 0 {
		t.Errorf("servers are %+v, want none", got)
	}
	for name, query := range map[string]func() error{
		"Details":      func() error { _, err := s.Details(ctx, allDetails(datar.GroupFlag)); return err },
		"DetailedFrom": func() error { _, err := s.DetailedFrom(ctx); return err },
		"Unknown":      func() error { _, err := s.Unknown(ctx, datar.UnknownQuery{To: hour, Limit: 1}); return err },
		"Servers":      func() error { _, err := s.Servers(ctx); return err },
	} {
		if query() == nil {
			t.Errorf("%s with an ended context succeeded", name)
		}
	}
}

func wantUnknown(t *testing.T, s datar.DetailStore, query datar.UnknownQuery, want ...datar.UnknownRow) {
	t.Helper()
	got, err := s.Unknown(t.Context(), query)
	if err != nil {
		t.Fatalf("unknown of %+v: %v", query, err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("unknown of %+v:\n got %+v\nwant %+v", query, got, want)
	}
}

func applyUnknown(t *testing.T, s datar.DetailStore, writer string, sequence int64, rows ...datar.UnknownRow) {
	t.Helper()
	if err := send(t.Context(), s, datar.Batch{Writer: writer, Sequence: sequence, Unknown: rows}); err != nil {
		t.Fatalf("apply batch %d of %s: %v", sequence, writer, err)
	}
}

func unknownAddsUp(t *testing.T, s datar.DetailStore) {
	ms := hour.Time().UnixMilli()
	applyUnknown(t, s, "a", 1,
		datar.UnknownRow{Asked: "x", Hour: hour, Count: 3, First: ms + 20, Last: ms + 30},
		datar.UnknownRow{Asked: "y", Hour: hour, Count: math.MaxInt32, First: ms, Last: ms})
	applyUnknown(t, s, "b", 1,
		datar.UnknownRow{Asked: "x", Hour: hour, Count: 4, First: ms + 10, Last: ms + 25},
		datar.UnknownRow{Asked: "x", Hour: hour + 1, Count: 1, First: ms + 3_600_000, Last: ms + 3_600_000},
		datar.UnknownRow{Asked: "y", Hour: hour, Count: math.MaxInt32, First: ms, Last: ms},
		datar.UnknownRow{Asked: "z", Hour: hour, Count: 8, First: ms, Last: ms})
	x := datar.UnknownRow{Asked: "x", Count: 8, First: ms + 10, Last: ms + 3_600_000}
	y := datar.UnknownRow{Asked: "y", Count: 2 * math.MaxInt32, First: ms, Last: ms}
	z := datar.UnknownRow{Asked: "z", Count: 8, First: ms, Last: ms}
	query := datar.UnknownQuery{From: hour, To: hour + 2, Limit: 10}
	wantUnknown(t, s, query, y, x, z)
	query.Limit = 2
	wantUnknown(t, s, query, y, x)
	query.Offset = 1
	wantUnknown(t, s, query, x, z)
	query.Offset = 3
	wantUnknown(t, s, query)
	x.Count, x.Last = 7, ms+30
	wantUnknown(t, s, datar.UnknownQuery{From: hour, To: hour + 1, Limit: 10}, y, z, x)
	wantUnknown(t, s, datar.UnknownQuery{From: hour + 2, To: hour + 9, Limit: 10})
}

// unknownTexts checks that texts that differ in case, accents, trailing spaces, or bytes that are
// special in SQL are different texts.
func unknownTexts(t *testing.T, s datar.DetailStore) {
	texts := []string{
		"", " ", "key", "KEY", "key ", "kéy", "ké́y", "key\u00a0", "key\n", "'; --", `\`, "%", "_", "\x01", "日本語", "🚩🚩",
		strings.Repeat("x", datar.MaxAsked), strings.Repeat("x", datar.MaxAsked-1), strings.Repeat("é", datar.MaxAsked/2), datar.OtherUnknown,
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	for sequence := range int64(2) {
		var rows []datar.UnknownRow
		for i, text := range texts {
			rows = append(rows, datar.UnknownRow{Asked: text, Hour: hour, Count: int64(i) + 1, First: 1, Last: 1})
		}
		applyUnknown(t, s, "w", sequence+1, rows...)
	}
	got, err := s.Unknown(t.Context(), datar.UnknownQuery{From: hour, To: hour + 1, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(texts) {
		t.Errorf("there are %d texts, want %d", len(got), len(texts))
	}
	for _, r := range got {
		if i := slices.Index(texts, r.Asked); i < 0 || r.Count != 2*int64(i)+2 {
			t.Errorf("%q has %d, which is wrong", r.Asked, r.Count)
		}
	}
}

func servers(t *testing.T, s datar.DetailStore) []datar.ServerRecord {
	t.Helper()
	records, err := s.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(records, func(a, b datar.ServerRecord) int { return strings.Compare(a.Name+" "+a.Run, b.Name+" "+b.Run) })
	return records
}

func serverRecords(t *testing.T, s datar.DetailStore) {
	start := time.Now().Add(-time.Hour).Truncate(time.Millisecond).UTC()
	first := datar.ServerRecord{
		Name: "flagr-0", Run: "1", Kind: datar.KindServer, Start: start, At: start.Add(time.Minute), FlushInterval: 90 * time.Second,
		Recorded: math.MaxInt32 + 10, Stored: math.MaxInt32, Pending: 3, Adopted: 5, Dropped: map[string]int64{"capacity": 4, "refused": 3},
		FirstDrop: start.Add(time.Second), LastDrop: start.Add(2 * time.Second),
	}
	next := first
	next.At, next.LastFlush = first.At.Add(time.Minute), first.At
	next.Recorded, next.Stored, next.Pending, next.Ended = math.MaxInt32+100, math.MaxInt32+96, 0, true
	next.Dropped = map[string]int64{"capacity": 4}
	next.Journal = &datar.JournalRecord{InMemory: true, Adopted: slices.Repeat([]string{"01234567-0123-4567-89ab-0123456789ab"}, datar.MaxAdoptedRuns)}
	again := datar.ServerRecord{
		Name: "flagr-0", Run: "2", Kind: datar.KindServer, Start: next.At, At: next.At, FlushInterval: time.Minute, Journal: &datar.JournalRecord{},
	}
	edge := datar.ServerRecord{Name: strings.Repeat("é", 31), Run: "1", Kind: datar.KindEdge, Start: start, At: start, FlushInterval: time.Minute}
	for i, record := range []datar.ServerRecord{first, next, again, first, edge} { // a late record changes nothing
		batch := datar.Batch{Writer: fmt.Sprint("w", i), Sequence: 1, Server: &record}
		if err := send(t.Context(), s, batch); err != nil {
			t.Fatal(err)
		}
	}
	got := servers(t, s)
	want := []datar.ServerRecord{next, again, edge}
	if len(got) != len(want) {
		t.Fatalf("there are %d records, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if !reflect.DeepEqual(utc(got[i]), utc(want[i])) {
			t.Errorf("record %d is\n%+v with %+v, want\n%+v with %+v", i, utc(got[i]), got[i].Journal, utc(want[i]), want[i].Journal)
		}
	}
}

// utc makes records comparable.
func utc(r datar.ServerRecord) datar.ServerRecord {
	for _, at := range []*time.Time{&r.Start, &r.At, &r.LastFlush, &r.FirstDrop, &r.LastDrop} {
		*at = at.UTC()
	}
	if len(r.Dropped) == 0 {
		r.Dropped = nil
	}
	return r
}

// sharedDetails adds to the same details and texts from several writers at once.
func sharedDetails(t *testing.T, s datar.DetailStore) {
	const writers, batches, keys = 4, 4, 100
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for b := range int64(batches) {
				batch := datar.Batch{Writer: fmt.Sprint("writer ", w), Sequence: b + 1, Server: &datar.ServerRecord{
					Name: "shared", Run: "r", Kind: datar.KindServer, Start: hour.Time(), At: hour.Time().Add(time.Duration(b) * time.Second),
				}}
				for k := range int64(keys) {
					batch.Rows = append(batch.Rows, detail(datar.Key{FlagID: k + 1, Hour: hour, Outcome: datar.NoMatch}, 1))
					batch.Unknown = append(batch.Unknown, datar.UnknownRow{Asked: fmt.Sprintf("%03d", k), Hour: hour, Count: 1, First: 1, Last: 1})
				}
				if !applyInTheEnd(ctx, t, s, batch) {
					return
				}
			}
		})
	}
	group.Wait()
	for _, r := range details(t, s, allDetails(datar.GroupFlag|datar.GroupOutcome)) {
		if r.Outcome != datar.NoMatch || r.Count != writers*batches {
			t.Errorf("%+v, want %d", r, writers*batches)
		}
	}
	got, err := s.Unknown(t.Context(), datar.UnknownQuery{From: hour, To: hour + 1, Limit: 1000})
	if err != nil || len(got) != keys {
		t.Fatalf("%d texts, %v; want %d", len(got), err, keys)
	}
	for _, r := range got {
		if r.Count != writers*batches {
			t.Errorf("%q has %d, want %d", r.Asked, r.Count, writers*batches)
		}
	}
	if got := servers(t, s); len(got) != 1 || !got[0].At.Equal(hour.Time().Add((batches-1)*time.Second)) {
		t.Errorf("servers are %+v, want one, the newest", got)
	}
}

// detailRetention purges days. Their details are deleted, and the others stay.
func detailRetention(t *testing.T, s datar.DetailStore) {
	m := maintainer(t, s)
	reference := &memstore.Store{}
	day := hour.DayStart()
	random := rand.New(rand.NewPCG(5, 6))
	for h := range datar.Hour(4 * 24) {
		var rows []datar.Row
		for range 10 {
			r := detail(randomKey(random, day+h), random.Int64N(9)+1)
			if !slices.ContainsFunc(rows, func(o datar.Row) bool { return o.Key == r.Key }) {
				rows = append(rows, r)
			}
		}
		apply(t, s, "w", int64(h)+1, rows...)
		apply(t, reference, "w", int64(h)+1, rows...)
	}
	now := day + 4*24
	for range 10 { // each call does a part of the work
		maintain(t, m, now, 48*time.Hour)
	}
	from, err := s.DetailedFrom(t.Context())
	if err != nil || from <= day || from > day+48 {
		t.Fatalf("details are from hour %d on (%v), want one after %d and at most %d", from, err, day, day+48)
	}
	for _, by := range []datar.Parts{datar.GroupFlag | datar.GroupOutcome, datar.GroupVersion | datar.GroupHour, datar.GroupDay | datar.GroupAsked | datar.GroupSegment} {
		query := datar.DetailsQuery{From: from, To: now, GroupBy: by}
		if got, want := details(t, s, query), details(t, reference, query); !slices.Equal(got, want) {
			t.Errorf("details of %+v:\n got %+v\nwant %+v", query, got, want)
		}
		query.From, query.To = day, from
		if got := details(t, s, query); len(got) != 0 {
			t.Errorf("details of purged days are %+v, want none", got)
		}
	}
	sameTotals(t, s, reference, datar.TotalsQuery{From: day, To: now, GroupBy: datar.ByDay})
}
