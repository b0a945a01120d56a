package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// follower keeps flags up to date by ChangedFlags alone.
type follower struct {
	s     *Store
	flags []*entity.Flag
}

// follow returns the IDs of the flags that were read, and of those that no longer exist.
func (f *follower) follow(t *testing.T) (changed, gone []uint) {
	t.Helper()
	flags, gone, err := f.s.ChangedFlags(t.Context(), f.flags)
	if err != nil {
		t.Error(err)
	}
	for i := range flags {
		changed = append(changed, flags[i].ID)
	}
	f.flags = slices.DeleteFunc(f.flags, func(known *entity.Flag) bool {
		return slices.Contains(gone, known.ID) || slices.Contains(changed, known.ID)
	})
	for i := range flags {
		f.flags = append(f.flags, &flags[i])
	}
	slices.SortFunc(f.flags, func(a, b *entity.Flag) int { return int(a.ID) - int(b.ID) })
	return changed, gone
}

// check compares the follower's flags with those of the database.
func (f *follower) check(t *testing.T, when string) {
	t.Helper()
	have := []entity.Flag{}
	for _, flag := range f.flags {
		have = append(have, *flag)
	}
	if diff := cmp.Diff(must[[]entity.Flag](t)(f.s.EvalFlags(t.Context())), have); diff != "" {
		t.Errorf("%s (-all flags +followed):\n%s", when, diff)
	}
}

func TestChangedFlagsShowEveryChange(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		var f follower
		told := 0
		s, err := Open(t.Context(), Options{Driver: kind.Driver, DSN: kind.Fresh(t), OnChange: func(c entity.Change) {
			told++
			when := fmt.Sprint(c.Operation, " ", c.Component, " of flag ", c.FlagID)
			changed, gone := f.follow(t)
			wantChanged, wantGone := []uint{c.FlagID}, []uint(nil)
			if c.Operation == entity.OperationDelete && c.Component == entity.ComponentFlag {
				wantChanged, wantGone = wantGone, wantChanged
			}
			if !slices.Equal(changed, wantChanged) || !slices.Equal(gone, wantGone) {
				t.Errorf("%s: %v changed, %v gone", when, changed, gone)
			}
			f.check(t, when)
			if changed, gone := f.follow(t); changed != nil || gone != nil {
				t.Errorf("after %s nothing happened, but %v changed, %v are gone", when, changed, gone)
			}
		}})
		ok(t, err)
		t.Cleanup(func() { ok(t, s.Close()) })
		f.s = s
		play(t, s)
		if told < 40 {
			t.Errorf("only %d changes", told)
		}
		f.flags = nil
		f.follow(t)
		f.check(t, "from the start")
	})
}

// bare returns a flag without parts.
func bare(id uint) *entity.Flag {
	return &entity.Flag{Model: entity.Model{ID: id}, Key: fmt.Sprint("k", id), SnapshotID: id}
}

// many is one flag more than one statement reads.
const many = idsPerQuery + 1

func manyFlags(t *testing.T, kind testdb.Kind) (*Store, follower) {
	t.Helper()
	s := setup(t, kind)
	f := follower{s: s}
	var rows []*entity.Flag
	for id := uint(1); id <= many; id++ {
		rows = append(rows, bare(2*id))
	}
	ok(t, s.DB().CreateInBatches(rows, 100).Error)
	f.follow(t)
	f.check(t, "many flags")
	return s, f
}

func TestChangedFlagsAfterManyChanges(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, f := manyFlags(t, kind)
		if changed, gone := f.follow(t); changed != nil || gone != nil {
			t.Errorf("nothing happened, but %v changed, %v are gone", changed, gone)
		}
		ok(t, s.DB().Delete(&entity.Flag{}, "id <= 4 OR id = 10").Error)
		for _, id := range []uint{1, 7, 3 * many} {
			ok(t, s.DB().Create(bare(id)).Error)
		}
		ok(t, s.DB().Model(&entity.Flag{}).Where("id = 20").UpdateColumn("snapshot_id", 0).Error)
		ok(t, s.DB().Model(&entity.Flag{}).Where("id = 24").UpdateColumn("snapshot_id", nil).Error)
		changed, gone := f.follow(t)
		slices.Sort(changed)
		if !slices.Equal(changed, []uint{1, 7, 20, 24, 3 * many}) || !slices.Equal(gone, []uint{2, 4, 10}) {
			t.Errorf("%v changed, %v gone", changed, gone)
		}
		f.check(t, "a few changes")

		ok(t, s.DB().Delete(&entity.Flag{}, "id > 0").Error)
		f.follow(t)
		f.check(t, "no flags")
	})
}

