package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// What clients write into X-Forwarded-For does not become the address of a trace, as
// docs/operations.md says.
func TestTheClientAddressIsThatOfTheConnection(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	o := &OpenTelemetry{traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), meters: metricnoop.NewMeterProvider()}
	handler := o.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { o.NameRoute(&web.Exchange{Request: r}) }))
	r := httptest.NewRequest(http.MethodGet, "/api/v1/health", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	ended := spans.Ended()
	if len(ended) != 1 {
		t.Fatalf("%d spans", len(ended))
	}
	found := false
	for _, a := range ended[0].Attributes() {
		if a.Key != "client.address" {
			continue
		}
		if found = true; a.Value.AsString() != "192.0.2.7" {
			t.Errorf("client.address is %s", a.Value.AsString())
		}
	}
	if !found {
		t.Error("no client.address")
	}
}

// Clients choose the header Host and the method, which must not become series.
func TestClientsCannotMakeSeriesOfOpenTelemetry(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	o := &OpenTelemetry{traces: tracenoop.NewTracerProvider(), meters: newMeterProvider(reader, resource.Empty())}
	handler := o.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { r.Pattern = "/api/v1/health" }))
	for i := range 10 {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("http://host%d.example:%d/api/v1/health", i, 1+i), nil)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		r = httptest.NewRequest(fmt.Sprintf("VERB%d", i), "/api/v1/health", nil)
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	points := 0
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "http.server.request.duration" {
				continue
			}
			histogram, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				t.Fatalf("%s is a %T", m.Name, m.Data)
			}
			for _, point := range histogram.DataPoints {
				points++
				text := fmt.Sprint(point.Attributes.ToSlice())
				if point.Count != 10 || !strings.Contains(text, "/api/v1/health") || strings.Contains(text, "example") || strings.Contains(text, "VERB") {
					t.Errorf("%d requests have the attributes %s", point.Count, text)
				}
			}
		}
	}
	if points != 2 {
		t.Errorf("%d series, want one for GET and one for all methods that are none", points)
	}
}
