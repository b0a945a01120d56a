//go:build linux || darwin || freebsd || netbsd || openbsd

package datar_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// host is where engines come and go: a store, a directory, a clock and a log that outlive them.
type host struct {
	t     *testing.T
	store *faultyStore
	clock *clock
	dir   string
	log   *logBuffer
}

func newHost(t *testing.T) *host {
	t.Helper()
	return &host{t: t, store: &faultyStore{}, clock: newClock(noon), dir: t.TempDir(), log: &logBuffer{}}
}

func (h *host) options() datar.Options {
	return datar.Options{
		Store: h.store, Now: h.clock.Now,
		Journal: datar.JournalOptions{Dir: h.dir, Required: true},
		Logger:  slog.New(slog.NewTextHandler(h.log, nil)),
		Server:  datar.ServerOptions{Name: "host"}, // without a file for it
	}
}

// start starts an engine as a new process would.
func (h *host) start() fixture {
	h.t.Helper()
	e, err := datar.New(h.options())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(e.Crash) // closes the files of its journals, which are not needed any more
	return fixture{Engine: e, store: h.store, clock: h.clock}
}

func (h *host) files(pattern string) []string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// crashed returns the journal of an engine that crashed with 10 evaluations, and what is in it.
func (h *host) crashed() (path string, content []byte) {
	h.t.Helper()
	e := h.start()
	e.record(1, 1, 1, 10)
	e.Crash()
	path = h.files("*.journal")[0]
	content, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return path, content
}

func (h *host) wantStored(want int64) {
	h.t.Helper()
	if sum := h.store.sum(); sum != want {
		h.t.Errorf("the store has %d, want %d", sum, want)
	}
}

func TestJournalSurvivesAKill(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.start()
	first.record(1, 1, 1, 10)
	first.flush(t)
	first.record(1, 1, 1, 5)
	first.record(2, 1, 1, 7)
	first.Crash()

	second := h.start()
	if s := second.Stats(); s.Adopted != 12 || s.Pending != 12 || s.Recorded != 12 {
		t.Errorf("after the restart: %+v, want 12 adopted and pending", s)
	}
	second.record(1, 1, 1, 1)
	second.flush(t)
	h.wantStored(23)
	wantStats(t, second.Engine, 13, 13, 0)
	if files := h.files("*"); len(files) != 1 {
		t.Errorf("files are %q, want only the journal of the second engine", files)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files := h.files("*"); len(files) != 0 {
		t.Errorf("files after Close are %q, want none", files)
	}
}

// The process is killed after the batch was sent: the store may have applied it or not, and only it
// knows.
func TestKillBetweenCommitAndConfirmation(t *testing.T) {
	t.Parallel()
	for name, errs := range map[string][2]error{
		"applied":     {nil, errors.New("killed")},
		"not applied": {errors.New("killed"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			first := h.start()
			for range 3 { // sequences of both parities, with different readings
				first.record(1, 1, 1, 3)
				first.flush(t)
			}
			first.record(1, 1, 1, 10)
			first.record(2, 2, 2, 20)
			h.store.fail(errs[0], errs[1])
			if first.Flush(t.Context()) == nil {
				t.Fatal("flush succeeded")
			}
			first.record(1, 1, 1, 100)
			first.record(3, 3, 3, 200)
			first.Crash()
			sent := h.store.sent()

			h.store.fail(errors.New("still down"), nil)
			second := h.start()
			if second.Flush(t.Context()) == nil {
				t.Fatal("flush succeeded")
			}
			second.Crash() // and once more

			h.store.fail(nil, nil)
			third := h.start()
			third.flush(t)
			h.wantStored(339)
			last := h.store.sent()[len(sent)]
			if want := sent[len(sent)-1]; last.Writer != want.Writer || last.Sequence != want.Sequence || fmt.Sprint(last.Rows) != fmt.Sprint(want.Rows) {
				t.Errorf("after the restart was sent %+v, want what was in flight: %+v", last, want)
			}
			if files := h.files("*"); len(files) != 1 {
				t.Errorf("files are %q, want one", files)
			}
		})
	}
}

func TestCloseLeavesTheJournalIfTheStoreIsDown(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.start()
	first.record(1, 1, 1, 10)
	h.store.fail(errors.New("down"), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if first.Close(ctx) == nil {
		t.Fatal("Close succeeded")
	}
	first.AwaitClosed()
	first.record(1, 1, 1, 1)
	s := first.Stats()
	if s.Pending != 10 || s.Dropped[datar.DropClosed] != 1 || droppedIn(s) != 1 {
		t.Errorf("stats are %+v, want 10 pending in the journal", s)
	}
	h.store.fail(nil, nil)
	second := h.start()
	second.flush(t)
	h.wantStored(10)
}

func TestEnginesShareADirectory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const engines = 4
	var group sync.WaitGroup
	for range engines {
		group.Go(func() {
			e := h.start()
			for i := range int64(1000) {
				e.record(i%7+1, 1, 1, 1)
				if i%100 == 0 {
					_ = e.Flush(context.Background())
				}
			}
			e.Crash()
		})
	}
	group.Wait()
	// All start again at once: each journal is adopted by one of them.
	all := make(chan fixture, engines)
	for range engines {
		group.Go(func() { all <- h.start() })
	}
	group.Wait()
	close(all)
	for e := range all {
		e.flush(t)
	}
	h.wantStored(engines * 1000)
}

type otherStore struct {
	faultyStore
}

func (*otherStore) Identity() string { return "another" }

func TestJournalsOfOtherStoresAreLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	first := h.start()
	first.record(1, 1, 1, 10)
	first.Crash()

	other := &otherStore{}
	options := h.options()
	options.Store = other
	e, err := datar.New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sum := other.sum(); sum != 0 {
		t.Errorf("the other store got %d", sum)
	}
	second := h.start()
	second.flush(t)
	h.wantStored(10)
}

