package store

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// watched opens a new database and collects the changes that OnChange receives.
func watched(t *testing.T, kind testdb.Kind, details bool) (*Store, *[]entity.Change) {
	t.Helper()
	var changes []entity.Change
	s, err := Open(t.Context(), Options{
		Driver: kind.Driver, DSN: kind.Fresh(t),
		OnChange:      func(c entity.Change) { changes = append(changes, c) },
		ChangeDetails: details,
	})
	ok(t, err)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s, &changes
}

// TestEveryChangeIsTold makes each kind of change, in the order of the expected list.
func TestEveryChangeIsTold(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, changes := watched(t, kind, false)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "ann", NewFlag{Description: "d", Key: "first"}))
		must[*entity.Flag](t)(s.UpdateFlag(ctx, "bob", 1, FlagPatch{Key: new("one")}))
		must[*entity.Flag](t)(s.SetFlagEnabled(ctx, "ann", 1, true))
		must[*entity.Variant](t)(s.CreateVariant(ctx, "ann", 1, "on", ""))
		must[*entity.Variant](t)(s.UpdateVariant(ctx, "ann", 1, 1, "off", ""))
		must[*entity.Segment](t)(s.CreateSegment(ctx, "ann", 1, "all", 100))
		must[*entity.Segment](t)(s.UpdateSegment(ctx, "ann", 1, 1, "all", 50))
		ok(t, s.ReorderSegments(ctx, "ann", 1, []int64{1}))
		must[*entity.Constraint](t)(s.CreateConstraint(ctx, "ann", 1, 1, entity.Constraint{Property: "p", Operator: "EQ", Value: "1"}))
		must[*entity.Constraint](t)(s.UpdateConstraint(ctx, "ann", 1, 1, 1, entity.Constraint{Property: "q", Operator: "EQ", Value: "1"}))
		ok(t, s.DeleteConstraint(ctx, "ann", 1, 1, 1))
		must[[]entity.Distribution](t)(s.ReplaceDistributions(ctx, "ann", 1, 1, []entity.Distribution{{VariantID: 1, VariantKey: "off", Percent: 100}}))
		must[*entity.Tag](t)(s.CreateTag(ctx, "ann", 1, "web"))
		ok(t, s.DeleteTag(ctx, "ann", 1, 1))
		must[*entity.Flag](t)(s.DuplicateFlag(ctx, "ann", 1, "two", ""))
		ok(t, s.DeleteSegment(ctx, "ann", 1, 1))
		ok(t, s.DeleteVariant(ctx, "ann", 1, 1))
		ok(t, s.DeleteFlag(ctx, "ann", 1))
		must[*entity.Flag](t)(s.RestoreFlag(ctx, "ann", 1))

		change := func(operation entity.Operation, component entity.Component, id uint, key string) entity.Change {
			return entity.Change{
				Operation: operation, FlagID: 1, FlagKey: "one", Component: component, ComponentID: id, ComponentKey: key, User: "ann",
			}
		}
		first, renamed := change("create", "flag", 1, "first"), change("update", "flag", 1, "one")
		first.FlagKey, renamed.User = "first", "bob"
		second := change("create", "flag", 2, "two")
		second.FlagID, second.FlagKey = 2, "two"
		want := []entity.Change{
			first, renamed, change("update", "flag", 1, "one"),
			change("create", "variant", 1, "on"), change("update", "variant", 1, "off"),
			change("create", "segment", 1, ""), change("update", "segment", 1, ""), change("update", "segment", 0, ""),
			change("create", "constraint", 1, "p"), change("update", "constraint", 1, "q"), change("delete", "constraint", 1, "q"),
			change("update", "distribution", 1, ""),
			change("create", "tag", 1, "web"), change("delete", "tag", 1, "web"),
			second,
			change("delete", "segment", 1, ""), change("delete", "variant", 1, "off"),
			change("delete", "flag", 1, "one"), change("restore", "flag", 1, "one"),
		}
		if diff := cmp.Diff(want, *changes, cmpopts.IgnoreFields(entity.Change{}, "Time")); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		for i, c := range *changes {
			if c.Time.IsZero() || i > 0 && c.Time.Before((*changes)[i-1].Time) {
				t.Errorf("change %d was at %s", i, c.Time)
			}
		}
	})
}

func TestAChangeThatDoesNotHappenIsNotTold(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, changes := watched(t, kind, true)
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "k"}))
		_, duplicate := s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "k"})
		_, missing := s.SetFlagEnabled(t.Context(), "", 99, true)
		if !errors.Is(duplicate, entity.ErrDuplicateKey) || !errors.Is(missing, entity.ErrNotFound) || len(*changes) != 1 {
			t.Errorf("errors %v and %v, changes %v", duplicate, missing, *changes)
		}
	})
}

func TestDetailsAreTheSnapshots(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, changes := watched(t, kind, true)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "k"}))
		must[*entity.Flag](t)(s.UpdateFlag(ctx, "", 1, FlagPatch{Description: new("changed")}))
		snapshots := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, 1, SnapshotQuery{Ascending: true}))
		created, updated := (*changes)[0], (*changes)[1]
		if created.Before != nil || string(created.After) != string(snapshots[0].Flag) {
			t.Errorf("creation went from %s to %s", created.Before, created.After)
		}
		if string(updated.Before) != string(snapshots[0].Flag) || string(updated.After) != string(snapshots[1].Flag) {
			t.Errorf("update went from %s to %s", updated.Before, updated.After)
		}
		var after entity.Flag
		ok(t, json.Unmarshal(updated.After, &after))
		if after.Description != "changed" {
			t.Errorf("flag after the update is %+v", after)
		}
	})
}
