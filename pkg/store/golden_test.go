package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/datar/gormstore/testdb"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

const flagrDatabases = "../../integration_tests/testdata/databases"

// copyFlagrDatabase returns the path of a copy of a SQLite file that Flagr wrote.
func copyFlagrDatabase(t *testing.T) string {
	t.Helper()
	return testdb.SQLite().FreshFromFlagr(t, flagrDatabases)
}

func openRaw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db := must[*sql.DB](t)(sql.Open("sqlite", path))
	t.Cleanup(func() { ok(t, db.Close()) })
	return db
}

func same(t *testing.T, want, got any) {
	t.Helper()
	if difference := cmp.Diff(want, got); difference != "" {
		t.Errorf("not the same (-want +got):\n%s", difference)
	}
}

type rawDB struct{ db *sql.DB }

func (r rawDB) DB() (*sql.DB, error) { return r.db, nil }

// TestSameRowsAsFlagr repeats the calls that created Flagr's database in the same order. They must
// create the same rows with the same IDs. Servers are excluded, because rolled-back inserts use up
// IDs there.
func TestSameRowsAsFlagr(t *testing.T) {
	t.Parallel()
	s := setup(t, testdb.SQLite())
	play(t, s)
	want, got := dump(t, rawDB{openRaw(t, copyFlagrDatabase(t))}), dump(t, s.db)
	for name := range want {
		t.Run(name, func(t *testing.T) {
			same(t, withoutTimes(t, want[name]), withoutTimes(t, got[name]))
		})
	}
}