func TestDamagedJournalsAreSetAside(t *testing.T) {
	t.Parallel()
	put := func(at int, value uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.NativeEndian.PutUint64(b[at:], value); return b }
	}
	const slots = 4096 // where the slots begin
	for name, test := range map[string]struct {
		damage func([]byte) []byte
		says   string
	}{
		"empty":            {func([]byte) []byte { return nil }, "0 bytes"},
		"cut":              {func(b []byte) []byte { return b[:5000] }, "5000 bytes"},
		"longer":           {func(b []byte) []byte { return append(b, 0) }, "does not match"},
		"something else":   {func(b []byte) []byte { return bytes.Repeat([]byte("text "), 2000) }, "does not begin"},
		"newer format":     {func(b []byte) []byte { b[12] = 3; return b }, "version 3"},
		"other byte order": {func(b []byte) []byte { b[8], b[11] = b[11], b[8]; return b }, "another byte order"},
		"header changed":   {func(b []byte) []byte { b[90] ^= 1; return b }, "checksum"},
		"negative flag":    {put(slots, 1<<63), "are invalid"},
		"negative variant": {put(slots+8, 1<<63), "are invalid"},
		"stored too much":  {put(slots+40, 1000), "1000 of 10"},
		"stored negative":  {put(slots+40, 1<<63), "stored"},
		"another hour":     {put(slots+48, uint64(noon.UnixMilli()-7200_000)), "hour"},
		"first after last": {put(slots+48, uint64(noon.UnixMilli()+5)), "evaluations from"},
		"negative batch":   {put(160, 1<<63), "newest batch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			path, content := h.crashed()
			content = test.damage(content)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			second := h.start()
			second.flush(t)
			h.wantStored(0)
			aside := h.files("*.damaged-1")
			if len(aside) != 1 {
				t.Fatalf("files are %q, want one set aside", h.files("*"))
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("what was set aside has changed (%v)", err)
			}
			if log := h.log.String(); strings.Count(log, "damaged") == 0 || !strings.Contains(log, test.says) || !strings.Contains(log, aside[0]) {
				t.Errorf("the log does not say %q and where it is: %s", test.says, log)
			}
		})
	}
}

// TestDamagedRunIsNoRun: the counts of a journal do not depend on the run in its header. What is
// there could be too long for a database, or make a central server ignore the record.
func TestDamagedRunIsNoRun(t *testing.T) {
	t.Parallel()
	const run, length = 168, 64 // where the run is
	h := newHost(t)
	path, content := h.crashed()
	copy(content[run:], bytes.Repeat([]byte{1}, length))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	second := h.start()
	second.flush(t)
	h.wantStored(10)
	records, err := h.store.Servers(t.Context())
	if err != nil || len(records) != 1 || records[0].Journal == nil || len(records[0].Journal.Adopted) != 0 {
		t.Errorf("records are %+v (%v), want one that found the journal of no run", records, err)
	}
}

func TestJournalCutWhileInUse(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"to nothing": 0, "behind the header": 4096, "partly": 4096 + 64*100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			e := h.start()
			for i := range int64(1000) {
				e.record(i+1, 1, 1, 1)
			}
			e.flush(t)
			e.record(500, 1, 1, 1) // not stored: this one may be lost
			cut := h.files("*.journal")[0]
			if err := os.Truncate(cut, size); err != nil {
				t.Fatal(err)
			}
			for i := range int64(1000) {
				e.record(i+1, 1, 1, 1)
			}
			s := e.Stats()
			if s.Recorded != s.Stored+s.Pending+droppedIn(s) {
				t.Errorf("the statistics do not balance: %+v", s)
			}
			e.flush(t)
			e.record(1, 1, 1, 1)
			e.flush(t)
			if sum := h.store.sum(); sum < 2001 || sum > 2002 {
				t.Errorf("the store has %d, want 2001, or 2002 with the one before the cut", sum)
			}
			if got := e.Stats().LostJournals; got != 1 {
				t.Errorf("%d lost journals, want 1", got)
			}
			if n := strings.Count(h.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d warnings, want 1: %s", n, h.log)
			}
			if files := h.files("*"); len(files) != 1 || files[0] == cut {
				t.Errorf("files are %q, want a new journal instead of %q", files, cut)
			}
		})
	}
}

// Goroutines that count in stripes of a file that was cut count on elsewhere.
func TestJournalCutUnderStripes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size   int64
		extend bool // the file again, before the flush
	}{
		"to nothing": {}, "behind the header": {size: 4096}, "partly": {size: 4096 + 64*50}, "and extended": {extend: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const goroutines, each = 32, 50
			h := newHost(t)
			e := h.start()
			count := func() {
				var group sync.WaitGroup
				for range goroutines {
					group.Go(func() {
						for i := range int64(each) {
							e.record(i%5+1, 1, 1, 1)
						}
					})
				}
				group.Wait()
			}
			count()
			e.StripeAll()
			count()
			if n := e.Stripes(); n == 0 {
				t.Error("there are no stripes")
			}
			e.flush(t)
			cut := h.files("*.journal")[0]
			whole, err := os.Stat(cut)
			if err := errors.Join(err, os.Truncate(cut, test.size)); err != nil {
				t.Fatal(err)
			}
			count()
			if test.extend {
				if err := os.Truncate(cut, whole.Size()); err != nil {
					t.Fatal(err)
				}
			}
			e.flush(t)
			count()
			e.flush(t)
			h.wantStored(4 * goroutines * each)
			wantStats(t, e.Engine, 4*goroutines*each, 4*goroutines*each, 0)
			if got := e.Stats().LostJournals; got != 1 {
				t.Errorf("%d lost journals, want 1", got)
			}
		})
	}
}

