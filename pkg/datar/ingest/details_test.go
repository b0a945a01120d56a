package ingest_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

func TestOutcomesOfRows(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		row  ingest.Row
		want datar.Key // of which outcome, version and asked matter
		bad  bool
	}{
		"a variant":             {ingest.Row{VariantKey: "on"}, datar.Key{Outcome: datar.Matched}, false},
		"an error":              {ingest.Row{Failed: true, Version: 3}, datar.Key{Outcome: datar.Error, Version: 3}, false},
		"an error with variant": {ingest.Row{VariantKey: "on", Failed: true}, datar.Key{Outcome: datar.Matched}, false},
		"nothing":               {ingest.Row{Version: 3, Asked: []string{"byTag"}}, datar.Key{}, false},
		"all parts": {
			ingest.Row{Outcome: "no_match", Version: 65_536*7 + 5, Asked: []string{"unevaluable", "byTag"}},
			datar.Key{Outcome: datar.NoMatch, Version: 5, Asked: datar.AskedByTag | datar.AskedUnevaluable}, false,
		},
		"disabled":                {ingest.Row{Outcome: "disabled"}, datar.Key{Outcome: datar.Disabled}, false},
		"unattributed":            {ingest.Row{VariantKey: "on", Outcome: "unattributed", Version: 9}, datar.Key{}, false},
		"an outcome of nobody":    {ingest.Row{Outcome: "Matched"}, datar.Key{}, true},
		"not found":               {ingest.Row{Outcome: "not_found"}, datar.Key{}, true},
		"matched nothing":         {ingest.Row{Outcome: "matched"}, datar.Key{}, true},
		"held out with a variant": {ingest.Row{VariantKey: "on", Outcome: "held_out"}, datar.Key{}, true},
		"a negative version":      {ingest.Row{Outcome: "no_match", Version: math.MinInt64}, datar.Key{}, true},
		"asked in other words":    {ingest.Row{Outcome: "no_match", Asked: []string{"by_tag"}}, datar.Key{}, true},
	} {
		in, store := setup(t)
		row := test.row
		row.FlagKey, row.First, row.Last, row.Count = "checkout", at(0), at(0), 5
		result, err := in.Ingest(t.Context(), ingest.Batch{Rows: []ingest.Row{row}})
		if err != nil {
			t.Fatal(err)
		}
		if test.bad {
			if len(result.Errors) != 1 || result.Errors[0].Code != ingest.BadOutcome || result.AcceptedCount != 0 {
				t.Errorf("%s: %+v, want it refused as BAD_OUTCOME", name, result)
			}
			continue
		}
		rows, err := store.Details(t.Context(), datar.DetailsQuery{To: math.MaxInt32, GroupBy: datar.GroupOutcome | datar.GroupVersion | datar.GroupAsked})
		if err != nil || len(rows) != 1 || rows[0].Key != test.want || rows[0].Count != 5 || rows[0].Ingested != 5 || result.AcceptedCount != 5 {
			t.Errorf("%s: details are %+v, %v, the answer is %+v; want 5 of %+v", name, rows, err, result, test.want)
		}
	}
}

// plainStore keeps no details.
type plainStore struct{ ingest.Store }

