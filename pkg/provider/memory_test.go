package provider_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/provider"
)

// TestSegmentsShareValues evaluates a flag with 500 segments that assign a variant. Its list of
// 100,000 numbers takes 0.2 MB, and at least 3 MB when it is decoded; its string is decoded once.
// It is not parallel, because TotalAlloc includes all goroutines.
func TestSegmentsShareValues(t *testing.T) { //nolint:paralleltest // measures allocations
	var segments strings.Builder
	for i := range 500 {
		fmt.Fprintf(&segments, `%s{"ID":%d,"RolloutPercent":100,"Distributions":[{"VariantKey":"on","Percent":100}]`, ","[:min(i, 1)], i+1)
		fmt.Fprintf(&segments, `,"Constraints":[{"Property":"n","Operator":"EQ","Value":"%d"}]}`, i)
	}
	list, text := `{"list":[`+strings.Repeat("1,", 100_000)+`1]}`, `{"value":"`+strings.Repeat(`\n`, 100_000)+`"}`
	s := newServer(t, `{"Flags":[{"ID":1,"Key":"list","Enabled":true,"Segments":[`+segments.String()+`],"Variants":[{"ID":1,"Key":"on","Attachment":`+list+`}]},
		{"ID":2,"Key":"text","Enabled":true,"Segments":[`+segments.String()+`],"Variants":[{"ID":1,"Key":"on","Attachment":`+text+`}]}]}`)
	p := start(t, provider.Options{URL: s.URL, IgnoreEvents: true, DisableCounts: true})
	for flag, want := range map[string]string{"list": "default", "text": strings.Repeat("\n", 100_000)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := p.StringEvaluation(t.Context(), flag, "default", flat{"targetingKey": "a", "n": 499})
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; got.Value != want || took > 2<<20 {
			t.Errorf("%s: %.100s, took %d bytes, want at most 2 MB", flag, got.Value, took)
		}
	}
	value, _ := p.ObjectEvaluation(t.Context(), "list", nil, flat{"targetingKey": "a", "n": 499}).Value.(map[string]any)
	if numbers, _ := value["list"].([]any); len(numbers) != 100_001 || numbers[100_000] != 1.0 {
		t.Errorf("the value has %d numbers", len(numbers))
	}
}
