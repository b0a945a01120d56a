package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
)

var now = time.Date(2026, 3, 4, 12, 30, 0, 0, time.UTC)

type flags map[string]ingest.Flag

func (f flags) FlagByKey(key string) (ingest.Flag, bool) {
	flag, ok := f[key]
	return flag, ok
}

func setup(t *testing.T) (*ingest.Ingester, *memstore.Store) {
	t.Helper()
	store := &memstore.Store{}
	return &ingest.Ingester{
		Store: store,
		Flags: flags{
			"checkout": {ID: 7, RecordsEnabled: true, Variants: map[string]int64{"on": 1, "off": 2}, Segments: []int64{10, 11}},
			"quiet":    {ID: 8},
		},
		Now: func() time.Time { return now },
	}, store
}

func at(d time.Duration) int64 { return now.Add(d).UnixMilli() }

func good() ingest.Row {
	return ingest.Row{FlagKey: "checkout", VariantKey: "on", AllocationKey: "10", First: at(-time.Minute), Last: at(0), Count: 5}
}

func TestRowsAreJudgedOneByOne(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change  func(*ingest.Row)
		code    ingest.Code
		variant int64
		segment int64
	}{
		"good":                     {func(*ingest.Row) {}, "", 1, 10},
		"no variant":               {func(r *ingest.Row) { r.VariantKey = "" }, "", 0, 10},
		"no segment":               {func(r *ingest.Row) { r.AllocationKey = "" }, "", 1, 0},
		"segment of another flag":  {func(r *ingest.Row) { r.AllocationKey = "12" }, ingest.SegmentUnknown, 1, 0},
		"segment is no number":     {func(r *ingest.Row) { r.AllocationKey = "ten" }, ingest.SegmentUnknown, 1, 0},
		"unknown flag":             {func(r *ingest.Row) { r.FlagKey = "nope" }, ingest.FlagNotFound, -1, 0},
		"no flag":                  {func(r *ingest.Row) { r.FlagKey = "" }, ingest.FlagNotFound, -1, 0},
		"not recorded":             {func(r *ingest.Row) { r.FlagKey = "quiet" }, ingest.RecordingDisabled, -1, 0},
		"unknown variant":          {func(r *ingest.Row) { r.VariantKey = "ON" }, ingest.VariantNotFound, -1, 0},
		"count 0":                  {func(r *ingest.Row) { r.Count = 0 }, ingest.BadCount, -1, 0},
		"count negative":           {func(r *ingest.Row) { r.Count = math.MinInt64 }, ingest.BadCount, -1, 0},
		"count at the limit":       {func(r *ingest.Row) { r.Count = ingest.MaxCount }, "", 1, 10},
		"count too large":          {func(r *ingest.Row) { r.Count = ingest.MaxCount + 1 }, ingest.BadCount, -1, 0},
		"first after last":         {func(r *ingest.Row) { r.First = r.Last + 1 }, ingest.BadTime, -1, 0},
		"a little in the future":   {func(r *ingest.Row) { r.Last = at(5 * time.Minute) }, "", 1, 10},
		"in the future":            {func(r *ingest.Row) { r.Last = at(5*time.Minute + time.Millisecond) }, ingest.BadTime, -1, 0},
		"a day old":                {func(r *ingest.Row) { r.First = at(-24 * time.Hour) }, "", 1, 10},
		"older":                    {func(r *ingest.Row) { r.First = at(-24*time.Hour - time.Millisecond) }, ingest.BadTime, -1, 0},
		"times out of this world":  {func(r *ingest.Row) { r.First, r.Last = math.MinInt64, math.MaxInt64 }, ingest.BadTime, -1, 0},
		"the beginning of time":    {func(r *ingest.Row) { r.First, r.Last = math.MinInt64, math.MinInt64 }, ingest.BadTime, -1, 0},
		"a huge key in the answer": {func(r *ingest.Row) { r.FlagKey = strings.Repeat("x", 1<<19) }, ingest.FlagNotFound, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, store := setup(t)
			bad := good()
			test.change(&bad)
			got, err := in.Ingest(t.Context(), ingest.Batch{Key: "k", Rows: []ingest.Row{bad, good()}})
			if err != nil {
				t.Fatal(err)
			}
			rows, count, stored := 1, int64(5), map[datar.Key]int64{}
			key := datar.Key{FlagID: 7, VariantID: 1, SegmentID: 10, Hour: datar.HourOf(now)}
			stored[key] += 5
			if test.variant >= 0 {
				key.VariantID, key.SegmentID = test.variant, test.segment
				stored[key] += bad.Count
				rows++
				count += bad.Count
			}
			if got.AcceptedRows != rows || got.AcceptedCount != count {
				t.Errorf("%d rows with %d accepted, want %d with %d", got.AcceptedRows, got.AcceptedCount, rows, count)
			}
			switch {
			case test.code == "" && len(got.Errors) != 0:
				t.Errorf("errors %+v, want none", got.Errors)
			case test.code != "" && (len(got.Errors) != 1 || got.Errors[0].Code != test.code || got.Errors[0].Index != 0 ||
				got.Errors[0].Message == "" || len(got.Errors[0].Message) > 500):
				t.Errorf("errors %.500v, want one %s of row 0", got.Errors, test.code)
			}
			have := map[datar.Key]int64{}
			for _, row := range store.Rows() {
				have[row.Key] = row.Count
			}
			if !reflect.DeepEqual(have, stored) {
				t.Errorf("stored %v, want %v", have, stored)
			}
		})
	}
}

