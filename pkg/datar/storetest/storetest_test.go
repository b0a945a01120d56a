package storetest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/datar/storetest"
)

// broken is a store with a mistake that loses counts or counts twice.
type broken struct {
	memstore.Store // only its rows are used
	mistake

	mu      sync.Mutex
	applied map[string]int64

	looked atomic.Int64
	second chan struct{} // closed after two lookups
}

// mistake replaces methods of a correct store. Methods that are nil are not replaced.
type mistake struct {
	identity func() string
	apply    func(s *broken, ctx context.Context, b datar.Batch) error
	// applySome makes the store a datar.PartialApplier.
	applySome func(s *broken, ctx context.Context, b datar.Batch) (int64, error)
	totals    func(query *datar.TotalsQuery, totals []datar.Total)
	details   func(query *datar.DetailsQuery, rows []datar.Row) []datar.Row
}

func (s *broken) Details(ctx context.Context, query datar.DetailsQuery) ([]datar.Row, error) {
	if s.details == nil {
		return s.Store.Details(ctx, query)
	}
	s.details(&query, nil)
	rows, err := s.Store.Details(ctx, query)
	return s.details(&query, rows), err
}

func (s *broken) Identity() string {
	if s.identity != nil {
		return s.identity()
	}
	return s.Store.Identity()
}

func (s *broken) Apply(ctx context.Context, b datar.Batch) error {
	if s.apply != nil {
		return s.apply(s, ctx, b)
	}
	return s.Store.Apply(ctx, b)
}

func (s *broken) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	if s.totals == nil {
		return s.Store.Totals(ctx, query)
	}
	s.totals(&query, nil)
	totals, err := s.Store.Totals(ctx, query)
	s.totals(&query, totals)
	return totals, err
}

// add adds rows without checking a sequence.
func (s *broken) add(ctx context.Context, rows []datar.Row) error {
	_, err := s.ApplyReceipt(ctx, rows, ingest.Receipt{})
	return err
}

