package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// defined creates a flag with two variants and two segments.
func defined(t *testing.T, s *Store) *entity.Flag {
	t.Helper()
	created := must[*entity.Flag](t)(s.CreateFlag(t.Context(), "ann", NewFlag{Description: "d", Key: "k"}))
	return must[*entity.Flag](t)(s.ReplaceDefinition(t.Context(), "ann", int64(created.ID), entity.Definition{
		SnapshotID: created.SnapshotID,
		Tags:       []string{"web", "ios"},
		Variants:   []entity.VariantDefinition{{Key: "blue", Attachment: `{"n":"1"}`}, {Key: "green"}},
		Segments: []entity.SegmentDefinition{
			{
				Description: "France", RolloutPercent: 50,
				Constraints:   []entity.ConstraintDefinition{{Property: "country", Operator: "EQ", Value: `"FR"`}, {Property: "age", Operator: "GTE", Value: "18"}},
				Distributions: []entity.DistributionDefinition{{VariantKey: "blue", Percent: 60}, {VariantKey: "green", Percent: 40}},
			},
			{Description: "rest", RolloutPercent: 100, Distributions: []entity.DistributionDefinition{{VariantKey: "green", Percent: 100}}},
		},
	}))
}

func TestADefinitionIsOneSnapshotAndKeepsIDs(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, changes := watched(t, kind, false)
		ctx := t.Context()
		before := defined(t, s)
		if n := len(*changes); n != 2 {
			t.Fatalf("%d changes were told, want those of the creation and of the definition", n)
		}
		d := entity.DefinitionOf(before)
		if again := must[*entity.Flag](t)(s.ReplaceDefinition(ctx, "ann", int64(before.ID), d)); again.SnapshotID != before.SnapshotID {
			t.Errorf("the same definition wrote snapshot %d after %d", again.SnapshotID, before.SnapshotID)
		}

		// Renames a variant, adds one, swaps the segments, and removes a constraint and a tag.
		d.Variants[0].Key = "navy"
		d.Variants = append(d.Variants, entity.VariantDefinition{Key: "red"})
		d.Segments[0], d.Segments[1] = d.Segments[1], d.Segments[0]
		d.Segments[1].Constraints = d.Segments[1].Constraints[1:]
		d.Segments[0].Distributions = []entity.DistributionDefinition{{VariantKey: "green", Percent: 30}, {VariantKey: "red", Percent: 70}}
		d.Tags = []string{"ios", "tv"}
		d.Description = new("other")
		after := must[*entity.Flag](t)(s.ReplaceDefinition(ctx, "bob", int64(before.ID), d))
		if n := len(*changes); n != 3 || (*changes)[2].User != "bob" {
			t.Errorf("%d changes were told, the last by %q", n, (*changes)[n-1].User)
		}
		snapshots := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, int64(before.ID), SnapshotQuery{}))
		if len(snapshots) != 3 || snapshots[0].ID != after.SnapshotID || snapshots[0].UpdatedBy != "bob" {
			t.Errorf("%d snapshots, the newest %d by %q; the flag has %d", len(snapshots), snapshots[0].ID, snapshots[0].UpdatedBy, after.SnapshotID)
		}
		read := must[*entity.Flag](t)(s.Flag(ctx, int64(before.ID)))
		if diff := cmp.Diff(entity.DefinitionOf(after), entity.DefinitionOf(read)); diff != "" {
			t.Errorf("the answer is not what is stored:\n%s", diff)
		}
		if read.Variants[0].ID != before.Variants[0].ID || read.Variants[0].Key != "navy" || len(read.Variants) != 3 {
			t.Errorf("variants are %+v", read.Variants)
		}
		if read.Segments[0].ID != before.Segments[1].ID || read.Segments[1].ID != before.Segments[0].ID {
			t.Errorf("segments are in the order %d, %d", read.Segments[0].ID, read.Segments[1].ID)
		}
		if got := read.Segments[1].Constraints; len(got) != 1 || got[0].ID != before.Segments[0].Constraints[1].ID {
			t.Errorf("constraints are %+v", got)
		}
		for i, share := range read.Segments[1].Distributions {
			if was := before.Segments[0].Distributions[i]; share.ID != was.ID || share.Percent != was.Percent {
				t.Errorf("share %d was %+v and is %+v", i, was, share)
			}
		}
		if share := read.Segments[1].Distributions[0]; share.VariantKey != "navy" {
			t.Errorf("the share of the renamed variant names %q", share.VariantKey)
		}
		if share := read.Segments[0].Distributions[1]; share.VariantID != read.Variants[2].ID || share.Percent != 70 {
			t.Errorf("the share of the new variant is %+v", share)
		}
	})
}

func TestADefinitionChangesOnlyWhatItNames(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, _ := watched(t, kind, false)
		before := defined(t, s)
		after := must[*entity.Flag](t)(s.ReplaceDefinition(t.Context(), "ann", int64(before.ID), entity.Definition{
			SnapshotID: before.SnapshotID, Enabled: new(true),
			Segments: []entity.SegmentDefinition{{ID: before.Segments[0].ID, Description: "France", RolloutPercent: 80}, {ID: before.Segments[1].ID, Description: "rest", RolloutPercent: 100}},
		}))
		want := entity.DefinitionOf(before)
		want.SnapshotID, want.Enabled, want.Segments[0].RolloutPercent = after.SnapshotID, new(true), 80
		if diff := cmp.Diff(want, entity.DefinitionOf(after)); diff != "" {
			t.Errorf("more or less has changed:\n%s", diff)
		}
	})
}

