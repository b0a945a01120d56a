package eval

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// parts says how many of each a flag has. Each segment has a distribution for each variant.
type parts struct{ variants, segments, constraints int }

// BenchmarkMemory tells what compiled flags take of the heap, the rows that they are made of
// included: a flag without parts, and what each part adds to it. Texts other than keys of flags are
// shared, as package store shares them.
func BenchmarkMemory(b *testing.B) {
	base := parts{variants: 2, segments: 2, constraints: 1}
	for name, more := range map[string]struct {
		without, with parts
		number        int // of the parts that with has more
	}{
		"flag":         {parts{}, parts{}, 1},
		"variant":      {parts{variants: 2}, parts{variants: 4}, 2},
		"segment":      {parts{segments: 2}, parts{segments: 4}, 2},
		"constraint":   {base, parts{variants: 2, segments: 2, constraints: 3}, 4},
		"distribution": {parts{variants: 2, segments: 2}, parts{variants: 2, segments: 4}, 4}, // with half a segment
	} {
		b.Run(name, func(b *testing.B) {
			const flags = 2_000
			for b.Loop() {
				bytes := compiledBytes(flags, more.with)
				if more.with != more.without {
					bytes -= compiledBytes(flags, more.without)
				}
				b.ReportMetric(float64(bytes)/flags/float64(more.number), "B/"+name)
			}
		})
	}
}

// compiledBytes is how much the heap grows by so many flags.
func compiledBytes(flags int, of parts) int64 {
	before := liveBytes()
	snapshot := Compile(flagsWith(flags, of))
	grown := liveBytes() - before
	runtime.KeepAlive(snapshot)
	return grown
}

func liveBytes() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) // far below the limit
}

func flagsWith(n int, of parts) []entity.Flag {
	flags := make([]entity.Flag, n)
	attachment := entity.Attachment(`{"color":"#1f6feb"}`)
	for i := range flags {
		f := &flags[i]
		*f = entity.Flag{
			Model: entity.Model{ID: uint(i + 1)}, Key: fmt.Sprintf("flag-%d", i), Description: "for the benchmark", Enabled: true,
			DataRecordsEnabled: true, EntityType: "user",
			Variants: make([]entity.Variant, of.variants), Segments: make([]entity.Segment, of.segments),
		}
		for j := range f.Variants {
			f.Variants[j] = entity.Variant{Model: entity.Model{ID: uint(j + 1)}, Key: "variant", Attachment: attachment}
		}
		for j := range f.Segments {
			s := &f.Segments[j]
			*s = entity.Segment{
				Model: entity.Model{ID: uint(j + 1)}, Description: "segment", RolloutPercent: 100,
				Constraints: make([]entity.Constraint, of.constraints), Distributions: make([]entity.Distribution, of.variants),
			}
			for k := range s.Constraints {
				s.Constraints[k] = entity.Constraint{Model: entity.Model{ID: uint(k + 1)}, Property: "country", Operator: "EQ", Value: `"DE"`}
			}
			for k := range s.Distributions {
				s.Distributions[k] = entity.Distribution{VariantID: uint(k + 1), VariantKey: "variant", Percent: uint(100 / len(s.Distributions))}
			}
		}
	}
	return flags
}

// TestSegmentsShareTheTextsOfTheirFlag compiles a flag with 4,000 segments and 500 long tags. With
// a copy of the tags for each segment, it kept 130 MB. It measures the heap, so it does not run
// beside others.
func TestSegmentsShareTheTextsOfTheirFlag(t *testing.T) {
	flags := flagsWith(1, parts{variants: 1, segments: 4000})
	for i := range 500 {
		flags[0].Tags = append(flags[0].Tags, entity.Tag{Value: fmt.Sprintf("%063d", i)})
	}
	before := liveBytes()
	snapshot := Compile(flags)
	if grown := liveBytes() - before; grown > 8<<20 {
		t.Errorf("the compiled flag keeps %d bytes, want at most 8 MB", grown)
	}
	runtime.KeepAlive(snapshot)
}

// hostile are attachments that take many times the memory of their JSON when they are decoded, as
// other software may write them.
func hostile(bytes int) map[string]string {
	list := func(item string) string {
		return `{"list": [` + strings.TrimSuffix(strings.Repeat(item+",", bytes/(len(item)+1)), ",") + `]}`
	}
	var names strings.Builder
	for i := range bytes / len(`,"999999":1`) {
		fmt.Fprintf(&names, `%s"%d":1`, ","[:min(i, 1)], 999_999-i)
	}
	return map[string]string{
		"numbers": list("1"), "lists": list("[[]]"), "objects": list(`{"b":1,"a":2}`), "strings": list(`"x"`), "escapes": list(`"\u003c\u00e9\/"`),
		"names": "{" + names.String() + "}", "string": `{"text":"` + strings.Repeat("x", bytes) + `"}`,
		"nested": `{"list":` + strings.Repeat("[", 99) + strings.Repeat("1,", bytes/2) + "1" + strings.Repeat("]", 99) + "}",
	}
}

// TestAttachmentsTakeTheMemoryOfTheirJSON reads rows with attachments and compiles their flag.
// Decoded ones took up to 28 times their JSON. It measures the heap, so it does not run beside
// others.
func TestAttachmentsTakeTheMemoryOfTheirJSON(t *testing.T) {
	const size, variants = 300_000, 4
	for name, text := range hostile(size) {
		column := []byte(text)
		before := liveBytes()
		flags := flagsWith(1, parts{variants: variants, segments: 3})
		for i := range flags[0].Variants {
			if err := flags[0].Variants[i].Attachment.Scan(column); err != nil {
				t.Fatal(err)
			}
		}
		snapshot := Compile(flags)
		clear(flags)
		grown, most := liveBytes()-before, int64(variants*len(text)*11/10+50_000)
		if grown > most {
			t.Errorf("%s: %d attachments of %d bytes take %d, want at most %d", name, variants, len(text), grown, most)
		}
		runtime.KeepAlive(snapshot)
	}
}
