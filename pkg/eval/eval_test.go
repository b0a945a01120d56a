package eval_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

var noon = time.Date(2024, 5, 6, 14, 0, 0, 0, time.FixedZone("CEST", 2*60*60))

// ignoreUnexported leaves out what results keep for Encoder.
var ignoreUnexported = cmpopts.IgnoreUnexported(eval.Result{})

// fixture is a service over some flags that notes what it records.
type fixture struct {
	*eval.Service
	snapshot *eval.Snapshot
	recorded []eval.Result
}

func (f *fixture) Snapshot() *eval.Snapshot { return f.snapshot }

// Evaluate is that of the service without its error: no evaluation waits for a turn.
func (f *fixture) Evaluate(ctx context.Context, r eval.Request) *eval.Result {
	result, err := f.Service.Evaluate(ctx, r)
	if err != nil {
		panic(err)
	}
	return result
}

// AsyncRecord notes what belongs into records.
func (f *fixture) AsyncRecord(result *eval.Result) {
	if result.Recorded() {
		f.recorded = append(f.recorded, *result)
	}
}

// batchResults are copies of what a batch gives.
func batchResults(ctx context.Context, s *eval.Service, batch eval.BatchRequest) (results []eval.Result, err error) {
	err = s.EvaluateEach(ctx, batch, func(r *eval.Result) { results = append(results, *r) })
	return results, err
}

func setup(t testing.TB, flags ...entity.Flag) *fixture {
	t.Helper()
	return setupWith(t, eval.Options{DebugEnabled: true}, flags...)
}

func setupWith(t testing.TB, o eval.Options, flags ...entity.Flag) *fixture {
	t.Helper()
	o.Now = func() time.Time { return noon }
	f := &fixture{snapshot: eval.Compile(flags)}
	f.Service = eval.NewService(f, f, o)
	return f
}

// newFlag is an enabled, recorded flag with the variants control (id 11), treatment (id 12) and
// third (id 13).
func newFlag(id uint, segments ...entity.Segment) entity.Flag {
	return entity.Flag{
		Model: entity.Model{ID: id}, Key: fmt.Sprintf("flag-%d", id), Enabled: true, DataRecordsEnabled: true, SnapshotID: 100 + id, Segments: segments,
		Variants: []entity.Variant{
			{Model: entity.Model{ID: 11}, Key: "control"},
			{Model: entity.Model{ID: 12}, Key: "treatment", Attachment: `{"color":"blue"}`},
			{Model: entity.Model{ID: 13}, Key: "third"},
		},
	}
}

// newSegment is a segment with percents for control, treatment and third.
func newSegment(id, rank, rolloutPercent uint, percents [3]uint, constraints ...entity.Constraint) entity.Segment {
	s := entity.Segment{Model: entity.Model{ID: id}, Rank: rank, RolloutPercent: rolloutPercent, Constraints: constraints}
	for i := 2; i >= 0; i-- { // out of order: the order of variant ids counts
		s.Distributions = append(s.Distributions, entity.Distribution{VariantID: uint(11 + i), Percent: percents[i]})
	}
	return s
}

func is(property, value string) entity.Constraint {
	return entity.Constraint{Property: property, Operator: "EQ", Value: `"` + value + `"`}
}

var (
	onlyControl   = [3]uint{100, 0, 0}
	onlyTreatment = [3]uint{0, 100, 0}
	onlyThird     = [3]uint{0, 0, 100}
)

func bucketOf(flagID uint, entityID string) int {
	return int(crc32.ChecksumIEEE(fmt.Appendf(nil, "%d%s", flagID, entityID)) % 1000)
}

// entityIn makes up an entity id that falls into the given bucket of the flag.
func entityIn(t testing.TB, flagID uint, bucket int) string {
	t.Helper()
	for i := range 1_000_000 {
		if id := fmt.Sprintf("é%d", i); bucketOf(flagID, id) == bucket {
			return id
		}
	}
	t.Fatalf("no entity for bucket %d", bucket)
	return ""
}

func tagged(f entity.Flag, tags ...string) entity.Flag {
	for _, tag := range tags {
		f.Tags = append(f.Tags, entity.Tag{Value: tag})
	}
	return f
}

