package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// setup opens a new database.
func setup(t *testing.T, kind testdb.Kind) *Store {
	t.Helper()
	return open(t, kind, kind.Fresh(t))
}

func openFile(t *testing.T, dsn string) *Store {
	t.Helper()
	return open(t, testdb.SQLite(), dsn)
}

// open opens a store. SQLite does not sync to disk, because no test is about a power failure and
// syncs could take minutes on a busy disk.
func open(t *testing.T, kind testdb.Kind, dsn string) *Store {
	t.Helper()
	if kind.Driver == "sqlite3" {
		dsn = withPragma(dsn, "synchronous(OFF)")
	}
	s, err := Open(t.Context(), Options{Driver: kind.Driver, DSN: dsn})
	if err != nil {
		t.Fatalf("open %s: %v", dsn, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// shared returns the connection string for several servers that constantly write to the same
// database. On a SQLite file, they poll for the lock, which another server may take each time, so
// ten seconds are not always enough.
func shared(kind testdb.Kind, dsn string) string {
	if kind.Driver == "sqlite3" {
		return withPragma(dsn, "busy_timeout(300000)")
	}
	return dsn
}

// withPragma adds a setting to a connection string of SQLite.
func withPragma(dsn, pragma string) string {
	if strings.Contains(dsn, "?") {
		return dsn + "&_pragma=" + pragma
	}
	return dsn + "?_pragma=" + pragma
}

// must returns the result of a call that must succeed.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fixture creates flag 1 with variants 1 (control) and 2 (treatment), segments 1 and 2, constraint
// 1 in segment 1, and both variants at 50 percent in segment 1. It also creates flag 2 with variant
// 3 and segment 3.
func fixture(t *testing.T, kind testdb.Kind) *Store {
	t.Helper()
	s := setup(t, kind)
	ctx := t.Context()
	for _, key := range []string{"one", "two"} {
		must[*entity.Flag](t)(s.CreateFlag(ctx, "ann", NewFlag{Description: "Flag " + key, Key: key}))
	}
	must[*entity.Variant](t)(s.CreateVariant(ctx, "ann", 1, "control", ""))
	must[*entity.Variant](t)(s.CreateVariant(ctx, "ann", 1, "treatment", `{"color":"red"}`))
	must[*entity.Variant](t)(s.CreateVariant(ctx, "ann", 2, "other", ""))
	must[*entity.Segment](t)(s.CreateSegment(ctx, "ann", 1, "first", 100))
	must[*entity.Segment](t)(s.CreateSegment(ctx, "ann", 1, "second", 50))
	must[*entity.Segment](t)(s.CreateSegment(ctx, "ann", 2, "foreign", 50))
	must[*entity.Constraint](t)(s.CreateConstraint(ctx, "ann", 1, 1, entity.Constraint{Property: "country", Operator: "EQ", Value: `"FR"`}))
	must[[]entity.Distribution](t)(s.ReplaceDistributions(ctx, "ann", 1, 1, []entity.Distribution{
		{VariantID: 1, VariantKey: "control", Percent: 50}, {VariantID: 2, VariantKey: "treatment", Percent: 50},
	}))
	return s
}

func deepAttachment(levels int) entity.Attachment {
	return entity.Attachment(strings.Repeat(`{"a":`, levels-1) + "{}" + strings.Repeat("}", levels-1))
}

// TestRefusals checks every rule that rejects a change: the kind and text of the error, and that
// the change leaves no rows.
func TestRefusals(t *testing.T) {
	shares := func(percents ...uint) []entity.Distribution {
		all := make([]entity.Distribution, len(percents))
		for i, percent := range percents {
			all[i] = entity.Distribution{VariantID: uint(i + 1), VariantKey: []string{"control", "treatment", "third"}[i], Percent: percent}
		}
		return all
	}
	keep := entity.Constraint{Property: "a", Operator: "EQ", Value: "1"}
	cases := map[string]struct {
		call    func(ctx context.Context, s *Store) error
		kind    error
		message string
	}{
		"create: key taken": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "d", Key: "one"})
			return err
		}, entity.ErrDuplicateKey, `cannot create flag. flag key already exists: flag 1 has the key "one"`},
		"create: key taken by a template": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "d", Key: "two", Template: TemplateBoolean})
			return err
		}, entity.ErrDuplicateKey, `cannot create flag. flag key already exists: flag 2 has the key "two"`},
		"create: bad key": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "d", Key: "has space"})
			return err
		}, entity.ErrInvalid, `cannot create flag. key "has space" is not accepted; want one or more ASCII letters, digits and _ - / . :`},
		"create: no description": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{})
			return err
		}, entity.ErrInvalid, "description must not be empty"},
		"create: NUL": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "a\x00b"})
			return err
		}, entity.ErrInvalid, "description must not contain the NUL character"},
		"create: not UTF-8": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "a\xff"})
			return err
		}, entity.ErrInvalid, "description is not valid UTF-8"},
		"create: unknown template": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateFlag(ctx, "bo", NewFlag{Description: "d", Template: "nope"})
			return err
		}, entity.ErrInvalid, "unknown value for template: nope"},
		"update: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 99, FlagPatch{})
			return err
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"update: key taken": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{Key: new("two")})
			return err
		}, entity.ErrDuplicateKey, `cannot update flag. flag key already exists: flag 2 has the key "two"`},
		"update: empty key": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{Key: new("")})
			return err
		}, entity.ErrInvalid, `cannot update flag. key "" is not accepted; want one or more ASCII letters, digits and _ - / . :`},
		"update: empty description": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{Description: new("")})
			return err
		}, entity.ErrInvalid, "description must not be empty"},
		"update: bad notes": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{Notes: new("\x00")})
			return err
		}, entity.ErrInvalid, "notes must not contain the NUL character"},
		"update: bad entity type": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{EntityType: new("bad type!")})
			return err
		}, entity.ErrInvalid, `invalid entityType. key "bad type!" is not accepted; want one or more ASCII letters, digits and _ - / . :`},
		"update: entity type of a change that fails": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateFlag(ctx, "bo", 1, FlagPatch{EntityType: new("user"), Key: new("two")})
			return err
		}, entity.ErrDuplicateKey, `cannot update flag. flag key already exists: flag 2 has the key "two"`},
		"enable: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.SetFlagEnabled(ctx, "bo", -1, true)
			return err
		}, entity.ErrNotFound, "unable to find flag -1 in the database"},
		"delete: no such flag": {func(ctx context.Context, s *Store) error {
			return s.DeleteFlag(ctx, "bo", 99)
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"restore: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.RestoreFlag(ctx, "bo", 99)
			return err
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"duplicate: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.DuplicateFlag(ctx, "bo", 99, "", "")
			return err
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"duplicate: key taken": {func(ctx context.Context, s *Store) error {
			_, err := s.DuplicateFlag(ctx, "bo", 1, "two", "")
			return err
		}, entity.ErrDuplicateKey, `cannot duplicate flag. flag key already exists: flag 2 has the key "two"`},
		"variant: bad key": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateVariant(ctx, "bo", 1, "a b", "")
			return err
		}, entity.ErrInvalid, `key "a b" is not accepted; want one or more ASCII letters, digits and _ - / . :`},
		"variant: attachment too deep": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateVariant(ctx, "bo", 1, "deep", deepAttachment(101))
			return err
		}, entity.ErrInvalid, "attachment nests more than the 100 levels of objects and lists allowed"},
		"variant: changed to a deep attachment": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateVariant(ctx, "bo", 1, 1, "control", deepAttachment(101))
			return err
		}, entity.ErrInvalid, "attachment nests more than the 100 levels of objects and lists allowed"},
		"constraint: large pattern": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateConstraint(ctx, "bo", 1, 1, entity.Constraint{Property: "a", Operator: "EREG", Value: `"` + strings.Repeat("x{1000}", 33) + `"`})
			return err
		}, entity.ErrInvalid, "pattern is too large: at most 32768 instructions are allowed, with repetitions written out, where a Unicode class counts 100 " +
			"and a class in brackets that ignores case counts 1000, and one more for 16 characters of each range; IN compares a long list of strings faster"},
		"variant: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateVariant(ctx, "bo", 99, "a", "")
			return err
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"variant of another flag: update": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateVariant(ctx, "bo", 1, 3, "x", "")
			return err
		}, entity.ErrNotFound, "variant 3 does not belong to flag 1"},
		"variant of another flag: delete": {func(ctx context.Context, s *Store) error {
			return s.DeleteVariant(ctx, "bo", 1, 3)
		}, entity.ErrNotFound, "variant 3 does not belong to flag 1"},
		"variant in use": {func(ctx context.Context, s *Store) error {
			return s.DeleteVariant(ctx, "bo", 1, 2)
		}, entity.ErrInvalid, "error deleting variant 2. distribution 2 still has non-zero distribution 50"},
		"segment: rollout over 100": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateSegment(ctx, "bo", 1, "d", 101)
			return err
		}, entity.ErrInvalid, "rolloutPercent must be between 0 and 100, not 101"},
		"segment of another flag: update": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateSegment(ctx, "bo", 1, 3, "d", 1)
			return err
		}, entity.ErrNotFound, "segment 3 does not belong to flag 1"},
		"segment: no such one": {func(ctx context.Context, s *Store) error {
			return s.DeleteSegment(ctx, "bo", 1, 99)
		}, entity.ErrNotFound, "segment 99 does not belong to flag 1"},
		"reorder: segment of another flag": {func(ctx context.Context, s *Store) error {
			return s.ReorderSegments(ctx, "bo", 1, []int64{2, 3})
		}, entity.ErrNotFound, "segmentIDs: segment 3 does not belong to flag 1"},
		"reorder: twice the same": {func(ctx context.Context, s *Store) error {
			return s.ReorderSegments(ctx, "bo", 1, []int64{2, 1, 2})
		}, entity.ErrInvalid, "segmentIDs has 2 more than once"},
		"reorder: none": {func(ctx context.Context, s *Store) error {
			return s.ReorderSegments(ctx, "bo", 1, nil)
		}, entity.ErrInvalid, "segmentIDs must not be empty"},
		"constraint: unknown operator": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateConstraint(ctx, "bo", 1, 1, entity.Constraint{Property: "a", Operator: "LIKE", Value: "1"})
			return err
		}, entity.ErrInvalid, `operator "LIKE" is not accepted; want one of EQ, NEQ, LT, LTE, GT, GTE, EREG, NEREG, IN, NOTIN, CONTAINS, NOTCONTAINS`},
		"constraint: no value": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateConstraint(ctx, "bo", 1, 1, 1, entity.Constraint{Property: "a", Operator: "EQ"})
			return err
		}, entity.ErrInvalid, "value must not be empty"},
		"constraint: segment of another flag": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateConstraint(ctx, "bo", 1, 3, keep)
			return err
		}, entity.ErrNotFound, "segment 3 does not belong to flag 1"},
		"constraint of another segment: update": {func(ctx context.Context, s *Store) error {
			_, err := s.UpdateConstraint(ctx, "bo", 1, 2, 1, keep)
			return err
		}, entity.ErrNotFound, "constraint 1 does not belong to segment 2"},
		"constraint of another segment: delete": {func(ctx context.Context, s *Store) error {
			return s.DeleteConstraint(ctx, "bo", 1, 2, 1)
		}, entity.ErrNotFound, "constraint 1 does not belong to segment 2"},
		"distributions: sum": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 1, shares(60, 50))
			return err
		}, entity.ErrInvalid, "the sum of distributions' percent 110 is not 100"},
		"distributions: none": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 1, nil)
			return err
		}, entity.ErrInvalid, "the sum of distributions' percent 0 is not 100"},
		"distributions: a sum that overflows": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 1, shares(1<<63, 1<<63, 100))
			return err
		}, entity.ErrInvalid, "percent must be between 0 and 100, not 9223372036854775808"},
		"distributions: unknown variant": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 1, shares(0, 0, 100))
			return err
		}, entity.ErrInvalid, "error finding variantID 3 under this flag. expecting [1 2]"},
		"distributions: wrong key": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 1, []entity.Distribution{{VariantID: 1, VariantKey: "other", Percent: 100}})
			return err
		}, entity.ErrInvalid, "error matching variantID 1 with variantKey other. expecting control"},
		"distributions: segment of another flag": {func(ctx context.Context, s *Store) error {
			_, err := s.ReplaceDistributions(ctx, "bo", 1, 3, shares(100))
			return err
		}, entity.ErrNotFound, "segment 3 does not belong to flag 1"},
		"tag: bad value": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateTag(ctx, "bo", 1, "bad!")
			return err
		}, entity.ErrInvalid, `value "bad!" is not accepted; want one or more ASCII letters, digits, spaces and _ - / . :`},
		"tag: no such flag": {func(ctx context.Context, s *Store) error {
			_, err := s.CreateTag(ctx, "bo", 99, "web")
			return err
		}, entity.ErrNotFound, "unable to find flag 99 in the database"},
		"tag: not the flag's": {func(ctx context.Context, s *Store) error {
			return s.DeleteTag(ctx, "bo", 1, 7)
		}, entity.ErrNotFound, "tag 7 does not belong to flag 1"},
	}
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		before := dump(t, s.db)
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				err := c.call(t.Context(), s)
				if !errors.Is(err, c.kind) || err.Error() != c.message {
					t.Errorf("got error %q, want %v with %q", err, c.kind, c.message)
				}
				same(t, before, dump(t, s.db))
			})
		}
	})
}