// addEach adds rows one by one.
func (s *broken) addEach(ctx context.Context, rows []datar.Row) error {
	for i := range rows {
		if err := s.add(ctx, rows[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *broken) knows(b datar.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied[b.Writer] >= b.Sequence
}

func (s *broken) note(b datar.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied[b.Writer] = max(s.applied[b.Writer], b.Sequence)
}

// mistakes maps the name of each mistake to the test that finds it.
var mistakes = map[string]struct {
	test string
	mistake
}{
	"no identity":     {"the identity is fit for a journal", mistake{identity: func() string { return "" }}},
	"a path as one":   {"the identity is fit for a journal", mistake{identity: func() string { return "../counts" }}},
	"a long identity": {"the identity is fit for a journal", mistake{identity: func() string { return strings.Repeat("x", 65) }}},
	"the batch changes": {"a batch is applied once", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		defer slices.Reverse(b.Rows)
		b.Rows[0].Count++
		return s.Store.Apply(ctx, b)
	}}},
	"ApplySome adds twice": {"counts add up", mistake{applySome: func(s *broken, ctx context.Context, b datar.Batch) (int64, error) {
		return 0, errors.Join(s.Store.Apply(ctx, b), s.add(ctx, b.Rows))
	}}},
	"ApplySome has a ledger of its own": {"ApplySome is Apply", mistake{applySome: func(s *broken, ctx context.Context, b datar.Batch) (int64, error) {
		b.Writer += " some"
		return 0, s.Store.Apply(ctx, b)
	}}},
	"ApplySome refuses what it adds": {"counts add up", mistake{applySome: func(s *broken, ctx context.Context, b datar.Batch) (int64, error) {
		return 1, s.Store.Apply(ctx, b)
	}}},
	"an ended context is a refusal": {"an ended context applies nothing", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if err := s.Store.Apply(ctx, b); err != nil {
			return fmt.Errorf("%w: %w", datar.ErrRefused, err)
		}
		return nil
	}}},
	"a context that ends midway is a refusal": {"a context ends in the midst of a batch", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if err := s.Store.Apply(ctx, b); err != nil {
			return fmt.Errorf("%w: %w", datar.ErrRefused, err)
		}
		return nil
	}}},
	"another identity at each open": {"reopen/again", mistake{identity: func() string { return strings.ToLower(rand.Text()) }}},
	"no ledger": {"a batch is applied once", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		return s.add(ctx, b.Rows)
	}}},
	"only the last number is known": {"a batch is applied once", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.applied[b.Writer] == b.Sequence {
			return nil
		}
		s.applied[b.Writer] = b.Sequence
		return s.add(ctx, b.Rows)
	}}},
	"writers in any case": {"writers are independent", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		b.Writer = strings.ToLower(b.Writer)
		return s.Store.Apply(ctx, b)
	}}},
	"rows one by one": {"a context ends in the midst of a batch", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if s.knows(b) {
			return nil
		}
		if err := s.addEach(ctx, b.Rows); err != nil {
			return err
		}
		s.note(b)
		return nil
	}}},
	"noted before the rows": {"a context ends in the midst of a batch", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if err := ctx.Err(); err != nil || s.knows(b) {
			return err
		}
		s.note(b)
		return s.add(ctx, b.Rows)
	}}},
	"noted after the rows": {"a context ends in the midst of a batch", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if s.knows(b) {
			return nil
		}
		if err := s.add(ctx, b.Rows); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s.note(b)
		return nil
	}}},
	"looks first, then adds": {"a batch is sent by many at once", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if s.knows(b) {
			return nil
		}
		switch s.looked.Add(1) {
		case 1:
			<-s.second
		case 2:
			close(s.second)
		}
		defer s.note(b)
		return s.add(ctx, b.Rows)
	}}},
	"windows are closed": {"windows are half open", mistake{totals: func(q *datar.TotalsQuery, _ []datar.Total) { q.To++ }}},
	"a group comes twice": {"totals by each dimension", mistake{totals: func(_ *datar.TotalsQuery, totals []datar.Total) {
		for i := range totals {
			totals[i] = totals[0]
		}
	}}},
	"no last evaluation by day": {"last evaluation is the latest", mistake{totals: func(q *datar.TotalsQuery, totals []datar.Total) {
		for i := range totals {
			if q.GroupBy == datar.ByDay {
				totals[i].Last = 0
			}
		}
	}}},
	"details are events": {"only some outcomes are events", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		for i := range b.Rows {
			b.Rows = append(b.Rows, datar.Row{Key: b.Rows[i].Key, Count: b.Rows[i].Count})
			b.Rows[len(b.Rows)-1].Outcome = datar.Unattributed
		}
		slices.SortFunc(b.Rows, func(a, b datar.Row) int { return a.Compare(b.Key) })
		return s.Store.Apply(ctx, b)
	}}},
	"no version": {"details by each part", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		b.Rows = slices.Clone(b.Rows)
		for i := range b.Rows {
			b.Rows[i].Version = 0
		}
		return s.Store.Apply(ctx, b)
	}}},
	"details without the unattributed": {"events without details are unattributed", mistake{
		details: func(_ *datar.DetailsQuery, rows []datar.Row) []datar.Row {
			return slices.DeleteFunc(rows, func(r datar.Row) bool { return r.Outcome == datar.Unattributed })
		},
	}},
	"details of a closed window": {"details by each part", mistake{
		details: func(q *datar.DetailsQuery, rows []datar.Row) []datar.Row { q.To++; return rows },
	}},
	"details of all flags": {"details by each part", mistake{
		details: func(q *datar.DetailsQuery, rows []datar.Row) []datar.Row { q.FlagID = 0; return rows },
	}},
	"unknown flags beside the batch": {"details are applied once", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if err := s.Store.Apply(ctx, datar.Batch{Writer: b.Writer + " unknown", Sequence: s.looked.Add(1), Unknown: b.Unknown}); err != nil {
			return err
		}
		b.Unknown = nil
		return s.Store.Apply(ctx, b)
	}}},
	"texts in any case": {"unknown flags in any text", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		b.Unknown = slices.Clone(b.Unknown)
		for i := range b.Unknown {
			b.Unknown[i].Asked = strings.ToLower(b.Unknown[i].Asked)
		}
		return s.Store.Apply(ctx, b)
	}}},
	"one record for each name": {"servers write their records", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if b.Server != nil {
			record := *b.Server
			record.Run = "any"
			b.Server = &record
		}
		return s.Store.Apply(ctx, b)
	}}},
	"an old record replaces a new one": {"servers write their records", mistake{apply: func(s *broken, ctx context.Context, b datar.Batch) error {
		if b.Server != nil && b.Sequence == 1 && b.Writer == "w3" {
			record := *b.Server
			record.At = record.At.Add(time.Hour)
			b.Server = &record
		}
		return s.Store.Apply(ctx, b)
	}}},
	"nothing was sent in": {"what was sent in is told apart", mistake{totals: func(_ *datar.TotalsQuery, totals []datar.Total) {
		for i := range totals {
			totals[i].Ingested = 0
		}
	}}},
}

