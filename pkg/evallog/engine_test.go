package evallog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

// newEngine returns an engine that ends with the test.
func newEngine(t testing.TB, o evallog.Options) *evallog.Engine {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	engine, err := evallog.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close(context.Background()) })
	return engine
}

// setup returns a running engine over a writer that takes everything.
func setup(t testing.TB) (*evallog.Engine, *evallogtest.Writer) {
	t.Helper()
	writer := &evallogtest.Writer{}
	engine := newEngine(t, evallog.Options{Writer: writer})
	engine.Start()
	return engine, writer
}

// on is an evaluation that assigned the variant on.
func on(flag string) evallog.Evaluation {
	return evallog.Evaluation{Key: evallog.Key{
		Flag:         flag,
		Variant:      evallog.Some("on"),
		Allocation:   evallog.Some("10"),
		TargetingKey: evallog.None(),
		ErrorCode:    evallog.None(),
	}}
}

// of is an evaluation for the targeting key.
func of(flag, targetingKey string) evallog.Evaluation {
	evaluation := on(flag)
	evaluation.TargetingKey = evallog.Some(targetingKey)
	return evaluation
}

func flush(t testing.TB, engine *evallog.Engine) {
	t.Helper()
	if err := engine.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// checkStats checks what must always hold.
func checkStats(t testing.TB, stats evallog.Stats, calls int64) {
	t.Helper()
	if sum := stats.Full + stats.Degraded + stats.DroppedTotal(); sum != calls+stats.Adopted {
		t.Errorf("full %d + degraded %d + dropped %v = %d, want %d calls and %d adopted", stats.Full, stats.Degraded, stats.Dropped, sum, calls, stats.Adopted)
	}
}

func TestKeysAreCountedApart(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	key := on("flag").Key
	keys := []evallog.Key{key}
	for _, change := range []func(k *evallog.Key){
		func(k *evallog.Key) { k.Flag = "FLAG" },
		func(k *evallog.Key) { k.Variant = evallog.None() },
		func(k *evallog.Key) { k.Variant = evallog.Some("") },
		func(k *evallog.Key) { k.Allocation = evallog.None() },
		func(k *evallog.Key) { k.Allocation = evallog.Some("") },
		func(k *evallog.Key) { k.ErrorCode = evallog.Some("") },
		func(k *evallog.Key) { k.ErrorCode = evallog.Some("TYPE_MISMATCH") },
		func(k *evallog.Key) { k.Variant, k.Allocation = evallog.Some("on10"), evallog.Some("") },
		func(k *evallog.Key) { k.Variant, k.Allocation = evallog.Some("on\x0010"), evallog.None() },
		func(k *evallog.Key) { k.Flag, k.Variant = "flagon", evallog.Some("") },
		func(k *evallog.Key) { k.Variant = evallog.Some("a variant of more than sixteen bytes, 1") },
		func(k *evallog.Key) { k.Variant = evallog.Some("a variant of more than sixteen bytes, 2") },
	} {
		k := key
		change(&k)
		keys = append(keys, k)
	}
	want := map[evallog.Key]int64{}
	for i, k := range keys {
		for range i + 1 {
			engine.Record(evallog.Evaluation{Key: k})
			want[k]++
		}
	}
	flush(t, engine)
	if diff := cmp.Diff(want, writer.Counts(), cmp.AllowUnexported(evallog.Text{})); diff != "" {
		t.Error(diff)
	}
}

func TestEvaluationsWithoutACompleteKeyAreDropped(t *testing.T) {
	t.Parallel()
	whole := on("flag")
	cases := map[string]func(e *evallog.Evaluation){
		"no flag":             func(e *evallog.Evaluation) { e.Flag = "" },
		"variant forgotten":   func(e *evallog.Evaluation) { e.Variant = evallog.Text{} },
		"allocation":          func(e *evallog.Evaluation) { e.Allocation = evallog.Text{} },
		"targeting key":       func(e *evallog.Evaluation) { e.TargetingKey = evallog.Text{} },
		"error code":          func(e *evallog.Evaluation) { e.ErrorCode = evallog.Text{} },
		"too long":            func(e *evallog.Evaluation) { e.Variant = evallog.Some(strings.Repeat("x", 4097)) },
		"before 1970":         func(e *evallog.Evaluation) { e.Time = time.Unix(-1, 0) },
		"after the year 9999": func(e *evallog.Evaluation) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, writer := setup(t)
			engine.Record(whole) // a bucket that a forgotten part might fall into
			bad := whole
			spoil(&bad)
			engine.Record(bad)
			flush(t, engine)
			stats := engine.Stats()
			checkStats(t, stats, 2)
			if stats.Dropped[evallog.DropInvalid] != 1 || writer.Total() != 1 {
				t.Errorf("delivered %d, dropped %v, want one each", writer.Total(), stats.Dropped)
			}
		})
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, seconds := range []int{30, 10, 20} {
		evaluation := on("flag")
		evaluation.Time = at.Add(time.Duration(seconds) * time.Second)
		evaluation.ErrorMessage = fmt.Sprintf("message of second %d", seconds)
		engine.Record(evaluation)
	}
	silent := on("flag")
	silent.Time = at.Add(15 * time.Second)
	engine.Record(silent)
	flush(t, engine)
	want := []evallog.Row{{
		Key: on("flag").Key, Count: 4, First: at.UnixMilli() + 10_000, Last: at.UnixMilli() + 30_000, ErrorMessage: "message of second 30",
	}}
	if diff := cmp.Diff(want, writer.Delivered()[0].Rows, cmp.AllowUnexported(evallog.Text{})); diff != "" {
		t.Error(diff)
	}
}