func TestLookup(t *testing.T) {
	t.Parallel()
	seventh := newFlag(7, newSegment(1, 0, 100, onlyControl))
	numeric := newFlag(8, newSegment(2, 0, 100, onlyControl))
	numeric.Key = "9"
	ninth := newFlag(9, newSegment(3, 0, 100, onlyControl))
	deleted := newFlag(10, newSegment(4, 0, 100, onlyControl))
	deleted.DeletedAt = entity.DeletedAt{Time: noon, Valid: true}
	for _, test := range []struct {
		name string
		id   int64
		key  string
		want int64 // 0: none
	}{
		{"by id", 7, "", 7},
		{"by key", 0, "flag-7", 7},
		{"id before key", 7, "flag-9", 7},
		{"key when no flag has the id", 99, "flag-7", 7},
		{"id given as key", 0, "7", 7},
		{"key that looks like an id", 0, "9", 8},
		{"id with leading zero as key", 0, "07", 0},
		{"id with sign as key", 0, "+7", 0},
		{"negative id", -7, "", 0},
		{"id too large", 0, "99999999999999999999", 0},
		{"neither", 0, "", 0},
		{"unknown id and key", 99, "nope", 0},
		{"deleted flag", 10, "flag-10", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, ninth, numeric, seventh, deleted)
			got := f.Evaluate(t.Context(), eval.Request{FlagID: test.id, FlagKey: test.key, EntityID: "e"})
			if test.want == 0 {
				want := &eval.Result{
					Request: eval.Request{FlagID: test.id, FlagKey: test.key, EntityID: "e"}, FlagID: test.id, FlagKey: test.key,
					Reason: eval.FlagNotFound, Timestamp: noon.UTC(), Message: fmt.Sprintf("flagID %d not found or deleted", test.id),
				}
				if test.id == 0 && test.key != "" {
					want.Message = fmt.Sprintf("flagKey %q not found or deleted", test.key)
				}
				if diff := cmp.Diff(want, got, ignoreUnexported); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			if got.FlagID != test.want || got.Reason != eval.Matched {
				t.Errorf("got flag %d with reason %d, want flag %d", got.FlagID, got.Reason, test.want)
			}
			if got.Request.FlagID != test.id || got.Request.FlagKey != test.key {
				t.Errorf("request is echoed as %+v", got.Request)
			}
		})
	}
}