func TestRowsAreBookedWhereTheyEnd(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	spanning, within := good(), good()
	spanning.First, spanning.Last = at(-3*time.Hour), at(-90*time.Minute)
	within.First, within.Last = at(-85*time.Minute), at(-80*time.Minute)
	if _, err := in.Ingest(t.Context(), ingest.Batch{Rows: []ingest.Row{spanning, within}}); err != nil {
		t.Fatal(err)
	}
	want := []datar.Row{{
		Key:   datar.Key{FlagID: 7, VariantID: 1, SegmentID: 10, Hour: datar.HourOf(now.Add(-90 * time.Minute))},
		Count: 10, Ingested: 10, First: at(-3 * time.Hour), Last: at(-80 * time.Minute),
	}}
	if got := store.Rows(); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %+v, want %+v", got, want)
	}
}

func TestAKeyIsAppliedOnce(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	bad := good()
	bad.FlagKey = "nope"
	batch := ingest.Batch{Key: "order 66", Digest: "d", Rows: []ingest.Row{good(), bad}}
	first, err := in.Ingest(t.Context(), batch)
	if err != nil || first.Duplicate {
		t.Fatal(first, err)
	}
	again, err := in.Ingest(t.Context(), batch)
	want := first
	want.Duplicate = true
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("a replay is answered %+v, %v; want %+v", again, err, want)
	}
	batch.Digest = "another"
	if _, err := in.Ingest(t.Context(), batch); !errors.Is(err, ingest.ErrKeyReused) {
		t.Errorf("another body: %v, want ErrKeyReused", err)
	}
	if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 5 {
		t.Errorf("stored %+v, want the first batch only", rows)
	}
}

func TestKeysOfWriters(t *testing.T) {
	t.Parallel()
	const writer = "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10"
	in, store := setup(t)
	old := good()
	old.First, old.Last = at(-7*24*time.Hour), at(-7*24*time.Hour)
	for i, test := range []struct {
		sequence  int
		duplicate bool
	}{{1, false}, {1, true}, {2, false}, {1, true}, {3, false}} {
		got, err := in.Ingest(t.Context(), ingest.Batch{Key: fmt.Sprint(writer, ":", test.sequence), Rows: []ingest.Row{old}})
		if err != nil || got.Duplicate != test.duplicate || got.AcceptedCount != 5 {
			t.Errorf("call %d: %+v, %v; want duplicate %v", i, got, err, test.duplicate)
		}
	}
	if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 15 {
		t.Errorf("stored %+v, want three batches", rows)
	}
	old.First = at(-91 * 24 * time.Hour)
	old.Last = old.First
	if _, err := in.Ingest(t.Context(), ingest.Batch{Key: writer + ":4", Rows: []ingest.Row{old}}); !errors.Is(err, ingest.ErrInvalid) {
		t.Errorf("a batch of 91 days ago: %v, want ErrInvalid", err)
	}
	for _, plain := range []string{writer, writer + ":", writer + ":0", writer + ":-1", writer + ":x", writer + ":99999999999999999999", strings.ToUpper(writer) + ":1", "x" + writer[1:] + ":1"} {
		if got, err := in.Ingest(t.Context(), ingest.Batch{Key: plain, Rows: []ingest.Row{good()}}); err != nil || got.Duplicate {
			t.Errorf("key %q: %+v, %v; want it to be any text", plain, got, err)
		}
	}
}