// TestDeletedFlagIsFrozen checks that a deleted flag rejects every change except its restoration.
func TestDeletedFlagIsFrozen(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ctx := t.Context()
		ok(t, s.DeleteFlag(ctx, "ann", 1))
		before := dump(t, s.db)
		constraint := entity.Constraint{Property: "a", Operator: "EQ", Value: "1"}
		_, update := s.UpdateFlag(ctx, "", 1, FlagPatch{})
		_, enable := s.SetFlagEnabled(ctx, "", 1, true)
		_, copied := s.DuplicateFlag(ctx, "", 1, "", "")
		_, tag := s.CreateTag(ctx, "", 1, "web")
		_, variant := s.CreateVariant(ctx, "", 1, "x", "")
		_, rename := s.UpdateVariant(ctx, "", 1, 1, "x", "")
		_, segment := s.CreateSegment(ctx, "", 1, "x", 1)
		_, change := s.UpdateSegment(ctx, "", 1, 1, "x", 1)
		_, create := s.CreateConstraint(ctx, "", 1, 1, constraint)
		_, distribute := s.ReplaceDistributions(ctx, "", 1, 1, []entity.Distribution{{VariantID: 1, VariantKey: "control", Percent: 100}})
		for i, err := range []error{
			update, enable, copied, tag, variant, rename, segment, change, create, distribute,
			s.DeleteFlag(ctx, "", 1), s.DeleteVariant(ctx, "", 1, 1), s.DeleteSegment(ctx, "", 1, 1),
			s.ReorderSegments(ctx, "", 1, []int64{1}), s.DeleteConstraint(ctx, "", 1, 1, 1),
		} {
			if !errors.Is(err, entity.ErrNotFound) {
				t.Errorf("change %d of a deleted flag gave %v", i, err)
			}
		}
		same(t, before, dump(t, s.db))

		const owner = `deleted flag 1 has the key "one"; restore it by PUT /flags/1/restore, or choose another key`
		_, err := s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "one"})
		if !errors.Is(err, entity.ErrDuplicateKey) || !strings.Contains(err.Error(), owner) {
			t.Errorf("taking the key of a deleted flag: %v", err)
		}
		if restored := must[*entity.Flag](t)(s.RestoreFlag(ctx, "bo", 1)); restored.DeletedAt.Valid || restored.UpdatedBy != "bo" {
			t.Errorf("restored flag is %+v", restored)
		}
		flag := must[*entity.Flag](t)(s.Flag(ctx, 1))
		if len(flag.Variants) != 2 || len(flag.Segments) != 2 || len(flag.Segments[0].Distributions) != 2 {
			t.Errorf("a restored flag lost parts: %+v", flag)
		}
	})
}

