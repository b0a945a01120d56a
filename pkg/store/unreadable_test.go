package store

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// TestRowsOfOthers edits rows of one of two flags as other programs or people do. Both flags are
// still listed, the flag says what cannot be read of it, and its rows stay as they are.
func TestRowsOfOthers(t *testing.T) {
	t.Parallel()
	const noNumber = ", not a whole number from 0 to 9223372036854775807"
	for _, test := range []struct{ name, statement, want string }{
		{"attachment without JSON", "UPDATE variants SET attachment = 'red' WHERE id = 1", "variant 1: attachment is not the JSON of an object"},
		{"attachment cut off", `UPDATE variants SET attachment = '{"a":' WHERE id = 1`, "variant 1: attachment is not the JSON of an object"},
		{"attachment with a list", "UPDATE variants SET attachment = '[1]' WHERE id = 1", "variant 1: attachment is not the JSON of an object"},
		{"attachment NULL", "UPDATE variants SET attachment = NULL WHERE id = 1", ""},
		{"rank below 0", "UPDATE segments SET rank = -1 WHERE id = 1", `segment 1: rank is "-1"` + noNumber},
		{"rank NULL", "UPDATE segments SET rank = NULL WHERE id = 1", ""},
		{"huge rank", "UPDATE segments SET rank = 1e30 WHERE id = 1", `segment 1: rank is "1e+30"` + noNumber},
		{"rollout with a word", "UPDATE segments SET rollout_percent = 'all' WHERE id = 1", `segment 1: rollout_percent is "all"` + noNumber},
		{"rollout with a fraction", "UPDATE segments SET rollout_percent = 33.5 WHERE id = 1", `segment 1: rollout_percent is "33.5"` + noNumber},
		{"rollout above 100", "UPDATE segments SET rollout_percent = 250 WHERE id = 1", ""},
		{"percent below 0", "UPDATE distributions SET percent = -5 WHERE id = 1", `distribution 1: percent is "-5"` + noNumber},
		{"variant below 0", "UPDATE distributions SET variant_id = -1 WHERE id = 1", `distribution 1: variant_id is "-1"` + noNumber},
		{"unknown operator", "UPDATE constraints SET operator = 'LIKE', value = NULL WHERE id = 1", ""},
		{"no owner", "UPDATE constraints SET segment_id = 'x' WHERE id = 1", ""},
		{"id below 0", "UPDATE variants SET id = -1 WHERE id = 1", `variant 0: id is "-1"` + noNumber},
		{"enabled with a word", "UPDATE flags SET enabled = 'maybe' WHERE id = 1", `enabled is "maybe", not true or false`},
		{"no key", "UPDATE flags SET key = NULL, description = NULL, entity_type = NULL, enabled = NULL WHERE id = 1", ""},
		{"snapshot below 0", "UPDATE flags SET snapshot_id = -3 WHERE id = 1", `snapshot_id is "-3"` + noNumber},
		{"bytes for a text", "UPDATE flags SET description = x'ff00' WHERE id = 1", ""},
		{"times of a flag", "UPDATE flags SET created_at = 'soon', updated_at = 1700000000 WHERE id = 1", ""},
		{"times of parts", "UPDATE segments SET created_at = 'soon'; UPDATE variants SET updated_at = x'00'; UPDATE tags SET created_at = '?'", ""},
		{"tag without value", "UPDATE tags SET value = NULL", ""},
		{"tag that does not exist", "INSERT INTO flags_tags (flag_id, tag_id) VALUES (1, 77), (1, -1)", ""},
		{"several", "UPDATE segments SET rank = -1, rollout_percent = -1; UPDATE distributions SET percent = -1", `segment 1: rank is "-1"` + noNumber + " (and 2 more)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "flags.sqlite")
			s := openFile(t, path)
			createBeside(t, s)
			known := must[[]entity.Flag](t)(s.EvalFlags(t.Context()))
			raw := openRaw(t, path)
			if _, err := raw.ExecContext(t.Context(), test.statement); err != nil {
				t.Fatal(err)
			}
			before := dump(t, rawDB{raw})
			s = openFile(t, path) // a start
			flags := must[[]entity.Flag](t)(s.EvalFlags(t.Context()))
			if len(flags) != 2 || flags[0].Unreadable != test.want {
				t.Fatalf("flags are %+v, want two and the first one with %q", flags, test.want)
			}
			if strings.Contains(test.statement, "WHERE") {
				same(t, known[1], flags[1])
			}
			one := must[*entity.Flag](t)(s.Flag(t.Context(), 1))
			same(t, flags[0], *one)
			changed, gone, err := s.ChangedFlags(t.Context(), []*entity.Flag{&known[1]})
			ok(t, err)
			if len(changed) != 1 || changed[0].Unreadable != test.want || len(gone) > 0 {
				t.Errorf("changed %+v, gone %v", changed, gone)
			}
			for _, q := range []FlagQuery{{}, {Brief: true}, {Brief: true, Preload: true}} {
				if flags, pages, err := s.FlagsOrPages(t.Context(), q); err != nil || len(flags) != 2 || pages != nil {
					t.Errorf("list %+v: %d flags, %v", q, len(flags), err)
				}
			}
			must[*entity.Flag](t)(s.AnyFlag(t.Context(), 1))
			must[[]entity.Flag](t)(s.FlagsByID(t.Context(), []int64{1, 2}))
			must[[]entity.Segment](t)(s.Segments(t.Context(), 1))
			must[[]entity.Variant](t)(s.Variants(t.Context(), 1))
			must[[]entity.Constraint](t)(s.Constraints(t.Context(), 1, 1))
			must[[]entity.Distribution](t)(s.Distributions(t.Context(), 1, 1))
			must[[]entity.Tag](t)(s.Tags(t.Context(), TagQuery{}))
			must[[]entity.Tag](t)(s.FlagTags(t.Context(), 1))
			must[[]string](t)(s.EntityTypes(t.Context()))
			same(t, before, dump(t, rawDB{raw}))

			exported := filepath.Join(t.TempDir(), "export.sqlite")
			ok(t, s.ExportSQLite(t.Context(), exported, true))
			same(t, before, dump(t, rawDB{openRaw(t, exported)}))

			_, err = s.DuplicateFlag(t.Context(), "", 1, "", "")
			refused := "flag 1 cannot be copied or saved as a whole: " + test.want
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
				t.Errorf("copy: %v, want %q", err, refused)
			}
			if test.want != "" && one.SnapshotID != 0 {
				description := "changed"
				_, err = s.ReplaceDefinition(t.Context(), "", 1, entity.Definition{SnapshotID: one.SnapshotID, Description: &description})
				if err == nil || !strings.Contains(err.Error(), refused) {
					t.Errorf("definition: %v, want %q", err, refused)
				}
				same(t, before, dump(t, rawDB{raw}))
			}
			parts := []string{"segments", "variants", "constraints", "distributions"}
			must[*entity.Flag](t)(s.SetFlagEnabled(t.Context(), "", 1, false))
			after := dump(t, rawDB{raw})
			for _, table := range parts {
				if test.want != "" { // otherwise there is a copy
					same(t, before[table], after[table])
				}
			}
		})
	}
}