// What a sender is told after a lost answer is what was counted then, whatever has become of flags,
// clocks and servers.
func TestAReplayOfAWriterIsAnsweredAsBefore(t *testing.T) {
	t.Parallel()
	unknown, ahead := good(), good()
	unknown.FlagKey = "new"
	ahead.Last = at(6 * time.Minute)
	for name, test := range map[string]struct {
		row    ingest.Row
		change func(*ingest.Ingester)
	}{
		"a flag that comes": {unknown, func(in *ingest.Ingester) { in.Flags = flags{"new": {ID: 9, RecordsEnabled: true}} }},
		"a flag that goes":  {good(), func(in *ingest.Ingester) { in.Flags = flags{} }},
		"a time that comes": {ahead, func(in *ingest.Ingester) { in.Now = func() time.Time { return now.Add(2 * time.Minute) } }},
		"a row that grows old": {good(), func(in *ingest.Ingester) {
			in.Now = func() time.Time { return now.Add(23 * time.Hour) }
			in.Flags = flags{}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, store := setup(t)
			batch := ingest.Batch{Key: "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1", Rows: []ingest.Row{test.row, good()}}
			want, err := in.Ingest(t.Context(), batch)
			if err != nil || want.Duplicate {
				t.Fatal(want, err)
			}
			want.Duplicate = true
			test.change(in)
			got, err := in.Ingest(t.Context(), batch)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("a replay is answered %+v, %v; want %+v", got, err, want)
			}
			var stored int64
			for _, r := range store.Rows() {
				stored += r.Count
			}
			if stored != got.AcceptedCount {
				t.Errorf("stored %d, and %d are said to be", stored, got.AcceptedCount)
			}
		})
	}
}

// Whoever sends under the identity of the server's own engine must not make the store skip what the
// engine counts.
func TestSendersAreApartFromTheEngine(t *testing.T) {
	t.Parallel()
	const writer = "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10"
	in, store := setup(t)
	if _, err := in.Ingest(t.Context(), ingest.Batch{Key: fmt.Sprint(writer, ":", math.MaxInt64), Rows: []ingest.Row{good()}}); err != nil {
		t.Fatal(err)
	}
	key := datar.Key{FlagID: 7, VariantID: 1, SegmentID: 10, Hour: datar.HourOf(now)}
	if err := store.Apply(t.Context(), datar.Batch{Writer: writer, Sequence: 1, Rows: []datar.Row{{Key: key, Count: 3}}}); err != nil {
		t.Fatal(err)
	}
	if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 5+3 {
		t.Errorf("stored %+v, want 5 that were sent in and 3 of the engine", rows)
	}
}

