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

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// scopeName is the instrumentation scope of what this server sends.
const scopeName = "github.com/flagr-datar/flagr-datar"

// OpenTelemetry sends traces and metrics of requests, and counts of evaluations. Exporters, samplers, limits and the
// resource are configured by the standard variables, which the libraries read.
type OpenTelemetry struct {
	traces   trace.TracerProvider
	meters   metric.MeterProvider
	counter  metric.Int64Counter // of evaluations; nil without metrics
	logs     log.Logger          // nil without logs
	shutdown []func(context.Context) error
}

// NewOpenTelemetry makes the exporters for traces, metrics and logs, as asked for. Receivers that are not there are no error: the
// exporters try again.
func NewOpenTelemetry(ctx context.Context, version string, traces, metrics, logs bool) (_ *OpenTelemetry, err error) {
	o := &OpenTelemetry{traces: tracenoop.NewTracerProvider(), meters: metricnoop.NewMeterProvider()}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close(ctx))
		}
	}()
	// Later detectors win, so OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES do.
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

// newMeterProvider leaves out the attributes that clients choose by their header Host: each value would be a series, and
// the library keeps a bounded number of them.
func newMeterProvider(reader sdkmetric.Reader, res *resource.Resource) *sdkmetric.MeterProvider {
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res),
		sdkmetric.WithCardinalityLimit(maxEvaluationSeries+1), // one is for what is beyond it
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Name: "http.server.*"},
			sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter("server.address", "server.port")},
		)))
}

// Close sends what is left.
func (o *OpenTelemetry) Close(ctx context.Context) error {
	var errs []error
	for _, shutdown := range o.shutdown {
		errs = append(errs, shutdown(ctx))
	}
	return errors.Join(errs...)
}

// Wrap traces and measures each request, which costs it some 20 µs when it is sampled. A trace that a client began is carried on.
func (o *OpenTelemetry) Wrap(next http.Handler) http.Handler {
	return otelhttp.NewMiddleware("flagr",
		otelhttp.WithTracerProvider(o.traces),
		otelhttp.WithMeterProvider(o.meters),
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelhttp.WithFilter(func(r *http.Request) bool { // a stream lasts for hours
			return r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, eventStreamRoute)
		}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return strings.TrimSpace(r.Method + " " + r.Pattern) }),
	)(next)
}

// NameRoute adds the route to the request's span, which began before it was known.
//
// It also sets the client's address to that of the connection: the library takes what clients write into X-Forwarded-For.
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
	if l.flagKey != "" { // clients make up the keys of unknown flags
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