// TestChangedFlagsAmongMany makes a few changes at a time, with IDs far apart and close together.
// No change may hide another.
func TestChangedFlagsAmongMany(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, f := manyFlags(t, kind)
		random := rand.New(rand.NewPCG(1, 2))
		snapshot := uint(10 * many)
		touched := map[uint]bool{}
		set := func(id uint, column string, value any) {
			touched[id] = true
			ok(t, s.DB().Unscoped().Model(&entity.Flag{}).Where("id = ?", id).UpdateColumn(column, value).Error)
		}
		for round := range 60 {
			clear(touched)
			for range 1 + round%3 {
				id := 2 * (1 + random.UintN(many))
				snapshot++
				switch random.IntN(4) {
				case 0: // two adjacent flags
					set(id, "snapshot_id", snapshot)
					set(id+2, "snapshot_id", snapshot+1)
					snapshot++
				case 1: // two flags swap snapshots
					set(id, "snapshot_id", f.snapshotOf(id+2))
					set(id+2, "snapshot_id", f.snapshotOf(id))
				case 2: // one is deleted and its neighbor is restored, or vice versa
					set(id, "deleted_at", time.Now())
					set(id+2, "deleted_at", nil)
				default:
					set(id, "snapshot_id", 1<<40+uint64(snapshot))
				}
			}
			changed, gone := f.follow(t)
			for _, id := range slices.Concat(changed, gone) {
				if !touched[id] {
					t.Errorf("round %d: flag %d was not touched", round, id)
				}
			}
			f.check(t, fmt.Sprint("round ", round))
		}
	})
}

func (f *follower) snapshotOf(id uint) uint {
	for _, flag := range f.flags {
		if flag.ID == id {
			return flag.SnapshotID
		}
	}
	return 0
}

// TestChangedFlagsShowLateCommits commits a transaction after one that began later and has a
// snapshot with a higher ID.
func TestChangedFlagsShowLateCommits(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		if kind.Driver == "sqlite3" {
			t.Skip("SQLite has one writer at a time")
		}
		s := fixture(t, kind)
		f := follower{s: s}
		f.follow(t)
		ok(t, s.DB().Transaction(func(tx *gorm.DB) error {
			if _, err := lockFlag(tx, 1); err != nil {
				return err
			}
			if err := tx.Model(&entity.Segment{}).Where("id = 1").Update("rollout_percent", 7).Error; err != nil {
				return err
			}
			if _, _, err := record(tx, 1, "late"); err != nil {
				return err
			}
			must[*entity.Flag](t)(s.SetFlagEnabled(t.Context(), "early", 2, true))
			if changed, _ := f.follow(t); !slices.Equal(changed, []uint{2}) {
				t.Errorf("before the commit %v changed", changed)
			}
			f.check(t, "before the commit")
			return nil
		}, s.dialect.writeTx))
		if changed, _ := f.follow(t); !slices.Equal(changed, []uint{1}) {
			t.Errorf("after the commit %v changed", changed)
		}
		f.check(t, "after the commit")
	})
}

// TestChangedFlagsBesideWriters checks that each flag that is read during writes is consistent: it
// equals its snapshot.
func TestChangedFlagsBesideWriters(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const writers, changes = 4, 30
		s := setup(t, kind)
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "contended", Template: TemplateBoolean}))
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "quiet"}))
		var group sync.WaitGroup
		for writer := range writers {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(writer), 11))
				for i := range changes {
					err := changeAnything(t.Context(), s, random, fmt.Sprintf("w%d-%d", writer, i))
					if err != nil && !errors.Is(err, entity.ErrInvalid) && !errors.Is(err, entity.ErrNotFound) {
						t.Errorf("writer %d, change %d: %v", writer, i, err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			group.Wait()
		}()
		f := follower{s: s}
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
			}
			f.follow(t)
			for _, flag := range f.flags {
				sameAsSnapshot(t, s, flag)
			}
		}
		f.check(t, "in the end")
	})
}

// sameAsSnapshot compares a flag with its snapshot.
func sameAsSnapshot(t *testing.T, s *Store, flag *entity.Flag) {
	t.Helper()
	var row entity.FlagSnapshot
	ok(t, s.DB().Take(&row, "id = ?", flag.SnapshotID).Error)
	var snapshot entity.Flag
	ok(t, json.Unmarshal(row.Flag, &snapshot))
	// The snapshot is written before its ID is set in the flag.
	snapshot.SnapshotID, snapshot.UpdatedAt = flag.SnapshotID, flag.UpdatedAt
	want, err := json.Marshal(snapshot)
	ok(t, err)
	got, err := json.Marshal(flag)
	ok(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("flag %d is not its snapshot %d:\n%s", flag.ID, flag.SnapshotID, diff)
	}
}
