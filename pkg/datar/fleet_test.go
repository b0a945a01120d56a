package datar_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// named starts an engine of that name on a store, with a journal unless dir is empty.
func named(t *testing.T, store datar.Store, clock *clock, name, dir string) fixture {
	t.Helper()
	e, err := datar.New(datar.Options{
		Store: store, Now: clock.Now, Journal: datar.JournalOptions{Dir: dir}, Server: datar.ServerOptions{Name: name},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Crash)
	return fixture{Engine: e, clock: clock}
}

func fleet(t *testing.T, e fixture) *datar.Fleet {
	t.Helper()
	f, err := e.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFleetTellsWhoIsHeardSilentAndEnded(t *testing.T) {
	t.Parallel()
	f := setup(t)
	a := named(t, f.store, f.clock, "a", "")
	b := named(t, f.store, f.clock, "b", "")
	c := named(t, f.store, f.clock, "c", "")
	for i, e := range []fixture{a, b, c} {
		e.record(1, 1, 1, i+1)
		e.flush(t)
	}
	c.record(1, 1, 1, 10)
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(2 * time.Minute)
	a.record(2, 0, 0, 5)
	a.flush(t)
	f.clock.advance(65 * time.Second)
	a.record(1, 1, 1, 100)
	a.flush(t) // otherwise the query does
	got := fleet(t, a)
	states := map[string]datar.ServerState{}
	for _, s := range got.Servers {
		states[s.Name] = s.State
	}
	want := map[string]datar.ServerState{"a": datar.StateHeard, "b": datar.StateSilent, "c": datar.StateEnded}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if got.Recorded != 1+2+3+10+5+100 || got.Stored != got.Recorded || !got.Balanced || got.Lost != 0 {
		t.Errorf("the fleet is %+v, want 121 recorded and stored, balanced", got)
	}
}

// An idle server writes its record at each flush interval, and not more often.
func TestIdleServersAreHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &faultyStore{}
		e, err := datar.New(datar.Options{Store: store, Server: datar.ServerOptions{Name: "idle"}})
		if err != nil {
			t.Fatal(err)
		}
		e.Start()
		for range 40 { // queries flush
			time.Sleep(15 * time.Second)
			if f, err := e.Fleet(t.Context()); err != nil || f.Servers[0].State != datar.StateHeard {
				t.Fatalf("%+v, %v; want it to be heard", f, err)
			}
		}
		if n := len(store.sent()); n < 9 || n > 14 {
			t.Errorf("%d batches in 10 minutes, want about one a minute", n)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		records, err := store.Servers(t.Context())
		if err != nil || len(records) != 1 || !records[0].Ended {
			t.Errorf("records are %+v, %v; want one that ended", records, err)
		}
	})
}

