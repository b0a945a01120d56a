package metrics

import (
	"context"
	"strings"
	"testing"
	"unsafe"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/log/embedded"
	lognoop "go.opentelemetry.io/otel/log/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

type oneFlag struct{ snapshot *eval.Snapshot }

func (f oneFlag) Snapshot() *eval.Snapshot { return f.snapshot }

// TestRequestsAreNotKept overwrites the memory of a request's strings, as the next request does.
func TestRequestsAreNotKept(t *testing.T) {
	t.Parallel()
	body := []byte("nope,person,user")
	texts := strings.Split(unsafe.String(&body[0], len(body)), ",")
	logs, spans := &logRecords{}, tracetest.NewSpanRecorder()
	tracer := (&OpenTelemetry{logs: logs}).NewTracer(TraceOptions{Events: EventsOfSampled, ContextID: ContextIDClear})
	evaluations := NewEvaluations()
	service := eval.NewService(oneFlag{eval.Compile([]entity.Flag{{Model: entity.Model{ID: 1}, Key: "k", Enabled: true, Segments: []entity.Segment{{}}}})}, nil,
		eval.Options{Trace: tracer, Observe: evaluations.Observe})
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t").Start(t.Context(), "request")
	_, _ = service.Evaluate(ctx, eval.Request{FlagKey: texts[0], EntityID: texts[1], EntityType: texts[2]})
	span.End()
	_, _ = service.Evaluate(ctx, eval.Request{FlagID: 1, EntityID: texts[1], EntityType: texts[2]})
	clear(body)

	for key := range evaluations.series.mu.all {
		if key.reason != eval.FlagNotFound && key.entityType != "user" {
			t.Errorf("entity type %q", key.entityType)
		}
	}
	got := map[string]string{}
	for _, a := range spans.Ended()[0].Attributes() {
		got["span "+string(a.Key)] = a.Value.AsString()
	}
	for _, record := range logs.records {
		record.WalkAttributes(func(a attribute.KeyValue) bool {
			got["event "+string(a.Key)] += a.Value.AsString() + " "
			return true
		})
	}
	for name, want := range map[string]string{
		"span " + attrKey: "nope", "event " + attrKey: "nope k ", "event " + attrContextID: "person person ", "event " + attrEntityType: "user user ",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// logRecords keeps what is emitted.
type logRecords struct {
	embedded.Logger
	records []log.Record
}

func (l *logRecords) Emit(_ context.Context, r log.Record)                { l.records = append(l.records, r) }
func (l *logRecords) Enabled(context.Context, log.EnabledParameters) bool { return true }

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
				_ = service.EvaluateInto(ctx, eval.Request{FlagKey: "k", EntityID: "e"}, &result)
			}
		})
	}
}