// Datar's endpoint refuses rows with larger counts.
func TestLargeCountsAreDivided(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	const calls = 10_000_001
	evaluation := on("flag")
	evaluation.Time = time.Now()
	for range calls {
		engine.Record(evaluation)
	}
	flush(t, engine)
	var counts []int64
	for _, b := range writer.Delivered() {
		for _, r := range b.Rows {
			counts = append(counts, r.Count)
		}
	}
	slices.Sort(counts)
	var sum int64
	for _, n := range counts {
		sum += n
	}
	if sum != calls || counts[len(counts)-1] > 10_000_000 {
		t.Errorf("counts %v, want a sum of %d and none above 10,000,000", counts, calls)
	}
}

func TestErrorMessagesAreNoKeysAndCut(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	for i := range 100 {
		evaluation := on("flag")
		evaluation.ErrorMessage = strings.Repeat("ü", i) + strings.Repeat("y", 511)
		engine.Record(evaluation)
	}
	flush(t, engine)
	row := writer.Delivered()[0].Rows[0]
	if row.Count != 100 || row.ErrorMessage != strings.Repeat("ü", 99)+strings.Repeat("y", 314) {
		t.Errorf("count %d, message %q", row.Count, row.ErrorMessage)
	}
	evaluation := on("flag")
	evaluation.ErrorMessage = "x" + strings.Repeat("ü", 400)
	engine.Record(evaluation)
	flush(t, engine)
	if message := writer.Delivered()[1].Rows[0].ErrorMessage; message != "x"+strings.Repeat("ü", 255) {
		t.Errorf("message %q is not cut between two characters", message)
	}
}