func TestDeleteVariantTakesEmptySharesAlong(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ctx := t.Context()
		must[[]entity.Distribution](t)(s.ReplaceDistributions(ctx, "", 1, 1, []entity.Distribution{
			{VariantID: 1, VariantKey: "control", Percent: 100}, {VariantID: 2, VariantKey: "treatment"},
		}))
		ok(t, s.DeleteVariant(ctx, "", 1, 2))
		shares := must[[]entity.Distribution](t)(s.Distributions(ctx, 1, 1))
		if len(shares) != 1 || shares[0].VariantID != 1 {
			t.Errorf("left distributions are %+v", shares)
		}
	})
}

func TestRenamedVariantKeepsItsShare(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ctx := t.Context()
		variant := must[*entity.Variant](t)(s.UpdateVariant(ctx, "", 1, 2, "renamed", ""))
		if variant.Key != "renamed" || variant.Attachment != `{"color":"red"}` {
			t.Errorf("renamed variant is %+v", variant)
		}
		if shares := must[[]entity.Distribution](t)(s.Distributions(ctx, 1, 1)); shares[1].VariantKey != "renamed" {
			t.Errorf("distribution still names %q", shares[1].VariantKey)
		}
		variant = must[*entity.Variant](t)(s.UpdateVariant(ctx, "", 1, 2, "renamed", "{}"))
		if variant.Attachment != "{}" {
			t.Errorf("an empty attachment became %q", variant.Attachment)
		}
	})
}

