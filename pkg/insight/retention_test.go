package insight_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

// heardWorld is a world in which one server has counted all the time.
type heardWorld struct{ *world }

func (w heardWorld) Servers(context.Context) ([]datar.ServerRecord, error) {
	return []datar.ServerRecord{{Name: "one", Run: "1", Kind: datar.KindServer, Start: w.now.Add(-100 * 24 * time.Hour), At: w.now,
		LastFlush: w.now, FlushInterval: time.Minute}}, nil
}

// retentionWorld returns flags that were last requested at different times, and
// deletes details that are older than a week.
func retentionWorld(t *testing.T, kind testdb.Kind) heardWorld {
	t.Helper()
	const week = 7 * 24 * time.Hour
	counts := countsOn(t, kind)
	now := at(t, "2026-11-28T14:20:00Z")
	w := &world{now: now, flags: map[int64]*entity.Flag{}, counts: counts, unknown: map[string]int64{}, maintain: func() {}}
	ago := func(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }
	for id, requests := range map[uint][]evaluation{
		1: {{at: ago(10), variantID: 61, segmentID: 23, outcome: datar.Matched}},
		2: {{at: ago(40), outcome: datar.NoMatch}},
		3: {{at: ago(2), variantID: 61, segmentID: 23, outcome: datar.Matched}},
		4: nil,
		5: {{at: ago(12), outcome: datar.Disabled}},
		6: {{at: ago(20), outcome: datar.NoMatch}, {at: ago(3), outcome: datar.NoMatch, asked: datar.AskedByTag}},
		7: {{at: ago(3), outcome: datar.NoMatch, asked: datar.AskedByTag}},
		8: {{at: ago(30).Add(-2 * time.Hour), outcome: datar.NoMatch}}, // on the day on which the last 30 days begin
	} {
		f := clone(t, checkout())
		f.ID, f.Key, f.SnapshotID, f.CreatedAt, f.Enabled = id, fmt.Sprint("flag-", id), id, ago(60), id != 5
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		w.flags[int64(id)] = f
		w.snapshots = append(w.snapshots, entity.FlagSnapshot{Model: entity.Model{ID: id, CreatedAt: f.CreatedAt}, FlagID: id, Flag: text})
		for _, e := range requests {
			e.flagID, e.snapshotID = int64(id), int64(id)
			w.evaluations = append(w.evaluations, e)
		}
	}
	w.count(t, rand.New(rand.NewPCG(7, 18)))
	for range 20 { // each call does a part of the work
		if err := counts.Maintain(t.Context(), now, week); err != nil {
			t.Fatal(err)
		}
	}
	return heardWorld{w}
}

// TestStatesAfterRetentionOnEachDatabase compares whether flags can be deleted with a list of all
// evaluations, for numbers of days of which no, some and most details are deleted.
func TestStatesAfterRetentionOnEachDatabase(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		w := retentionWorld(t, kind)
		s := insight.NewService(insight.Options{Counts: w, Flags: w, Snapshots: w, Refresh: refresh, Now: func() time.Time { return w.now }})
		detailed, err := w.DetailedFrom(t.Context())
		if err != nil || detailed.Time().Before(w.now.Add(-15*24*time.Hour)) {
			t.Fatalf("details are from %s on (%v)", detailed.Time(), err)
		}
		for _, days := range []int64{1, 7, 14, 30, 30, 45} {
			list, err := s.States(t.Context(), insight.StatesQuery{Days: &days})
			if err != nil || len(list.Flags) != len(w.flags) {
				t.Fatalf("%d days: %d flags, %v", days, len(list.Flags), err)
			}
			for i := range list.Flags {
				f := &list.Flags[i]
				checkDeletion(t, w, detailed, days, f.State)
				one, err := s.State(t.Context(), f.FlagID, &days)
				if err != nil {
					t.Fatal(err)
				}
				if one.State != f.State.State || one.Reason != f.Reason || one.CanDelete.Answer != f.CanDelete.Answer || one.Evidence != f.Evidence {
					t.Errorf("%d days: alone it is %+v, in the list %+v", days, one, f.State)
				}
			}
		}
	})
}

func checkDeletion(t *testing.T, w heardWorld, detailed datar.Hour, days int64, s *insight.State) {
	t.Helper()
	start := w.now.Add(-time.Duration(days) * 24 * time.Hour).Truncate(time.Hour)
	want, asked := insight.AnswerYes, false
	if start.Before(detailed.Time()) {
		want = insight.AnswerUnknown
	}
	byTag := true
	for _, e := range w.evaluations {
		if e.flagID != s.FlagID || e.at.Before(start) {
			continue
		}
		asked = true
		if e.at.Before(detailed.Time()) && !e.outcome.IsEvent() {
			continue // nothing is known about it
		}
		byTag = byTag && e.asked&datar.AskedByTag != 0
		if want = insight.AnswerNo; byTag {
			want = insight.AnswerUnknown
		}
	}
	unasked := []insight.StateName{insight.StateNew, insight.StateNeverEvaluated, insight.StateInactive}
	if s.CanDelete.Answer != want || asked && (s.CanDelete.Answer == insight.AnswerYes || slices.Contains(unasked, s.State)) {
		t.Errorf("%d days, flag %d, asked %t: %s, can delete %s, want %s: %s", days, s.FlagID, asked, s.State, s.CanDelete.Answer, want, s.Reason)
	}
}