// play makes the changes of the recorded API walk.
func play(t *testing.T, s *Store) {
	ctx := t.Context()
	flag := func(f *entity.Flag, err error) { t.Helper(); must[*entity.Flag](t)(f, err) }
	refused := func(err error, kind error) {
		t.Helper()
		if !errors.Is(err, kind) {
			t.Errorf("got %v, want %v", err, kind)
		}
	}
	constraint := func(property, operator, value string) error {
		_, err := s.CreateConstraint(ctx, "", 1, 1, entity.Constraint{Property: property, Operator: operator, Value: value})
		return err
	}
	distribute := func(segmentID int64, d ...entity.Distribution) error {
		_, err := s.ReplaceDistributions(ctx, "", 1, segmentID, d)
		return err
	}
	variant := func(v *entity.Variant, err error) { t.Helper(); must[*entity.Variant](t)(v, err) }
	segment := func(v *entity.Segment, err error) { t.Helper(); must[*entity.Segment](t)(v, err) }
	tag := func(v *entity.Tag, err error) { t.Helper(); must[*entity.Tag](t)(v, err) }

	flag(s.CreateFlag(ctx, "", NewFlag{Description: "first"}))
	flag(s.CreateFlag(ctx, "", NewFlag{Description: "second", Key: "second-flag"}))
	flag(s.CreateFlag(ctx, "", NewFlag{Description: "just fits", Key: "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"}))
	flag(s.UpdateFlag(ctx, "", 1, FlagPatch{
		Description: new("first, edited"), Notes: new("**n**"), DataRecordsEnabled: new(true), EntityType: new("user"),
	}))
	flag(s.UpdateFlag(ctx, "", 1, FlagPatch{}))
	_, err := s.UpdateFlag(ctx, "", 1, FlagPatch{Key: new("second-flag")})
	refused(err, entity.ErrDuplicateKey)
	flag(s.UpdateFlag(ctx, "", 1, FlagPatch{Key: new("first-flag")}))
	flag(s.UpdateFlag(ctx, "", 1, FlagPatch{}))
	variant(s.CreateVariant(ctx, "", 1, "control", ""))
	variant(s.CreateVariant(ctx, "", 1, "treatment", `{"color":"red","n":1}`))
	variant(s.CreateVariant(ctx, "", 1, "third", "{}"))
	variant(s.UpdateVariant(ctx, "", 1, 2, "treated", `{"color":"blue"}`))
	variant(s.UpdateVariant(ctx, "", 1, 2, "treated", ""))
	segment(s.CreateSegment(ctx, "", 1, "fr", 100))
	segment(s.CreateSegment(ctx, "", 1, "all", 50))
	segment(s.UpdateSegment(ctx, "", 1, 2, "everyone", 100))
	ok(t, s.ReorderSegments(ctx, "", 1, []int64{2, 1}))
	ok(t, s.ReorderSegments(ctx, "", 1, []int64{1, 2}))
	refused(s.ReorderSegments(ctx, "", 1, []int64{99}), entity.ErrNotFound)
	ok(t, constraint("country", "EQ", `"FR"`))
	ok(t, constraint("age", "GTE", "18"))
	refused(constraint("country", "EQ", "FR"), entity.ErrInvalid)
	ok(t, constraint("x", "EREG", `"^\d+$"`))
	ok(t, constraint("x", "IN", `["a", "b"]`))
	must[*entity.Constraint](t)(s.UpdateConstraint(ctx, "", 1, 1, 2, entity.Constraint{Property: "age", Operator: "GT", Value: "21"}))
	ok(t, s.DeleteConstraint(ctx, "", 1, 1, 3))
	ok(t, s.DeleteConstraint(ctx, "", 1, 1, 4))
	ok(t, distribute(1, entity.Distribution{VariantID: 1, VariantKey: "control", Percent: 50},
		entity.Distribution{VariantID: 2, VariantKey: "treated", Percent: 50}))
	refused(distribute(1, entity.Distribution{VariantID: 9, VariantKey: "control", Percent: 100}), entity.ErrInvalid)
	ok(t, distribute(2, entity.Distribution{VariantID: 3, VariantKey: "third", Percent: 100}))
	variant(s.UpdateVariant(ctx, "", 1, 2, "treatment2", ""))
	refused(s.DeleteVariant(ctx, "", 1, 2), entity.ErrInvalid)
	flag(s.CreateFlag(ctx, "", NewFlag{Description: "t", Key: "tmpl", Template: "simple_boolean_flag"}))
	tag(s.CreateTag(ctx, "", 1, "web"))
	tag(s.CreateTag(ctx, "", 1, "team a"))
	tag(s.CreateTag(ctx, "", 1, "web"))
	tag(s.CreateTag(ctx, "", 2, "web"))
	ok(t, s.DeleteTag(ctx, "", 1, 2))
	for _, id := range []int64{1, 2, 4} {
		flag(s.SetFlagEnabled(ctx, "", id, true))
	}
	flag(s.DuplicateFlag(ctx, "", 1, "", ""))
	flag(s.DuplicateFlag(ctx, "", 1, "copy", "a copy"))
	flag(s.DuplicateFlag(ctx, "", 1, "", ""))
	if id := must[int64](t)(s.MaxSnapshotID(ctx)); id != 39 {
		t.Errorf("newest snapshot is %d", id)
	}
	ok(t, s.DeleteSegment(ctx, "", 1, 2))
	refused(s.DeleteSegment(ctx, "", 1, 99), entity.ErrNotFound)
	ok(t, distribute(1, entity.Distribution{VariantID: 1, VariantKey: "control", Percent: 100}))
	ok(t, s.DeleteVariant(ctx, "", 1, 2))
	refused(s.DeleteVariant(ctx, "", 1, 1), entity.ErrInvalid)
	ok(t, s.DeleteFlag(ctx, "", 2))
	refused(s.DeleteFlag(ctx, "", 99), entity.ErrNotFound)
	flag(s.RestoreFlag(ctx, "", 2))
	_, err = s.DuplicateFlag(ctx, "", 1, "copy", "")
	refused(err, entity.ErrDuplicateKey)
	_, err = s.CreateFlag(ctx, "", NewFlag{Description: "again", Key: "second-flag"})
	refused(err, entity.ErrDuplicateKey)
}

var (
	randomKey = regexp.MustCompile(`^k[1-9a-z]{16}$`)
	timeNames = map[string]bool{
		"created_at": true, "updated_at": true, "deleted_at": true, "CreatedAt": true, "UpdatedAt": true, "DeletedAt": true,
	}
)