// createBeside creates two flags with a variant, a segment, a distribution, a constraint and a tag.
func createBeside(t *testing.T, s *Store) {
	t.Helper()
	for id, key := range []string{"edited", "beside"} {
		flag := int64(id + 1)
		must[*entity.Flag](t)(s.CreateFlag(t.Context(), "ada", NewFlag{Description: "d", Key: key, Template: TemplateBoolean}))
		must[*entity.Constraint](t)(s.CreateConstraint(t.Context(), "ada", flag, flag, entity.Constraint{Property: "p", Operator: "EQ", Value: "1"}))
		must[*entity.Tag](t)(s.CreateTag(t.Context(), "ada", flag, key))
		must[*entity.Flag](t)(s.SetFlagEnabled(t.Context(), "ada", flag, true))
	}
}

// TestUnreadableAttachment covers all databases, and that renaming a variant keeps its attachment,
// while a new attachment repairs it.
func TestUnreadableAttachment(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		const problem = "variant 1: attachment is not the JSON of an object"
		s := setup(t, kind)
		createBeside(t, s)
		ok(t, s.db.Exec("UPDATE variants SET attachment = 'red' WHERE id = 1").Error)
		ok(t, s.db.Exec("UPDATE flag_snapshots SET flag = '{broken' WHERE id = 1").Error)
		flags := must[[]entity.Flag](t)(s.EvalFlags(t.Context()))
		if len(flags) != 2 || flags[0].Unreadable != problem || flags[1].Unreadable != "" {
			t.Fatalf("flags are %+v", flags)
		}
		exported := filepath.Join(t.TempDir(), "export.sqlite")
		ok(t, s.ExportSQLite(t.Context(), exported, true))
		if flags := must[[]entity.Flag](t)(openFile(t, exported).EvalFlags(t.Context())); len(flags) != 2 || flags[0].Unreadable != problem {
			t.Errorf("exported flags are %+v", flags)
		}
		var others int
		ok(t, openRaw(t, exported).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM flag_snapshots WHERE id > 1 AND typeof(flag) <> 'blob'").Scan(&others))
		if others > 0 {
			t.Errorf("%d exported snapshots are not blobs, as Flagr writes them", others)
		}
		must[*entity.Variant](t)(s.UpdateVariant(t.Context(), "", 1, 1, "renamed", ""))
		var stored string
		ok(t, s.db.Raw("SELECT attachment FROM variants WHERE id = 1").Scan(&stored).Error)
		if stored != "red" {
			t.Errorf("attachment of the renamed variant is %q", stored)
		}
		must[*entity.Variant](t)(s.UpdateVariant(t.Context(), "", 1, 1, "renamed", `{"color":"red"}`))
		if f := must[*entity.Flag](t)(s.Flag(t.Context(), 1)); f.Unreadable != "" || f.Variants[0].Attachment != `{"color":"red"}` {
			t.Errorf("repaired flag is %+v", f)
		}
		if snapshots := must[[]entity.FlagSnapshot](t)(s.Snapshots(t.Context(), 1, SnapshotQuery{Ascending: true})); string(snapshots[0].Flag) != "{broken" {
			t.Errorf("snapshot is %s", snapshots[0].Flag)
		}
	})
}