// A cut never makes a count go twice to the store, wherever it is made and whatever was in flight.
func TestJournalCutBesideABatch(t *testing.T) {
	t.Parallel()
	const header, slot, count, stored = 4096, 64, 32, 40
	for name, test := range map[string]struct {
		size   int64
		failed bool  // the flush before the cut
		least  int64 // what was recorded and is not lost, of 201
	}{
		// The rows of the batch in flight that are lost come first: their keys are smaller.
		"a page of slots remains":         {header + 64*slot, true, 201},
		"the slot is cleared":             {header + count, true, 200},
		"the slot is cleared after":       {header + count, false, 200},
		"only what was stored is cleared": {header + stored, false, 201},
		"cleared beside a batch":          {header + stored, true, 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			e := h.start()
			for i := range int64(200) {
				e.record(200-i, 1, 1, 1)
			}
			if test.failed {
				h.store.fail(errors.New("down"), nil)
			}
			if err := e.Flush(t.Context()); (err != nil) != test.failed {
				t.Fatalf("first flush: %v", err)
			}
			if err := os.Truncate(h.files("*.journal")[0], test.size); err != nil {
				t.Fatal(err)
			}
			e.record(200, 1, 1, 1) // its slot is the first
			h.store.fail(nil, nil)
			for range 2 {
				e.flush(t)
				if s := e.Stats(); s.Pending < 0 || s.Recorded != s.Stored+s.Pending+droppedIn(s) {
					t.Errorf("the statistics do not balance: %+v", s)
				}
			}
			if sum := h.store.sum(); sum < test.least || sum > 201 {
				t.Errorf("the store has %d, want %d to 201", sum, test.least)
			}
			if s := e.Stats(); s.Pending != 0 || s.LostJournals != 1 {
				t.Errorf("after the cut: %+v, want nothing pending and one lost journal", s)
			}
			e.record(200, 1, 1, 1)
			e.flush(t)
			before := h.store.sum()
			e.record(200, 1, 1, 1)
			if err := e.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if sum := h.store.sum(); sum != before+1 {
				t.Errorf("the store has %d after Close, want %d", sum, before+1)
			}
		})
	}
}

func TestJournalDeletedWhileInUse(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	e.record(1, 1, 1, 5)
	if err := os.Remove(h.files("*.journal")[0]); err != nil {
		t.Fatal(err)
	}
	e.record(1, 1, 1, 5)
	e.flush(t)
	e.record(1, 1, 1, 5)
	if files := h.files("*.journal"); len(files) != 1 {
		t.Errorf("files are %q, want a new journal", files)
	}
	e.flush(t)
	h.wantStored(15)
	wantStats(t, e.Engine, 15, 15, 0)
	if got := e.Stats().LostJournals; got != 1 {
		t.Errorf("%d lost journals, want 1", got)
	}
}

func TestDirectoryThatCannotBeUsedYet(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.dir = filepath.Join(h.dir, "missing")
	if _, err := datar.New(h.options()); !errors.Is(err, datar.ErrJournal) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), h.dir) {
		t.Errorf("New with a required directory: %v, want an error that names it", err)
	}
	options := h.options()
	options.Journal.Required = false
	e, err := datar.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Crash)
	f := fixture{Engine: e, store: h.store, clock: h.clock}
	f.record(1, 1, 1, 5)
	f.flush(t)
	wantStats(t, e, 5, 5, 0)
	if n := strings.Count(h.log.String(), "level=WARN"); n != 1 || !e.Stats().InMemory {
		t.Errorf("%d warnings and in memory %v, want one and true", n, e.Stats().InMemory)
	}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.flush(t)
	if files := h.files("*.journal"); len(files) != 0 {
		t.Errorf("files within a minute are %q, want no further attempt", files)
	}
	h.clock.advance(time.Minute)
	f.flush(t)
	f.record(1, 1, 1, 7)
	if files := h.files("*.journal"); len(files) != 1 || e.Stats().InMemory {
		t.Errorf("files after a minute are %q, in memory %v; want a journal", files, e.Stats().InMemory)
	}
	e.Crash()
	h.start().flush(t)
	h.wantStored(12)
}

func TestDirectoryThatComesAndGoes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	away := h.dir + "-away"
	fill := func(from int64) {
		for i := range int64(datar.ArenaSlots) {
			e.record(from+i, 1, 1, 1)
		}
		e.PrepareSpare()
	}
	if err := os.Rename(h.dir, away); err != nil {
		t.Fatal(err)
	}
	fill(1) // the first journal is open, and takes them
	fill(1_000_000)
	h.clock.advance(time.Minute)
	fill(2_000_000)
	if s := e.Stats(); !s.InMemory {
		t.Errorf("stats are %+v, want to be in memory", s)
	}
	if n := strings.Count(h.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
	if err := os.Rename(away, h.dir); err != nil {
		t.Fatal(err)
	}
	h.clock.advance(time.Minute)
	fill(3_000_000)
	e.record(4_000_000, 1, 1, 1)
	if s := e.Stats(); s.InMemory {
		t.Error("stays in memory although there is a directory again")
	}
	e.flush(t)
	h.wantStored(4*datar.ArenaSlots + 1)
	e.clock.advance(time.Hour)
	e.flush(t)
	if files := h.files("*.journal"); len(files) != 1 {
		t.Errorf("files are %q, want only that of the newest arena", files)
	}
}

