package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestStoredJSONIsShort: characters of HTML are stored as they are, and not as six characters.
func TestStoredJSONIsShort(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, ctx := setup(t, kind), t.Context()
		f, err := s.CreateFlag(ctx, "ada", NewFlag{Key: "short", Description: "d", Template: "simple_boolean_flag"})
		ok(t, err)
		text := strings.Repeat("<&>", 5000)
		attachment := entity.Attachment(`{"text":"` + text + `"}`)
		f, err = s.ReplaceDefinition(ctx, "ada", int64(f.ID), entity.Definition{SnapshotID: f.SnapshotID, Notes: &text,
			Variants: []entity.VariantDefinition{{ID: f.Variants[0].ID, Key: "on", Attachment: attachment}}})
		ok(t, err)
		rows, err := s.SnapshotsByID(ctx, []int64{int64(f.SnapshotID)})
		ok(t, err)
		if n := len(rows[0].Flag); n > 2*len(text)+2000 || strings.Count(string(rows[0].Flag), text) != 2 {
			t.Errorf("the snapshot of 2 × %d characters has %d bytes", len(text), n)
		}
		var stored []string
		ok(t, s.db.Model(&entity.Variant{}).Where("flag_id = ?", f.ID).Pluck("attachment", &stored).Error)
		if want := `{"text":"` + text + `"}`; len(stored) != 1 || stored[0] != want {
			t.Errorf("the attachment is stored as %.100q", stored)
		}
		read, err := s.Flag(ctx, int64(f.ID))
		ok(t, err)
		if read.Notes != text || !read.Variants[0].Attachment.Same(attachment) {
			t.Error("the flag is not as it was saved")
		}
	})
}

// TestHistoryOfFlags checks that the history of a flag is read, newest snapshots first, even if the
// flag is deleted.
func TestHistoryOfFlags(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s, ctx := setup(t, kind), t.Context()
		var ids []int64
		for _, key := range []string{"first", "second"} {
			f, err := s.CreateFlag(ctx, "ada", NewFlag{Key: key, Description: "d"})
			ok(t, err)
			ids = append(ids, int64(f.ID))
		}
		for _, on := range []bool{true, false, true} {
			_, err := s.SetFlagEnabled(ctx, "bob", ids[0], on)
			ok(t, err)
		}
		ok(t, s.DeleteFlag(ctx, "eve", ids[0]))

		heads, err := s.SnapshotHeads(ctx, ids[0], 100)
		ok(t, err)
		var by []string
		for i, h := range heads {
			by = append(by, h.UpdatedBy)
			if int64(h.FlagID) != ids[0] || i > 0 && (h.ID >= heads[i-1].ID || h.CreatedAt.After(heads[i-1].CreatedAt)) || time.Since(h.CreatedAt) > time.Hour {
				t.Errorf("head %d is %+v, after %+v", i, h, heads[max(0, i-1)])
			}
		}
		if want := []string{"eve", "bob", "bob", "bob", "ada"}; !slices.Equal(by, want) {
			t.Errorf("snapshots are by %q, want %q", by, want)
		}
		some, err := s.SnapshotHeads(ctx, ids[0], 2)
		ok(t, err)
		if !slices.Equal(some, heads[:2]) {
			t.Errorf("the newest two are %+v, want %+v", some, heads[:2])
		}
		if none, err := s.SnapshotHeads(ctx, 999, 2); err != nil || len(none) != 0 {
			t.Errorf("a flag that is not there: %+v, %v", none, err)
		}

		all, err := s.HeadsOfFlags(ctx, append(slices.Clone(ids), 999))
		ok(t, err)
		if len(all) != 6 || !slices.IsSortedFunc(all, func(a, b entity.SnapshotHead) int { return int(a.ID) - int(b.ID) }) {
			t.Errorf("heads of both flags are %+v", all)
		}
		if none, err := s.HeadsOfFlags(ctx, nil); err != nil || len(none) != 0 {
			t.Errorf("heads of no flags: %+v, %v", none, err)
		}

		oldest, newest := heads[4].ID, heads[0].ID
		snapshots, err := s.SnapshotsByID(ctx, []int64{int64(newest), 999_999, int64(oldest), int64(newest)})
		ok(t, err)
		if len(snapshots) != 2 || snapshots[0].ID != oldest || snapshots[1].ID != newest || !strings.Contains(string(snapshots[0].Flag), `"first"`) {
			t.Errorf("snapshots by id: %+v", snapshots)
		}

		var each []uint
		ok(t, s.EachSnapshot(ctx, []int64{int64(newest), 999_999, int64(oldest), int64(heads[1].ID)}, func(row *entity.FlagSnapshot) {
			each = append(each, row.ID)
			if int64(row.FlagID) != ids[0] || !strings.Contains(string(row.Flag), `"first"`) || time.Since(row.CreatedAt) > time.Hour {
				t.Errorf("snapshot is %+v", row)
			}
		}))
		if want := []uint{newest, oldest, heads[1].ID}; !slices.Equal(each, want) {
			t.Errorf("each of the snapshots: %v, want %v", each, want)
		}
		ok(t, s.EachSnapshot(ctx, nil, func(*entity.FlagSnapshot) { t.Error("a snapshot of none") }))

		f, err := s.AnyFlag(ctx, ids[0])
		ok(t, err)
		if !f.DeletedAt.Valid || f.Key != "first" || f.SnapshotID != newest {
			t.Errorf("the deleted flag is %+v", f)
		}
		if _, err := s.AnyFlag(ctx, 999); !errors.Is(err, entity.ErrNotFound) || !strings.Contains(err.Error(), "999") {
			t.Errorf("a flag that is not there: %v", err)
		}

		// By key and by ID, without flags that are not deleted. The list is longer than one
		// statement.
		keys, others := []string{"second", "first"}, slices.Clone(ids)
		for i := range int64(2 * idsPerQuery) {
			keys, others = append(keys, fmt.Sprint("no-", i)), append(others, 1_000+i)
		}
		for what, found := range map[string]func() ([]entity.Flag, error){
			"key": func() ([]entity.Flag, error) { return s.DeletedAmong(ctx, keys, nil) },
			"id":  func() ([]entity.Flag, error) { return s.DeletedAmong(ctx, nil, others) },
		} {
			if deleted, err := found(); err != nil || len(deleted) != 1 || int64(deleted[0].ID) != ids[0] {
				t.Errorf("deleted flags by %s: %+v, %v", what, deleted, err)
			}
		}
		if both, err := s.DeletedAmong(ctx, []string{"first"}, ids[:1]); err != nil || len(both) != 2 {
			t.Errorf("found by key and by id: %+v, %v", both, err)
		}

		ok(t, s.DeleteFlag(ctx, "eve", ids[1]))
		for _, page := range []struct {
			limit, offset int
			want          []int64
		}{{10, 0, []int64{ids[1], ids[0]}}, {1, 0, ids[1:]}, {10, 1, ids[:1]}, {10, 2, nil}, {10, 9, nil}} {
			deleted, all, err := s.DeletedFlags(ctx, page.limit, page.offset)
			ok(t, err)
			if all != len(ids) {
				t.Errorf("%d flags are deleted, want %d", all, len(ids))
			}
			var got []int64
			for _, f := range deleted {
				got = append(got, int64(f.ID))
			}
			if !slices.Equal(got, page.want) {
				t.Errorf("%d deleted flags after %d: %v, want %v", page.limit, page.offset, got, page.want)
			}
		}
	})
}