func TestBlankResults(t *testing.T) {
	t.Parallel()
	disabled := tagged(newFlag(1, newSegment(1, 0, 100, onlyControl)), "a")
	disabled.Enabled = false
	disabled.EntityType = "device"
	empty := newFlag(2)
	for _, test := range []struct {
		name string
		flag entity.Flag
		want eval.Result
	}{
		{"disabled", disabled, eval.Result{
			FlagID: 1, FlagKey: "flag-1", FlagSnapshotID: 101, FlagTags: []string{"a"}, Reason: eval.FlagDisabled, Message: "flagID 1 is not enabled",
		}},
		{"without segments", empty, eval.Result{
			FlagID: 2, FlagKey: "flag-2", FlagSnapshotID: 102, Reason: eval.NoSegments, Message: "flagID 2 has no segments",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.want.Request = eval.Request{FlagKey: test.flag.Key, EntityType: "user", EnableDebug: true} // no entity id made up, no entity type replaced
			test.want.Timestamp, test.want.DataRecordsEnabled = noon.UTC(), true
			got := setup(t, test.flag).Evaluate(t.Context(), test.want.Request)
			if diff := cmp.Diff(&test.want, got, ignoreUnexported); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEntity(t *testing.T) {
	t.Parallel()
	typed := newFlag(1, newSegment(1, 0, 100, onlyTreatment))
	typed.EntityType = "device"
	f := setup(t, typed, newFlag(2, newSegment(2, 0, 100, onlyTreatment)))

	if got := f.Evaluate(t.Context(), eval.Request{FlagID: 1, EntityID: "e", EntityType: "user"}).Request.EntityType; got != "device" {
		t.Errorf("entity type of the flag: got %q", got)
	}
	if got := f.Evaluate(t.Context(), eval.Request{FlagID: 2, EntityID: "e", EntityType: "user"}).Request.EntityType; got != "user" {
		t.Errorf("entity type of the request: got %q", got)
	}
	seen := map[string]bool{}
	for range 20 {
		id := f.Evaluate(t.Context(), eval.Request{FlagID: 2}).Request.EntityID
		if !regexp.MustCompile(`^randomly_generated_\d{1,10}$`).MatchString(id) {
			t.Fatalf("made-up entity id %q", id)
		}
		seen[id] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 made-up entity ids are only %d different ones", len(seen))
	}
}

func TestMadeUpEntityIsBucketed(t *testing.T) {
	t.Parallel()
	f := setup(t, newFlag(1, newSegment(1, 0, 100, [3]uint{50, 50, 0})))
	for range 50 {
		got := f.Evaluate(t.Context(), eval.Request{FlagID: 1})
		want := "control"
		if bucketOf(1, got.Request.EntityID) >= 500 {
			want = "treatment"
		}
		if got.VariantKey != want {
			t.Fatalf("entity %s got %s, want %s", got.Request.EntityID, got.VariantKey, want)
		}
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	object := map[string]any{"country": "FR", "age": json.Number("20"), "mixed": []any{"a", json.Number("1")}}
	france, germany := is("country", "FR"), is("country", "DE")
	for _, test := range []struct {
		name     string
		segments []entity.Segment
		context  any
		segment  int64 // 0: none
	}{
		{"lowest rank first", []entity.Segment{newSegment(1, 2, 100, onlyControl), newSegment(2, 1, 100, onlyControl)}, nil, 2},
		{"equal ranks by id", []entity.Segment{newSegment(5, 999, 100, onlyControl), newSegment(4, 999, 100, onlyControl)}, nil, 4},
		{"constraint holds", []entity.Segment{newSegment(1, 0, 100, onlyControl, france), newSegment(2, 1, 100, onlyControl)}, object, 1},
		{"constraint does not hold", []entity.Segment{newSegment(1, 0, 100, onlyControl, germany), newSegment(2, 1, 100, onlyControl)}, object, 2},
		{"one of two does not hold", []entity.Segment{newSegment(1, 0, 100, onlyControl, france, germany), newSegment(2, 1, 100, onlyControl)}, object, 2},
		{"constraint errs", []entity.Segment{newSegment(1, 0, 100, onlyControl, is("age", "x")), newSegment(2, 1, 100, onlyControl)}, object, 2},
		{
			"constraint would panic", []entity.Segment{
				newSegment(1, 0, 100, onlyControl, entity.Constraint{Property: "mixed", Operator: "NOTCONTAINS", Value: `"b"`}),
				newSegment(2, 1, 100, onlyControl, entity.Constraint{Property: "age", Operator: "NEREG", Value: `"x"`}),
				newSegment(3, 2, 100, onlyControl),
			}, object, 3,
		},
		{
			"constraint does not parse", []entity.Segment{
				newSegment(1, 0, 100, onlyControl, entity.Constraint{Property: "country", Operator: "EQ", Value: "FR"}), newSegment(2, 1, 100, onlyControl),
			}, object, 2,
		},
		{"no context", []entity.Segment{newSegment(1, 0, 100, onlyControl, france), newSegment(2, 1, 100, onlyControl)}, nil, 2},
		{"context is a list", []entity.Segment{newSegment(1, 0, 100, onlyControl, france), newSegment(2, 1, 100, onlyControl)}, []any{"FR"}, 2},
		{"context is text", []entity.Segment{newSegment(1, 0, 100, onlyControl, france)}, "FR", 0},
		{"rollout stops the search", []entity.Segment{newSegment(1, 0, 0, onlyControl), newSegment(2, 1, 100, onlyControl)}, nil, 0},
		{"no distribution stops the search", []entity.Segment{newSegment(1, 0, 100, [3]uint{}), newSegment(2, 1, 100, onlyControl)}, nil, 0},
		{"no segment matches", []entity.Segment{newSegment(1, 0, 100, onlyControl, germany)}, object, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, newFlag(1, test.segments...))
			got := f.Evaluate(t.Context(), eval.Request{FlagID: 1, EntityID: "e", EntityContext: test.context})
			if got.SegmentID != test.segment {
				t.Errorf("got segment %d, want %d", got.SegmentID, test.segment)
			}
			if want := test.segment != 0; want != (got.Reason == eval.Matched) || want != (got.VariantID == 11) || want != (got.VariantKey == "control") {
				t.Errorf("got reason %d, variant %d %q", got.Reason, got.VariantID, got.VariantKey)
			}
			if test.segment == 0 && (got.Reason != eval.NoMatch && got.Reason != eval.HeldOut || (got.Reason == eval.HeldOut) != (got.HeldOutSegmentID != 0)) {
				t.Errorf("got reason %d and segment %d, want NoMatch, or HeldOut and its segment", got.Reason, got.HeldOutSegmentID)
			}
			if got.Message != "" || got.SegmentLogs != nil {
				t.Errorf("undebugged result says %q and %v", got.Message, got.SegmentLogs)
			}
		})
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		percents [3]uint
		rollout  uint
		bucket   int
		want     string // empty: none
	}{
		{"first bucket", [3]uint{20, 30, 50}, 100, 0, "control"},
		{"last of the first", [3]uint{20, 30, 50}, 100, 199, "control"},
		{"first of the second", [3]uint{20, 30, 50}, 100, 200, "treatment"},
		{"last of the second", [3]uint{20, 30, 50}, 100, 499, "treatment"},
		{"first of the third", [3]uint{20, 30, 50}, 100, 500, "third"},
		{"last bucket", [3]uint{20, 30, 50}, 100, 999, "third"},
		{"variant of 0 percent is passed over", [3]uint{0, 50, 50}, 100, 0, "treatment"},
		{"beyond the sum", [3]uint{20, 30, 0}, 100, 500, ""},
		{"rollout 0", [3]uint{20, 30, 50}, 0, 0, ""},
		{"rollout 1, first bucket", [3]uint{20, 30, 50}, 1, 0, "control"},
		{"rollout 50, last inside", [3]uint{20, 30, 50}, 50, 99, "control"},
		{"rollout 50, first outside", [3]uint{20, 30, 50}, 50, 100, ""},
		{"rollout 50, first of the second", [3]uint{20, 30, 50}, 50, 200, "treatment"},
		{"rollout 50, last inside of the second", [3]uint{20, 30, 50}, 50, 349, "treatment"},
		{"rollout 50, first outside of the second", [3]uint{20, 30, 50}, 50, 350, ""},
		{"rollout 99, last bucket", [3]uint{20, 30, 50}, 99, 999, ""},
		{"rollout 100, last bucket", [3]uint{0, 0, 100}, 100, 999, "third"},
		{"rollout beyond 100", [3]uint{0, 0, 100}, 1 << 62, 999, "third"},
		{"percent beyond 100", [3]uint{1 << 62, 1 << 62, 1 << 62}, 100, 999, "control"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, newFlag(42, newSegment(1, 0, test.rollout, test.percents)))
			got := f.Evaluate(t.Context(), eval.Request{FlagID: 42, EntityID: entityIn(t, 42, test.bucket)})
			if got.VariantKey != test.want || (got.SegmentID == 0) != (test.want == "") {
				t.Errorf("got variant %q of segment %d, want %q", got.VariantKey, got.SegmentID, test.want)
			}
		})
	}
}

// TestRolloutOnlyAdds raises the rollout: entities may get a variant, but none may lose or change
// it.
func TestRolloutOnlyAdds(t *testing.T) {
	t.Parallel()
	before := map[string]string{}
	for _, rollout := range []uint{0, 1, 20, 33, 50, 99, 100} {
		f := setup(t, newFlag(3, newSegment(1, 0, rollout, [3]uint{33, 33, 34})))
		given := 0
		for i := range 2000 {
			id := fmt.Sprint("entity", i)
			got := f.Evaluate(t.Context(), eval.Request{FlagID: 3, EntityID: id}).VariantKey
			if before[id] != "" && before[id] != got {
				t.Fatalf("rollout %d: %s had %s, now %q", rollout, id, before[id], got)
			}
			before[id] = got
			if got != "" {
				given++
			}
		}
		if share := 100 * given / 2000; share < int(rollout)-4 || share > int(rollout)+4 {
			t.Errorf("rollout %d gives a variant to %d%%", rollout, share)
		}
	}
}

func TestMatchedResult(t *testing.T) {
	t.Parallel()
	f := setup(t, tagged(newFlag(1, newSegment(6, 0, 100, onlyTreatment)), "b", "a"))
	request := eval.Request{FlagKey: "flag-1", EntityID: "e", EntityType: "user", EntityContext: map[string]any{"x": "y"}, FlagTags: []string{"z"}, FlagTagsOperator: "ALL"}
	want := &eval.Result{
		Request: request, FlagID: 1, FlagKey: "flag-1", FlagSnapshotID: 101, FlagTags: []string{"b", "a"}, SegmentID: 6, VariantID: 12, VariantKey: "treatment",
		VariantAttachment: `{"color":"blue"}`, Reason: eval.Matched, DataRecordsEnabled: true, Timestamp: noon.UTC(),
	}
	if diff := cmp.Diff(want, f.Evaluate(t.Context(), request), ignoreUnexported); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDebug(t *testing.T) {
	t.Parallel()
	flag := newFlag(
		1,
		newSegment(1, 0, 100, onlyControl, is("country", "DE")),
		newSegment(2, 1, 100, onlyControl, is("age", "x")),
		newSegment(3, 2, 100, onlyControl, is("gone", "x")),
		newSegment(4, 3, 100, [3]uint{20, 80, 0}),
		newSegment(5, 4, 100, onlyControl),
	)
	request := eval.Request{FlagID: 1, EntityID: entityIn(t, 1, 300), EnableDebug: true, EntityContext: map[string]any{"country": "FR", "age": json.Number("3")}}

	got := setup(t, flag).Evaluate(t.Context(), request)
	want := []struct {
		segment int64
		words   []string
	}{
		{1, []string{"no match", `{country} EQ "DE"`, "does not hold"}},
		{2, []string{"no match", `{age} EQ "x"`, "cannot be evaluated", "a number and a string"}},
		{3, []string{"no match", "cannot be evaluated", `no "gone"`}},
		{4, []string{"match", "bucket 300", "rollout 100%", "control: 0-199", "treatment: 200-999", "variant treatment"}},
	}
	if len(got.SegmentLogs) != len(want) {
		t.Fatalf("got %d entries, want one for each segment tried: %v", len(got.SegmentLogs), got.SegmentLogs)
	}
	for i, entry := range got.SegmentLogs {
		if entry.SegmentID != want[i].segment {
			t.Errorf("entry %d is of segment %d, want %d", i, entry.SegmentID, want[i].segment)
		}
		for _, words := range want[i].words {
			if !strings.Contains(entry.Message, words) {
				t.Errorf("entry of segment %d says %q, want in it: %s", entry.SegmentID, entry.Message, words)
			}
		}
	}

	request.EntityContext = nil
	if got := setup(t, flag).Evaluate(t.Context(), request); !strings.Contains(got.SegmentLogs[0].Message, "not an object") {
		t.Errorf("without context: %q", got.SegmentLogs[0].Message)
	}
	if got := setupWith(t, eval.Options{}, flag).Evaluate(t.Context(), request); got.SegmentLogs != nil || !got.Request.EnableDebug {
		t.Errorf("debugging not allowed: got %v, request %+v", got.SegmentLogs, got.Request)
	}
	request.EnableDebug = false
	if got := setup(t, flag).Evaluate(t.Context(), request); got.SegmentLogs != nil {
		t.Errorf("debugging not asked for: got %v", got.SegmentLogs)
	}
}

func TestRecordingGates(t *testing.T) {
	t.Parallel()
	disabled := newFlag(1, newSegment(1, 0, 100, onlyControl))
	disabled.Enabled = false
	unrecorded := newFlag(1, newSegment(1, 0, 100, onlyControl))
	unrecorded.DataRecordsEnabled = false
	for _, test := range []struct {
		name    string
		flag    entity.Flag
		want    bool
		variant int64
	}{
		{"flag missing", newFlag(2, newSegment(1, 0, 100, onlyControl)), false, 0},
		{"flag disabled", disabled, false, 0},
		{"flag without segments", newFlag(1), false, 0},
		{"no segment matched", newFlag(1, newSegment(1, 0, 100, onlyControl, is("a", "b"))), true, 0},
		{"rollout gave no variant", newFlag(1, newSegment(1, 0, 0, onlyControl)), true, 0},
		{"variant assigned", newFlag(1, newSegment(1, 0, 100, onlyControl)), true, 11},
		{"variant assigned, data records off", unrecorded, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, test.flag)
			result := f.Evaluate(t.Context(), eval.Request{FlagID: 1, EntityID: "e"})
			batch, err := batchResults(t.Context(), f.Service, eval.BatchRequest{Entities: []eval.Entity{{EntityID: "e"}}, FlagIDs: []int64{1}})
			if err != nil {
				t.Fatal(err)
			}
			if !test.want {
				if len(f.recorded) != 0 {
					t.Errorf("recorded %+v", f.recorded)
				}
				return
			}
			if diff := cmp.Diff([]eval.Result{*result, batch[0]}, f.recorded, ignoreUnexported); diff != "" {
				t.Fatalf("want the single one and that of the batch, once each (-want +recorded):\n%s", diff)
			}
			for _, r := range f.recorded {
				if r.VariantID != test.variant || (r.SegmentID != 0) != (test.variant != 0) {
					t.Errorf("recorded variant %d, segment %d", r.VariantID, r.SegmentID)
				}
			}
		})
	}
}