func TestBatchesThatAreRefused(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	old := good()
	old.First, old.Last = at(-25*time.Hour), at(-25*time.Hour)
	for name, test := range map[string]struct {
		batch ingest.Batch
		want  error
	}{
		"too many rows":     {ingest.Batch{Rows: make([]ingest.Row, ingest.MaxRows+1)}, ingest.ErrTooManyRows},
		"key too long":      {ingest.Batch{Key: strings.Repeat("k", ingest.MaxKeyLength+1), Rows: []ingest.Row{good()}}, ingest.ErrInvalid},
		"all rows too old":  {ingest.Batch{Key: "k", Rows: []ingest.Row{old, old}}, ingest.ErrInvalid},
		"oldest of all old": {ingest.Batch{Rows: []ingest.Row{{Last: math.MinInt64}}}, ingest.ErrInvalid},
	} {
		if _, err := in.Ingest(t.Context(), test.batch); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if rows := store.Rows(); len(rows) != 0 {
		t.Errorf("stored %+v, want nothing", rows)
	}
	if got, err := in.Ingest(t.Context(), ingest.Batch{Key: "k"}); err != nil || got.AcceptedRows != 0 || got.Errors == nil {
		t.Errorf("an empty batch: %+v, %v", got, err)
	}
}

func TestAStoreThatIsDown(t *testing.T) {
	t.Parallel()
	in, store := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, key := range []string{"", "k", "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1"} {
		batch := ingest.Batch{Key: key, Rows: []ingest.Row{good()}}
		if _, err := in.Ingest(ctx, batch); !errors.Is(err, context.Canceled) {
			t.Errorf("key %q: %v, want the store's error", key, err)
		}
		if got, err := in.Ingest(t.Context(), batch); err != nil || got.Duplicate {
			t.Errorf("key %q, tried again: %+v, %v", key, got, err)
		}
	}
	if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 15 {
		t.Errorf("stored %+v, want three batches", rows)
	}
}

// picky is a store whose database refuses rows of some variants, or batches for no row of theirs.
type picky struct {
	memstore.Store
	variants []int64
	batches  bool
	checks   int
	delay    time.Duration   // of everything
	applied  map[string]bool // by key: what is known is not written again, and not refused
}

func (p *picky) refuses(rows []datar.Row) error {
	time.Sleep(p.delay)
	for _, r := range rows {
		if slices.Contains(p.variants, r.VariantID) {
			return fmt.Errorf("%w: constraint s3cret", datar.ErrRefused)
		}
	}
	return nil
}

func (p *picky) refusesBatch(key string, rows []datar.Row) error {
	switch {
	case p.applied[key]:
		return nil
	case p.batches:
		return fmt.Errorf("%w: no", datar.ErrRefused)
	}
	err := p.refuses(rows)
	p.applied[key] = err == nil && key != ""
	return err
}

func (p *picky) Check(_ context.Context, rows []datar.Row) error {
	p.checks++
	return p.refuses(rows)
}

func (p *picky) ApplyBatch(ctx context.Context, batch datar.Batch, receipt ingest.Receipt) (bool, *ingest.Receipt, error) {
	if err := p.refusesBatch(receipt.Key, batch.Rows); err != nil {
		return false, nil, err
	}
	return p.Store.ApplyBatch(ctx, batch, receipt)
}

func (p *picky) ApplyReceipt(ctx context.Context, rows []datar.Row, receipt ingest.Receipt) (*ingest.Receipt, error) {
	if err := p.refusesBatch(receipt.Key, rows); err != nil {
		return nil, err
	}
	return p.Store.ApplyReceipt(ctx, rows, receipt)
}

func setupPicky(t *testing.T, variants ...int64) (*ingest.Ingester, *picky, *bytes.Buffer) {
	t.Helper()
	in, _ := setup(t)
	store, log := &picky{variants: variants, applied: map[string]bool{}}, &bytes.Buffer{}
	in.Store, in.Logger = store, slog.New(slog.NewTextHandler(log, nil))
	return in, store, log
}

func TestRowsThatTheStoreRefusesFailNoOthers(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"no key": "", "a key": "order 66", "a key of a writer": "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, store, log := setupPicky(t, 2)
			gone, off, offUnknown, off2 := good(), good(), good(), good()
			gone.FlagKey = "gone"
			off.VariantKey, offUnknown.VariantKey, off2.VariantKey = "off", "off", "off"
			offUnknown.AllocationKey = "99"
			batch := ingest.Batch{Key: key, Digest: "d", Rows: []ingest.Row{good(), off, gone, offUnknown, good(), off2}}
			first, err := in.Ingest(t.Context(), batch)
			if err != nil || first.AcceptedRows != 2 || first.AcceptedCount != 10 {
				t.Errorf("%+v, %v; want two rows with 10", first, err)
			}
			var codes []string
			for _, e := range first.Errors {
				codes = append(codes, fmt.Sprint(e.Index, " ", e.Code))
				if strings.Contains(e.Message, "s3cret") || e.Message == "" {
					t.Errorf("message %q", e.Message)
				}
			}
			if want := []string{"1 REFUSED", "2 FLAG_NOT_FOUND", "3 REFUSED", "5 REFUSED"}; !slices.Equal(codes, want) {
				t.Errorf("errors %v, want %v", codes, want)
			}
			if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "s3cret") {
				t.Errorf("log has %d lines, want one with the reason:\n%s", lines, log)
			}
			if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 10 {
				t.Errorf("stored %+v, want the good ones", rows)
			}
			if key == "" {
				return
			}
			store.variants = nil // the database was mended, and the answer stays
			again, err := in.Ingest(t.Context(), batch)
			want := first
			want.Duplicate = true
			if err != nil || !reflect.DeepEqual(again, want) {
				t.Errorf("a replay is answered %+v, %v; want %+v", again, err, want)
			}
			if rows := store.Rows(); len(rows) != 1 || rows[0].Count != 10 {
				t.Errorf("stored %+v after a replay", rows)
			}
		})
	}
}