func TestRefusedRowsAreIsolated(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.store.poison = map[int64]bool{13: true, 77: true, 78: true}
	e := h.start()
	for i := range int64(100) {
		e.record(i+1, 1, 1, 2)
	}
	e.flush(t)
	h.wantStored(2 * 97)
	wantStats(t, e.Engine, 200, 194, 6)
	if got := e.Stats().Dropped[datar.DropRefused]; got != 6 {
		t.Errorf("%d refused, want 6", got)
	}
	if n := strings.Count(h.log.String(), "the store refused a count"); n != 3 {
		t.Errorf("%d lines about refused rows, want 3: %s", n, h.log)
	}
	e.record(13, 1, 1, 1)
	e.record(14, 1, 1, 1)
	e.flush(t)
	wantStats(t, e.Engine, 202, 195, 7)
}

// A constraint that refuses everything must not make a flush try the whole batch again for each
// row.
func TestAllRowsAreRefused(t *testing.T) {
	t.Parallel()
	const keys = 1000
	h := newHost(t)
	h.store.poison = map[int64]bool{}
	e := h.start()
	for i := range int64(keys) {
		h.store.poison[i+1] = true
		e.record(i+1, 1, 1, 1)
	}
	e.flush(t)
	wantStats(t, e.Engine, keys, 0, keys)
	rows := 0
	for _, batch := range h.store.sent() {
		rows += len(batch.Rows)
	}
	if rows > 6*keys {
		t.Errorf("%d rows were sent to find %d that are refused", rows, keys)
	}
}

// A killed engine must not have taken for stored what was in a batch that was refused as a whole.
func TestKillWhileARefusedRowIsLookedFor(t *testing.T) {
	t.Parallel()
	for stop := 1; stop < 12; stop++ {
		t.Run(fmt.Sprint("after batch ", stop), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.store.poison = map[int64]bool{13: true}
			h.store.failAfter = stop
			first := h.start()
			for i := range int64(40) {
				first.record(i+1, 1, 1, 2)
			}
			_ = first.Flush(t.Context())
			refused := first.Stats().Dropped[datar.DropRefused]
			first.Crash()
			h.store.failAfter = 0
			h.store.fail(nil, nil)
			second := h.start()
			second.flush(t)
			h.wantStored(78)
			if refused += second.Stats().Dropped[datar.DropRefused]; refused != 2 {
				t.Errorf("%d refused, want 2", refused)
			}
		})
	}
}

// TestLateRecordsAndTheGarbageCollector records through cells whose arenas are given up meanwhile:
// their memory must stay until the last one has let go.
func TestLateRecordsAndTheGarbageCollector(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	var recorders sync.WaitGroup
	const goroutines, each = 4, 5000
	for range goroutines {
		recorders.Go(func() {
			for range each {
				e.record(1, 1, 1, 1)
			}
		})
	}
	done := make(chan struct{})
	go func() { recorders.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := e.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		e.clock.advance(time.Hour)
		if files := h.files("*.journal"); len(files) == 1 {
			_ = os.Remove(files[0]) // forces another arena
		}
		runtime.GC()
	}
	e.flush(t)
	h.wantStored(goroutines * each)
	wantStats(t, e.Engine, goroutines*each, goroutines*each, 0)
}

var modelSeeds = flag.Int("model.seeds", 12, "how many random histories TestModel goes through")

// TestModel does at random what can happen to an engine, and checks the statistics after every
// step.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range *modelSeeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, rand.New(rand.NewPCG(uint64(seed), 7)), 400, seed%2 == 1)
		})
	}
}