func TestListsOfWhatIsNotThereAreEmpty(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := fixture(t, kind)
		ctx := t.Context()
		for name, length := range map[string]int{
			"variants":                  len(must[[]entity.Variant](t)(s.Variants(ctx, 99))),
			"segments":                  len(must[[]entity.Segment](t)(s.Segments(ctx, -99))),
			"tags":                      len(must[[]entity.Tag](t)(s.FlagTags(ctx, 99))),
			"snapshots":                 len(must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, 99, SnapshotQuery{}))),
			"constraints of another":    len(must[[]entity.Constraint](t)(s.Constraints(ctx, 2, 1))),
			"distributions of another":  len(must[[]entity.Distribution](t)(s.Distributions(ctx, 2, 1))),
			"flags by id":               len(must[[]entity.Flag](t)(s.FlagsByID(ctx, []int64{99}))),
			"flags by id, without any":  len(must[[]entity.Flag](t)(s.FlagsByID(ctx, nil))),
			"entity types of new store": len(must[[]string](t)(s.EntityTypes(ctx))),
		} {
			if length != 0 {
				t.Errorf("%s: got %d", name, length)
			}
		}
	})
}

// TestOddNamesOfUsers changes flags as users whose names some databases could not store.
func TestOddNamesOfUsers(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		flag := must[*entity.Flag](t)(s.CreateFlag(t.Context(), "jos\xe9\x00", NewFlag{Description: "d"}))
		if want := "jos\uFFFD"; flag.CreatedBy != want || flag.UpdatedBy != want {
			t.Errorf("created by %q, updated by %q", flag.CreatedBy, flag.UpdatedBy)
		}
	})
}

