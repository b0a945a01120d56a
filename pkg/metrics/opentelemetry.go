package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/flagr-datar/flagr-datar/pkg/ofrep"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// scopeName is the instrumentation scope of this server.
const scopeName = "github.com/flagr-datar/flagr-datar"

// OpenTelemetry exports traces and metrics of requests, and counts of evaluations. The libraries
// read the standard variables for exporters, samplers, limits and the resource.
type OpenTelemetry struct {
	traces   trace.TracerProvider
	meters   metric.MeterProvider
	counter  metric.Int64Counter // of evaluations; nil without metrics
	logs     log.Logger          // nil without logs
	shutdown []func(context.Context) error
}

// NewOpenTelemetry creates the exporters for traces, metrics and logs, as configured. Unreachable
// receivers are not an error: the exporters retry.
func NewOpenTelemetry(ctx context.Context, version string, traces, metrics, logs bool) (_ *OpenTelemetry, err error) {
	o := &OpenTelemetry{traces: tracenoop.NewTracerProvider(), meters: metricnoop.NewMeterProvider()}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close(ctx))
		}
	}()
	// Later detectors override earlier ones, so OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have
	// priority.
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "flagr"), attribute.String("service.version", version)), resource.WithTelemetrySDK(),
		resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe the service: %w", err)
	}
	if traces {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("exporter of traces, from OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
		}
		provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
		o.traces = provider
		o.shutdown = append(o.shutdown, provider.Shutdown)
	}
	if metrics {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("exporter of metrics, from OTEL_METRICS_EXPORTER and OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
		}
		provider := newMeterProvider(reader, res)
		o.meters = provider
		o.shutdown = append(o.shutdown, provider.Shutdown)
		o.counter, err = provider.Meter(scopeName).Int64Counter("flagr.evaluations",
			metric.WithDescription("Evaluations by flag, variant and reason."), metric.WithUnit("{evaluation}"))
		if err != nil {
			return nil, fmt.Errorf("counter of evaluations: %w", err)
		}
	}
	if logs {
		exporter, err := autoexport.NewLogExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("exporter of logs, from OTEL_LOGS_EXPORTER and OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
		}
		provider := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)), sdklog.WithResource(res))
		o.logs = provider.Logger(scopeName)
		o.shutdown = append(o.shutdown, provider.Shutdown)
	}
	return o, nil
}

// newMeterProvider drops the attributes that clients set with the Host header: each value would be
// a series, and the library limits their number.
func newMeterProvider(reader sdkmetric.Reader, res *resource.Resource) *sdkmetric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res),
		sdkmetric.WithCardinalityLimit(maxEvaluationSeries+1), // one is for series beyond the limit
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Name: "http.server.*"},
			sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter("server.address", "server.port")},
		)))
}

// Close sends the remaining data.
func (o *OpenTelemetry) Close(ctx context.Context) error {
	var errs []error
	for _, shutdown := range o.shutdown {
		errs = append(errs, shutdown(ctx))
	}
	return errors.Join(errs...)
}

// Wrap traces and measures each request, which costs about 20 µs if the request is sampled. It
// continues the trace of a client.
func (o *OpenTelemetry) Wrap(next http.Handler) http.Handler {
	return otelhttp.NewMiddleware("flagr",
		otelhttp.WithTracerProvider(o.traces),
		otelhttp.WithMeterProvider(o.meters),
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelhttp.WithFilter(func(r *http.Request) bool { // a stream lasts for hours
			return r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ofrep.EventsPath)
		}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return strings.TrimSpace(r.Method + " " + r.Pattern) }),
	)(next)
}

// NameRoute adds the route to the request's span, which starts before the route is known.
//
// It also sets the client's address to the address of the connection, because the library uses
// X-Forwarded-For, which clients can set.
func (o *OpenTelemetry) NameRoute(e *web.Exchange) {
	if host, _, err := net.SplitHostPort(e.Request.RemoteAddr); err == nil {
		trace.SpanFromContext(e.Request.Context()).SetAttributes(attribute.String("client.address", host))
	}
	if e.Request.Pattern != "" {
		trace.SpanFromContext(e.Request.Context()).SetAttributes(attribute.String("http.route", e.Request.Pattern))
	}
}

// CountsEvaluations reports whether there are metrics, so that evaluations can be counted.
func (o *OpenTelemetry) CountsEvaluations() bool { return o.counter != nil }

func (o *OpenTelemetry) evaluations(l evaluationLabels) (count func()) {
	attributes := []attribute.KeyValue{
		attribute.String(attrReason, l.openFeature),
		attribute.String(attrFlagrReason, l.reason),
	}
	if l.flagKey != "" { // clients choose the keys of unknown flags
		attributes = append(attributes, attribute.String(attrKey, l.flagKey))
	}
	if l.variantKey != "" {
		attributes = append(attributes, attribute.String(attrVariant, l.variantKey))
	}
	if l.openFeature == "error" {
		attributes = append(attributes, attribute.String(attrErrorType, l.reason))
	}
	labels := metric.WithAttributeSet(attribute.NewSet(attributes...))
	ctx := context.Background()
	options := []metric.AddOption{labels}
	return func() { o.counter.Add(ctx, 1, options...) }
}