// withoutTimes masks times and generated keys, and decodes the JSON of snapshots, so that rows of
// two runs can be compared.
func withoutTimes(t *testing.T, rows []map[string]any) []any {
	t.Helper()
	masked := make([]any, len(rows))
	for i, row := range rows {
		masked[i] = mask(t, row)
	}
	return masked
}

func mask(t *testing.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		masked := map[string]any{}
		for name, one := range v {
			if text, isText := one.([]byte); isText && name == "flag" {
				var flag any
				ok(t, json.Unmarshal(text, &flag))
				one = flag
			}
			if timeNames[name] && one != nil {
				one = "a time"
			}
			masked[name] = mask(t, one)
		}
		return masked
	case []any:
		masked := make([]any, len(v))
		for i := range v {
			masked[i] = mask(t, v[i])
		}
		return masked
	case string:
		if randomKey.MatchString(v) {
			return "made up"
		}
	}
	return v
}

// TestSameTablesAsFlagr checks that tables in an empty database are those that Flagr would create.
func TestSameTablesAsFlagr(t *testing.T) {
	t.Parallel()
	flagr, own := openRaw(t, copyFlagrDatabase(t)), must[*sql.DB](t)(setup(t, testdb.SQLite()).db.DB())
	for _, table := range []string{
		"flags", "tags", "flags_tags", "segments", "constraints", "distributions", "variants", "flag_snapshots", "users", "flag_entity_types",
	} {
		for _, question := range []string{
			"SELECT * FROM pragma_table_info('" + table + "')",
			"SELECT `table`, `from`, `to`, on_update, on_delete FROM pragma_foreign_key_list('" + table + "') ORDER BY 1, 2",
			"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '" + table + "' ORDER BY name",
		} {
			same(t, rowsOf(t, flagr, question), rowsOf(t, own, question))
		}
	}
	same(t, []map[string]any{{"n": int64(10)}}, rowsOf(t, own, "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table'"))
}

// TestFlagrDatabaseOpensUnharmed checks that opening a database that Flagr wrote does not change
// it, and that it can be used.
func TestFlagrDatabaseOpensUnharmed(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		dsn := kind.FreshFromFlagr(t, flagrDatabases)
		beside := kind.Open(t, dsn)
		wantSchema, wantRows := kind.Schema(t, beside), dump(t, rawDB{beside})
		wantDatar := rowsOf(t, beside, "SELECT * FROM datar_hourly_events ORDER BY id")
		if len(wantSchema.Tables()) != 11 || len(wantRows["flags"]) != 7 {
			t.Fatalf("the recorded database has tables %v and %d flags", wantSchema.Tables(), len(wantRows["flags"]))
		}
		for range 2 {
			s := must[*Store](t)(Open(context.Background(), Options{Driver: kind.Driver, DSN: dsn}))
			ok(t, s.Close())
		}
		same(t, wantSchema, kind.Schema(t, beside))
		same(t, wantRows, dump(t, rawDB{beside}))
		same(t, wantDatar, rowsOf(t, beside, "SELECT * FROM datar_hourly_events ORDER BY id"))

		s := open(t, kind, dsn)
		flag := must[*entity.Flag](t)(s.Flag(t.Context(), 1))
		if len(flag.Segments) != 1 || len(flag.Segments[0].Constraints) != 2 || len(flag.Variants) != 2 || len(flag.Tags) != 1 {
			t.Errorf("flag 1 is %+v", flag)
		}
		changed := must[*entity.Flag](t)(s.SetFlagEnabled(t.Context(), "ann", 1, false))
		if changed.SnapshotID != 45 {
			t.Errorf("the first snapshot of our own has id %d", changed.SnapshotID)
		}
	})
}

