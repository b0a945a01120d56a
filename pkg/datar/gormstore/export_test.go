package gormstore

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
)

// PrepareAfter migrates after the statement has taken the lock.
func PrepareAfter(ctx context.Context, db *gorm.DB, lockMigration string) error {
	s := OnTables(db)
	s.dialect.lockMigration = lockMigration
	return db.WithContext(ctx).Transaction(s.prepare, s.dialect.writeTx)
}

// OnTables is New for existing tables, for tests of later errors.
func OnTables(db *gorm.DB) *Store {
	return &Store{db: db, dialect: dialects[db.Name()], kept: kept{most: maxKeptRows}}
}

// LastHour is the hour after the last one that all databases can store.
const LastHour = lastHour

// Kinds is the number of kinds of rollups. They begin with hours.
var Kinds = len(kinds)

// DayDetails is the index of the kind for details of days.
var DayDetails = slices.IndexFunc(kinds, func(k kind) bool { return k.id == dayDetails.id })

// RollUp makes the rollup of a kind that contains the hour, like a replica that found it missing
// some time ago.
func (s *Store) RollUp(ctx context.Context, kind int, hour datar.Hour) error {
	return s.makeRollup(ctx, kinds[kind], kinds[kind].startOf(int64(hour)))
}

// PurgeSome moves up to 1000 events of a day into its rollup.
func (s *Store) PurgeSome(ctx context.Context, day datar.Hour) error {
	return s.purgeSome(ctx, int64(day))
}

// Lock takes the lock of a batch, until the end of the transaction.
func (s *Store) Lock(tx *gorm.DB) error { return s.lock(tx) }

// OffsetsQuery finds an event with an offset on SQLite.
var OffsetsQuery = dialects["sqlite"].offsets

// RunsOf splits starts of packs as addPacks does.
func RunsOf(starts []int64, hours int64) [][]int64 { return runsOf(starts, hours) }

// MaxKeptSums is the maximum number of cached sums of packs.
const MaxKeptSums = maxKeptSums

// KeptSums returns the number of cached sums of packs.
func (s *Store) KeptSums() int {
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	return len(s.kept.mu.sums)
}

// KeepRows sets the maximum number of rows of cached sums.
func (s *Store) KeepRows(most int) { s.kept.most = most }

// DropUnused removes cached values that were last used before a time.
func (s *Store) DropUnused(before time.Time) { s.kept.dropUnused(before) }

// GroupInOneGo adds up rows as queries do, one by one, and returns whether it needed a map.
func GroupInOneGo(rows []datar.Row, by datar.Parts) (sums []datar.Row, withMap bool) {
	g := groups{by: by}
	for _, r := range rows {
		g.add(r)
	}
	return g.rows(), g.places != nil
}

// NewestDays returns the first hour of the newest days whose details are added up: those that had
// been when the progress began, and those that are made afterward.
func NewestDays(due, had, made []int64) datar.Hour {
	have := numbers{}
	for _, start := range had {
		have[rollup{Kind: int16(dayDetails.id), StartHour: start}] = 1
	}
	all := make([][]int64, len(kinds))
	for i, k := range kinds {
		if k.id == dayDetails.id {
			all[i] = due
		}
	}
	var p rollupProgress
	p.begin(all, have)
	for _, start := range made {
		p.made(dayDetails, start)
	}
	return p.mu.DetailsFrom
}

// SetMissing sets how many rollups of days of flags are missing, of all that are due.
func (s *Store) SetMissing(days, due int) {
	s.rollupProgress.mu.Lock()
	defer s.rollupProgress.mu.Unlock()
	s.rollupProgress.mu.RollupProgress = datar.RollupProgress{Made: due - days, Due: due}
	s.rollupProgress.mu.missing = map[int64]int{dayTotals.id: days}
}

// OfAllFlags runs a query of all flags that prefers days.
func (s *Store) OfAllFlags(ctx context.Context, queries func(tx *gorm.DB) error) error {
	return s.ofAllFlags(ctx, dayTotals, queries)
}

// OfAllOutcomes runs a query of all flags that prefers another kind of rollup.
func (s *Store) OfAllOutcomes(ctx context.Context, queries func(tx *gorm.DB) error) error {
	return s.ofAllFlags(ctx, dayOutcomes, queries)
}

// Pieces splits a range.
func (s *Store) Pieces(from, to datar.Hour) (pieces [][2]datar.Hour, err error) {
	found, err := s.pieces(s.db, []hourRange{{int64(from), int64(to)}})
	for _, r := range found {
		pieces = append(pieces, [2]datar.Hour{datar.Hour(r.from), datar.Hour(r.to)})
	}
	return pieces, err
}

// Paced does pieces of work at the pace of one call of Maintain, unless unpaced is true.
func Paced(ctx context.Context, unpaced bool, pieces ...func()) error {
	store := Store{unpaced: unpaced}
	work := store.newPace()
	for _, piece := range pieces {
		if err := work.do(ctx, func() error { piece(); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// ScanVersion scans a column with a version.
func ScanVersion(value any) (version uint16, err error) {
	err = integer(&version).Scan(value)
	return version, err
}