func TestADefinitionThatBreaksARuleSavesNothing(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, _ := watched(t, kind, false)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "ann", NewFlag{Description: "d", Key: "taken"}))
		before := defined(t, s)
		for name, test := range map[string]struct {
			change func(d *entity.Definition)
			want   string
		}{
			"foreign segment":    {func(d *entity.Definition) { d.Segments[0].ID = 99 }, "segments[0].id: segment 99 does not belong to flag 2"},
			"foreign variant":    {func(d *entity.Definition) { d.Variants[1].ID = 99 }, "variants[1].id: variant 99"},
			"foreign constraint": {func(d *entity.Definition) { d.Segments[0].Constraints[0].ID = 99 }, "segments[0].constraints[0].id: constraint 99"},
			"foreign share":      {func(d *entity.Definition) { d.Segments[0].Distributions[0].VariantID = 99 }, "segments[0].distributions[0].variantID"},
			"share twice": {func(d *entity.Definition) {
				shares := d.Segments[0].Distributions
				d.Segments[0].Distributions = []entity.DistributionDefinition{{VariantID: shares[0].VariantID, Percent: 60}, {VariantKey: shares[0].VariantKey, Percent: 40}}
			}, "segments[0].distributions[1]: "},
			"segment twice":           {func(d *entity.Definition) { d.Segments[1].ID = d.Segments[0].ID }, "is named twice"},
			"sum":                     {func(d *entity.Definition) { d.Segments[0].Distributions[0].Percent = 61 }, "segments[0].distributions: the percents add up to 101, want 100"},
			"rollout":                 {func(d *entity.Definition) { d.Segments[0].RolloutPercent = 101 }, "segments[0].rolloutPercent"},
			"value":                   {func(d *entity.Definition) { d.Segments[0].Constraints[0].Value = "FR" }, "segments[0].constraints[0].value"},
			"operator":                {func(d *entity.Definition) { d.Segments[0].Constraints[0].Operator = "LIKE" }, `"LIKE" is not an operator; want one of EQ, `},
			"key of a variant":        {func(d *entity.Definition) { d.Variants[0].Key = "a b" }, "variants[0].key"},
			"two variants of one key": {func(d *entity.Definition) { d.Variants[0].Key = "green" }, `another variant has the key "green"`},
			"unknown variant":         {func(d *entity.Definition) { d.Variants = d.Variants[:1] }, "does not belong to flag"},
			"variant in use":          {func(d *entity.Definition) { d.Variants, d.Segments = d.Variants[:1], nil }, `variant "green" cannot be removed`},
			"description":             {func(d *entity.Definition) { d.Description = new("") }, "description: must not be empty"},
			"tag":                     {func(d *entity.Definition) { d.Tags = []string{"a,b"} }, "tags[0]"},
			"text":                    {func(d *entity.Definition) { d.Notes = new("a\x00") }, "notes"},
			"key of another flag":     {func(d *entity.Definition) { d.Key = new("taken"); d.Description = new("other") }, "flag key already exists"},
		} {
			d := entity.DefinitionOf(before)
			test.change(&d)
			_, err := s.ReplaceDefinition(ctx, "bob", int64(before.ID), d)
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, entity.ErrInvalid) && !errors.Is(err, entity.ErrDuplicateKey) {
				t.Errorf("%s: error is %v, want one with %q", name, err, test.want)
			}
		}
		if _, err := s.ReplaceDefinition(ctx, "bob", 99, entity.Definition{}); !errors.Is(err, entity.ErrNotFound) {
			t.Errorf("no such flag: error is %v", err)
		}
		after := must[*entity.Flag](t)(s.Flag(ctx, int64(before.ID)))
		if diff := cmp.Diff(entity.DefinitionOf(before), entity.DefinitionOf(after)); diff != "" {
			t.Errorf("something was saved:\n%s", diff)
		}
	})
}

func TestOfDefinitionsMadeFromOneSnapshotOneIsSaved(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, _ := watched(t, kind, false)
		before := defined(t, s)
		const editors = 8
		var wg sync.WaitGroup
		errs := make([]error, editors)
		for i := range editors {
			wg.Go(func() {
				d := entity.DefinitionOf(before)
				d.Segments[0].RolloutPercent = uint(i)
				_, errs[i] = s.ReplaceDefinition(context.WithoutCancel(t.Context()), "ann", int64(before.ID), d)
			})
		}
		wg.Wait()
		saved := -1
		for i, err := range errs {
			conflict := &entity.ConflictError{}
			switch {
			case err == nil && saved >= 0:
				t.Errorf("editors %d and %d were both saved", saved, i)
			case err == nil:
				saved = i
			case !errors.As(err, &conflict) || !errors.Is(err, entity.ErrConflict):
				t.Errorf("editor %d: %v", i, err)
			case conflict.Base == nil || conflict.Base.Segments[0].RolloutPercent != 50 || conflict.Base.SnapshotID != before.SnapshotID:
				t.Errorf("editor %d: base is %+v", i, conflict.Base)
			case conflict.Current.SnapshotID == before.SnapshotID || len(conflict.Current.Segments) != 2:
				t.Errorf("editor %d: current is %+v", i, conflict.Current)
			}
		}
		after := must[*entity.Flag](t)(s.Flag(t.Context(), int64(before.ID)))
		if saved < 0 || after.Segments[0].RolloutPercent != uint(saved) {
			t.Errorf("editor %d was saved, and the rollout is %d", saved, after.Segments[0].RolloutPercent)
		}
	})
}