// runModel also checks the totals of counters, if asked. A store that keeps them refuses nothing,
// and has no old journals.
func runModel(t *testing.T, random *rand.Rand, steps int, counters bool) {
	h := newHost(t)
	if !counters {
		h.store.poison = map[int64]bool{9: true}
	}
	maxKeys := 5 + random.IntN(200)
	maxRows := maxKeys
	if random.IntN(2) == 0 {
		maxRows = 1 + random.IntN(10)
	}
	newEngine := func() fixture {
		options := h.options()
		options.MaxKeys = maxKeys
		options.Store = portions{h.store, maxRows}
		if counters {
			options.Store = counterStore{portions{h.store, maxRows}}
		}
		e, err := datar.New(options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Crash)
		return fixture{Engine: e, store: h.store, clock: h.clock}
	}
	e := newEngine()
	var recorded, droppedBefore int64 // by all engines; dropped by those that are gone
	var lost int64                    // at most, by kills, of what was in memory because a journal was not ready
	var unknown unknownStats
	var history []string
	for step := range steps {
		var action string
		switch p := random.IntN(100); {
		case p < 60:
			n := random.IntN(50)
			action = fmt.Sprint("record ", n)
			if random.IntN(4) == 0 {
				action += " on stripes"
				e.StripeAll()
			}
			var group sync.WaitGroup // goroutines have stripes of their own
			for range n {
				late := time.Duration(random.IntN(3)) * 40 * time.Minute
				event := datar.Event{
					FlagID: random.Int64N(12), VariantID: random.Int64N(3), SegmentID: random.Int64N(4),
					Time:    h.clock.Now().Add(-late),
					Outcome: datar.Outcome(random.IntN(int(datar.NotFound))), // which may not fit the variant
					Version: uint16(random.IntN(3)), Asked: datar.Asked(random.IntN(8)),
				}
				if random.IntN(4) == 0 {
					event.Outcome = datar.Unattributed
				}
				group.Go(func() { e.Record(event) })
			}
			group.Wait()
			recorded += int64(n)
			for range random.IntN(5) {
				e.RecordUnknown(fmt.Sprint("\x00text ", random.IntN(4)), h.clock.Now())
				unknown.recorded++
			}
			if random.IntN(4) != 0 {
				e.PrepareSpare()
			}
		case p < 80:
			var before, after error
			switch random.IntN(4) {
			case 0:
				before = errors.New("down")
			case 1:
				after = errors.New("answer lost")
			}
			action = fmt.Sprintf("flush, store fails with %v, %v", before, after)
			h.store.fail(before, after)
			if err := e.Flush(t.Context()); (before != nil || after != nil) && err != nil && e.Stats().LastError == nil {
				t.Error("LastError is nil after a flush that failed")
			}
			h.store.fail(nil, nil)
		case p < 88:
			action = "clock"
			h.clock.advance(time.Duration(random.IntN(150)-30) * time.Minute)
		case p < 95:
			action = "kill"
			switch random.IntN(3) {
			case 0: // in the middle of a flush
				h.store.fail(nil, errors.New("killed"))
				_ = e.Flush(t.Context())
				h.store.fail(nil, nil)
			case 1: // after some batches of a flush
				h.store.failAfter = len(h.store.sent()) + 1 + random.IntN(5)
				_ = e.Flush(t.Context())
				h.store.failAfter = 0
			}
			droppedBefore += droppedIn(e.Stats())
			unknown.end(e.Stats().Unknown)
			lost += e.PendingInMemory()
			if random.IntN(2) == 0 {
				action = "kill while a batch is noted"
				e.CrashWhileNoting(func() bool { return random.IntN(2) == 0 })
			} else {
				e.Crash()
			}
			if random.IntN(4) == 0 && !counters {
				action += ", journals of version 1"
				h.makeVersion1()
			}
			e = newEngine()
		default:
			action = "stop"
			if random.IntN(3) == 0 {
				h.store.fail(errors.New("down"), nil)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_ = e.Close(ctx)
			cancel()
			e.AwaitClosed()
			h.store.fail(nil, nil)
			droppedBefore += droppedIn(e.Stats())
			unknown.end(e.Stats().Unknown)
			e = newEngine()
		}
		history = append(history, action)
		s := e.Stats()
		if s.Recorded != s.Stored+s.Pending+droppedIn(s) || s.Pending < 0 || s.Keys > maxKeys {
			t.Fatalf("step %d: the statistics do not balance: %+v\n%s", step, s, strings.Join(history, "\n"))
		}
		unknown.check(h, s.Unknown)
		// The store may have the batch in flight already; all else is exact.
		stored, dropped := h.storedInDetail(), droppedBefore+droppedIn(s)
		if counted := h.store.counted(); counters && counted != stored {
			t.Fatalf("step %d: the store has %d, and the totals of its counters are %d\n%s", step, stored, counted, strings.Join(history, "\n"))
		}
		if low, high := recorded-dropped-lost-s.Pending, recorded-dropped; stored < low || stored > high {
			t.Fatalf("step %d: recorded %d, dropped %d, pending %d, but the store has %d\n%s",
				step, recorded, dropped, s.Pending, stored, strings.Join(history, "\n"))
		}
	}
	e.flush(t)
	dropped := droppedBefore + droppedIn(e.Stats())
	if stored := h.storedInDetail(); stored < recorded-dropped-lost || stored > recorded-dropped {
		t.Fatalf("recorded %d, dropped %d, at most %d lost, the store has %d\n%s", recorded, dropped, lost, stored, strings.Join(history, "\n"))
	}
	if s := e.Stats().Unknown; s.Pending != 0 {
		t.Errorf("after a flush %d unknown are pending", s.Pending)
	}
	for _, batch := range h.store.sent() {
		checkRows(t, batch)
	}
}

// unknownStats count requests for flags that do not exist, of all engines of a model.
type unknownStats struct {
	recorded int64
	// gone is what engines that ended had dropped, or had only in memory.
	gone int64
}

func (b *unknownStats) end(s datar.UnknownStats) { b.gone += s.Dropped + s.Pending }

// check compares the statistics of the running engine with the store. A batch that an engine gave
// up may be in it, because its answer was lost.
func (b *unknownStats) check(h *host, s datar.UnknownStats) {
	h.t.Helper()
	if s.Recorded != s.Stored+s.Pending+s.Dropped || s.Pending < 0 {
		h.t.Fatalf("statistics of unknown do not balance: %+v", s)
	}
	rows, err := h.store.Unknown(h.t.Context(), datar.UnknownQuery{To: datar.HourOf(noon) + 10_000, Limit: 100})
	if err != nil {
		h.t.Fatal(err)
	}
	var stored int64
	for _, r := range rows {
		stored += r.Count
		if strings.Contains(r.Asked, "\x00") {
			h.t.Fatalf("the store has the text %q", r.Asked)
		}
	}
	if low := b.recorded - b.gone - s.Pending - s.Dropped; stored < low || stored > b.recorded {
		h.t.Fatalf("%d unknown were recorded, %d are gone, %+v, and the store has %d", b.recorded, b.gone, s, stored)
	}
}

// storedInDetail is the sum of all details, of which those that are events must be the events.
func (h *host) storedInDetail() (sum int64) {
	h.t.Helper()
	rows, err := h.store.Details(h.t.Context(), datar.DetailsQuery{To: datar.HourOf(noon) + 10_000, GroupBy: datar.GroupOutcome})
	if err != nil {
		h.t.Fatal(err)
	}
	var events int64
	for _, r := range rows {
		if r.Count < 0 {
			h.t.Fatalf("%v has %d", r.Outcome, r.Count)
		}
		sum += r.Count
		if r.Outcome.IsEvent() {
			events += r.Count
		}
	}
	if stored := h.store.sum(); stored != events {
		h.t.Fatalf("details have %d events, the store has %d", events, stored)
	}
	return sum
}

// makeVersion1 turns journals that no engine holds into those of the version before: without
// outcome, version and asked.
func (h *host) makeVersion1() {
	h.t.Helper()
	const version, checksum, slots, header, slot, details = 12, 152, 16, 4096, 64, 28
	for _, path := range h.files("*.journal") {
		b, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(b[version:], 1)
		binary.LittleEndian.PutUint32(b[checksum:], crc32.ChecksumIEEE(b[:checksum]))
		for i := range int(binary.LittleEndian.Uint32(b[slots:])) {
			clear(b[header+i*slot+details:][:4])
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

// A journal that the version before has left, with a batch in flight.
func TestJournalOfVersion1IsAdopted(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"the batch was applied": true, "it was not": false} {
		h := newHost(t)
		if err := os.CopyFS(h.dir, os.DirFS("testdata/journal-v1")); err != nil {
			t.Fatal(err)
		}
		if files := h.files("*.journal"); len(files) != 1 {
			t.Fatalf("files are %q, want one", files)
		}
		writer := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(h.files("*.journal")[0]), "datar-memory."), ".journal")
		inFlight := []datar.Row{
			{Key: datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: datar.HourOf(noon)}, Count: 5, First: noon.UnixMilli(), Last: noon.UnixMilli()},
			{Key: datar.Key{FlagID: 2, Hour: datar.HourOf(noon)}, Count: 7, First: noon.UnixMilli(), Last: noon.UnixMilli()},
		}
		if applied {
			if err := h.store.Apply(t.Context(), datar.Batch{Writer: writer, Sequence: 2, Rows: inFlight}); err != nil {
				t.Fatal(err)
			}
		}
		e := h.start()
		if s := e.Stats(); s.Adopted != 17 {
			t.Errorf("%s: %d adopted, want 17", name, s.Adopted)
		}
		e.flush(t)
		h.wantStored(17)
		rows, err := h.store.Details(t.Context(), datar.DetailsQuery{To: datar.HourOf(noon) + 1, GroupBy: datar.GroupFlag | datar.GroupOutcome})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int64{5, 8, 4} {
			if i >= len(rows) || rows[i].Count != want || rows[i].Outcome != datar.Unattributed {
				t.Fatalf("%s: details are %+v, want 5, 8 and 4 unattributed", name, rows)
			}
		}
		if files := h.files("*.journal"); len(files) != 1 || strings.Contains(files[0], writer) {
			t.Errorf("%s: files are %q, want only that of the new engine", name, files)
		}
	}
}