// TestFlagWithoutID has a flag whose ID no request can name.
func TestFlagWithoutID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ id, want string }{
		{"0", "id is 0, not a number from 1"},
		{"-7", `id is "-7", not a whole number from 0 to 9223372036854775807`},
	} {
		path := filepath.Join(t.TempDir(), "flags.sqlite")
		s := openFile(t, path)
		createBeside(t, s)
		ok(t, s.db.Exec("UPDATE flags SET id = "+test.id+" WHERE id = 1").Error)
		flags := must[[]entity.Flag](t)(s.EvalFlags(t.Context()))
		if len(flags) != 2 || flags[0].Unreadable != test.want || flags[0].Key != "edited" || flags[1].Unreadable != "" {
			t.Errorf("with id %s: %+v", test.id, flags)
		}
		known := []*entity.Flag{&flags[1]}
		if _, gone, err := s.ChangedFlags(t.Context(), known); err != nil || len(gone) > 0 {
			t.Errorf("with id %s: %v is gone, %v", test.id, gone, err)
		}
		if _, err := s.flagSizes(t.Context(), FlagQuery{Preload: true}); err != nil {
			t.Errorf("with id %s: %v", test.id, err)
		}
	}
}

// TestRepeatedKeys opens a database whose flags share a key, without the unique index, and exports
// it.
func TestRepeatedKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "flags.sqlite")
	createBeside(t, openFile(t, path))
	if _, err := openRaw(t, path).ExecContext(t.Context(), "DROP INDEX idx_flag_key; UPDATE flags SET key = 'beside'"); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := must[*Store](t)(Open(t.Context(), Options{Driver: "sqlite3", DSN: path, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	defer func() { ok(t, s.Close()) }()
	if flags := must[[]entity.Flag](t)(s.EvalFlags(t.Context())); len(flags) != 2 {
		t.Errorf("%d flags", len(flags))
	}
	third := must[*entity.Flag](t)(s.CreateFlag(t.Context(), "ada", NewFlag{Description: "d", Key: "third"}))
	taken := "beside"
	if _, err := s.UpdateFlag(t.Context(), "ada", int64(third.ID), FlagPatch{Key: &taken}); !errors.Is(err, entity.ErrDuplicateKey) {
		t.Errorf("a key that other flags have: %v", err)
	}
	if _, err := s.ReplaceDefinition(t.Context(), "ada", int64(third.ID), entity.Definition{SnapshotID: third.SnapshotID, Key: &taken}); !errors.Is(err, entity.ErrDuplicateKey) {
		t.Errorf("a definition with a key that other flags have: %v", err)
	}
	exported := filepath.Join(t.TempDir(), "export.sqlite")
	ok(t, s.ExportSQLite(t.Context(), exported, true))
	if flags := must[[]entity.Flag](t)(openFile(t, exported).EvalFlags(t.Context())); len(flags) != 3 || flags[0].Key != "beside" {
		t.Errorf("exported flags are %+v", flags)
	}
	if !strings.Contains(log.String(), `index="idx_flag_key on key"`) {
		t.Errorf("log is %s", &log)
	}
}