func TestNoRecorder(t *testing.T) {
	t.Parallel()
	f := setup(t, newFlag(1, newSegment(1, 0, 100, onlyControl)))
	if got := evaluated(t, eval.NewService(f, nil, eval.Options{}), eval.Request{FlagID: 1}); got.Reason != eval.Matched || got.Timestamp.IsZero() {
		t.Errorf("got %+v", got)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	typed := tagged(newFlag(2, newSegment(2, 0, 100, onlyTreatment)), "web", "ios")
	typed.EntityType = "device"
	f := setup(
		t,
		tagged(newFlag(3, newSegment(3, 0, 100, onlyThird)), "web"),
		tagged(newFlag(1, newSegment(1, 0, 100, onlyControl)), "web", "ios"),
		typed,
		tagged(newFlag(4, newSegment(4, 0, 100, onlyControl)), "ios"),
	)
	type answer struct {
		entity string
		flag   int64
		asked  string
	}
	for _, test := range []struct {
		name    string
		request eval.BatchRequest
		want    []answer
	}{
		{"no flags", eval.BatchRequest{}, nil},
		{"ids", eval.BatchRequest{FlagIDs: []int64{3, 1, 3}}, []answer{{"a", 3, "3//"}, {"a", 1, "1//"}, {"b", 3, "3//"}, {"b", 1, "1//"}}},
		{"keys", eval.BatchRequest{FlagKeys: []string{"flag-3", "nope", "flag-3"}}, []answer{{"a", 3, "0/flag-3/"}, {"a", 0, "0/nope/"}, {"b", 3, "0/flag-3/"}, {"b", 0, "0/nope/"}}},
		{"any tag", eval.BatchRequest{FlagTags: []string{"ios", "web"}}, []answer{
			{"a", 1, "0//"}, {"a", 2, "0//"}, {"a", 3, "0//"}, {"a", 4, "0//"}, {"b", 1, "0//"}, {"b", 2, "0//"}, {"b", 3, "0//"}, {"b", 4, "0//"},
		}},
		{"all tags", eval.BatchRequest{FlagTags: []string{"web", "ios", "web"}, FlagTagsOperator: eval.TagsAll}, []answer{
			{"a", 1, "0//ALL"}, {"a", 2, "0//ALL"}, {"b", 1, "0//ALL"}, {"b", 2, "0//ALL"},
		}},
		{"unknown tag among all", eval.BatchRequest{FlagTags: []string{"web", "nope"}, FlagTagsOperator: eval.TagsAll}, nil},
		{"unknown tag among any", eval.BatchRequest{FlagTags: []string{"nope", "ios"}, FlagTagsOperator: eval.TagsAny, FlagIDs: []int64{9}}, []answer{
			{"a", 1, "0//ANY"}, {"a", 2, "0//ANY"}, {"a", 4, "0//ANY"}, {"a", 9, "9//"}, {"b", 1, "0//ANY"}, {"b", 2, "0//ANY"}, {"b", 4, "0//ANY"}, {"b", 9, "9//"},
		}},
		{"tags, then ids, then keys", eval.BatchRequest{FlagKeys: []string{"flag-1"}, FlagIDs: []int64{3}, FlagTags: []string{"web"}, FlagTagsOperator: eval.TagsAny}, []answer{
			{"a", 1, "0//ANY"}, {"a", 2, "0//ANY"}, {"a", 3, "0//ANY"}, {"a", 3, "3//"}, {"a", 1, "0/flag-1/"},
			{"b", 1, "0//ANY"}, {"b", 2, "0//ANY"}, {"b", 3, "0//ANY"}, {"b", 3, "3//"}, {"b", 1, "0/flag-1/"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.request.Entities = []eval.Entity{{EntityID: "a", EntityType: "user", EntityContext: map[string]any{"x": "y"}}, {EntityID: "b"}}
			service := eval.NewService(f, nil, eval.Options{})
			results, err := batchResults(t.Context(), service, test.request)
			if err != nil {
				t.Fatal(err)
			}
			var got []answer
			for _, r := range results {
				got = append(got, answer{r.Request.EntityID, r.FlagID, fmt.Sprintf("%d/%s/%s", r.Request.FlagID, r.Request.FlagKey, r.Request.FlagTagsOperator)})
				entityType := map[string]string{"a": "user", "b": ""}[r.Request.EntityID]
				if r.FlagID == 2 {
					entityType = "device"
				}
				if r.Request.EntityType != entityType || (r.Request.EntityContext != nil) != (r.Request.EntityID == "a") {
					t.Errorf("request is echoed as %+v", r.Request)
				}
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(answer{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A batch answers as single evaluations do, and observers see each result as it is used.
func TestEvaluateEach(t *testing.T) {
	t.Parallel()
	const entities = 40 // more than share a look at the clock
	var observed []eval.Result
	o := eval.Options{Observe: func(r *eval.Result) { observed = append(observed, *r) }}
	f := setupWith(t, o, newFlag(7, newSegment(21, 1, 50, onlyControl)), newFlag(8))
	batch := eval.BatchRequest{FlagIDs: []int64{7, 8}, FlagKeys: []string{"none", "flag-7"}}
	var want []eval.Result
	for i := range entities {
		e := eval.Entity{EntityID: fmt.Sprint("e", i), EntityContext: map[string]any{"i": i}}
		batch.Entities = append(batch.Entities, e)
		for _, r := range []eval.Request{{FlagID: 7}, {FlagID: 8}, {FlagKey: "none"}, {FlagKey: "flag-7"}} {
			r.EntityID, r.EntityContext = e.EntityID, e.EntityContext
			want = append(want, *f.Evaluate(t.Context(), r))
		}
	}
	observed = nil
	got, err := batchResults(t.Context(), f.Service, batch)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, ignoreUnexported); diff != "" {
		t.Errorf("(-single +batch):\n%s", diff)
	}
	if diff := cmp.Diff(got, observed, ignoreUnexported); diff != "" {
		t.Errorf("(-used +observed):\n%s", diff)
	}
}

func TestBatchSize(t *testing.T) {
	t.Parallel()
	request := eval.BatchRequest{Entities: make([]eval.Entity, 3), FlagIDs: []int64{1, 2, 2}, FlagKeys: []string{"a", "a"}, FlagTags: []string{"x", "y"}}
	for _, test := range []struct {
		name  string
		limit int
		fits  bool
	}{
		{"no limit", 0, true},
		{"just enough", 12, true},
		{"one too few", 11, false},
		{"negative is no limit", -1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := batchResults(t.Context(), setupWith(t, eval.Options{BatchSize: test.limit}).Service, request)
			if test.fits && err != nil || !test.fits && !errors.Is(err, entity.ErrInvalid) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestBatchWithoutConfiguredSizeIsBounded(t *testing.T) {
	t.Parallel()
	ids := make([]int64, 1000)
	for i := range ids {
		ids[i] = int64(i + 1)
	}
	tagged := newFlag(1)
	tagged.Tags = []entity.Tag{{Value: "all"}}
	for _, test := range []struct {
		name     string
		size     int
		entities int
		tags     []string
		fits     bool
	}{
		{"as many as it may be", 0, 500, nil, true},
		{"too many entities", 0, 501, nil, false},
		{"too many by its tags", 0, 500, []string{"all"}, false},
		{"configured", 501_000, 501, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			service := setupWith(t, eval.Options{BatchSize: test.size, AnswerBytes: 1 << 30}, tagged)
			done, cancel := context.WithCancel(t.Context())
			cancel() // nothing of what fits needs to be evaluated
			err := service.EvaluateEach(done, eval.BatchRequest{Entities: make([]eval.Entity, test.entities), FlagIDs: ids, FlagTags: test.tags},
				func(*eval.Result) {})
			if test.fits && !errors.Is(err, context.Canceled) ||
				!test.fits && (!errors.Is(err, entity.ErrInvalid) || !strings.Contains(err.Error(), "FLAGR_EVAL_BATCH_SIZE")) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestBatchStopsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := setup(t, newFlag(1, newSegment(1, 0, 100, onlyControl)))
	if _, err := batchResults(ctx, f.Service, eval.BatchRequest{Entities: []eval.Entity{{}}, FlagIDs: []int64{1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	broken := newFlag(1, newSegment(1, 0, 100, onlyControl, entity.Constraint{Property: "a", Operator: "EQ", Value: "FR"}, entity.Constraint{Property: "a", Operator: "EREG", Value: `"["`}))
	stray := newFlag(2, newSegment(2, 0, 100, onlyControl))
	stray.Variants = nil
	f := setup(t, broken, stray, newFlag(3, newSegment(3, 0, 100, onlyControl)))
	if got := f.snapshot.Problems(); len(got) != 3 || !errors.Is(got[0], entity.ErrInvalid) || !strings.Contains(got[0].Error(), "flag-1") {
		t.Errorf("got %q", got)
	}
	if got := f.Evaluate(t.Context(), eval.Request{FlagID: 2, EntityID: "e"}); got.Reason != eval.HeldOut || got.VariantID != 0 {
		t.Errorf("distribution without its variant: %+v", got)
	}
}

// A snapshot that was changed must answer as one that was compiled from the same flags.
func TestWith(t *testing.T) {
	t.Parallel()
	flag := func(id uint, key string, tags ...string) entity.Flag {
		f := newFlag(id, newSegment(21, 1, 100, onlyTreatment))
		f.Key = key
		return tagged(f, tags...)
	}
	deleted := flag(2, "b")
	deleted.DeletedAt.Valid = true
	broken := flag(3, "broken")
	broken.Segments[0].Constraints = []entity.Constraint{{Property: "p", Operator: "EQ", Value: "("}}
	before := []entity.Flag{flag(1, "a", "web"), flag(2, "b", "web", "app"), broken}
	for _, tc := range []struct {
		name    string
		changed []entity.Flag
		gone    []uint
		after   []entity.Flag
	}{
		{"nothing", nil, nil, before},
		{"a new one", []entity.Flag{flag(4, "d", "web")}, nil, append(slices.Clone(before), flag(4, "d", "web"))},
		{"one in between", []entity.Flag{flag(2, "b")}, nil, []entity.Flag{flag(1, "a", "web"), flag(2, "b"), broken}},
		{"keys change places", []entity.Flag{flag(2, "a"), flag(1, "b")}, nil, []entity.Flag{flag(1, "b"), flag(2, "a"), broken}},
		{"gone", nil, []uint{1, 99}, before[1:]},
		{"changed to deleted", []entity.Flag{deleted}, nil, []entity.Flag{before[0], broken}},
		{"a broken one is mended", []entity.Flag{flag(3, "c")}, nil, []entity.Flag{before[0], before[1], flag(3, "c")}},
		{"all are gone", nil, []uint{3, 2, 1}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			old := eval.Compile(before)
			got, want := old.With(tc.changed, tc.gone), eval.Compile(tc.after)
			describe := func(s *eval.Snapshot) []string {
				lines := []string{fmt.Sprint(s.Len(), s.Problems())}
				for _, f := range s.Flags() {
					lines = append(lines, fmt.Sprint(f.ID, f.Key))
				}
				for _, key := range []string{"a", "b", "c", "d", "broken", "1", "2", "3", "4"} {
					r := s.Evaluate(eval.Request{FlagKey: key, EntityID: "e"}, noon, false)
					lines = append(lines, string(r.AppendJSON(nil)))
				}
				for _, tags := range [][]string{{"web"}, {"app"}, {"web", "app"}} {
					lines = append(lines, fmt.Sprint(tags, keysByTags(t, s, tags, eval.TagsAny)))
				}
				return lines
			}
			if diff := cmp.Diff(describe(want), describe(got)); diff != "" {
				t.Errorf("(-compiled +changed):\n%s", diff)
			}
			if diff := cmp.Diff(describe(eval.Compile(before)), describe(old)); diff != "" {
				t.Errorf("the old snapshot has changed:\n%s", diff)
			}
		})
	}
}

// keysByTags are the keys of the flags that a batch selects by tags.
func keysByTags(t *testing.T, s *eval.Snapshot, tags []string, operator string) (keys []string) {
	t.Helper()
	service := eval.NewService(&fixture{snapshot: s}, nil, eval.Options{})
	results, err := batchResults(t.Context(), service, eval.BatchRequest{Entities: []eval.Entity{{}}, FlagTags: tags, FlagTagsOperator: operator})
	if err != nil {
		t.Error(err)
	}
	for i := range results {
		keys = append(keys, results[i].FlagKey)
	}
	return keys
}

func TestSnapshotLookups(t *testing.T) {
	t.Parallel()
	flags := []entity.Flag{tagged(newFlag(2), "a"), tagged(newFlag(1), "a", "a", "b")}
	s := eval.Compile(flags)
	var all []string
	for _, f := range s.Flags() {
		all = append(all, f.Key)
	}
	for _, test := range []struct {
		name      string
		got, want []string
	}{
		{"all", all, []string{"flag-1", "flag-2"}},
		{"tag", keysByTags(t, s, []string{"a"}, ""), []string{"flag-1", "flag-2"}},
		{"all of two tags", keysByTags(t, s, []string{"a", "b"}, eval.TagsAll), []string{"flag-1"}},
		{"no tags", keysByTags(t, s, nil, eval.TagsAll), nil},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	if flags[0].ID != 2 {
		t.Error("Compile changed the order of the flags it was given")
	}
	if f := s.Flag(0, "2"); f == nil || f.ID != 2 || s.Flag(3, "x") != nil {
		t.Errorf("flag by id as key: %v", f)
	}
}

// TestConcurrentEvaluations is for the race detector.
func TestConcurrentEvaluations(t *testing.T) {
	t.Parallel()
	f := setup(t, newFlag(1, newSegment(1, 0, 100, onlyControl, entity.Constraint{Property: "l", Operator: "NOTCONTAINS", Value: `"x"`})))
	service := eval.NewService(f, nil, eval.Options{DebugEnabled: true})
	request := eval.Request{FlagID: 1, EnableDebug: true, EntityContext: map[string]any{"l": []any{"a"}}}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				if got := evaluated(t, service, request); got.Reason != eval.Matched {
					t.Errorf("got reason %d", got.Reason)
					return
				}
			}
		})
	}
	group.Wait()
}

func benchmarkFlag() entity.Flag {
	return newFlag(
		1,
		newSegment(1, 0, 100, [3]uint{20, 30, 50}, is("country", "DE")),
		newSegment(2, 1, 100, [3]uint{20, 30, 50}, entity.Constraint{Property: "age", Operator: "GTE", Value: "18"}),
	)
}

var benchmarkContext = map[string]any{"country": "FR", "age": json.Number("30")}

func BenchmarkEvaluate(b *testing.B) {
	f := setup(b, benchmarkFlag())
	service := eval.NewService(f, nil, eval.Options{})
	request := eval.Request{FlagID: 1, EntityID: "entity-1234567", EntityContext: benchmarkContext}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := service.Evaluate(b.Context(), request); err != nil || got.Reason != eval.Matched {
			b.Fatal("no match")
		}
	}
}

func BenchmarkEvaluateEach(b *testing.B) {
	flags := make([]entity.Flag, 10)
	batch := eval.BatchRequest{}
	for i := range flags {
		flags[i] = benchmarkFlag()
		flags[i].ID, flags[i].Key = uint(i+1), fmt.Sprint("k", i)
		batch.FlagIDs = append(batch.FlagIDs, int64(i+1))
		batch.Entities = append(batch.Entities, eval.Entity{EntityID: fmt.Sprint("entity-", i), EntityContext: benchmarkContext})
	}
	f := setup(b, flags...)
	service := eval.NewService(f, nil, eval.Options{})
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := service.EvaluateEach(b.Context(), batch, func(*eval.Result) { n++ }); err != nil || n != 100 {
			b.Fatal(n, err)
		}
	}
}