func TestManyFlagsAtOnce(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		const flags = idsPerQuery + 1
		var rows []entity.Flag
		var segments []entity.Segment
		for i := range uint(flags) {
			rows = append(rows, entity.Flag{Key: fmt.Sprint("k", i)})
			segments = append(segments, entity.Segment{FlagID: i + 1, Rank: 1}, entity.Segment{FlagID: i + 1, Rank: 0})
		}
		ok(t, s.db.CreateInBatches(rows, idsPerQuery).Error)
		ok(t, s.db.CreateInBatches(segments, idsPerQuery).Error)
		all := must[[]entity.Flag](t)(s.EvalFlags(t.Context()))
		if len(all) != flags {
			t.Fatalf("got %d flags", len(all))
		}
		for _, flag := range all {
			if len(flag.Segments) != 2 || flag.Segments[0].Rank != 0 {
				t.Fatalf("flag %d has segments %+v", flag.ID, flag.Segments)
			}
		}
		ids := make([]int64, 0, 2*33_000)
		for i := range int64(33_000) { // more than the parameter limit of one SQLite query
			ids = append(ids, i, i)
		}
		if got := must[[]entity.Flag](t)(s.FlagsByID(t.Context(), ids)); len(got) != flags {
			t.Errorf("got %d flags by id", len(got))
		}
	})
}

// dump returns the rows of all tables by the names of the tables.
func dump(t *testing.T, db interface {
	DB() (*sql.DB, error)
}) map[string][]map[string]any {
	t.Helper()
	connection := must[*sql.DB](t)(db.DB())
	tables := map[string][]map[string]any{}
	for _, name := range []string{
		"flags", "tags", "flags_tags", "segments", "constraints", "distributions", "variants", "flag_snapshots", "users", "flag_entity_types",
	} {
		tables[name] = rowsOf(t, connection, "SELECT * FROM "+name+" ORDER BY 1, 2")
	}
	return tables
}

func rowsOf(t *testing.T, db *sql.DB, query string) []map[string]any {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	ok(t, err)
	defer func() { _ = rows.Close() }()
	columns := must[[]string](t)(rows.Columns())
	all := []map[string]any{}
	for rows.Next() {
		values := make([]any, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		ok(t, rows.Scan(targets...))
		row := map[string]any{}
		for i, column := range columns {
			row[column] = values[i]
		}
		all = append(all, row)
	}
	ok(t, rows.Err())
	return all
}

// TestLettersOfOtherCase creates tags and keys that differ only in case. They are either two rows,
// or the error of the second one names the first.
func TestLettersOfOtherCase(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "Key"}))
		must[*entity.Tag](t)(s.CreateTag(ctx, "", 1, "Web"))
		switch tag, err := s.CreateTag(ctx, "", 1, "web"); {
		case err == nil && tag.Value != "web":
			t.Errorf("asked for the tag web, got %q", tag.Value)
		case err != nil && (!errors.Is(err, entity.ErrInvalid) || !strings.Contains(err.Error(), `tag "web" exists as "Web"`)):
			t.Errorf("tag of another case: %v", err)
		}
		switch flag, err := s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "key"}); {
		case err == nil && flag.Key != "key":
			t.Errorf("asked for the key \"key\", got %q", flag.Key)
		case err != nil && (!errors.Is(err, entity.ErrDuplicateKey) || !strings.Contains(err.Error(), `flag 1 has the key "Key", which is the same key for this database`)):
			t.Errorf("key of another case: %v", err)
		}
	})
}

