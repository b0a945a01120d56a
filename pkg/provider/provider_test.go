package provider_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/integration_tests/testaddress"
	"github.com/flagr-datar/flagr-datar/integration_tests/testwait"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

type wireRow struct {
	Flag, Variant, Allocation struct{ Key string }
	EvaluationCount           int64 `json:"evaluation_count"`
	Outcome                   string
	Version                   int64
	Asked                     []string
	Error                     struct{ Message string }
}

func decodeEnvelope(r *http.Request) []wireRow {
	var envelope struct {
		FlagEvaluations []wireRow
	}
	body, err := gzip.NewReader(r.Body)
	if err != nil || json.NewDecoder(body).Decode(&envelope) != nil {
		return nil
	}
	return envelope.FlagEvaluations
}

type flat = openfeature.FlattenedContext

// detail is what two providers must agree on.
type detail struct {
	Value           any
	Variant, Reason string
	Error           string
	Metadata        openfeature.FlagMetadata
}

// ask evaluates a flag as each type.
func ask(p openfeature.FeatureProvider, flag string, context flat) map[string]detail {
	ctx := contextBackground()
	of := func(value any, d openfeature.ProviderResolutionDetail) detail {
		message := ""
		if err := d.Error(); err != nil {
			message = err.Error()
		}
		metadata := d.FlagMetadata
		if len(metadata) == 0 {
			metadata = nil
		}
		return detail{value, d.Variant, string(d.Reason), message, metadata}
	}
	b := p.BooleanEvaluation(ctx, flag, true, context)
	s := p.StringEvaluation(ctx, flag, "default", context)
	f := p.FloatEvaluation(ctx, flag, 0.5, context)
	i := p.IntEvaluation(ctx, flag, -1, context)
	o := p.ObjectEvaluation(ctx, flag, "default", context)
	return map[string]detail{
		"bool": of(b.Value, b.ProviderResolutionDetail), "string": of(s.Value, s.ProviderResolutionDetail),
		"float": of(f.Value, f.ProviderResolutionDetail), "int": of(i.Value, i.ProviderResolutionDetail),
		"object": of(o.Value, o.ProviderResolutionDetail),
	}
}

func contextBackground() context.Context { return context.Background() }

// TestLikeOFREP compares evaluations in process with those of the server, of every type, for every
// golden request.
func TestLikeOFREP(t *testing.T) {
	t.Parallel()
	for name, document := range map[string]string{"golden": goldenDocument(t), "simple": simple} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, document)
			local := start(t, provider.Options{URL: s.URL, IgnoreEvents: true})
			remote := start(t, provider.Options{URL: s.URL, Remote: true})
			compare := func(flag string, context flat) {
				t.Helper()
				if diff := cmp.Diff(ask(remote, flag, context), ask(local, flag, context)); diff != "" {
					t.Fatalf("flag %s, context %v (-OFREP +in process):\n%s", flag, context, diff)
				}
			}
			if name == "golden" {
				for _, request := range golden.Lines[struct {
					FlagKey, EntityID, EntityType string
					EntityContext                 map[string]any
				}](t, "requests.jsonl") {
					context := flat{"targetingKey": request.EntityID}
					maps.Copy(context, request.EntityContext)
					if request.EntityType != "" {
						context["entityType"] = request.EntityType
					}
					if request.FlagKey != "" {
						compare(request.FlagKey, context)
					}
				}
				return
			}
			when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			for _, flag := range []string{"on", "size", "color", "nobody", "disabled", "a/b", "gone", "3", ""} {
				for _, context := range []flat{
					nil, {}, {"targetingKey": "u"}, {"targetingKey": 7}, {"targetingKey": "u", "x": 1}, {"x": int64(1)}, {"x": uint8(1)},
					{"when": when}, {"targetingKey": "u", "f": func() {}}, {"x": []any{1, "a"}, "entityType": 3},
				} {
					if _, bad := context["f"]; bad && flag == "gone" {
						continue
					}
					compare(flag, context)
				}
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	for name, p := range map[string]*provider.Provider{
		"in process": start(t, provider.Options{URL: s.URL, IgnoreEvents: true, DisableCounts: true}),
		"remote":     start(t, provider.Options{URL: s.URL, Remote: true}),
	} {
		for flag, reason := range map[string]string{"nobody": "DEFAULT", "disabled": "DISABLED"} {
			for kind, got := range ask(p, flag, nil) {
				want := map[string]any{"bool": true, "string": "default", "float": 0.5, "int": int64(-1), "object": "default"}[kind]
				if got.Value != want || got.Reason != reason || got.Error != "" {
					t.Errorf("%s, flag %s as %s: %+v", name, flag, kind, got)
				}
			}
		}
	}
}

