package config

import (
	"strings"
	"testing"
)

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

func TestAddressesOfReceiversAreChecked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		environ map[string]string
		want    string // the variable; empty if all is well
	}{
		"a URL":                   {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:s3cret@c:4317/v1"}, ""},
		"a space around":          {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " http://c:4318 "}, ""},
		"no scheme":               {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "s3cret:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a port that is none":     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:s3cret@c:http"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a bad escape":            {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://u:s3cret%zz@c"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"no host":                 {map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http:///s3cret"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"},
		"all of it is off":        {map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "s3cret"}, ""},
		"the exporters are off":   {map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "s3cret"}, ""},
		"beside another variable": {map[string]string{"PORT": "x", "OTEL_EXPORTER_OTLP_ENDPOINT": "s3cret"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(tc.environ)
			if tc.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want+": want the URL") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error is %v, want one that names %s and no secret", err, tc.want)
			}
		})
	}
}

func TestEventsNeedAReceiver(t *testing.T) {
	t.Parallel()
	const variable = "FLAGR_OTEL_EVALUATION_EVENTS"
	for name, tc := range map[string]struct {
		environ map[string]string
		want    string // the mode; empty if the start is refused
	}{
		"a receiver":                 {map[string]string{variable: "all", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, EventsAll},
		"a receiver of logs":         {map[string]string{variable: "sampled", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318"}, EventsSampled},
		"none":                       {map[string]string{variable: "all"}, ""},
		"another signal":             {map[string]string{variable: "all", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, ""},
		"the exporter is off":        {map[string]string{variable: "all", "OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ""},
		"a bad address":              {map[string]string{variable: "all", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "c:4318"}, ""},
		"all of it is off":           {map[string]string{variable: "all", "OTEL_SDK_DISABLED": "true"}, EventsNone},
		"a mode that does not exist": {map[string]string{variable: "some", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ""},
	} {
		c, err := Load(tc.environ)
		if tc.want == "" {
			if err == nil {
				t.Errorf("%s: not refused", name)
			}
			continue
		}
		if err != nil || c.Telemetry.EvaluationEvents != tc.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	keys := load(t, map[string]string{"FLAGR_OFREP_API_KEYS": "web=secret@web|checkout, jobs=other"}).OFREP.Keys()
	if len(keys) != 2 || keys[0].Name != "web" || keys[0].Secret != "secret" || len(keys[0].Tags) != 2 || keys[1].Secret != "other" || keys[1].Tags != nil {
		t.Errorf("%+v", keys)
	}
	for _, value := range []string{"secret", "=secret", "web=", "web=a=b", "web=a@", "web=a@x|", "a=b,a=c", "a=b,c=b"} {
		if _, err := Load(map[string]string{"FLAGR_OFREP_API_KEYS": value}); err == nil || strings.Contains(err.Error(), "secret\"") {
			t.Errorf("%s: %v", value, err)
		}
	}
}
