package config

import (
	"errors"
	"fmt"
	"strings"
)

// OpenTelemetry reports which signals are exported. OpenTelemetry's libraries read the variables
// that begin with OTEL_.
type OpenTelemetry struct {
	// Traces and Metrics are true if a variable names an exporter or a receiver for them.
	Traces, Metrics bool
}

// Values of Telemetry.EvaluationEvents.
const (
	EventsNone    = "none"
	EventsSampled = "sampled"
	EventsAll     = "all"
)

// Values of Telemetry.ContextID.
const (
	ContextIDNone   = "none"
	ContextIDHashed = "hashed"
	ContextIDClear  = "clear"
)

func (t *Telemetry) validate(l *loader, environ map[string]string) {
	if sdkDisabled(environ) {
		t.EvaluationEvents = EventsNone
	}
	switch t.EvaluationEvents {
	case EventsNone:
	case EventsSampled, EventsAll:
		l.check("FLAGR_OTEL_EVALUATION_EVENTS", exports(environ, "LOGS"))
	default:
		l.check("FLAGR_OTEL_EVALUATION_EVENTS", false)
	}
	l.check("FLAGR_OTEL_EVALUATION_EVENTS_PER_SECOND", t.EventsPerSecond >= 0)
	l.check("FLAGR_OTEL_CONTEXT_ID", t.ContextID == ContextIDNone || t.ContextID == ContextIDHashed || t.ContextID == ContextIDClear)
}

// openTelemetryOf checks the variables of the OpenTelemetry specification that enable exporters.
// Without any of them nothing is sent, although the specification would send to localhost: a new
// version of the server must not start to send.
func openTelemetryOf(environ map[string]string) OpenTelemetry {
	if sdkDisabled(environ) {
		return OpenTelemetry{}
	}
	return OpenTelemetry{Traces: exports(environ, "TRACES"), Metrics: exports(environ, "METRICS")}
}

func sdkDisabled(environ map[string]string) bool {
	return strings.EqualFold(environ["OTEL_SDK_DISABLED"], "true")
}

// exports reports whether a variable names an exporter or a receiver of a signal.
func exports(environ map[string]string, signal string) bool {
	switch environ["OTEL_"+signal+"_EXPORTER"] {
	case "none":
		return false
	case "":
		return environ["OTEL_EXPORTER_OTLP_ENDPOINT"] != "" || environ["OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT"] != ""
	default:
		return true
	}
}

// checkReceivers reports URLs that OpenTelemetry's libraries cannot parse. The libraries would
// print the URL, including a password, to standard error, and send to localhost.
func checkReceivers(environ map[string]string, logs bool) error {
	if openTelemetryOf(environ) == (OpenTelemetry{}) && !logs {
		return nil
	}
	var errs []error
	signals := []string{"", "TRACES_", "METRICS_"}
	if logs {
		signals = append(signals, "LOGS_")
	}
	for _, signal := range signals {
		name := "OTEL_EXPORTER_OTLP_" + signal + "ENDPOINT"
		if address := strings.TrimSpace(environ[name]); address != "" && !isHTTPURL(address) {
			errs = append(errs, fmt.Errorf("%s: want the URL of a collector, such as http://collector:4318", name))
		}
	}
	return errors.Join(errs...)
}