func TestObjectsBelongToTheCaller(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true, DisableCounts: true})
	context := flat{"targetingKey": "user-3", "when": "2026-01-02T03:04:05Z"}
	want := map[string]any{"rgb": []any{26.0, 127.0, 55.0}, "name": "g"}
	for range 2 {
		got := p.ObjectEvaluation(t.Context(), "color", nil, context).Value
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Fatal(diff)
		}
		got.(map[string]any)["rgb"].([]any)[0] = "changed"
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]provider.Options{
		"URL":            {URL: "localhost:18000"},
		"URL is":         {},
		"PollInterval":   {URL: "http://h", PollInterval: time.Millisecond},
		"Timeout":        {URL: "http://h", Timeout: -1},
		"CountsInterval": {URL: "http://h", CountsInterval: -1},
	} {
		if _, err := provider.New(o); err == nil || !strings.HasPrefix(err.Error(), "flag provider: Options."+want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// events collects the events of a provider.
type events struct {
	mu  sync.Mutex
	all []string
}

func collect(t *testing.T, p *provider.Provider) *events {
	e := &events{}
	go func() {
		for {
			select {
			case <-t.Context().Done():
				return
			case event := <-p.EventChannel():
				e.mu.Lock()
				e.all = append(e.all, string(event.EventType)+" "+strings.Join(event.FlagChanges, ","))
				e.mu.Unlock()
			}
		}
	}()
	return e
}

func (e *events) has(event string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.all, event)
}

// TestTheServerGoesAndComes has a change that the event stream brings, an outage, and a change
// after it.
func TestTheServerGoesAndComes(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, PollInterval: time.Second, DisableCounts: true})
	seen := collect(t, p)
	value := func() bool { return p.BooleanEvaluation(t.Context(), "on", false, nil).Value }
	if !value() {
		t.Fatal("the flag is not on")
	}
	testwait.Until(t, "304", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.exports[http.StatusNotModified] > 0
	})
	off := strings.Replace(simple, `"SnapshotID":5,"Variants":[{"ID":1,"Key":"on"},{"ID":2,"Key":"off"}],
	 "Segments":[{"ID":3,"RolloutPercent":100,"Distributions":[{"VariantKey":"on"`, `"SnapshotID":15,"Variants":[{"ID":1,"Key":"on"},{"ID":2,"Key":"off"}],
	 "Segments":[{"ID":3,"RolloutPercent":100,"Distributions":[{"VariantKey":"off"`, 1)
	s.set(off, false)
	testwait.Until(t, "a change", func() bool { return !value() && seen.has("PROVIDER_CONFIGURATION_CHANGED on") })
	s.set(off, true)
	testwait.Until(t, "stale", func() bool { return seen.has("PROVIDER_STALE ") })
	if value() {
		t.Error("the flag is on again")
	}
	s.set(simple, false)
	testwait.Until(t, "back", func() bool { return value() && seen.has("PROVIDER_READY ") })
}