// TestSnapshotsThatAreTooLarge checks that the size of snapshots is limited before they are read.
func TestSnapshotsThatAreTooLarge(t *testing.T) {
	t.Parallel()
	s, ctx := setup(t, testdb.SQLite()), t.Context()
	content := `{"Notes":"` + strings.Repeat("x", 1_000_000) + `"}`
	var snapshots []entity.FlagSnapshot
	var ids []int64
	for i := range maxSnapshotBytes/len(content) + 1 {
		ids = append(ids, int64(i+1))
		snapshots = append(snapshots, entity.FlagSnapshot{Model: entity.Model{ID: uint(i + 1)}, FlagID: 1, Flag: []byte(content)})
	}
	ok(t, s.db.CreateInBatches(snapshots, 5).Error)
	if few, err := s.SnapshotsByID(ctx, ids[1:]); err != nil || len(few) != len(ids)-1 {
		t.Errorf("%d of %d snapshots: %v", len(few), len(ids)-1, err)
	}
	if _, err := s.SnapshotsByID(ctx, ids); !errors.Is(err, entity.ErrInvalid) || !strings.Contains(err.Error(), "more than 32 MiB") {
		t.Errorf("one more: %v", err)
	}

	// EachSnapshot reads them in parts.
	var each []int64
	ok(t, s.EachSnapshot(ctx, ids, func(row *entity.FlagSnapshot) { each = append(each, int64(row.ID)) }))
	if !slices.Equal(each, ids) {
		t.Errorf("each of %d snapshots: %v", len(ids), each)
	}
	const part = statesAtOnce * bytesPerStateByte
	memory := budget.NewMemory(2 * part)
	limited, release := memory.Share(ctx)
	defer release()
	ok(t, s.EachSnapshot(limited, ids, func(*entity.FlagSnapshot) {}))
	if err := memory.Take(part); err != nil {
		t.Errorf("snapshots of %d bytes took more memory than a part needs: %v", len(ids)*len(content), err)
	}
}
