package insight_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

func TestEveryKindOfChange(t *testing.T) {
	t.Parallel()
	deleted := entity.DeletedAt{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Valid: true}
	for name, test := range map[string]struct {
		change  func(f *entity.Flag)
		what    insight.What
		affects insight.Affects
		text    string
	}{
		"switched off": {func(f *entity.Flag) { f.Enabled = false }, insight.WhatEnabled, insight.AffectsAssignment, "Switched off"},
		"records":      {func(f *entity.Flag) { f.DataRecordsEnabled = false }, insight.WhatRecords, insight.AffectsCounting, "Counting switched off"},
		"key":          {func(f *entity.Flag) { f.Key = "k" }, insight.WhatKey, insight.AffectsNaming, `Key: "checkout-button" to "k"`},
		"entity type":  {func(f *entity.Flag) { f.EntityType = "user" }, insight.WhatEntityType, insight.AffectsNothing, `Entity type: "" to "user"`},
		"variant added": {func(f *entity.Flag) {
			f.Variants = append(f.Variants, entity.Variant{Model: entity.Model{ID: 63}, Key: "red"})
		}, insight.WhatVariantAdded, insight.AffectsNaming, `Variant "red" added`},
		"variant removed": {func(f *entity.Flag) { f.Variants = f.Variants[:1] }, insight.WhatVariantRemoved, insight.AffectsNaming, `Variant "green" removed`},
		"variant key":     {func(f *entity.Flag) { f.Variants[0].Key = "navy" }, insight.WhatVariantKey, insight.AffectsNaming, `Key of variant 61: "blue" to "navy"`},
		"attachment":      {func(f *entity.Flag) { f.Variants[0].Attachment = `{"a":1}` }, insight.WhatAttachment, insight.AffectsNaming, `Attachment of variant "blue" changed`},
		"segment added": {func(f *entity.Flag) {
			f.Segments = append(f.Segments, entity.Segment{Model: entity.Model{ID: 24}, Rank: 9, RolloutPercent: 5})
		}, insight.WhatSegmentAdded, insight.AffectsAssignment, "Segment 24 added: everybody, rollout 5%, none"},
		"segment removed":    {func(f *entity.Flag) { f.Segments = f.Segments[:1] }, insight.WhatSegmentRemoved, insight.AffectsAssignment, "Segment 25 removed"},
		"order":              {func(f *entity.Flag) { f.Segments[1].Rank, f.Segments[0].Rank = 0, 1 }, insight.WhatSegmentOrder, insight.AffectsAssignment, "Order of segments: 23, 25 to 25, 23"},
		"constraint":         {func(f *entity.Flag) { f.Segments[0].Constraints[0].Value = `"DE"` }, insight.WhatConstraint, insight.AffectsAssignment, `Constraint of segment 23: country EQ "FR" to country EQ "DE"`},
		"constraint removed": {func(f *entity.Flag) { f.Segments[0].Constraints = f.Segments[0].Constraints[1:] }, insight.WhatConstraint, insight.AffectsAssignment, `Constraint of segment 23: country EQ "FR" to none`},
		"rollout":            {func(f *entity.Flag) { f.Segments[0].RolloutPercent = 80 }, insight.WhatRollout, insight.AffectsAssignment, "Rollout of segment 23: 50% to 80%"},
		"distribution": {func(f *entity.Flag) {
			f.Segments[0].Distributions[0].Percent, f.Segments[0].Distributions[1].Percent = 20, 80
		}, insight.WhatDistribution, insight.AffectsAssignment, "Distribution of segment 23: blue 50%, green 50% to blue 20%, green 80%"},
		"tags":                {func(f *entity.Flag) { f.Tags = []entity.Tag{{Value: "web"}, {Value: "ios"}} }, insight.WhatTags, insight.AffectsNaming, "Tags: none to ios, web"},
		"description":         {func(f *entity.Flag) { f.Description = "d" }, insight.WhatText, insight.AffectsNothing, "Description changed"},
		"notes":               {func(f *entity.Flag) { f.Notes = "n" }, insight.WhatText, insight.AffectsNothing, "Notes changed"},
		"segment description": {func(f *entity.Flag) { f.Segments[0].Description = "s" }, insight.WhatText, insight.AffectsNothing, "Description of segment 23 changed"},
		"deleted":             {func(f *entity.Flag) { f.DeletedAt = deleted }, insight.WhatDeleted, insight.AffectsAssignment, "Deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := checkout()
			before.Segments = append(before.Segments, entity.Segment{Model: entity.Model{ID: 25}, Rank: 1})
			after := clone(t, before)
			test.change(after)
			a, b := insight.Snapshot{ID: 1, Flag: before}, insight.Snapshot{ID: 2, At: at(t, "2026-01-24T10:00:00Z"), By: "ada", Flag: after}
			c := insight.ChangeBetween(&a, &b, refresh)
			if len(c.Parts) != 1 || c.Parts[0].What != test.what || c.Affects != test.affects || c.Text != test.text {
				t.Errorf("got %+v", c)
			}
			if c.SnapshotID != 2 || c.By != "ada" || !c.EffectiveBy.Equal(at(t, "2026-01-24T10:00:03Z")) {
				t.Errorf("got %d by %s, effective by %s", c.SnapshotID, c.By, c.EffectiveBy)
			}
			if back := insight.ChangeBetween(&b, &a, refresh); name == "deleted" && back.Parts[0].What != insight.WhatRestored {
				t.Errorf("back: %+v", back)
			}
			if same := insight.ChangeBetween(&b, &b, refresh); len(same.Parts) != 0 || same.Affects != insight.AffectsNothing || same.Text != "Saved without a change" {
				t.Errorf("no change: %+v", same)
			}
		})
	}
}