func TestCacheFile(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	file := filepath.Join(t.TempDir(), "flags.json")
	first := start(t, provider.Options{URL: s.URL, CacheFile: file, DisableCounts: true, IgnoreEvents: true})
	first.Shutdown()
	address := "http://" + testaddress.Unused(t)
	p := start(t, provider.Options{URL: address, CacheFile: file, DisableCounts: true, IgnoreEvents: true, PollInterval: time.Second})
	seen := collect(t, p)
	if got := p.BooleanEvaluation(t.Context(), "on", false, nil); !got.Value || got.Variant != "on" {
		t.Errorf("%+v", got)
	}
	testwait.Until(t, "stale", func() bool { return seen.has("PROVIDER_STALE ") })
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("files: %v %v", entries, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken, err := provider.New(provider.Options{URL: address, CacheFile: file, DisableCounts: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broken.Shutdown)
	if err := broken.Init(openfeature.EvaluationContext{}); err == nil {
		t.Error("a broken file is taken")
	}
}

// TestTheSDK starts while the server is away, and gets ready by itself.
func TestTheSDK(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	s.set(simple, true)
	p, err := provider.New(provider.Options{URL: s.URL, PollInterval: time.Second, IgnoreEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	api := isolated.NewAPI()
	if err := api.SetProviderAndWait(t.Context(), p); err == nil {
		t.Error("ready without flags")
	}
	client := api.NewClient()
	if details, err := client.BooleanValueDetails(t.Context(), "on", false, openfeature.EvaluationContext{}); err == nil || details.Value {
		t.Errorf("%+v", details)
	}
	s.set(simple, false)
	testwait.Until(t, "ready", func() bool { return client.State() == openfeature.ReadyState })
	details, err := client.BooleanValueDetails(t.Context(), "on", false, openfeature.NewEvaluationContext("u", nil))
	if err != nil || !details.Value || details.Variant != "on" || details.FlagMetadata["segmentID"] != int64(3) {
		t.Errorf("%+v, %v", details, err)
	}
	if err := api.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got, _ := s.counts(); got["on=on@3"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// TestExactness evaluates in 64 goroutines while the server goes and comes. Each call is counted
// once.
func TestExactness(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, PollInterval: time.Second, CountsInterval: time.Second})
	stop := make(chan struct{})
	var chaos, callers sync.WaitGroup
	chaos.Go(func() {
		for away := true; ; away = !away {
			select {
			case <-stop:
				s.set(simple, false)
				return
			case <-time.After(150 * time.Millisecond):
				s.set(simple, away)
				if away {
					s.CloseClientConnections()
				}
			}
		}
	})
	const goroutines, calls = 64, 5_000
	for i := range goroutines {
		callers.Go(func() {
			for n := range calls {
				context := flat{"targetingKey": fmt.Sprint(i, n)}
				switch n % 4 {
				case 0:
					p.BooleanEvaluation(contextBackground(), "on", false, context)
				case 1:
					p.IntEvaluation(contextBackground(), "size", 0, context)
				case 2:
					p.StringEvaluation(contextBackground(), "nobody", "", context)
				default:
					p.ObjectEvaluation(contextBackground(), "color", nil, context) // no records
				}
				if n%500 == 0 {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	chaos.Wait()
	ctx, cancel := context.WithTimeout(contextBackground(), 30*time.Second)
	defer cancel()
	if err := p.ShutdownWithContext(ctx); err != nil {
		t.Error(err)
	}
	const each = goroutines * calls / 4
	got, sum := s.counts()
	if got["on=on@3"] != each || got["size=small@4"] != each || got["nobody=@7"] != each || sum != 3*each {
		t.Errorf("counted %v, want %d each; %+v", got, each, p.Counts())
	}
	if stats := p.Counts(); stats.Full != 3*each || stats.Pending != 0 || stats.DroppedTotal() != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestOutcomesAreThoseOfTheServer counts what package handler counts of the same evaluations.
func TestOutcomesAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	const document = `{"Flags":[
		{"ID":1,"Key":"fr","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":70000,"Variants":[{"ID":1,"Key":"on"}],
		 "Segments":[{"ID":3,"RolloutPercent":100,"Constraints":[{"Property":"country","Operator":"EQ","Value":"\"FR\""}],"Distributions":[{"VariantKey":"on","Percent":100}]}]},
		{"ID":2,"Key":"nobody","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":8,"Variants":[{"ID":7,"Key":"x"}],"Segments":[{"ID":7,"RolloutPercent":0,"Distributions":[{"VariantKey":"x","Percent":100}]}]},
		{"ID":3,"Key":"off","DataRecordsEnabled":true,"SnapshotID":9,"Variants":[{"ID":8,"Key":"x"}],"Segments":[{"ID":8,"RolloutPercent":100,"Distributions":[{"VariantKey":"x","Percent":100}]}]},
		{"ID":4,"Key":"empty","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":10,"Variants":[{"ID":9,"Key":"x"}]},
		{"ID":5,"Key":"quiet","Enabled":true,"SnapshotID":11,"Variants":[{"ID":10,"Key":"x"}],"Segments":[{"ID":9,"RolloutPercent":100,"Distributions":[{"VariantKey":"x","Percent":100}]}]},
		{"ID":6,"Key":"half","Enabled":true,"DataRecordsEnabled":true,"SnapshotID":12,"Variants":[{"ID":11,"Key":"x"},{"ID":12,"Key":"y"}],
		 "Segments":[{"ID":10,"RolloutPercent":100,"Distributions":[{"VariantKey":"x","Percent":50},{"VariantKey":"y","Percent":50}]}]}
	]}`
	s := newServer(t, document)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true})
	french := flat{openfeature.TargetingKey: "alice", "country": "FR"}
	for n, one := range []struct {
		flag    string
		context flat
	}{
		{"fr", french},
		{"fr", flat{openfeature.TargetingKey: "alice", "country": "DE"}},
		{"fr", flat{openfeature.TargetingKey: "alice"}}, // the constraint cannot be evaluated
		{"nobody", french}, {"off", french}, {"empty", french}, {"quiet", french}, {"missing", french},
		{"half", flat{}}, // refused: a split needs a targeting key
	} {
		for range n + 1 {
			p.StringEvaluation(t.Context(), one.flag, "", one.context)
		}
	}
	p.IntEvaluation(t.Context(), "fr", 0, french) // of another type, and the variant was assigned
	p.Shutdown()
	want := map[string]int64{
		"fr matched @3 v70000 []": 2, "fr no_match @ v70000 []": 2, "fr no_match @ v70000 [unevaluable]": 3,
		"nobody held_out @7 v8 []": 4, "off disabled @ v9 []": 5, "empty no_segments @ v10 []": 6, "missing FLAG_NOT_FOUND @ v0 []": 8,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.outcomes); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// TestManyKeysWithoutAFlag: keys that a program makes up take no more than their bound, and all of
// them are counted.
func TestManyKeysWithoutAFlag(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true})
	for i := range 1200 {
		p.BooleanEvaluation(t.Context(), fmt.Sprint("made-up-", i), false, nil)
	}
	p.BooleanEvaluation(t.Context(), strings.Repeat("é", 100), false, nil)
	p.BooleanEvaluation(t.Context(), "", false, nil)
	p.BooleanEvaluation(t.Context(), "made-up-0", false, nil)
	p.Shutdown()
	all, sum := s.counts()
	others := all[datar.OtherUnknown+"=@"]
	if sum != 1202 || len(all) != 1001 || all["made-up-0=@"] != 2 || others != 201 {
		t.Errorf("%d counted under %d keys, %d of made-up-0, %d of others", sum, len(all), all["made-up-0=@"], others)
	}
}

// TestLongKeysAreCutLikeThoseOfTheServer: otherwise the same key would be counted under two texts.
func TestLongKeysAreCutLikeThoseOfTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true})
	for _, key := range []string{strings.Repeat("k", datar.MaxAsked), strings.Repeat("k", datar.MaxAsked+1)} {
		p.BooleanEvaluation(t.Context(), key, false, nil)
	}
	p.Shutdown()
	all, sum := s.counts()
	if cut := datar.CleanAsked(strings.Repeat("k", 1000)); sum != 2 || all[cut+"=@"] != 2 {
		t.Errorf("counted %v, want %s twice", all, cut)
	}
}

// TestTheSpool has a program that ends while the server is away, and one that comes after it.
func TestTheSpool(t *testing.T) {
	t.Parallel()
	s := newServer(t, simple)
	spool := t.TempDir()
	p := start(t, provider.Options{URL: s.URL, SpoolDir: spool, IgnoreEvents: true})
	for range 100 {
		p.BooleanEvaluation(t.Context(), "on", false, nil)
	}
	s.set(simple, true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = p.ShutdownWithContext(ctx)
	if _, sum := s.counts(); sum != 0 {
		t.Fatalf("%d counted", sum)
	}
	s.set(simple, false)
	next := start(t, provider.Options{URL: s.URL, SpoolDir: spool, IgnoreEvents: true})
	testwait.Until(t, "counts of the spool", func() bool { _, sum := s.counts(); return sum == 100 })
	next.Shutdown()
}

func TestShutdownBeforeInit(t *testing.T) {
	t.Parallel()
	p, err := provider.New(provider.Options{URL: "http://" + testaddress.Unused(t)})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.BooleanEvaluation(t.Context(), "on", true, nil); !got.Value || !strings.HasPrefix(got.Error().Error(), "PROVIDER_NOT_READY") {
		t.Errorf("%+v", got)
	}
	p.Shutdown()
	p.Shutdown()
	if p.Init(openfeature.EvaluationContext{}) == nil {
		t.Error("started after Shutdown")
	}
}

// TestDependencies counts the packages that a program gets with the provider.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	var others []string
	for dependency := range strings.FieldsSeq(string(out)) {
		if first, _, _ := strings.Cut(dependency, "/"); strings.Contains(first, ".") {
			others = append(others, dependency)
		}
	}
	const flagr, sdk = "github.com/flagr-datar/flagr-datar/pkg/", "github.com/open-feature/go-sdk/openfeature"
	want := []string{
		flagr + "catalog", flagr + "entity", flagr + "eval", flagr + "evalcache", flagr + "evallog", flagr + "provider",
		sdk, sdk + "/internal", sdk + "/internal/factory", "github.com/zhouzhuojie/conditions",
	}
	others = slices.DeleteFunc(others, func(p string) bool { return strings.HasPrefix(p, "crypto/") })
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(others))); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}

func benchmarkProvider(b *testing.B) *provider.Provider {
	s := newServer(b, simple)
	return start(b, provider.Options{URL: s.URL, IgnoreEvents: true})
}

func TestAllocations(t *testing.T) {
	s := newServer(t, simple)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true})
	context := flat{"targetingKey": "user-1", "country": "FR", "age": 42}
	if n := testing.AllocsPerRun(1000, func() { p.BooleanEvaluation(contextBackground(), "on", false, context) }); n > 3 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvaluation(b *testing.B) {
	p := benchmarkProvider(b)
	context := flat{"targetingKey": "user-1", "country": "FR", "age": 42}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.BooleanEvaluation(contextBackground(), "on", false, context)
		}
	})
}