// TestARecordThatIsLateIsFollowed has a clock that jumps while a flush is made, to the time of the
// next flush. The record of the first has that time, too, but not all that happened until then.
func TestARecordThatIsLateIsFollowed(t *testing.T) {
	t.Parallel()
	store, jumps, later := &faultyStore{}, false, noon.Add(time.Hour)
	now := noon
	e, err := datar.New(datar.Options{Store: store, Server: datar.ServerOptions{Name: "a"}, Now: func() time.Time {
		at := now
		if jumps { // at the start of the first flush
			now = later
		}
		return at
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Crash)
	jumps = true
	for i, want := range []time.Time{noon, later} {
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		records, err := store.Servers(t.Context())
		if err != nil || len(records) != 1 || !records[0].At.Equal(later) || !records[0].LastFlush.Equal(want) {
			t.Errorf("after %d flushes: %+v, %v; want a record of %s, flushed at %s", i+1, records, err, later, want)
		}
	}
}

// TestFleetHasWhatAnAdoptingRunStored kills a server twice: with a batch in its journal, and just
// after the next run has sent that batch.
func TestFleetHasWhatAnAdoptingRunStored(t *testing.T) {
	t.Parallel()
	f := setup(t)
	dir := t.TempDir()
	start := func() fixture { return named(t, f.store, f.clock, "flagr-0", dir) }
	e := start()
	e.Record(datar.Event{FlagID: 1, VariantID: 1, Time: f.clock.Now()})
	f.store.fail(errors.New("down"), nil)
	_ = e.Flush(t.Context())
	f.store.fail(nil, nil)
	e.Crash()

	e = start()
	e.Record(datar.Event{FlagID: 2, VariantID: 1, Time: f.clock.Now()})
	f.store.failAfter = len(f.store.sent()) + 1
	_ = e.Flush(t.Context())
	f.store.failAfter = 0
	e.Crash()

	f.clock.advance(time.Hour)
	e = start()
	e.flush(t)
	if got := fleet(t, e); got.Stored != 2 || got.Recorded != 2 || !got.Balanced || f.store.sum() != 2 {
		t.Errorf("the fleet is %+v, and the store has %d; want 2 stored", got, f.store.sum())
	}
}

// TestFleetBalances kills and restarts servers at random, some without a journal: what the records
// say is what the store has, and what was lost is told.
func TestFleetBalances(t *testing.T) {
	t.Parallel()
	const servers = 4
	random := rand.New(rand.NewPCG(1, 9))
	f := setup(t)
	watcher := named(t, f.store, f.clock, "watcher", "")
	dir := t.TempDir()
	start := func(i int) fixture {
		own := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(own, 0o700); err != nil {
			t.Fatal(err)
		}
		return named(t, f.store, f.clock, fmt.Sprint("flagr-", i), own)
	}
	var all [servers]fixture
	for i := range all {
		all[i] = start(i)
	}
	for range 300 {
		f.clock.advance(time.Duration(random.IntN(20)) * time.Second)
		i := random.IntN(servers)
		switch random.IntN(8) {
		case 0:
			all[i].Crash()
			all[i] = start(i)
		case 1:
			if err := all[i].Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			all[i] = start(i)
		case 2, 3:
			if random.IntN(3) == 0 {
				f.store.fail(errors.New("down"), nil)
			}
			_ = all[i].Flush(t.Context())
			f.store.fail(nil, nil)
		default:
			all[i].Record(datar.Event{FlagID: random.Int64N(3) + 1, VariantID: random.Int64N(2), Time: f.clock.Now(), Version: uint16(random.IntN(3))})
			all[i].Record(datar.Event{FlagID: 1, Outcome: datar.Disabled, Time: f.clock.Now()})
			all[i].Record(datar.Event{FlagID: -1, Time: f.clock.Now()})
		}
	}
	for _, e := range all {
		f.clock.advance(time.Minute)
		e.flush(t)
	}
	f.clock.advance(time.Minute)
	for _, e := range all {
		e.flush(t)
	}
	got := fleet(t, watcher)
	rows, err := f.store.Details(t.Context(), datar.DetailsQuery{To: datar.HourOf(noon) + 100})
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if !got.Balanced || got.Lost != 0 || got.Pending != 0 || got.Stored != rows[0].Count {
		t.Errorf("the fleet is %+v, want it balanced with %d stored", got, rows[0].Count)
	}
}

func TestRunsWithoutAnEndAreLost(t *testing.T) {
	t.Parallel()
	f := setup(t)
	at := noon.Add(-time.Hour)
	record := datar.ServerRecord{
		Name: "a", Run: "1", Kind: datar.KindServer, Start: at, At: at.Add(time.Minute), FlushInterval: time.Minute,
		Recorded: 10, Stored: 6, Pending: 4,
	}
	next := datar.ServerRecord{
		Name: "a", Run: "2", Kind: datar.KindServer, Start: at.Add(10 * time.Minute), At: noon, FlushInterval: time.Minute, Recorded: 3, Adopted: 3, Stored: 3,
	}
	for i, r := range []datar.ServerRecord{record, next} {
		if err := f.store.Apply(t.Context(), datar.Batch{Writer: fmt.Sprint(i), Sequence: 1, Server: &r}); err != nil {
			t.Fatal(err)
		}
	}
	got := fleet(t, f)
	if got.Balanced || got.Lost != 1 || got.Recorded != 9 || got.Pending != 0 || got.Servers[0].Lost != 1 || got.Servers[0].Missing() != 0 {
		t.Errorf("the fleet is %+v, want 1 of the 4 that were pending lost, and 9 recorded", got)
	}
}

// TestKilledRunsAreLossesOfTheirTime has a server that was killed with 4 evaluations in memory, and
// others that adopted some of them or all.
func TestKilledRunsAreLossesOfTheirTime(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	killed := datar.ServerRecord{Name: "a", Run: "1", Kind: datar.KindServer, Start: at(-100), At: at(-60), LastFlush: at(-61), FlushInterval: time.Minute, Recorded: 10, Stored: 6, Pending: 4}
	next := func(adopted int64) datar.ServerRecord {
		return datar.ServerRecord{Name: "a", Run: "2", Kind: datar.KindServer, Start: at(-50), At: noon, FlushInterval: time.Minute, Recorded: adopted, Adopted: adopted, Stored: adopted}
	}
	other := next(4)
	other.Name, other.Run = "b", "3"
	ended := killed
	ended.Ended = true
	early := next(9) // of an earlier kill, which left nothing
	early.Start, early.At, early.Run, early.Ended = at(-300), at(-200), "0", true
	for name, test := range map[string]struct {
		records  []datar.ServerRecord
		from, to int
		dropped  int64
		drops    []datar.Interval
	}{
		"not adopted":            {[]datar.ServerRecord{killed, next(0)}, -90, 0, 4, []datar.Interval{{From: at(-61), To: at(-50)}}},
		"it adopted some":        {[]datar.ServerRecord{killed, next(3)}, -90, 0, 1, []datar.Interval{{From: at(-61), To: at(-50)}}},
		"it adopted all":         {[]datar.ServerRecord{killed, next(4)}, -90, 0, 0, nil},
		"another one did":        {[]datar.ServerRecord{killed, next(0), other}, -90, 0, 0, nil},
		"adopted long before it": {[]datar.ServerRecord{early, killed, next(0)}, -90, 0, 4, []datar.Interval{{From: at(-61), To: at(-50)}}},
		"it may still come back": {[]datar.ServerRecord{killed}, -90, 0, 0, nil},
		"it ended":               {[]datar.ServerRecord{ended, next(0)}, -90, 0, 0, nil},
		"killed before":          {[]datar.ServerRecord{killed, next(0)}, -50, 0, 0, nil},
		"killed after":           {[]datar.ServerRecord{killed, next(0)}, -90, -61, 0, nil},
		"while it was down":      {[]datar.ServerRecord{killed, next(0)}, -55, 0, 4, []datar.Interval{{From: at(-55), To: at(-50)}}},
		"killed at the end":      {[]datar.ServerRecord{killed, next(0)}, -90, -55, 4, []datar.Interval{{From: at(-61), To: at(-55)}}},
	} {
		got := datar.CompletenessOf(test.records, at(test.from), at(test.to), noon)
		if diff := cmp.Diff(test.drops, got.Drops); got.Dropped != test.dropped || diff != "" {
			t.Errorf("%s: %d dropped, want %d (-want +got):\n%s", name, got.Dropped, test.dropped, diff)
		}
	}
}

// TestKilledRunsAreDoubtfulUntilTheirJournalIsFound has a server that had stored everything before
// it was killed. What it counted afterward is not known, unless another run has found its journal.
func TestKilledRunsAreDoubtfulUntilTheirJournalIsFound(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	killed := func(pending int64, journal *datar.JournalRecord) datar.ServerRecord {
		return datar.ServerRecord{
			Name: "a", Run: "1", Kind: datar.KindServer, Start: at(-100), At: at(-60), LastFlush: at(-61), FlushInterval: time.Minute,
			Recorded: 6 + pending, Stored: 6, Pending: pending, Journal: journal,
		}
	}
	next := func(name string, start int, adopted ...string) datar.ServerRecord {
		return datar.ServerRecord{
			Name: name, Run: name + "2", Kind: datar.KindServer, Start: at(start), At: noon, FlushInterval: time.Minute, Journal: &datar.JournalRecord{Adopted: adopted},
		}
	}
	inFile := &datar.JournalRecord{}
	ended := killed(0, inFile)
	ended.Ended = true
	application := killed(0, nil)
	application.Kind = datar.KindApplication
	doubt := []datar.Interval{{From: at(-61), To: at(-50)}}
	for name, test := range map[string]struct {
		records []datar.ServerRecord
		dropped int64
		drops   []datar.Interval
	}{
		"no run found its journal":             {[]datar.ServerRecord{killed(0, inFile), next("a", -50)}, 0, doubt},
		"its next run did":                     {[]datar.ServerRecord{killed(0, inFile), next("a", -50, "0", "1")}, 0, nil},
		"another server did":                   {[]datar.ServerRecord{killed(0, inFile), next("a", -50), next("b", -200, "1")}, 0, nil},
		"the journal of another run":           {[]datar.ServerRecord{killed(0, inFile), next("a", -50, "3")}, 0, doubt},
		"some counts were in memory":           {[]datar.ServerRecord{killed(0, &datar.JournalRecord{InMemory: true}), next("a", -50, "1")}, 0, doubt},
		"with counts that were pending":        {[]datar.ServerRecord{killed(4, inFile), next("a", -50)}, 4, doubt},
		"found with what was pending":          {[]datar.ServerRecord{killed(4, inFile), next("a", -50, "1")}, 0, nil},
		"it may still come back":               {[]datar.ServerRecord{killed(0, inFile)}, 0, nil},
		"it ended":                             {[]datar.ServerRecord{ended, next("a", -50)}, 0, nil},
		"an earlier version, not known":        {[]datar.ServerRecord{killed(0, nil), next("a", -50)}, 0, nil},
		"an application of an earlier version": {[]datar.ServerRecord{application, next("a", -50)}, 0, nil},
	} {
		got := datar.CompletenessOf(test.records, at(-90), at(0), noon)
		if diff := cmp.Diff(test.drops, got.Drops); got.Dropped != test.dropped || diff != "" {
			t.Errorf("%s: %d dropped, want %d (-want +got):\n%s", name, got.Dropped, test.dropped, diff)
		}
	}
}

// TestKillsWithoutAJournalAreDoubtful restarts an engine after kills, with its journals, with
// journals that are gone, and without any.
func TestKillsWithoutAJournalAreDoubtful(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change   func(o *datar.Options)
		restart  func(t *testing.T, h *host)
		doubtful bool
	}{
		"journals":      {},
		"gone journals": {restart: func(t *testing.T, h *host) { h.dir = t.TempDir() }, doubtful: true},
		"no journals":   {change: func(o *datar.Options) { o.Journal = datar.JournalOptions{} }, doubtful: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			start := func() fixture {
				if test.change == nil {
					return h.start()
				}
				return setup(t, func(o *datar.Options) {
					*o = h.options()
					test.change(o)
				})
			}
			first := start()
			first.record(1, 1, 1, 10)
			first.flush(t)
			first.record(1, 1, 1, 5)
			first.Crash()
			if test.restart != nil {
				test.restart(t, h)
			}
			h.clock.advance(10 * time.Minute)
			second := start()
			second.flush(t)
			c, err := second.Completeness(t.Context(), noon.Add(-time.Hour), h.clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			if want := []datar.Interval{{From: noon, To: h.clock.Now()}}; test.doubtful != (cmp.Diff(want, c.Drops) == "") {
				t.Errorf("drops are %v, want %v: %t", c.Drops, want, test.doubtful)
			}
			if !test.doubtful {
				h.wantStored(15)
			}
		})
	}
}

// TestCountsOfOtherJournalsDoNotHideALoss has servers that share a folder in which the journal of
// one of them is gone. Others adopted as many counts as it had pending, but from other journals.
func TestCountsOfOtherJournalsDoNotHideALoss(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	run := func(name, id string, start, last int, pending, adopted int64, found ...string) datar.ServerRecord {
		return datar.ServerRecord{
			Name: name, Run: id, Kind: datar.KindServer, Start: at(start), At: at(last), FlushInterval: time.Minute,
			Recorded: adopted + pending, Stored: adopted, Pending: pending, Adopted: adopted, Journal: &datar.JournalRecord{Adopted: found},
		}
	}
	killed, other := run("a", "a1", -100, -60, 4, 0), run("b", "b1", -100, -60, 4, 0)
	for name, test := range map[string]struct {
		records []datar.ServerRecord
		lost    int64
	}{
		"its next run found another journal": {[]datar.ServerRecord{killed, run("a", "a2", -50, 0, 0, 4, "b1"), other, run("b", "b2", -49, 0, 0, 0)}, 4},
		"another server did":                 {[]datar.ServerRecord{killed, run("a", "a2", -50, 0, 0, 0), run("c", "c1", -100, 0, 0, 4, "b1")}, 4},
		"its next run found both":            {[]datar.ServerRecord{killed, run("a", "a2", -50, 0, 0, 8, "b1", "a1"), other, run("b", "b2", -49, 0, 0, 0)}, 0},
		"more than a record can have":        {[]datar.ServerRecord{killed, run("a", "a2", -50, 0, 0, 4, slices.Repeat([]string{"b"}, datar.MaxAdoptedRuns)...)}, 0},
	} {
		if f := datar.FleetOf(test.records, noon); f.Lost != test.lost || f.Balanced != (test.lost == 0) {
			t.Errorf("%s: %d lost, balanced %t; want %d", name, f.Lost, f.Balanced, test.lost)
		}
	}
}

// TestAdoptedCountsDoNotHideOtherLosses: what a run adopted includes what a killed run counted
// after its last record, so it may be more than was pending.
func TestAdoptedCountsDoNotHideOtherLosses(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	run := func(name string, start, last int, pending, adopted int64) datar.ServerRecord {
		return datar.ServerRecord{
			Name: name, Run: fmt.Sprint(name, start), Kind: datar.KindServer, Start: at(start), At: at(last), FlushInterval: time.Minute,
			Recorded: adopted + pending, Stored: adopted, Pending: pending, Adopted: adopted,
		}
	}
	ended := run("b", -100, -60, 0, 0)
	ended.Ended = true
	early := run("a", -90, -80, 0, 0)
	early.Ended = true
	for name, test := range map[string]struct {
		records []datar.ServerRecord
		lost    map[string]int64
	}{
		"another server adopted more than it had pending": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 0), run("b", -100, -60, 0, 0), run("b", -50, 0, 0, 100)}, map[string]int64{"a": 4}},
		"of two losses, one was adopted": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 0), run("b", -100, -60, 3, 0), run("b", -50, 0, 0, 100)}, map[string]int64{"a": 4}},
		"a later run of the same server adopted more": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, -30, 0, 0), run("a", -20, 0, 0, 100)}, map[string]int64{"a": 4}},
		"killed a moment ago": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 0), run("b", -100, -2, 0, 0), run("b", -1, 0, 0, 100)}, map[string]int64{"a": 4}},
		"a server adopted its own": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 9)}, nil},
		"servers share journals": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 0), ended, run("b", -50, 0, 0, 9)}, nil},
		"a running server adopted them": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 0), run("b", -100, 0, 0, 4)}, nil},
		"it adopted some": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, 0, 0, 1), run("b", -100, 0, 0, 2)}, map[string]int64{"a": 1}},
		"processes with the same name": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -99, -61, 3, 0), run("a", -50, 0, 0, 0), run("a", -49, 0, 0, 7)}, nil},
		"counts that were adopted twice": {
			[]datar.ServerRecord{run("a", -100, -60, 4, 0), run("a", -50, -30, 4, 4), run("a", -20, 0, 0, 4)}, nil},
		"a run between them ended": {
			[]datar.ServerRecord{run("a", -100, -95, 4, 0), early, run("a", -50, 0, 0, 4)}, nil},
	} {
		var sum int64
		f := datar.FleetOf(test.records, noon)
		for _, s := range f.Servers {
			sum += test.lost[s.Name]
			if s.Lost != test.lost[s.Name] {
				t.Errorf("%s: %s lost %d, want %d", name, s.Name, s.Lost, test.lost[s.Name])
			}
		}
		c := datar.CompletenessOf(test.records, at(-200), noon, noon)
		if f.Lost != sum || f.Balanced != (sum == 0) || c.Dropped != sum || (len(c.Drops) > 0) != (sum > 0) {
			t.Errorf("%s: lost %d, balanced %t, completeness %+v; want %d", name, f.Lost, f.Balanced, c, sum)
		}
	}
}

