package datar_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// fileStore is a Store that keeps all counts in one file, and replaces the file with each batch. It
// is for one process at a time.
type fileStore struct {
	path     string
	identity string // as in the file; it never changes, so it needs no lock

	mu   sync.Mutex // guards the file and what was read of it
	kept contents
}

// contents are what is in the file.
type contents struct {
	Identity string
	Applied  map[string]int64 // the last sequence of each writer
	Rows     []datar.Row
}

// openFileStore reads the file, or begins a new one.
func openFileStore(path string) (*fileStore, error) {
	s := &fileStore{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.replace(contents{Identity: rand.Text(), Applied: map[string]int64{}})
	} else if err == nil {
		err = json.Unmarshal(text, &s.kept)
	}
	s.identity = s.kept.Identity
	return s, err
}

// replace writes a new file and puts it in the place of the old one: whoever reads finds one or the
// other.
func (s *fileStore) replace(next contents) error {
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return err
	}
	s.kept = next
	return nil
}

// Identity implements datar.Store: it is as old as the file.
func (s *fileStore) Identity() string { return s.identity }

// Apply implements datar.Store: the rows and the sequence go into the file together.
func (s *fileStore) Apply(ctx context.Context, batch datar.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.kept.Applied[batch.Writer] >= batch.Sequence {
		return nil // it was applied before, and the answer got lost
	}
	next := contents{Identity: s.identity, Applied: maps.Clone(s.kept.Applied), Rows: slices.Clone(s.kept.Rows)}
	next.Applied[batch.Writer] = batch.Sequence
	at := map[datar.Key]int{}
	for i, row := range next.Rows {
		at[row.Key] = i
	}
	for _, add := range batch.Rows {
		i, ok := at[add.Key]
		if !ok {
			next.Rows = append(next.Rows, add)
			continue
		}
		row := &next.Rows[i]
		row.Count += add.Count
		row.Ingested += add.Ingested
		row.First, row.Last = min(row.First, add.First), max(row.Last, add.Last)
	}
	return s.replace(next)
}

// Totals implements datar.Store.
func (s *fileStore) Totals(ctx context.Context, query datar.TotalsQuery) ([]datar.Total, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups := map[datar.Total]datar.Total{} // by what the query groups by
	for _, row := range s.kept.Rows {
		if row.Hour < query.From || row.Hour >= query.To || query.FlagID != 0 && query.FlagID != row.FlagID {
			continue
		}
		var group datar.Total
		switch query.GroupBy {
		case datar.ByFlag:
			group.FlagID = row.FlagID
		case datar.ByOutcome:
			group.VariantID, group.SegmentID = row.VariantID, row.SegmentID
		case datar.ByDay:
			group.Day = row.Hour.DayStart()
		}
		total, ok := groups[group]
		if !ok {
			total = group
		}
		total.Count += row.Count
		total.Ingested += row.Ingested
		total.Last = max(total.Last, row.Last)
		groups[group] = total
	}
	return slices.Collect(maps.Values(groups)), ctx.Err()
}

// A Store of one's own, here in a file. Package storetest tells whether it is right.
func ExampleStore() {
	dir, err := os.MkdirTemp("", "datar")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := openFileStore(filepath.Join(dir, "counts.json"))
	if err != nil {
		log.Fatal(err)
	}
	engine, err := datar.New(datar.Options{Store: store, Catalog: campaigns{1: "spring-sale"}})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		engine.Record(datar.Event{FlagID: 1, VariantID: 2, Time: time.Now()})
	}
	if err := engine.Close(context.Background()); err != nil {
		log.Fatal(err)
	}

	// Another process finds the counts.
	again, err := openFileStore(filepath.Join(dir, "counts.json"))
	if err != nil {
		log.Fatal(err)
	}
	now := datar.HourOf(time.Now())
	totals, err := again.Totals(context.Background(), datar.TotalsQuery{From: now - 1, To: now + 1, GroupBy: datar.ByFlag})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(totals[0].Count, again.Identity() == store.Identity())
	// Output: 3 true
}