// TestSameSchemaAsFlagr checks that tables in an empty database of a server are those that Flagr
// would create.
func TestSameSchemaAsFlagr(t *testing.T) {
	testdb.OnEachServer(t, func(t *testing.T, kind testdb.Kind) {
		flagr := kind.Schema(t, kind.Open(t, kind.FreshFromFlagr(t, flagrDatabases)))
		maps.DeleteFunc(flagr.Columns, func(name, _ string) bool { return strings.HasPrefix(name, "datar_") })
		maps.DeleteFunc(flagr.Keys, func(name, _ string) bool { return strings.Contains(name, "datar_") })
		same(t, flagr, kind.Schema(t, must[*sql.DB](t)(setup(t, kind).db.DB())))
	})
}

// TestMissingColumnsAndIndexesAreAdded checks that columns and indexes that an older program did
// not create are added, and that existing data stays.
func TestMissingColumnsAndIndexesAreAdded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "old.sqlite")
	old := openRaw(t, path)
	for _, statement := range []string{
		"CREATE TABLE flags (id integer, created_at datetime, updated_at datetime, deleted_at datetime, key varchar(64), description text, odd blob, PRIMARY KEY (id))",
		"INSERT INTO flags (id, key, description, odd) VALUES (7, 'old', 'd', x'00')",
	} {
		_, err := old.ExecContext(t.Context(), statement)
		ok(t, err)
	}
	s := openFile(t, path)
	flag := must[*entity.Flag](t)(s.UpdateFlag(t.Context(), "", 7, FlagPatch{Notes: new("n")}))
	if flag.Key != "old" || flag.Notes != "n" || flag.EntityType != "" {
		t.Errorf("flag is %+v", flag)
	}
	if _, err := s.CreateFlag(t.Context(), "", NewFlag{Description: "d", Key: "old"}); !errors.Is(err, entity.ErrDuplicateKey) {
		t.Errorf("the unique index is missing: %v", err)
	}
	same(t, []map[string]any{{"odd": []byte{0}}}, rowsOf(t, old, "SELECT odd FROM flags"))
}

// goldenAnswer is the recorded part of an evaluation.
type goldenAnswer struct {
	FlagID, FlagSnapshotID, SegmentID, VariantID int64
	FlagKey, VariantKey, EntityType              string
	FlagTags                                     []string
	VariantAttachment                            entity.Attachment
	DataRecordsEnabled                           bool
}

// TestGoldenEvaluations checks that the flags of the recorded evaluations give the recorded
// responses after they have been stored and read.
func TestGoldenEvaluations(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, kind testdb.Kind) {
		flags, _, err := evalcache.ParseDocument(must[[]byte](t)(os.ReadFile(golden.Path("flags.json"))))
		ok(t, err)
		s := setup(t, kind)
		ok(t, s.db.Create(&flags).Error)
		snapshot := eval.Compile(must[[]entity.Flag](t)(s.EvalFlags(t.Context())))

		type request struct {
			FlagID                        int64
			FlagKey, EntityID, EntityType string
			EntityContext                 any
		}
		requests, answers := golden.Lines[request](t, "requests.jsonl"), golden.Lines[goldenAnswer](t, "expected.jsonl")
		if len(requests) != 3000 || len(answers) != 3000 {
			t.Fatalf("%d requests and %d answers, want 3000 each", len(requests), len(answers))
		}
		for i, r := range requests {
			got := snapshot.Evaluate(eval.Request{
				FlagID: r.FlagID, FlagKey: r.FlagKey, EntityID: r.EntityID, EntityType: r.EntityType, EntityContext: r.EntityContext,
			}, time.Now(), false)
			slices.Sort(answers[i].FlagTags) // the document has another order
			difference := cmp.Diff(answers[i], goldenAnswer{
				FlagID: got.FlagID, FlagSnapshotID: got.FlagSnapshotID, SegmentID: got.SegmentID, VariantID: got.VariantID,
				FlagKey: got.FlagKey, VariantKey: got.VariantKey, EntityType: got.Request.EntityType,
				FlagTags: slices.Sorted(slices.Values(got.FlagTags)), VariantAttachment: got.VariantAttachment,
				DataRecordsEnabled: got.DataRecordsEnabled,
			})
			if difference != "" {
				t.Errorf("request %d, %+v (-want +got):\n%s", i+1, r, difference)
			}
		}
	})
}