// run is the mistake for which TestMistakesAreFound started this binary.
var run = flag.String("mistake", "", "run the tests on a store with this mistake")

func TestOneMistake(t *testing.T) {
	t.Parallel()
	if *run == "" {
		t.Skip("TestMistakesAreFound runs this")
	}
	open := func(*testing.T) datar.Store {
		s := &broken{mistake: mistakes[*run].mistake, applied: map[string]int64{}, second: make(chan struct{})}
		if s.applySome != nil {
			return partial{s}
		}
		return s
	}
	storetest.Run(t, open)
	if strings.HasPrefix(mistakes[*run].test, "reopen/") {
		t.Run("reopen", func(t *testing.T) { storetest.RunReopen(t, open) })
	}
}

// partial is a broken store with ApplySome.
type partial struct{ *broken }

func (s partial) ApplySome(ctx context.Context, b datar.Batch) (int64, error) {
	return s.applySome(s.broken, ctx, b)
}

// limited is a correct store that accepts few rows per batch.
type limited struct {
	memstore.Store
	rows int
}

func (s *limited) MaxRows() int { return s.rows }

func (s *limited) Apply(ctx context.Context, b datar.Batch) error {
	if len(b.Rows) > s.rows {
		return fmt.Errorf("%d rows, want at most %d", len(b.Rows), s.rows)
	}
	return s.Store.Apply(ctx, b)
}

func (s *limited) ApplySome(ctx context.Context, b datar.Batch) (int64, error) {
	return 0, s.Apply(ctx, b)
}

// TestLimitedStores checks that correct stores with optional methods pass.
func TestLimitedStores(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(*testing.T) datar.Store { return &limited{rows: rows} })
		})
	}
	kept := &memstore.Store{}
	storetest.RunReopen(t, func(*testing.T) datar.Store { return kept })
}

// TestMistakesAreFound runs the tests on wrong stores. Each store has its own process, in which
// tests may fail.
func TestMistakesAreFound(t *testing.T) {
	t.Parallel()
	if *run != "" {
		t.Skip("this is such a process")
	}
	for _, name := range slices.Sorted(maps.Keys(mistakes)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test := strings.ReplaceAll(mistakes[name].test, " ", "_")
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneMistake$/^"+strings.ReplaceAll(test, "/", "$/^")+"$", "-mistake="+name)
			output, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(output), "--- FAIL: TestOneMistake/"+test) {
				t.Errorf("%q does not find it: %v\n%s", mistakes[name].test, err, output)
			}
		})
	}
}