func TestABatchThatIsRefusedInAllItsRows(t *testing.T) {
	t.Parallel()
	in, store, _ := setupPicky(t, 1)
	rows := make([]ingest.Row, ingest.MaxRows)
	for i := range rows {
		rows[i] = good()
		rows[i].First, rows[i].Last = at(time.Duration(-i%20)*time.Hour), at(time.Duration(-i%20)*time.Hour)
	}
	got, err := in.Ingest(t.Context(), ingest.Batch{Key: "k", Rows: rows})
	if err != nil || got.AcceptedRows != 0 || got.AcceptedCount != 0 || len(got.Errors) != len(rows) {
		t.Errorf("%d rows accepted, %d errors, %v", got.AcceptedRows, len(got.Errors), err)
	}
	if store.checks > 2*20 {
		t.Errorf("%d checks of 20 counters", store.checks)
	}
	if again, err := in.Ingest(t.Context(), ingest.Batch{Key: "k", Rows: rows}); err != nil || !again.Duplicate || len(store.Rows()) != 0 {
		t.Errorf("a replay: duplicate %t, %v, stored %v", again.Duplicate, err, store.Rows())
	}
}

// manyFlags is a batch of as many rows as fit, each of a flag of its own, of which a store refuses
// the variant "off" of those that bad says.
func manyFlags(in *ingest.Ingester, key string, bad func(flag int) bool) ingest.Batch {
	known := flags{}
	batch := ingest.Batch{Key: key, Digest: "d", Rows: make([]ingest.Row, ingest.MaxRows)}
	for i := range batch.Rows {
		batch.Rows[i] = good()
		batch.Rows[i].FlagKey, batch.Rows[i].AllocationKey = fmt.Sprint("flag ", i), ""
		if bad(i) {
			batch.Rows[i].VariantKey = "off"
		}
		known[batch.Rows[i].FlagKey] = ingest.Flag{ID: int64(i + 1), RecordsEnabled: true, Variants: map[string]int64{"on": 1, "off": 2}}
	}
	in.Flags = known
	return batch
}

// A sender gets an answer, and the same one again, however many rows are refused and however slow
// the store is.
func TestTheSearchForRefusedRowsIsBounded(t *testing.T) {
	t.Parallel()
	const mostChecks = 500
	for name, test := range map[string]struct {
		bad   func(flag int) bool
		delay time.Duration // of each transaction
		left  func(refused, untried, checks int) bool
	}{
		"few, far apart": {
			func(flag int) bool { return flag%25 == 13 }, 0,
			func(refused, untried, _ int) bool { return refused == 40 && untried == 0 },
		},
		"many, side by side": {
			func(flag int) bool { return flag >= 300 && flag < 500 }, 0,
			func(refused, untried, _ int) bool { return refused == 200 && untried == 0 },
		},
		"every other one": {
			func(flag int) bool { return flag%2 == 0 }, 0,
			func(refused, untried, checks int) bool { return refused > 100 && untried > 100 && checks == mostChecks },
		},
		"all": {
			func(int) bool { return true }, 0,
			func(refused, untried, checks int) bool {
				return refused > 200 && refused+untried == ingest.MaxRows && checks == mostChecks
			},
		},
		"a slow store": {
			func(flag int) bool { return flag%20 == 13 }, 500 * time.Millisecond,
			func(refused, untried, checks int) bool { return refused > 1 && untried > 100 && checks < 30 },
		},
		"a slow store that refuses one": {
			func(flag int) bool { return flag == 13 }, 500 * time.Millisecond,
			func(refused, untried, _ int) bool { return refused == 1 && untried == 0 },
		},
	} {
		for _, key := range []string{"a key", "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1"} {
			t.Run(name+", "+key[:5], func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					in, store, log := setupPicky(t, 2)
					batch := manyFlags(in, key, test.bad)
					store.delay = test.delay
					ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
					defer cancel()
					first, err := in.Ingest(ctx, batch)
					if err != nil {
						t.Fatal(err)
					}
					refused, untried := 0, 0
					for _, e := range first.Errors {
						switch {
						case e.Code != ingest.Refused:
							t.Errorf("row %d: %+v", e.Index, e)
						case strings.Contains(e.Message, "not tried"):
							untried++
						case !test.bad(e.Index):
							t.Errorf("row %d is good and called refused: %s", e.Index, e.Message)
						default:
							refused++
						}
					}
					if !test.left(refused, untried, store.checks) {
						t.Errorf("%d refused, %d not tried, with %d checks", refused, untried, store.checks)
					}
					if got := log.String(); !strings.Contains(got, fmt.Sprint("of_them_not_tried=", untried)) || !strings.Contains(got, "s3cret") {
						t.Errorf("the log has not %d not tried, or not the store's reason:\n%s", untried, got)
					}
					var stored int64
					for _, r := range store.Rows() {
						stored += r.Count
					}
					if first.AcceptedRows != ingest.MaxRows-len(first.Errors) || stored != first.AcceptedCount {
						t.Errorf("%d rows with %d accepted, %d errors, %d stored", first.AcceptedRows, first.AcceptedCount, len(first.Errors), stored)
					}
					store.variants, store.delay = nil, 0 // mended
					again, err := in.Ingest(t.Context(), batch)
					first.Duplicate = true
					if err != nil || !reflect.DeepEqual(again, first) {
						t.Errorf("a replay has another answer (%v)", err)
					}
				})
			})
		}
	}
}