func TestRuntimeDefaultUsed(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		variant, errorCode evallog.Text
		want               bool
	}{
		"a variant was assigned":            {evallog.Some("on"), evallog.None(), false},
		"a variant with an empty key":       {evallog.Some(""), evallog.None(), false},
		"no variant":                        {evallog.None(), evallog.None(), true},
		"no variant because of an error":    {evallog.None(), evallog.Some("FLAG_NOT_FOUND"), true},
		"a variant of another type":         {evallog.Some("on"), evallog.Some("TYPE_MISMATCH"), true},
		"a variant, and an unknown failure": {evallog.Some("on"), evallog.Some(""), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := on("flag").Key
			key.Variant, key.ErrorCode = c.variant, c.errorCode
			if got := key.RuntimeDefaultUsed(); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestTargetingKeys(t *testing.T) {
	t.Parallel()
	const hash = "sha256_2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90" // of alice
	cases := map[string]struct {
		mode evallog.TargetingKeys
		want map[evallog.Text]int64
	}{
		"off":    {evallog.TargetingKeysOff, map[evallog.Text]int64{evallog.None(): 4}},
		"hashed": {evallog.TargetingKeysHashed, map[evallog.Text]int64{evallog.None(): 2, evallog.Some(hash): 2}},
		"clear":  {evallog.TargetingKeysClear, map[evallog.Text]int64{evallog.None(): 2, evallog.Some("alice"): 2}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writer := &evallogtest.Writer{}
			engine := newEngine(t, evallog.Options{Writer: writer, TargetingKeys: c.mode})
			engine.Record(on("flag"))
			engine.Record(of("flag", ""))
			engine.Record(of("flag", "alice"))
			engine.Record(of("flag", "alice"))
			flush(t, engine)
			got := map[evallog.Text]int64{}
			for key, n := range writer.Counts() {
				got[key.TargetingKey] += n
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(evallog.Text{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOptionsThatAreWrongAreNamed(t *testing.T) {
	t.Parallel()
	for want, options := range map[string]evallog.Options{
		"Options.Writer is missing":              {},
		"Options.Writer is a nil *evallogtest.W": {Writer: (*evallogtest.Writer)(nil)},
		"Options.Writer is a nil evallog_test.w": {Writer: writerFunc(nil)},
		"Options.TargetingKeys is 9":             {Writer: &evallogtest.Writer{}, TargetingKeys: 9},
	} {
		if _, err := evallog.New(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// The first evaluation that is invalid is logged with what is wrong about it, and nothing that
// names a person.
func TestTheFirstInvalidEvaluationIsLogged(t *testing.T) {
	t.Parallel()
	stated := on("flag")
	unstated, long, old := stated, stated, stated
	unstated.ErrorCode = evallog.Text{}
	long.TargetingKey = evallog.Some(strings.Repeat("somebody", 1000))
	old.Time = time.Unix(-1, 0)
	for want, invalid := range map[string]evallog.Evaluation{
		"the flag is empty": {},
		"neither None nor":  unstated,
		"has 8000 bytes":    long,
		"1970 to 9999":      old,
	} {
		for _, end := range []func(*evallog.Engine) error{
			func(e *evallog.Engine) error { return e.Flush(t.Context()) },
			func(e *evallog.Engine) error { return e.Close(context.Background()) },
		} {
			var log bytes.Buffer
			engine := newEngine(t, evallog.Options{
				Writer: &evallogtest.Writer{}, TargetingKeys: evallog.TargetingKeysClear, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			engine.Record(invalid)
			engine.Record(evallog.Evaluation{})
			if err := errors.Join(end(engine), engine.Close(context.Background())); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), want) || strings.Contains(log.String(), "somebody") {
				t.Errorf("want one warning with %q, log is:\n%s", want, &log)
			}
			if dropped := engine.Stats().Dropped[evallog.DropInvalid]; dropped != 2 {
				t.Errorf("%d dropped as invalid, want 2", dropped)
			}
		}
	}
}

func TestFlushInterval(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		interval time.Duration
		want     time.Duration // 0: refused
	}{
		"default":        {0, 10 * time.Second},
		"shortest":       {time.Second, time.Second},
		"longest":        {time.Minute, time.Minute},
		"too short":      {time.Second - 1, 0},
		"too long":       {time.Minute + 1, 0},
		"negative":       {-time.Second, 0},
		"one of its own": {7 * time.Second, 7 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				writer := &evallogtest.Writer{}
				engine, err := evallog.New(evallog.Options{Writer: writer, FlushInterval: c.interval})
				if c.want == 0 {
					if err == nil || !strings.Contains(err.Error(), "Options.FlushInterval") {
						t.Errorf("got error %v, want one that names Options.FlushInterval", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = engine.Close(context.Background()) }()
				engine.Start()
				for round := range 3 {
					engine.Record(on("flag"))
					time.Sleep(c.want - time.Millisecond)
					if n := len(writer.Attempts()); n != round {
						t.Fatalf("%d batches before the interval %v, want %d", n, c.want, round)
					}
					time.Sleep(time.Millisecond)
					synctest.Wait()
					if n := len(writer.Attempts()); n != round+1 {
						t.Fatalf("%d batches after the interval %v, want %d", n, c.want, round+1)
					}
				}
			})
		})
	}
}

func TestTheTimeIsThatOfTheEvaluation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		var times []int64
		for range 3 {
			time.Sleep(1700 * time.Millisecond)
			times = append(times, time.Now().UnixMilli())
			engine.Record(on("flag"))
		}
		time.Sleep(time.Minute)
		row := writer.Delivered()[0].Rows[0]
		if row.First != times[0] || row.Last != times[2] {
			t.Errorf("first %d, last %d, want %d and %d", row.First, row.Last, times[0], times[2])
		}
	})
}

func TestAFlushBySize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		engine, writer := setup(t)
		record := func(from, to int) {
			for i := from; i < to; i++ {
				engine.Record(on(fmt.Sprint("flag", i)))
			}
		}
		time.Sleep(6 * time.Second)
		record(0, evallog.FlushKeys-1)
		for range 5 {
			record(0, evallog.FlushKeys-1) // repeats are no new keys
		}
		synctest.Wait()
		if n := len(writer.Attempts()); n != 0 {
			t.Fatalf("%d batches for %d keys", n, evallog.FlushKeys-1)
		}
		record(evallog.FlushKeys-1, evallog.FlushKeys)
		synctest.Wait()
		batches := writer.Attempts()
		if len(batches) != 1 || len(batches[0].Rows) != evallog.FlushKeys {
			t.Fatalf("%d batches, want one with all %d keys", len(batches), evallog.FlushKeys)
		}

		// The periodic flush, due in 4 s, begins anew.
		record(0, 3)
		time.Sleep(9999 * time.Millisecond)
		if n := len(writer.Attempts()); n != 1 {
			t.Fatalf("%d batches within an interval after a flush by size", n-1)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if batches := writer.Attempts(); len(batches) != 2 || len(batches[1].Rows) != 3 {
			t.Fatalf("the periodic flush did not come")
		}
	})
}

func TestStatisticsAtEveryCap(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		record                  func(record func(evallog.Evaluation))
		full, degraded, dropped int64
	}{
		"of one flag": {
			func(record func(evallog.Evaluation)) {
				for i := range evallog.MaxKeysPerFlag + 5 {
					record(of("busy", fmt.Sprint(i)))
				}
				record(of("busy", "0")) // known, so counted in full
				record(of("busy", "10004"))
				record(of("other", "0"))
			}, evallog.MaxKeysPerFlag + 2, 6, 0,
		},
		"of all flags": {
			func(record func(evallog.Evaluation)) {
				for i := range evallog.MaxKeys + 7 {
					record(of(fmt.Sprint("flag", i%100), fmt.Sprint(i)))
				}
				record(of("flag0", "0"))
				record(on("flag0")) // a key without targeting key has no room either
			}, evallog.MaxKeys + 1, 8, 0,
		},
		"of those without targeting key": {
			func(record func(evallog.Evaluation)) {
				for i := range evallog.MaxKeys + evallog.MaxDegradedKeys + 9 {
					record(of(fmt.Sprint("flag", i), "alice"))
				}
				record(of("flag0", "alice"))
				record(of("flag0", "bob"))                               // no room
				record(of(fmt.Sprint("flag", evallog.MaxKeys), "carol")) // known without its targeting key
			}, evallog.MaxKeys + 1, evallog.MaxDegradedKeys + 1, 10,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writer := &evallogtest.Writer{}
			engine := newEngine(t, evallog.Options{Writer: writer, TargetingKeys: evallog.TargetingKeysClear})
			var calls int64
			c.record(func(evaluation evallog.Evaluation) {
				calls++
				engine.Record(evaluation)
			})
			stats := engine.Stats()
			checkStats(t, stats, calls)
			if stats.Full != c.full || stats.Degraded != c.degraded || stats.Dropped[evallog.DropCapacity] != c.dropped {
				t.Errorf("full %d, degraded %d, dropped %v, want %d, %d, %d", stats.Full, stats.Degraded, stats.Dropped, c.full, c.degraded, c.dropped)
			}
			flush(t, engine)
			var full, degraded int64
			for _, b := range writer.Delivered() {
				if len(b.Rows) > 1000 {
					t.Errorf("a batch has %d rows", len(b.Rows))
				}
				for _, r := range b.Rows {
					if r.Degraded {
						degraded += r.Count
						if r.Key.TargetingKey != evallog.None() {
							t.Errorf("a degraded row has a targeting key")
						}
					} else {
						full += r.Count
					}
				}
			}
			if full != c.full || degraded != c.degraded {
				t.Errorf("delivered %d in full and %d degraded", full, degraded)
			}
			if stats := engine.Stats(); stats.Pending != 0 || stats.Keys != 0 {
				t.Errorf("%d pending in %d keys after a flush", stats.Pending, stats.Keys)
			}
		})
	}
}

func TestTenThousandGoroutinesLoseNothing(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	const goroutines, flags, each = 10_000, 2_500, 50
	var names [flags]string
	for i := range names {
		names[i] = fmt.Sprint("flag", i)
	}
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			for i := range each {
				engine.Record(on(names[(g*each+i)%flags]))
			}
		})
	}
	group.Wait()
	if err := engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkStats(t, engine.Stats(), goroutines*each)
	counts := writer.Counts()
	if len(counts) != flags {
		t.Fatalf("%d flags, want %d", len(counts), flags)
	}
	for key, n := range counts {
		if n != goroutines*each/flags {
			t.Errorf("%s counted %d times, want %d", key.Flag, n, goroutines*each/flags)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := evallog.New(evallog.Options{}); err == nil || !strings.Contains(err.Error(), "Writer") {
		t.Errorf("without a writer: %v", err)
	}
	if _, err := evallog.New(evallog.Options{Writer: &evallogtest.Writer{}, TargetingKeys: 7}); err == nil || !strings.Contains(err.Error(), "TargetingKeys") {
		t.Errorf("unknown TargetingKeys: %v", err)
	}
}

func TestFlushAfterClose(t *testing.T) {
	t.Parallel()
	engine, writer := setup(t)
	engine.Record(on("flag"))
	for range 2 {
		if err := engine.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if writer.Total() != 1 {
		t.Errorf("Close delivered %d evaluations, want 1", writer.Total())
	}
	if err := engine.Flush(context.Background()); !errors.Is(err, evallog.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
