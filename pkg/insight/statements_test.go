package insight_test

import (
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/datar/memstore"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/pkg/store"
)

// TestFirstListReadsHistoriesTogether counts the statements of the first list of states after a
// start. It reads the histories of all flags, and some hundred of them with each statement.
func TestFirstListReadsHistoriesTogether(t *testing.T) {
	t.Parallel()
	ctx, now := t.Context(), at(t, "2026-01-31T14:00:00Z")
	db, err := store.Open(ctx, store.Options{Driver: "sqlite3", DSN: t.TempDir() + "/flagr.sqlite?_pragma=synchronous(OFF)", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const flags, versions = 500, 4
	var snapshots []entity.FlagSnapshot
	current := make([]entity.Flag, flags)
	for version := range uint(versions) {
		for i := range current {
			f := checkout()
			f.ID, f.SnapshotID = uint(i)+1, version*flags+uint(i)+1
			f.Segments[0].RolloutPercent += version % 3 // the last version does not change the assignment
			if version == versions-1 {
				f.Segments[0].RolloutPercent, f.Description = current[i].Segments[0].RolloutPercent, "the last version"
			}
			text, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			when := now.Add(time.Duration(version) * time.Hour).Add(-100 * time.Hour)
			snapshots = append(snapshots, entity.FlagSnapshot{Model: entity.Model{ID: f.SnapshotID, CreatedAt: when, UpdatedAt: when}, FlagID: f.ID, Flag: text})
			current[i] = *f
		}
	}
	if err := db.DB().CreateInBatches(snapshots, 100).Error; err != nil {
		t.Fatal(err)
	}

	var statements atomic.Int64
	count := func(*gorm.DB) { statements.Add(1) }
	for _, register := range []func(name string, count func(*gorm.DB)) error{db.DB().Callback().Query().Register, db.DB().Callback().Row().Register, db.DB().Callback().Raw().Register} {
		if err := register("count", count); err != nil {
			t.Fatal(err)
		}
	}
	counts := &world{now: now, counts: &memstore.Store{}}
	s := insight.NewService(insight.Options{Counts: counts, Flags: db, Snapshots: fixedFlags{eval.Compile(current)}, Refresh: refresh, Now: func() time.Time { return now }})
	list, err := s.States(ctx, insight.StatesQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if n := statements.Load(); n > flags/20 {
		t.Errorf("%d flags took %d statements, want at most one for 20 flags", flags, n)
	}
	for i := range list.Flags {
		if got, want := list.Flags[i].Evidence.ChangedAt, now.Add(-98*time.Hour); !got.Equal(want) {
			t.Fatalf("the assignment of flag %d changed at %v, want %v", list.Flags[i].FlagID, got, want)
		}
	}
	statements.Store(0)
	if again, err := s.States(ctx, insight.StatesQuery{}); err != nil || again.Total != flags || statements.Load() > 0 {
		t.Errorf("the next list took %d statements: %v", statements.Load(), err)
	}
}