func TestAStoreThatRefusesNoRowButTheBatch(t *testing.T) {
	t.Parallel()
	in, store, _ := setupPicky(t)
	store.batches = true
	if _, err := in.Ingest(t.Context(), ingest.Batch{Key: "k", Rows: []ingest.Row{good()}}); !errors.Is(err, datar.ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
}

func FuzzIngest(f *testing.F) {
	f.Add("checkout", "on", "10", int64(-60_000), int64(0), int64(5), "k")
	f.Add("checkout", "", "", int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), "")
	f.Add("quiet", "\x00", "0x10", int64(300_001), int64(300_000), int64(0), "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:1")
	f.Add("\xff", "ö", "-10", int64(-86_400_001), int64(-86_400_000), int64(ingest.MaxCount+1), "1f0c7d0e-5a52-4d0f-9a3e-6a3a7d1c9b10:0")
	f.Fuzz(func(t *testing.T, flag, variant, allocation string, first, last, count int64, key string) {
		store := &memstore.Store{}
		in := &ingest.Ingester{
			Store: store,
			Flags: flags{"checkout": {ID: 7, RecordsEnabled: true, Variants: map[string]int64{"on": 1, "off": 2}, Segments: []int64{10}}, "quiet": {ID: 8}},
			Now:   func() time.Time { return now },
		}
		row := ingest.Row{FlagKey: flag, VariantKey: variant, AllocationKey: allocation, First: now.UnixMilli() + first, Last: now.UnixMilli() + last, Count: count}
		batch := ingest.Batch{Key: key, Digest: "d", Rows: []ingest.Row{row, good(), row}}
		var before ingest.Result
		for i := range 2 {
			got, err := in.Ingest(t.Context(), batch)
			if err != nil {
				if !errors.Is(err, ingest.ErrInvalid) || len(key) <= ingest.MaxKeyLength {
					t.Fatal(err)
				}
				return
			}
			if len(got.Errors) > 2 || got.AcceptedRows < 1 {
				t.Fatalf("%+v, and the good row is in it", got)
			}
			var stored int64
			for _, r := range store.Rows() {
				stored += r.Count
			}
			want := got.AcceptedCount
			if key == "" {
				want *= int64(i + 1)
			}
			if stored != want {
				t.Fatalf("call %d: stored %d, accepted %d", i, stored, got.AcceptedCount)
			}
			if i == 1 && (got.Duplicate != (key != "") || got.AcceptedCount != before.AcceptedCount || !reflect.DeepEqual(got.Errors, before.Errors)) {
				t.Fatalf("a replay is answered %+v after %+v", got, before)
			}
			before = got
		}
	})
}

func TestTheMessageAboutTooManyRowsHasTheLimit(t *testing.T) {
	t.Parallel()
	if !strings.Contains(ingest.ErrTooManyRows.Error(), fmt.Sprint(" ", ingest.MaxRows, " ")) {
		t.Errorf("%v, the limit is %d", ingest.ErrTooManyRows, ingest.MaxRows)
	}
}