// TestServersWithClocksAheadAreSilent: whether such a server still runs is unknown.
func TestServersWithClocksAheadAreSilent(t *testing.T) {
	t.Parallel()
	for ahead, want := range map[time.Duration]datar.ServerState{
		0: datar.StateHeard, 5 * time.Minute: datar.StateHeard, 5*time.Minute + time.Millisecond: datar.StateSilent, 1000 * time.Hour: datar.StateSilent,
	} {
		r := datar.ServerRecord{Name: "a", Run: "1", Kind: datar.KindServer, Start: noon, At: noon.Add(ahead), LastFlush: noon.Add(ahead), FlushInterval: time.Minute}
		state := datar.FleetOf([]datar.ServerRecord{r}, noon).Servers[0].State
		c := datar.CompletenessOf([]datar.ServerRecord{r}, noon.Add(-time.Hour), noon, noon)
		if state != want || (c.Silent == 1) != (want == datar.StateSilent) || c.UpTo.After(noon) {
			t.Errorf("%s ahead: %s, %+v; want %s", ahead, state, c, want)
		}
	}
}

// TestClocksThatWereAheadAreDoubts: the counts of such a run are in hours to come, even if it has
// ended, or another run with the right clock has followed it.
func TestClocksThatWereAheadAreDoubts(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	run := func(name string, start, last time.Duration) datar.ServerRecord {
		return datar.ServerRecord{
			Name: name, Run: fmt.Sprint(name, start), Kind: datar.KindServer, Start: noon.Add(start), At: noon.Add(last), LastFlush: noon.Add(last), FlushInterval: time.Minute,
		}
	}
	ended := func(r datar.ServerRecord) datar.ServerRecord {
		r.Ended = true
		return r
	}
	reader := run("reader", -90*day, 0)
	for name, test := range map[string]struct {
		runs   []datar.ServerRecord
		silent int
	}{
		"it ended":                            {[]datar.ServerRecord{ended(run("a", -day, day))}, 1},
		"it ended, and a right run followed":  {[]datar.ServerRecord{ended(run("a", day-time.Hour, day)), run("a", -time.Minute, 0)}, 1},
		"killed, and a right run followed":    {[]datar.ServerRecord{run("a", day-time.Hour, day), run("a", -time.Minute, 0)}, 1},
		"killed, and a wrong run followed":    {[]datar.ServerRecord{run("a", day-time.Hour, day), ended(run("a", day+time.Minute, day+time.Hour))}, 1},
		"right runs before and after":         {[]datar.ServerRecord{ended(run("a", -day, -time.Hour)), ended(run("a", day, day)), run("a", -time.Minute, 0)}, 1},
		"less than MaxAhead":                  {[]datar.ServerRecord{ended(run("a", -day, datar.MaxAhead))}, 0},
		"the time of the wrong run is passed": {[]datar.ServerRecord{ended(run("a", -2*time.Hour, -time.Hour)), run("a", -time.Minute, 0)}, 0},
	} {
		records := append(test.runs, reader)
		states := map[string]datar.ServerState{}
		f := datar.FleetOf(records, noon)
		for _, s := range f.Servers {
			states[s.Name] = s.State
		}
		c := datar.CompletenessOf(records, noon.Add(-day), noon, noon)
		if c.Silent != test.silent || (states["a"] == datar.StateSilent) != (test.silent == 1) || states["reader"] != datar.StateHeard || !f.Balanced {
			t.Errorf("%s: %+v, states %v, balanced %t; want %d silent, and a balance", name, c, states, f.Balanced, test.silent)
		}
		if !c.Since.Equal(noon.Add(-90*day)) || len(c.Gaps) > 0 || !c.UpTo.Equal(noon) {
			t.Errorf("%s: %+v; want no gap in 90 days", name, c)
		}
	}
}

