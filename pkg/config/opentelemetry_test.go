package config

import "testing"

func TestOpenTelemetryIsOnWhenAskedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		environ map[string]string
		want    OpenTelemetry
	}{
		"nothing":                        {nil, OpenTelemetry{}},
		"something else":                 {map[string]string{"OTEL_SERVICE_NAME": "flags", "OTEL_TRACES_SAMPLER": "always_on"}, OpenTelemetry{}},
		"a receiver":                     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, OpenTelemetry{true, true}},
		"a receiver of traces":           {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, OpenTelemetry{true, false}},
		"an exporter of metrics":         {map[string]string{"OTEL_METRICS_EXPORTER": "console"}, OpenTelemetry{false, true}},
		"a receiver for metrics only":    {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, OpenTelemetry{false, true}},
		"everything, and the off switch": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, OpenTelemetry{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := load(t, tc.environ).OpenTelemetry; got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
