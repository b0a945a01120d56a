package fastpath_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// benchmarkFlag has 3 variants and 2 segments with a constraint each; of benchmarkBody's entities
// the second one matches.
func benchmarkFlag() entity.Flag {
	f := entity.Flag{Model: entity.Model{ID: 1}, Key: "bench", Enabled: true, SnapshotID: 9}
	var distributions []entity.Distribution
	for i, percent := range []uint{34, 33, 33} {
		id := uint(i + 1)
		f.Variants = append(f.Variants, entity.Variant{
			Model: entity.Model{ID: id}, Key: fmt.Sprintf("variant_%d", id), Attachment: `{"color":"#1f6feb"}`,
		})
		distributions = append(distributions, entity.Distribution{VariantID: id, Percent: percent})
	}
	for i, c := range []entity.Constraint{
		{Property: "country", Operator: "EQ", Value: `"DE"`}, {Property: "age", Operator: "GTE", Value: "18"},
	} {
		f.Segments = append(f.Segments, entity.Segment{
			Model: entity.Model{ID: uint(i + 1)}, Rank: uint(i), RolloutPercent: 100, Constraints: []entity.Constraint{c}, Distributions: distributions,
		})
	}
	return f
}

const benchmarkEntity = `{"entityID":"user-1001","entityType":"user","entityContext":{"age":30,"country":"FR"}}`

// discard is a response without a reader.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func benchmark(b *testing.B, path, body string) {
	b.Helper()
	f := setup(b, []entity.Flag{benchmarkFlag()})
	for _, way := range []struct {
		name    string
		handler http.Handler
	}{{"fast", &f.fast}, {"generated", &f.generated}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/api/v1"+path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				way.handler.ServeHTTP(discard{http.Header{}}, r)
			}
		})
	}
}

func BenchmarkEvaluation(b *testing.B) {
	benchmark(b, "/evaluation", strings.TrimSuffix(benchmarkEntity, "}")+`,"flagKey":"bench"}`)
}

// BenchmarkBatch asks for 500 evaluations.
func BenchmarkBatch(b *testing.B) {
	benchmark(b, "/evaluation/batch", `{"entities":[`+strings.Repeat(benchmarkEntity+",", 499)+benchmarkEntity+`],"flagKeys":["bench"]}`)
}
