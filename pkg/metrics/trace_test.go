package metrics

import (
	"context"
	"testing"

	lognoop "go.opentelemetry.io/otel/log/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

type oneFlag struct{ snapshot *eval.Snapshot }

func (f oneFlag) Snapshot() *eval.Snapshot { return f.snapshot }

// BenchmarkTracer compares evaluations without telemetry, with a span that is not sampled, and with
// one that is.
func BenchmarkTracer(b *testing.B) {
	flags := oneFlag{eval.Compile([]entity.Flag{{
		Model: entity.Model{ID: 1}, Key: "k", Enabled: true, SnapshotID: 2, Variants: []entity.Variant{{Model: entity.Model{ID: 3}, Key: "on"}},
		Segments: []entity.Segment{{Model: entity.Model{ID: 4}, RolloutPercent: 100, Distributions: []entity.Distribution{{VariantID: 3, Percent: 100}}}},
	}})}
	tracer := (&OpenTelemetry{logs: lognoop.Logger{}}).NewTracer(TraceOptions{Events: EventsOfSampled})
	for name, tc := range map[string]struct {
		tracer  eval.Tracer
		sampler sdktrace.Sampler
	}{
		"off":       {nil, sdktrace.NeverSample()},
		"unsampled": {tracer, sdktrace.NeverSample()},
		"sampled":   {tracer, sdktrace.AlwaysSample()},
	} {
		b.Run(name, func(b *testing.B) {
			service := eval.NewService(flags, nil, eval.Options{Trace: tc.tracer})
			ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(tc.sampler)).Tracer("t").Start(context.Background(), "request")
			defer span.End()
			var result eval.Result
			b.ReportAllocs()
			for b.Loop() {
				service.EvaluateInto(ctx, eval.Request{FlagKey: "k", EntityID: "e"}, &result)
			}
		})
	}
}