func TestCompleteness(t *testing.T) {
	t.Parallel()
	f := setup(t)
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	run := func(name, id string, start, last int) datar.ServerRecord {
		return datar.ServerRecord{
			Name: name, Run: id, Kind: datar.KindServer, Start: at(start), At: at(last), LastFlush: at(last - 1), FlushInterval: time.Minute,
			Recorded: 5, Stored: 5,
		}
	}
	early := run("a", "1", -300, -200)
	early.Ended = true
	dropping := run("b", "1", -100, -1)
	dropping.Recorded, dropping.Pending, dropping.Dropped = 10, 2, map[string]int64{"capacity": 3}
	dropping.FirstDrop, dropping.LastDrop = at(-50), at(-40)
	for i, r := range []datar.ServerRecord{early, dropping, run("c", "1", -100, -30)} {
		if err := f.store.Apply(t.Context(), datar.Batch{Writer: fmt.Sprint(i), Sequence: 1, Server: &r}); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		from, to int
		want     datar.Completeness
	}{
		"everything": {-400, 0, datar.Completeness{
			Since: at(-100), UpTo: at(-31), Servers: 3, Silent: 1, Pending: 2, Dropped: 3,
			Drops: []datar.Interval{{From: at(-50), To: at(-40).Add(time.Millisecond)}}, Gaps: []datar.Interval{{From: at(-200), To: at(-100)}},
		}},
		"a part": {-150, -45, datar.Completeness{
			Since: at(-100), UpTo: at(-31), Servers: 3, Silent: 1, Pending: 2, Dropped: 3,
			Drops: []datar.Interval{{From: at(-50), To: at(-45)}}, Gaps: []datar.Interval{{From: at(-150), To: at(-100)}},
		}},
		"the end": {-30, 0, datar.Completeness{Since: at(-100), UpTo: at(-31), Servers: 3, Silent: 1, Pending: 2}},
	} {
		got, err := f.Completeness(t.Context(), at(test.from), at(test.to))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, *got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := f.Completeness(t.Context(), at(1), at(0)); !errors.Is(err, datar.ErrInvalidQuery) {
		t.Errorf("a window that ends before it begins: %v, want %v", err, datar.ErrInvalidQuery)
	}
}

// TestCompletenessOfRuns has each rule of CompletenessOf, and the nearest case to which it does not
// apply.
func TestCompletenessOfRuns(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	run := func(name string, start, last int, change ...func(*datar.ServerRecord)) datar.ServerRecord {
		r := datar.ServerRecord{Name: name, Run: fmt.Sprint(name, start), Kind: datar.KindServer, Start: at(start), At: at(last), LastFlush: at(last), FlushInterval: time.Minute}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	ended := func(r *datar.ServerRecord) { r.Ended = true }
	of := func(kind datar.ServerKind) func(*datar.ServerRecord) {
		return func(r *datar.ServerRecord) { r.Kind = kind }
	}
	gap := func(from, to int) []datar.Interval { return []datar.Interval{{From: at(from), To: at(to)}} }
	for name, test := range map[string]struct {
		records []datar.ServerRecord
		want    datar.Completeness
	}{
		"no server":             {nil, datar.Completeness{UpTo: noon}},
		"one that is heard":     {[]datar.ServerRecord{run("a", -100, -3)}, datar.Completeness{Since: at(-100), UpTo: at(-3), Servers: 1}},
		"one that is silent":    {[]datar.ServerRecord{run("a", -100, -4)}, datar.Completeness{Since: at(-100), UpTo: at(-4), Servers: 1, Silent: 1}},
		"silent for too long":   {[]datar.ServerRecord{run("a", -100, -6)}, datar.Completeness{UpTo: at(-6), Servers: 1, Silent: 1, Gaps: gap(-6, 0)}},
		"one that ended":        {[]datar.ServerRecord{run("a", -100, -5, ended)}, datar.Completeness{Since: at(-100), UpTo: noon}},
		"ended longer ago":      {[]datar.ServerRecord{run("a", -100, -6, ended)}, datar.Completeness{UpTo: noon, Gaps: gap(-6, 0)}},
		"a killed one restarts": {[]datar.ServerRecord{run("a", -100, -50), run("a", -45, -1)}, datar.Completeness{Since: at(-100), UpTo: at(-1), Servers: 1}},
		"a pause": {[]datar.ServerRecord{run("a", -100, -50), run("a", -44, -1)},
			datar.Completeness{Since: at(-44), UpTo: at(-1), Servers: 1, Gaps: gap(-50, -44)}},
		"another one meanwhile": {[]datar.ServerRecord{run("a", -100, -50), run("a", -44, -1), run("b", -60, -40, ended)},
			datar.Completeness{Since: at(-100), UpTo: at(-1), Servers: 1}},
		"an edge counts": {[]datar.ServerRecord{run("a", -100, -1), run("e", -50, -20, of(datar.KindEdge))},
			datar.Completeness{Since: at(-100), UpTo: at(-20), Servers: 2, Silent: 1}},
		"an application does not": {[]datar.ServerRecord{run("a", -100, -1), run("e", -500, -20, of(datar.KindApplication))},
			datar.Completeness{Since: at(-100), UpTo: at(-1), Servers: 1}},
		"one that begins later": {[]datar.ServerRecord{run("a", -100, 0), run("b", 1000, 1010)}, datar.Completeness{Since: at(-100), UpTo: noon, Servers: 2, Silent: 1}},
		"only such a one":       {[]datar.ServerRecord{run("b", 1000, 1010)}, datar.Completeness{UpTo: noon, Servers: 1, Silent: 1}},
		"it never flushed": {[]datar.ServerRecord{run("a", -100, -1, func(r *datar.ServerRecord) { r.LastFlush = time.Time{} })},
			datar.Completeness{Since: at(-100), UpTo: at(-100), Servers: 1}},
	} {
		if diff := cmp.Diff(test.want, *datar.CompletenessOf(test.records, at(-1000), noon, noon)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// laggingStore is a store whose queries miss the batches of the last time.
type laggingStore struct {
	*faultyStore
	lag time.Duration
	err error
}

func (s *laggingStore) Lag(context.Context) (time.Duration, error) { return s.lag, s.err }

// TestLagOfTheStore checks that upTo is a time up to which queries include all counts, whatever
// batches they miss.
func TestLagOfTheStore(t *testing.T) {
	t.Parallel()
	f := setup(t)
	store := &laggingStore{faultyStore: f.store}
	e := named(t, store, f.clock, "own", "")
	start := f.clock.Now()
	f.clock.advance(time.Hour)
	at := func(before time.Duration) time.Time { return f.clock.Now().Add(-before).Truncate(time.Millisecond) }
	for name, ended := range map[string]bool{"other": false, "ended": true} {
		r := datar.ServerRecord{
			Name: name, Run: name, Kind: datar.KindServer, Start: start, At: at(10 * time.Second), LastFlush: at(10 * time.Second),
			FlushInterval: time.Minute, Ended: ended,
		}
		if err := store.Apply(t.Context(), datar.Batch{Writer: name, Sequence: 1, Server: &r}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		lag  time.Duration
		upTo time.Time
	}{
		{0, at(10 * time.Second)},
		{2 * time.Second, at(70 * time.Second)}, // the last record was not necessarily the last batch
		{30 * time.Second, at(90 * time.Second)},
		{10 * time.Minute, at(11 * time.Minute)},
		{100 * time.Hour, start.Truncate(time.Millisecond)},
	} {
		store.lag = test.lag
		got, err := e.Completeness(t.Context(), start, f.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !got.UpTo.Equal(test.upTo) || got.Servers != 2 {
			t.Errorf("with a lag of %v, up to %v with %d servers; want %v and 2", test.lag, got.UpTo, got.Servers, test.upTo)
		}
	}
	// Long after its last batch, a run that ended is complete.
	f.clock.advance(2 * time.Minute)
	store.lag = time.Second
	if got, err := e.Completeness(t.Context(), start, f.clock.Now()); err != nil || got.Servers != 2 {
		t.Errorf("got %+v, %v; want 2 servers", got, err)
	}
	if fleet := fleet(t, e); len(fleet.Servers) != 3 || fleet.Servers[0].State != datar.StateEnded {
		t.Errorf("the fleet is %+v, want that the first server has ended", fleet)
	}
	store.err = errors.New("no right")
	if _, err := e.Completeness(t.Context(), start, f.clock.Now()); !errors.Is(err, store.err) {
		t.Errorf("got %v, want the error of the store", err)
	}
}

// TestLagOfRunsThatEnded checks that a run that ended, or was killed and followed by another one,
// holds upTo back while queries may miss its counts, and that it does not become silent.
func TestLagOfRunsThatEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ended bool
		name  string // of the run
		lag   time.Duration
		upTo  time.Duration // before now
	}{
		"ended":                 {true, "other", time.Hour, 61 * time.Minute},
		"ended, no lag":         {true, "other", 0, 0},
		"ended before the lag":  {true, "other", 10 * time.Minute, 11 * time.Minute}, // that of the current run
		"killed":                {false, "own", time.Hour, 61 * time.Minute},
		"killed, no lag":        {false, "own", 0, 0},
		"killed before the lag": {false, "own", 10 * time.Minute, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			store := &laggingStore{faultyStore: f.store, lag: test.lag}
			start := f.clock.Now()
			f.clock.advance(2 * time.Hour)
			died := f.clock.Now()
			f.clock.advance(time.Minute)
			e := named(t, store, f.clock, "own", "")
			f.clock.advance(29 * time.Minute)
			now := f.clock.Now()
			r := datar.ServerRecord{
				Name: test.name, Run: "run", Kind: datar.KindServer, Start: start, At: died, LastFlush: died, FlushInterval: time.Minute, Ended: test.ended,
			}
			if err := store.Apply(t.Context(), datar.Batch{Writer: "run", Sequence: 1, Server: &r}); err != nil {
				t.Fatal(err)
			}
			got, err := e.Completeness(t.Context(), start, now)
			if err != nil {
				t.Fatal(err)
			}
			if got.Servers != 1 || got.Silent != 0 {
				t.Errorf("%d servers, %d of them silent; want 1 and 0", got.Servers, got.Silent)
			}
			if behind := now.Sub(got.UpTo).Round(time.Second); behind != test.upTo {
				t.Errorf("complete up to %v ago, want %v", behind, test.upTo)
			}
			if fleet := fleet(t, e); test.ended && (len(fleet.Servers) != 2 || fleet.Servers[0].State != datar.StateEnded && fleet.Servers[1].State != datar.StateEnded) {
				t.Errorf("the fleet is %+v, want that one server has ended", fleet)
			}
		})
	}
}

func TestQueriesOfDetails(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.Record(datar.Event{FlagID: 1, Outcome: datar.NoSegments, Time: noon})
	f.RecordUnknown("nothing", noon)
	hours := datar.DetailsQuery{From: datar.HourOf(noon), To: datar.HourOf(noon) + 1, GroupBy: datar.GroupOutcome}
	rows, err := f.QueryDetails(t.Context(), hours)
	if err != nil || len(rows) != 1 || rows[0].Outcome != datar.NoSegments {
		t.Errorf("details are %+v, %v; want what was recorded just now", rows, err)
	}
	unknown, err := f.QueryUnknown(t.Context(), datar.UnknownQuery{From: hours.From, To: hours.To, Limit: 1})
	if err != nil || len(unknown) != 1 || unknown[0].Asked != "nothing" {
		t.Errorf("unknown are %+v, %v; want what was recorded just now", unknown, err)
	}
	both := hours
	both.GroupBy = datar.GroupHour | datar.GroupDay
	negative := hours
	negative.FlagID = -1
	plain := setup(t, func(o *datar.Options) { o.Store = struct{ datar.Store }{o.Store} })
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"by hour and day": {func() error { _, err := f.QueryDetails(t.Context(), both); return err }(), datar.ErrInvalidQuery},
		"a negative flag": {func() error { _, err := f.QueryDetails(t.Context(), negative); return err }(), datar.ErrInvalidQuery},
		"no texts":        {func() error { _, err := f.QueryUnknown(t.Context(), datar.UnknownQuery{}); return err }(), datar.ErrInvalidQuery},
		"a negative offset": {func() error {
			_, err := f.QueryUnknown(t.Context(), datar.UnknownQuery{Limit: 1, Offset: -1})
			return err
		}(), datar.ErrInvalidQuery},
		"details of a plain":   {func() error { _, err := plain.QueryDetails(t.Context(), hours); return err }(), datar.ErrNoDetails},
		"unknown of a plain":   {func() error { _, err := plain.QueryUnknown(t.Context(), datar.UnknownQuery{Limit: 1}); return err }(), datar.ErrNoDetails},
		"the fleet of a plain": {func() error { _, err := plain.Fleet(t.Context()); return err }(), datar.ErrNoDetails},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", name, test.err, test.want)
		}
	}
}