func TestChangesOfAFlagThatIsCreated(t *testing.T) {
	t.Parallel()
	empty := insight.Snapshot{ID: 1, Flag: &entity.Flag{Key: "k", Description: "d"}}
	full := insight.Snapshot{ID: 2, Flag: checkout()}
	if c := insight.ChangeBetween(nil, &empty, 0); c.Text != "Created" || c.Affects != insight.AffectsNothing {
		t.Errorf("got %+v", c)
	}
	if c := insight.ChangeBetween(nil, &full, 0); !strings.HasPrefix(c.Text, "Created; Switched on; ") || c.Affects != insight.AffectsAssignment {
		t.Errorf("got %+v", c)
	}
}

// TestSnapshotsThatCannotBeRead parses invalid snapshots, because other programs can write to the
// database.
func TestSnapshotsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	broken := insight.ParseSnapshot(&entity.FlagSnapshot{Model: entity.Model{ID: 7}, Flag: []byte(`{"Key":`)})
	whole := insight.ParseSnapshot(&entity.FlagSnapshot{Model: entity.Model{ID: 8}, Flag: []byte(`{"Key":"k","SnapshotID":3}`)})
	if broken.Flag != nil || whole.Flag == nil || whole.Flag.SnapshotID != 8 {
		t.Fatalf("got %+v and %+v", broken, whole)
	}
	for i, c := range []insight.Change{insight.ChangeBetween(nil, &broken, 0), insight.ChangeBetween(&broken, &whole, 0)} {
		if c.SnapshotID != int64(7+i) || c.Text == "" {
			t.Errorf("got %+v", c)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	t.Parallel()
	before, after := checkout(), checkout()
	after.Segments[0].Constraints[0].Value = `"` + strings.Repeat("é", 1<<20) + `"`
	c := insight.ChangeBetween(&insight.Snapshot{Flag: before}, &insight.Snapshot{Flag: after}, 0)
	text, err := json.Marshal(c)
	if err != nil || len(text) > 2000 || !strings.Contains(c.Parts[0].To, "...") {
		t.Errorf("%d bytes, %v: %.300s", len(text), err, text)
	}
}

// TestHistoryWhereAllFlagsAreCounted checks a flag with records off where all flags are counted: it
// is counted from the time when this began until the flag is deleted.
func TestHistoryWhereAllFlagsAreCounted(t *testing.T) {
	t.Parallel()
	one := func(when string, on, deleted bool) entity.FlagSnapshot {
		f := checkout()
		f.DataRecordsEnabled = on
		if deleted {
			f.DeletedAt.Time, f.DeletedAt.Valid = at(t, when), true
		}
		return snapshotRow(t, 0, when, f)
	}
	snapshots := []entity.FlagSnapshot{
		one("2026-01-01T00:00:00Z", false, false), one("2026-01-02T00:00:00Z", true, false), one("2026-01-03T00:00:00Z", false, false),
		one("2026-01-05T00:00:00Z", false, false), one("2026-01-06T00:00:00Z", false, true),
	}
	on := func(when string) insight.Period { return insight.Period{From: at(t, when), On: true} }
	off := func(when string) insight.Period { return insight.Period{From: at(t, when)} }
	for all, want := range map[string][]insight.Period{
		"2025-12-01T00:00:00Z": {on("2026-01-01T00:00:00Z"), off("2026-01-06T00:00:00Z")},
		"2026-01-02T12:00:00Z": {off("2026-01-01T00:00:00Z"), on("2026-01-02T00:00:00Z"), off("2026-01-06T00:00:00Z")},
		"2026-01-04T00:00:00Z": {off("2026-01-01T00:00:00Z"), on("2026-01-02T00:00:00Z"), off("2026-01-03T00:00:00Z"), on("2026-01-04T00:00:00Z"), off("2026-01-06T00:00:00Z")},
		"2026-01-07T00:00:00Z": {off("2026-01-01T00:00:00Z"), on("2026-01-02T00:00:00Z"), off("2026-01-03T00:00:00Z")},
	} {
		if difference := cmp.Diff(want, insight.HistoryOf(snapshots, true, at(t, all)).Records); difference != "" {
			t.Errorf("from %s (-want +got):\n%s", all, difference)
		}
	}
}

// snapshotRow returns the snapshot of a flag as it is stored.
func snapshotRow(t *testing.T, id uint, when string, f *entity.Flag) entity.FlagSnapshot {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return entity.FlagSnapshot{Model: entity.Model{ID: id, CreatedAt: at(t, when)}, FlagID: f.ID, Flag: text}
}

// TestDamagedSnapshotsInHistories checks that a snapshot means the same in a history, wherever it
// is: one that cannot be read decides nothing, and one with a damaged part still says whether the
// flag was counted.
func TestDamagedSnapshotsInHistories(t *testing.T) {
	t.Parallel()
	f := checkout()
	f.DataRecordsEnabled = true
	changed := clone(t, f)
	changed.Segments[0].RolloutPercent = 80
	damaged := func(when, text string) entity.FlagSnapshot {
		return entity.FlagSnapshot{Model: entity.Model{ID: 2, CreatedAt: at(t, when)}, FlagID: f.ID, Flag: []byte(text)}
	}
	const first, second, third = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
	on := []insight.Period{{From: at(t, first), On: true}}
	off := append(slices.Clone(on), insight.Period{From: at(t, second)}, insight.Period{From: at(t, third), On: true})
	for text, want := range map[string][]insight.Period{
		`{"DataRecordsEnabled":`:         on,
		`{"DataRecordsEnabled":false} x`: on,
		`{"DataRecordsEnabled":"no"}`:    on,
		`[]`:                             on,
		``:                               on,
		`{"DataRecordsEnabled":false,"Segments":"x"}`: off,
	} {
		for name, last := range map[string]*entity.Flag{"before an assignment": changed, "after it": f} {
			rows := []entity.FlagSnapshot{snapshotRow(t, 1, first, f), damaged(second, text), snapshotRow(t, 3, third, last)}
			if difference := cmp.Diff(want, insight.HistoryOf(rows, true, time.Time{}).Records); difference != "" {
				t.Errorf("%s, %s (-want +got):\n%s", text, name, difference)
			}
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	var snapshots []entity.FlagSnapshot
	f := checkout()
	step := func(id uint, when string, change func(f *entity.Flag)) {
		f = clone(t, f)
		change(f)
		snapshots = append(snapshots, snapshotRow(t, id, when, f))
	}
	step(1, "2026-01-01T00:00:00Z", func(f *entity.Flag) { f.DataRecordsEnabled = false })
	step(2, "2026-01-02T00:00:00Z", func(f *entity.Flag) { f.DataRecordsEnabled = true })
	step(3, "2026-01-03T00:00:00Z", func(f *entity.Flag) { f.Segments[0].RolloutPercent = 80 })
	step(4, "2026-01-04T00:00:00Z", func(f *entity.Flag) { f.Description = "d" })
	got := insight.HistoryOf(snapshots, true, time.Time{})
	want := insight.History{ChangedAt: at(t, "2026-01-04T00:00:00Z"), AssignedAt: at(t, "2026-01-03T00:00:00Z"), AssignedSnapshot: 3,
		Records: []insight.Period{{From: at(t, "2026-01-01T00:00:00Z")}, {From: at(t, "2026-01-02T00:00:00Z"), On: true}}}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
	if got := insight.HistoryOf(snapshots[3:], false, time.Time{}); !got.AssignedAt.IsZero() {
		t.Errorf("a part of the history: %+v", got)
	}
}