// A living engine takes over what a process left that ended beside it, and flushes it at once.
func TestJournalsOfTheDeadAreAdoptedByTheLiving(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	living := h.start()
	for range 3 {
		dead := h.start()
		dead.record(1, 1, 1, 5)
		dead.Crash()
	}
	// Each start has taken over what the one before had left.
	if n := len(h.files("*.journal")); n < 2 {
		t.Fatalf("%d journals, want those of the living and of the dead", n)
	}
	living.Adopt()
	if s := living.Stats(); s.Adopted != 15 {
		t.Errorf("%d adopted, want 15", s.Adopted)
	}
	living.record(1, 1, 1, 1)
	living.Start() // flushes at once
	until(t, "the flush", func() bool { return h.store.sum() == 15+1 })
	living.flush(t)
	if files := h.files("*.journal"); len(files) != 1 {
		t.Errorf("files are %q, want only that of the living", files)
	}
	if err := living.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// checkRows checks what a Batch promises of its rows.
func checkRows(t *testing.T, batch datar.Batch) {
	t.Helper()
	for i, row := range batch.Rows {
		if i > 0 && batch.Rows[i-1].Compare(row.Key) >= 0 {
			t.Errorf("the rows %+v and %+v of one batch are not in order", batch.Rows[i-1], row)
		}
		if row.Count < 1 || row.First > row.Last || datar.HourOf(time.UnixMilli(row.First)) != row.Hour || datar.HourOf(time.UnixMilli(row.Last)) != row.Hour {
			t.Errorf("the row %+v is impossible", row)
		}
	}
}

// A key that is counted very often is spread over stripes. To everybody else it is one key, also
// after a kill.
func TestBusyKey(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	const goroutines, each = 16, 3 << 16
	now := h.clock.Now().Add(time.Minute)
	var group sync.WaitGroup
	for i := range goroutines {
		group.Go(func() {
			for n := range each {
				e.Record(datar.Event{FlagID: 1, VariantID: 2, SegmentID: 3, Time: now.Add(time.Duration(n%1000+i) * time.Millisecond)})
			}
		})
	}
	group.Wait()
	if n := e.Stripes(); n == 0 {
		t.Error("there are no stripes")
	}
	if s := e.Stats(); s.Keys != 1 || s.Pending != goroutines*each {
		t.Errorf("%d keys, %d pending, want 1 and %d", s.Keys, s.Pending, goroutines*each)
	}
	h.store.fail(nil, errors.New("answer lost"))
	if err := e.Flush(t.Context()); err == nil {
		t.Fatal("the flush did not fail")
	}
	e.Record(datar.Event{FlagID: 1, VariantID: 2, SegmentID: 3, Time: now.Add(-time.Millisecond)})
	h.store.fail(nil, nil)
	e.Crash()
	h.start().flush(t)
	rows := h.store.Rows()
	want := datar.Row{
		Key:   datar.Key{FlagID: 1, VariantID: 2, SegmentID: 3, Hour: datar.HourOf(now)},
		Count: goroutines*each + 1, First: now.UnixMilli() - 1, Last: now.UnixMilli() + 999 + goroutines - 1,
	}
	if diff := cmp.Diff([]datar.Row{want}, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, batch := range h.store.sent() {
		checkRows(t, batch)
	}
}

// A Record that is delayed after it counted may find its key busy when its cell is already given
// up. Later evaluations of the key must not find that cell, as the journal would be given up for
// it.
func TestBusyKeyOfAPastHour(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	e.record(1, 1, 1, 1)
	stripe := e.StripeLater()
	late := h.clock.Now()
	h.clock.advance(time.Hour)
	e.record(2, 1, 1, 1)
	e.flush(t)
	stripe()
	event := datar.Event{FlagID: 1, VariantID: 1, SegmentID: 1, Time: late}
	for range 4 {
		e.Record(event)
		if n := e.PendingInMemory(); n != 0 {
			t.Fatalf("%d evaluations are not in a journal", n)
		}
		e.flush(t)
		e.flush(t) // gives up what the one before has stored
	}
	e.Record(event)
	e.Crash()
	h.start().flush(t)
	h.wantStored(7)
}

// Each count is stored under its key and within its first and last time, also if keys get stripes,
// hours end, and the store fails meanwhile.
func TestStripesUnderLoad(t *testing.T) {
	t.Parallel()
	const goroutines, flushes = 4, 40
	h := newHost(t)
	e := h.start()
	counts := []int64{0, 1, 1, 1, 7, 1000, 1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 20}
	all := make([]map[datar.Key]datar.Row, goroutines)
	var recorders sync.WaitGroup
	var stop atomic.Bool
	var recorded atomic.Int64
	for g := range goroutines {
		random := rand.New(rand.NewPCG(uint64(g), 11))
		want := map[datar.Key]datar.Row{}
		all[g] = want
		recorders.Go(func() {
			for !stop.Load() {
				event := datar.Event{
					FlagID: 1, VariantID: random.Int64N(2) + 1, SegmentID: random.Int64N(2), Count: counts[random.IntN(len(counts))],
					Outcome: datar.Matched, Version: uint16(random.IntN(2)),
					Time: h.clock.Now().Add(-time.Duration(random.Int64N(int64(90 * time.Minute)))),
				}
				e.Record(event)
				recorded.Add(1)
				key := datar.Key{
					FlagID: 1, VariantID: event.VariantID, SegmentID: event.SegmentID, Hour: datar.HourOf(event.Time),
					Outcome: datar.Matched, Version: event.Version,
				}
				addRow(want, datar.Row{Key: key, Count: max(1, event.Count), First: event.Time.UnixMilli(), Last: event.Time.UnixMilli()})
			}
		})
	}
	stripe := func() {}
	for i := range flushes {
		until(t, "goroutines that record", func() bool { return recorded.Load() >= int64(i)*500 })
		e.StripeAll()
		h.store.fail(nil, nil)
		switch i % 5 {
		case 1:
			h.store.fail(errors.New("down"), nil)
		case 3:
			h.store.fail(nil, errors.New("answer lost"))
		}
		_ = e.Flush(t.Context())
		stripe() // what was counted before the last hour ended
		stripe = e.StripeLater()
		h.clock.advance(time.Duration(i%4) * 20 * time.Minute)
	}
	stop.Store(true)
	recorders.Wait()
	h.store.fail(nil, nil)
	e.flush(t)
	want := map[datar.Key]datar.Row{}
	wantDetails := map[datar.Key]int64{}
	for _, rows := range all {
		for key, row := range rows {
			wantDetails[key] += row.Count
			row.Outcome, row.Version = 0, 0
			addRow(want, row)
		}
	}
	got := map[datar.Key]datar.Row{}
	for _, row := range h.store.Rows() {
		got[row.Key] = row
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	details, err := h.store.Details(t.Context(), datar.DetailsQuery{
		To: datar.HourOf(noon) + 10_000,
		GroupBy: datar.GroupFlag | datar.GroupVariant | datar.GroupSegment | datar.GroupHour |
			datar.GroupOutcome | datar.GroupVersion,
	})
	if err != nil {
		t.Fatal(err)
	}
	gotDetails := map[datar.Key]int64{}
	for _, row := range details {
		gotDetails[row.Key] += row.Count
	}
	if diff := cmp.Diff(wantDetails, gotDetails); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
}

// addRow adds a row to the one of its key.
func addRow(rows map[datar.Key]datar.Row, row datar.Row) {
	if old, ok := rows[row.Key]; ok {
		row.Count, row.First, row.Last = row.Count+old.Count, min(row.First, old.First), max(row.Last, old.Last)
	}
	rows[row.Key] = row
}

func TestKillWhileABatchIsNoted(t *testing.T) {
	t.Parallel()
	const keys = 5
	for _, flushes := range []int{0, 1, 2, 3} {
		for written := range keys + 1 {
			for _, begun := range []bool{false, true} {
				t.Run(fmt.Sprintf("flushes=%d,written=%d,begun=%v", flushes, written, begun), func(t *testing.T) {
					t.Parallel()
					h := newHost(t)
					first := h.start()
					want := int64(0)
					count := func() {
						for i := range int64(keys) {
							first.record(i+1, 1, 1, int(i)+10)
							want += i + 10
						}
					}
					for range flushes {
						count()
						first.flush(t)
					}
					count()
					first.CrashInBegin(written, begun)
					second := h.start()
					second.flush(t)
					h.wantStored(want)
				})
			}
		}
	}
}

// A Record that was held up adds to a sealed slot and takes it back. What is read in between must
// not be one too many, nor what is left in a journal.
func TestCloseBesideALateRecord(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer error // of the store
		cut    bool  // the journal, while the Record is held up
	}{
		"the store has all":  {},
		"a journal is left":  {answer: errors.New("answer lost")},
		"the journal is cut": {answer: errors.New("answer lost"), cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			e := h.start()
			e.record(1, 1, 1, 10)
			path := h.files("*.journal")[0]
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			heldUp := func() {
				wantStats(t, e.Engine, 11, 10, 0)
				if test.cut {
					if err := os.Truncate(path, 0); err != nil {
						t.Error(err)
					}
				}
			}
			h.store.applied = func() {
				e.record(1, 1, 1, 1) // the final flush finds one more
				h.store.fail(nil, test.answer)
				h.store.applied = func() {
					if !e.LateAdd(heldUp) {
						t.Error("an evaluation was counted in a sealed slot")
					}
					if test.answer != nil {
						cancel()
					}
				}
			}
			if err := e.Close(ctx); (err != nil) != (test.answer != nil) {
				t.Errorf("Close: %v", err)
			}
			e.AwaitClosed()
			h.store.applied = nil
			h.store.fail(nil, nil)
			h.start().flush(t)
			h.wantStored(11)
			if test.answer == nil {
				wantStats(t, e.Engine, 11, 11, 0)
			}
		})
	}
}

func TestUnfinishedJournalsAreRemoved(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	e.record(1, 1, 1, 1)
	young := h.files("*.journal")[0] + ".new"
	old := filepath.Join(h.dir, "datar-memory.00000000-0000-4000-8000-000000000000.journal.new")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	h.start()
	if left := h.files("*.new"); len(left) != 1 || left[0] != young {
		t.Errorf("unfinished files are %q, want only the one that may be in the making", left)
	}
}

func TestASpareIsMadeBeforeItIsNeeded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	e := h.start()
	e.Start()
	for i := range int64(datar.ArenaSlots / 2) {
		e.record(i+1, 1, 1, 1)
	}
	deadline := time.Now().Add(time.Minute)
	for len(h.files("*.journal")) < 2 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := len(h.files("*.journal")); n != 2 {
		t.Errorf("%d journals while the first is half full, want a second one", n)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files := h.files("*"); len(files) != 0 {
		t.Errorf("files after Close are %q, want none", files)
	}
}

// portions is a store that takes so many rows at once.
type portions struct {
	*faultyStore
	rows int
}

func (p portions) MaxRows() int { return p.rows }

// counterStore is a datar.CounterStore.
type counterStore struct{ portions }

func (counterStore) KeepsCounters() {}

// Keys that are counted all the time must not keep a flush from what comes after them.
func TestFlushEndsWhileKeysAreCounted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		maxRows int
		poison  int64
	}{
		"batches are small":      {maxRows: 2},
		"a later one is refused": {maxRows: 100, poison: 9},
		"both":                   {maxRows: 3, poison: 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.store.poison = map[int64]bool{test.poison: true}
			options := h.options()
			options.Store = portions{h.store, test.maxRows}
			e, err := datar.New(options)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(e.Crash)
			for flag := range int64(9) {
				e.Record(datar.Event{FlagID: flag + 1, Time: h.clock.Now()})
			}
			e.StripeAll()
			const enough = 100 // batches
			h.store.applied = func() {
				if n := len(h.store.sent()); n < enough {
					for flag := range int64(4) {
						e.Record(datar.Event{FlagID: flag + 1, Time: h.clock.Now()})
					}
				}
			}
			if err := e.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(h.store.sent()); n >= enough {
				t.Errorf("one flush sent %d batches", n)
			}
			h.store.applied = nil
			if err := e.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := e.Stats()
			if s.Pending != 0 || h.store.sum() != s.Stored || s.Stored+droppedIn(s) != s.Recorded {
				t.Errorf("the store has %d: %+v", h.store.sum(), s)
			}
		})
	}
}

