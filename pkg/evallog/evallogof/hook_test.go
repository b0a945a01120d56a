package evallogof_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"
	"github.com/open-feature/go-sdk/openfeature/memprovider"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogof"
	"github.com/flagr-datar/flagr-datar/pkg/evallog/evallogtest"
)

type fixture struct {
	engine *evallog.Engine
	writer *evallogtest.Writer
	client *openfeature.Client
}

// flags are those of the in-memory provider, which says of segmented that segment 10 assigned the
// variant.
func flags() map[string]memprovider.InMemoryFlag {
	segmented := func(flag memprovider.InMemoryFlag, flat openfeature.FlattenedContext) (any, openfeature.ProviderResolutionDetail) {
		return flag.Variants["on"], openfeature.ProviderResolutionDetail{
			Variant: "on", Reason: openfeature.TargetingMatchReason, FlagMetadata: openfeature.FlagMetadata{"segmentID": flat["segment"]},
		}
	}
	states := map[string]any{"on": true, "off": false}
	return map[string]memprovider.InMemoryFlag{
		"static":    {Key: "static", State: memprovider.Enabled, DefaultVariant: "on", Variants: states},
		"disabled":  {Key: "disabled", State: memprovider.Disabled, DefaultVariant: "on", Variants: states},
		"text":      {Key: "text", State: memprovider.Enabled, DefaultVariant: "on", Variants: map[string]any{"on": "yes"}},
		"segmented": {Key: "segmented", State: memprovider.Enabled, Variants: states, ContextEvaluator: &segmented},
	}
}

func setup(t *testing.T) fixture {
	t.Helper()
	writer := &evallogtest.Writer{}
	engine, err := evallog.New(evallog.Options{Writer: writer, TargetingKeys: evallog.TargetingKeysClear})
	if err != nil {
		t.Fatal(err)
	}
	api := isolated.NewAPI()
	t.Cleanup(func() {
		_ = api.Shutdown(context.Background())
		_ = engine.Close(context.Background())
	})
	if err := api.SetProviderAndWait(t.Context(), memprovider.NewInMemoryProvider(flags())); err != nil {
		t.Fatal(err)
	}
	api.AddHooks(evallogof.NewHook(engine, evallogof.HookOptions{}))
	return fixture{engine, writer, api.NewClient()}
}