func TestAStoreWithoutDetailsGetsEvents(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	in.Store = plainStore{store}
	var rows []ingest.Row
	for _, outcome := range []string{"held_out", "no_match", "disabled", "no_segments", "error"} {
		rows = append(rows, ingest.Row{FlagKey: "checkout", Outcome: outcome, Version: 3, First: at(0), Last: at(0), Count: 2})
	}
	result, err := in.Ingest(t.Context(), ingest.Batch{Rows: rows})
	if err != nil || result.AcceptedCount != 10 {
		t.Fatalf("%+v, %v; want all accepted", result, err)
	}
	want := []datar.Row{{Key: datar.Key{FlagID: 7, Hour: datar.HourOf(now)}, Count: 6, Ingested: 6, First: at(0), Last: at(0)}}
	if diff := cmp.Diff(want, store.Rows()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAnIncompleteIngesterIsAnError(t *testing.T) {
	t.Parallel()
	for _, in := range []*ingest.Ingester{{}, {Store: &memstore.Store{}}, {Flags: flags{}}} {
		if _, err := in.Ingest(t.Context(), ingest.Batch{}); err == nil {
			t.Errorf("%+v takes a batch", in)
		}
	}
}

func sender(change func(*ingest.Sender)) *ingest.Sender {
	s := &ingest.Sender{
		Name: "edge", Run: "r1", Kind: "edge", Start: at(-time.Hour), At: at(0), FlushInterval: 60_000, Recorded: 5, Stored: 4,
		Dropped: map[string]int64{"capacity": 1}, FirstDrop: at(-time.Minute), LastDrop: at(0),
	}
	change(s)
	return s
}

const writer = "00000000-0000-4000-8000-00000000000"

func TestSendersAreKept(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*ingest.Sender)
		want   string // name and kind, empty: not kept
	}{
		"an edge":                    {func(*ingest.Sender) {}, "edge edge"},
		"an application":             {func(s *ingest.Sender) { s.Kind = "application" }, "edge application"},
		"one that would be a server": {func(s *ingest.Sender) { s.Kind = "server" }, "edge edge"},
		"a name of anything":         {func(s *ingest.Sender) { s.Name = "a b\x00" + strings.Repeat("x", 100) }, "a-b-" + strings.Repeat("x", 59) + " edge"},
		"no name":                    {func(s *ingest.Sender) { s.Name = "" }, ""},
		"no run":                     {func(s *ingest.Sender) { s.Run = "" }, ""},
		"a long run":                 {func(s *ingest.Sender) { s.Run = strings.Repeat("x", 37) }, ""},
		"of the future":              {func(s *ingest.Sender) { s.At = at(6 * time.Minute) }, ""},
		"before it began":            {func(s *ingest.Sender) { s.At = s.Start - 1 }, ""},
		"negative":                   {func(s *ingest.Sender) { s.Pending = -1 }, ""},
		"an endless interval":        {func(s *ingest.Sender) { s.FlushInterval = math.MaxInt64 }, ""},
		"a strange reason":           {func(s *ingest.Sender) { s.Dropped = map[string]int64{"a b": 1} }, ""},
	} {
		in, store := setup(t)
		batch := ingest.Batch{Key: writer + "1:1", Rows: []ingest.Row{good()}, Sender: sender(test.change)}
		if result, err := in.Ingest(t.Context(), batch); err != nil || result.AcceptedRows != 1 {
			t.Errorf("%s: %+v, %v; want its counts", name, result, err)
		}
		records, err := store.Servers(t.Context())
		got := ""
		if len(records) == 1 {
			got = records[0].Name + " " + string(records[0].Kind)
		}
		if err != nil || got != test.want {
			t.Errorf("%s: kept is %q of %+v, %v; want %q", name, got, records, err, test.want)
		}
	}
}

// Whoever makes up names cannot grow the tables beyond a bound.
func TestSendersAreBounded(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	ctx := context.Background()
	for i := range 1500 {
		batch := ingest.Batch{Key: fmt.Sprintf("%s1:%d", writer, i+1), Sender: sender(func(s *ingest.Sender) { s.Run = fmt.Sprint(i) })}
		for j := range 5 {
			batch.Unknown = append(batch.Unknown, ingest.Unknown{Asked: fmt.Sprint("text ", i, " ", j), First: at(0), Last: at(0), Count: 1})
		}
		if _, err := in.Ingest(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	records, err := store.Servers(ctx)
	if err != nil || len(records) != 1000 {
		t.Errorf("%d runs, %v; want 1,000", len(records), err)
	}
	unknown, err := store.Unknown(ctx, datar.UnknownQuery{To: math.MaxInt32, Limit: 10_000})
	if err != nil || len(unknown) != 1001 || unknown[0].Asked != datar.OtherUnknown || unknown[0].Count != 6500 {
		t.Errorf("%d texts, %v; want 1,000 and 6,500 others", len(unknown), err)
	}
}

// Rows about flags that do not exist count as requests for them, once however often the batch
// comes.
func TestRowsOfFlagsThatDoNotExist(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	gone, empty, bad := good(), good(), good()
	gone.FlagKey, empty.FlagKey, bad.FlagKey, bad.Count = "gone", "", "bad", 0
	same := gone
	same.VariantKey, same.Count = "", 2
	batch := ingest.Batch{Key: writer + "1:1", Rows: []ingest.Row{gone, same, empty, bad, good()}, Unknown: []ingest.Unknown{{Asked: "edge", First: at(0), Last: at(0), Count: 3}}}
	for range 2 {
		result, err := in.Ingest(t.Context(), batch)
		if err != nil || result.AcceptedRows != 1 || len(result.Errors) != 4 || result.Errors[0].Code != ingest.FlagNotFound {
			t.Errorf("%+v, %v; want one row accepted, and what is wrong with the others", result, err)
		}
	}
	unknown, err := store.Unknown(t.Context(), datar.UnknownQuery{To: math.MaxInt32, Limit: 10})
	got := map[string]int64{}
	for _, u := range unknown {
		got[u.Asked] = u.Count
	}
	if diff := cmp.Diff(map[string]int64{"gone": 7, "edge": 3}, got); err != nil || diff != "" {
		t.Errorf("unknown (-want +got), %v:\n%s", err, diff)
	}
}