// What a killed process had noted of a batch that it did not get to begin must not be taken for
// part of a later one, which is of other rows.
func TestKillAfterAKillWhileABatchIsNoted(t *testing.T) {
	t.Parallel()
	for name, store := range map[string][2]error{
		"applied":     {nil, errors.New("killed")},
		"not applied": {errors.New("killed"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			start := func() fixture {
				options := h.options()
				options.Store = portions{h.store, 2}
				e, err := datar.New(options)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(e.Crash)
				return fixture{Engine: e, store: h.store, clock: h.clock}
			}
			first := start()
			for i := range int64(4) {
				first.record(i+1, 1, 1, 5)
			}
			first.CrashInBegin(4, false)
			second := start()
			h.store.fail(store[0], store[1])
			if second.Flush(t.Context()) == nil {
				t.Fatal("flush succeeded")
			}
			second.Crash()
			h.store.fail(nil, nil)
			third := start()
			third.flush(t)
			h.wantStored(20)
		})
	}
}

func TestJournalDeletedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.store.fail(errors.New("down"), nil)
	e := h.start()
	e.record(1, 1, 1, 5)
	if err := os.Remove(h.files("*.journal")[0]); err != nil {
		t.Fatal(err)
	}
	if e.Flush(t.Context()) == nil {
		t.Fatal("flush succeeded")
	}
	e.record(1, 1, 1, 7)
	if files := h.files("*.journal"); len(files) != 1 {
		t.Errorf("files are %q, want a new journal", files)
	}
	if s := e.Stats(); s.Pending != 12 || s.LostJournals != 1 || s.Keys != 1 {
		t.Errorf("stats are %+v, want 12 pending, one key and one lost journal", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if e.Close(ctx) == nil {
		t.Fatal("Close succeeded")
	}
	e.AwaitClosed()
	// There is no file for the first 5 any more: they are never sent.
	if s := e.Stats(); s.Pending != 7 || s.Dropped[datar.DropUnsaved] != 5 || s.Recorded != 12 {
		t.Errorf("after Close: %+v, want 7 pending and 5 dropped", s)
	}
	h.store.fail(nil, nil)
	second := h.start()
	second.flush(t)
	h.wantStored(7)
}