// row returns the only one that was counted.
func (f fixture) row(t *testing.T) evallog.Row {
	t.Helper()
	if err := f.engine.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	delivered := f.writer.Delivered()
	if len(delivered) != 1 || len(delivered[0].Rows) != 1 {
		t.Fatalf("delivered %+v, want one row; dropped %v", delivered, f.engine.Stats().Dropped)
	}
	return delivered[0].Rows[0]
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	none, on := evallog.None(), evallog.Some("on")
	cases := map[string]struct {
		flag        string
		segment     any
		key         evallog.Key // without its flag
		message     string
		usesDefault bool
		outcome     evallog.Outcome
	}{
		"match":             {"static", nil, evallog.Key{Variant: on, Allocation: none, TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
		"default":           {"disabled", nil, evallog.Key{Variant: none, Allocation: none, TargetingKey: none, ErrorCode: none}, "", true, evallog.Disabled},
		"flag not found":    {"gone", nil, evallog.Key{Variant: none, Allocation: none, TargetingKey: none, ErrorCode: evallog.Some("FLAG_NOT_FOUND")}, "flag for key gone not found", true, evallog.Failed},
		"type mismatch":     {"text", nil, evallog.Key{Variant: on, Allocation: none, TargetingKey: none, ErrorCode: evallog.Some("TYPE_MISMATCH")}, "incorrect type association", true, evallog.Matched},
		"segment as text":   {"segmented", "10", evallog.Key{Variant: on, Allocation: evallog.Some("10"), TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
		"segment as number": {"segmented", int64(10), evallog.Key{Variant: on, Allocation: evallog.Some("10"), TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
		"segment from JSON": {"segmented", 10.0, evallog.Key{Variant: on, Allocation: evallog.Some("10"), TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
		"half a segment":    {"segmented", 10.5, evallog.Key{Variant: on, Allocation: none, TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
		"segment as a list": {"segmented", []int{10}, evallog.Key{Variant: on, Allocation: none, TargetingKey: none, ErrorCode: none}, "", false, evallog.Matched},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			for range 3 {
				_, _ = f.client.BooleanValue(t.Context(), c.flag, false, openfeature.NewTargetlessEvaluationContext(map[string]any{"segment": c.segment}))
			}
			row := f.row(t)
			c.key.Flag, c.key.Outcome, c.key.Asked = c.flag, c.outcome, evallog.AskedWithoutEntityID
			want := evallog.Row{Key: c.key, Count: 3, First: row.First, Last: row.Last, ErrorMessage: c.message}
			if diff := cmp.Diff(want, row, cmp.AllowUnexported(evallog.Text{})); diff != "" {
				t.Error(diff)
			}
			if row.Key.RuntimeDefaultUsed() != c.usesDefault {
				t.Errorf("default used: %t", row.Key.RuntimeDefaultUsed())
			}
		})
	}
}

func TestEveryTypeOfFlagIsCounted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	everyone := openfeature.EvaluationContext{}
	_, _ = f.client.BooleanValue(t.Context(), "gone", false, everyone)
	_, _ = f.client.StringValue(t.Context(), "gone", "", everyone)
	_, _ = f.client.IntValue(t.Context(), "gone", 0, everyone)
	_, _ = f.client.FloatValue(t.Context(), "gone", math.Pi, everyone)
	_, _ = f.client.ObjectValue(t.Context(), "gone", nil, everyone)
	if row := f.row(t); row.Count != 5 {
		t.Errorf("counted %d of 5", row.Count)
	}
}

// slow is a provider that has not started yet.
type slow struct {
	*memprovider.InMemoryProvider
	started chan struct{}
}

func (s slow) Init(openfeature.EvaluationContext) error {
	<-s.started
	return nil
}

func (slow) Shutdown() {}

func TestAProviderThatIsNotReady(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	defer close(started)
	writer := &evallogtest.Writer{}
	engine, err := evallog.New(evallog.Options{Writer: writer})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close(context.Background()) }()
	api := isolated.NewAPI()
	if err := api.SetProvider(t.Context(), slow{memprovider.NewInMemoryProvider(flags()), started}); err != nil {
		t.Fatal(err)
	}
	client := api.NewClient()
	client.AddHooks(evallogof.NewHook(engine, evallogof.HookOptions{}))
	if value, err := client.BooleanValue(t.Context(), "flag", true, openfeature.EvaluationContext{}); !value || err == nil {
		t.Fatalf("got %t, %v", value, err)
	}
	row := fixture{engine, writer, client}.row(t)
	if row.Key.ErrorCode != evallog.Some("PROVIDER_NOT_READY") || !row.Key.RuntimeDefaultUsed() || row.ErrorMessage == "" {
		t.Errorf("%+v", row)
	}
}

func TestTargetingKeysReachTheEngine(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, _ = f.client.BooleanValue(t.Context(), "static", false, openfeature.NewEvaluationContext("alice", nil))
	if row := f.row(t); row.Key.TargetingKey != evallog.Some("alice") {
		t.Errorf("targeting key %v", row.Key.TargetingKey)
	}
}

func TestACancelledEvaluationIsCounted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = f.client.BooleanValue(canceled, "static", false, openfeature.EvaluationContext{})
	if row := f.row(t); row.Count != 1 {
		t.Errorf("%+v", row)
	}
}

// TestVersionsAndTargetingKeys reads the version of a flag in each form that providers give it.
func TestVersionsAndTargetingKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version any
		key     string
		reason  openfeature.Reason
		want    evallog.Key
	}{
		"text":           {"117", "alice", openfeature.SplitReason, evallog.Key{Version: 117}},
		"number":         {int64(117), "alice", openfeature.SplitReason, evallog.Key{Version: 117}},
		"from JSON":      {117.0, "alice", openfeature.SplitReason, evallog.Key{Version: 117}},
		"of another":     {"v1.17", "alice", openfeature.SplitReason, evallog.Key{}},
		"negative":       {-1, "alice", openfeature.SplitReason, evallog.Key{}},
		"none":           {nil, "", openfeature.DefaultReason, evallog.Key{Asked: evallog.AskedWithoutEntityID}},
		"a disabled one": {"117", "alice", openfeature.DisabledReason, evallog.Key{Version: 117, Outcome: evallog.Disabled}},
	} {
		var got []evallog.Evaluation
		hook := evallogof.NewHook(recorderFunc(func(e evallog.Evaluation) { got = append(got, e) }), evallogof.HookOptions{})
		evaluated := openfeature.NewHookContext("flag", openfeature.Boolean, false, openfeature.ClientMetadata{}, openfeature.Metadata{}, openfeature.NewEvaluationContext(c.key, nil))
		hook.Finally(t.Context(), evaluated, openfeature.InterfaceEvaluationDetails{EvaluationDetails: openfeature.EvaluationDetails{
			ResolutionDetail: openfeature.ResolutionDetail{Reason: c.reason, FlagMetadata: openfeature.FlagMetadata{"version": c.version}},
		}}, openfeature.HookHints{})
		if len(got) != 1 || got[0].Version != c.want.Version || got[0].Outcome != c.want.Outcome || got[0].Asked != c.want.Asked {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAnotherNameForTheAllocation(t *testing.T) {
	t.Parallel()
	var got []evallog.Evaluation
	hook := evallogof.NewHook(recorderFunc(func(e evallog.Evaluation) { got = append(got, e) }), evallogof.HookOptions{AllocationKey: "allocation"})
	hook.Finally(t.Context(), openfeature.HookContext{}, openfeature.InterfaceEvaluationDetails{EvaluationDetails: openfeature.EvaluationDetails{
		ResolutionDetail: openfeature.ResolutionDetail{FlagMetadata: openfeature.FlagMetadata{"allocation": "a", "segmentID": "b"}},
	}}, openfeature.HookHints{})
	if len(got) != 1 || got[0].Allocation != evallog.Some("a") {
		t.Errorf("%+v", got)
	}
}

// Without an engine evaluations have their values all the same.
func TestAHookWithoutARecorderCountsNothing(t *testing.T) {
	t.Parallel()
	var missing *evallog.Engine
	for name, recorder := range map[string]evallogof.Recorder{"nil": nil, "a nil engine": missing} {
		f := setup(t)
		value, err := f.client.BooleanValue(t.Context(), "static", false, openfeature.EvaluationContext{},
			openfeature.WithHooks(evallogof.NewHook(recorder, evallogof.HookOptions{})))
		if err != nil || !value {
			t.Errorf("%s: the flag is %v, %v; want true", name, value, err)
		}
		if row := f.row(t); row.Count != 1 {
			t.Errorf("%s: another hook has %+v, want one evaluation", name, row)
		}
	}
}

type recorderFunc func(evallog.Evaluation)

func (f recorderFunc) Record(e evallog.Evaluation) { f(e) }

func BenchmarkFinally(b *testing.B) {
	engine, err := evallog.New(evallog.Options{Writer: &evallogtest.Writer{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = engine.Close(context.Background()) }()
	hook := evallogof.NewHook(engine, evallogof.HookOptions{})
	evaluated := openfeature.NewHookContext("flag", openfeature.Boolean, false, openfeature.ClientMetadata{}, openfeature.Metadata{}, openfeature.EvaluationContext{})
	details := openfeature.InterfaceEvaluationDetails{EvaluationDetails: openfeature.EvaluationDetails{
		ResolutionDetail: openfeature.ResolutionDetail{Variant: "on", FlagMetadata: openfeature.FlagMetadata{"segmentID": fmt.Sprint(10)}},
	}}
	b.ReportAllocs()
	for b.Loop() {
		hook.Finally(b.Context(), evaluated, details, openfeature.HookHints{})
	}
}
