package eval_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// observed is what is counted of a result.
type observed struct {
	FlagID, HeldOut int64
	Reason          eval.Reason
	Asked           eval.Asked
	Recorded        bool
}

// outcomeFlags has a flag for each reason.
func outcomeFlags() []entity.Flag {
	off, unrecorded := newFlag(2), newFlag(4, newSegment(41, 0, 100, onlyControl))
	off.Enabled, unrecorded.DataRecordsEnabled = false, false
	return []entity.Flag{
		tagged(newFlag(1,
			newSegment(11, 0, 100, onlyControl, is("country", "FR"), entity.Constraint{Property: "age", Operator: "GTE", Value: "18"}),
			newSegment(12, 1, 0, onlyControl, is("country", "DE")),
		), "web"),
		off, newFlag(3), unrecorded,
		newFlag(5, newSegment(51, 0, 100, onlyControl, entity.Constraint{Property: "a", Operator: "EREG", Value: `"["`})),
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	context := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	}
	for _, test := range []struct {
		name    string
		request eval.Request
		want    observed
	}{
		{"matched", eval.Request{FlagID: 1, EntityID: "e", EntityContext: context("country", "FR", "age", 20.0)}, observed{1, 0, eval.Matched, 0, true}},
		{"held out", eval.Request{FlagID: 1, EntityID: "e", EntityContext: context("country", "DE")}, observed{1, 12, eval.HeldOut, 0, true}},
		{"no match", eval.Request{FlagID: 1, EntityID: "e", EntityContext: context("country", "IT")}, observed{1, 0, eval.NoMatch, 0, true}},
		{"missing", eval.Request{FlagID: 1, EntityID: "e", EntityContext: context("country", "FR")}, observed{1, 0, eval.NoMatch, eval.AskedUnevaluable, true}},
		{"other type", eval.Request{FlagID: 1, EntityID: "e", EntityContext: context("country", 5.0)}, observed{1, 0, eval.NoMatch, eval.AskedUnevaluable, true}},
		{"no context", eval.Request{FlagID: 1, EntityID: "e"}, observed{1, 0, eval.NoMatch, eval.AskedUnevaluable, true}},
		{"unevaluable, and then held out", eval.Request{FlagID: 1, EntityID: "e", EntityContext: &eval.Object{
			JSON: `{"age":"x","country":"DE"}`, Members: []eval.Member{{Name: "age", Value: `"x"`}, {Name: "country", Value: `"DE"`}},
		}}, observed{1, 12, eval.HeldOut, 0, true}},
		{"no entity id", eval.Request{FlagID: 1, EntityContext: context("country", "IT")}, observed{1, 0, eval.NoMatch, eval.AskedWithoutEntityID, true}},
		{"tags that are echoed", eval.Request{FlagID: 1, EntityID: "e", FlagTags: []string{"web"}, EntityContext: context("country", "IT")}, observed{1, 0, eval.NoMatch, 0, true}},
		{"disabled", eval.Request{FlagID: 2}, observed{2, 0, eval.FlagDisabled, 0, false}},
		{"no segments", eval.Request{FlagID: 3}, observed{3, 0, eval.NoSegments, 0, false}},
		{"not recorded", eval.Request{FlagID: 4, EntityID: "e"}, observed{4, 0, eval.Matched, 0, false}},
		{"a constraint that is broken itself", eval.Request{FlagID: 5, EntityID: "e"}, observed{5, 0, eval.NoMatch, eval.AskedUnevaluable, true}},
		{"the same with a context", eval.Request{FlagID: 5, EntityID: "e", EntityContext: context("a", "b")}, observed{5, 0, eval.NoMatch, 0, true}},
		{"not found", eval.Request{FlagID: 9}, observed{9, 0, eval.FlagNotFound, 0, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var recorded []observed
			service := eval.NewService(&fixture{snapshot: eval.Compile(outcomeFlags())}, recorderFunc(func(r *eval.Result) {
				recorded = append(recorded, observed{r.FlagID, r.HeldOutSegmentID, r.Reason, r.Asked, r.Recorded()})
			}), eval.Options{DebugEnabled: true})
			debugged := test.request
			debugged.EnableDebug = true
			evaluated(t, service, test.request)
			evaluated(t, service, debugged)
			if diff := cmp.Diff([]observed{test.want, test.want}, recorded); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

type recorderFunc func(*eval.Result)

func (f recorderFunc) AsyncRecord(r *eval.Result) { f(r) }

// A batch, and an evaluation of all flags, say of each flag whether it was named.
func TestAskedByTag(t *testing.T) {
	t.Parallel()
	snapshot := eval.Compile(outcomeFlags())
	var asked []eval.Asked
	service := eval.NewService(&fixture{snapshot: snapshot}, recorderFunc(func(r *eval.Result) { asked = append(asked, r.Asked) }), eval.Options{})
	err := service.EvaluateEach(t.Context(), eval.BatchRequest{
		Entities: []eval.Entity{{EntityID: "e", EntityContext: map[string]any{"country": "IT"}}, {EntityContext: map[string]any{"country": 1.0}}}, FlagTags: []string{"web"}, FlagIDs: []int64{1},
	}, func(*eval.Result) {})
	if err != nil {
		t.Fatal(err)
	}
	const both = eval.AskedWithoutEntityID | eval.AskedUnevaluable
	if diff := cmp.Diff([]eval.Asked{eval.AskedByTag, 0, eval.AskedByTag | both, both}, asked); diff != "" {
		t.Errorf("batch (-want +got):\n%s", diff)
	}
	asked = nil
	err = service.EvaluateFlags(t.Context(), eval.Request{EntityID: "e", EntityContext: map[string]any{"country": "IT"}}, snapshot.Compiled()[:2], true, func(*eval.Result) {})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eval.Asked{eval.AskedByTag, eval.AskedByTag}, asked); diff != "" {
		t.Errorf("all flags (-want +got):\n%s", diff)
	}
}

// TestOutcomeOfEachReason checks which reasons are counted, and for which segment.
func TestOutcomeOfEachReason(t *testing.T) {
	t.Parallel()
	type counted struct {
		Outcome   eval.Outcome
		SegmentID int64
	}
	for reason, want := range map[eval.Reason]counted{
		eval.FlagNotFound:    {},
		eval.FlagDisabled:    {eval.OutcomeDisabled, 0},
		eval.NoSegments:      {eval.OutcomeNoSegments, 0},
		eval.NoMatch:         {eval.OutcomeNoMatch, 0},
		eval.HeldOut:         {eval.OutcomeHeldOut, 12},
		eval.Matched:         {eval.OutcomeMatched, 11},
		eval.EntityIDMissing: {},
		0:                    {}, // an exposure
	} {
		r := &eval.Result{Reason: reason, SegmentID: 11, HeldOutSegmentID: 12}
		outcome, segment := r.Outcome()
		if got := (counted{outcome, segment}); got != want {
			t.Errorf("reason %d: got %+v, want %+v", reason, got, want)
		}
	}
}