// TestDeepAttachmentIsRead reads an attachment that was stored before there was a limit.
func TestDeepAttachmentIsRead(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		s := setup(t, kind)
		ctx := t.Context()
		must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "k"}))
		must[*entity.Variant](t)(s.CreateVariant(ctx, "", 1, "v", ""))
		deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
		ok(t, s.db.Exec("UPDATE variants SET attachment = ? WHERE id = 1", deep).Error)
		must[*entity.Flag](t)(s.SetFlagEnabled(ctx, "", 1, true))
		if flag := must[*entity.Flag](t)(s.Flag(ctx, 1)); !flag.Variants[0].Attachment.HasMembers() {
			t.Errorf("got %v", flag.Variants)
		}
		if snapshots := must[[]entity.FlagSnapshot](t)(s.Snapshots(ctx, 1, SnapshotQuery{})); len(snapshots[0].Flag) > 20_000 {
			t.Errorf("the snapshot has %d bytes", len(snapshots[0].Flag))
		} else if _, err := entity.DecodeFlag(snapshots[0].Flag); err != nil {
			t.Error(err)
		}
	})
}

// TestCharactersOfColumn uses columns that cannot store all of Unicode, as in old MySQL databases.
func TestCharactersOfColumn(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		for set, texts := range map[string]struct{ held, other string }{"utf8mb3": {"日本", "👍"}, "latin1": {"é", "日本"}} {
			s := setup(t, kind)
			ctx := t.Context()
			must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "k"}))
			must[*entity.Flag](t)(s.CreateFlag(ctx, "", NewFlag{Description: "d", Key: "gone"}))
			ok(t, s.DeleteFlag(ctx, "", 2))
			if kind.Driver == "mysql" {
				ok(t, s.db.Exec("ALTER TABLE flags CONVERT TO CHARACTER SET "+set).Error)
				ok(t, s.db.Exec("ALTER TABLE tags CONVERT TO CHARACTER SET "+set).Error)
			}
			must[*entity.Flag](t)(s.UpdateFlag(ctx, "", 1, FlagPatch{Notes: new(texts.held)}))
			asked := []string{texts.held, texts.other, "a\x00", "\xff", "gone"} // keys that applications ask for
			if found := must[[]entity.Flag](t)(s.DeletedAmong(ctx, asked, nil)); len(found) != 1 || found[0].Key != "gone" {
				t.Errorf("%s: deleted flags are %v", set, found)
			}
			if kind.Driver != "mysql" {
				must[*entity.Flag](t)(s.UpdateFlag(ctx, "", 1, FlagPatch{Notes: new(texts.other)}))
				continue
			}
			_, err := s.UpdateFlag(ctx, "", 1, FlagPatch{Notes: new(texts.other)})
			if !errors.Is(err, entity.ErrInvalid) || !strings.HasPrefix(err.Error(), "notes has characters that this database cannot store") {
				t.Errorf("%s: got %v", set, err)
			}
			_, tagsErr := s.Tags(ctx, TagQuery{ValueLike: new(texts.other)})
			searches := map[string]error{"value_like": tagsErr}
			for name, query := range map[string]FlagQuery{
				"description": {Description: new(texts.other), Key: new(texts.held)}, "description_like": {DescriptionLike: new(texts.other)},
				"key": {Key: new(texts.other)}, "tags": {Tags: []string{"a", texts.other}},
			} {
				_, searches[name] = s.Flags(ctx, query)
			}
			for name, err := range searches {
				if err != nil && (!errors.Is(err, entity.ErrInvalid) || !strings.HasPrefix(err.Error(), name+" has characters that this database")) {
					t.Errorf("%s: %s: got %v", set, name, err)
				}
			}
			if searches["description"] == nil {
				t.Errorf("%s: a search by description found nothing wrong", set)
			}
		}
	})
}
