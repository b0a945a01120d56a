package config

import (
	"errors"
	"fmt"
	"strings"
)

// OpenTelemetry says what is sent with OpenTelemetry. Its own libraries read the variables that begin with OTEL_; this is
// only whether they are asked to do anything.
type OpenTelemetry struct {
	// Traces and Metrics are true when a variable names an exporter or a receiver for them.
	Traces, Metrics bool
}

// openTelemetryOf looks for the variables of the OpenTelemetry specification that switch exporters on. Without any of
// them nothing is sent, although the specification would send to localhost: a server that changes its image must not
// begin to send.
func openTelemetryOf(environ map[string]string) OpenTelemetry {
	if strings.EqualFold(environ["OTEL_SDK_DISABLED"], "true") {
		return OpenTelemetry{}
	}
	on := func(signal string) bool {
		switch environ["OTEL_"+signal+"_EXPORTER"] {
		case "none":
			return false
		case "":
			return environ["OTEL_EXPORTER_OTLP_ENDPOINT"] != "" || environ["OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT"] != ""
		default:
			return true
		}
	}
	return OpenTelemetry{Traces: on("TRACES"), Metrics: on("METRICS")}
}

// checkReceivers reports the addresses that OpenTelemetry's libraries would not understand. They would write the address,
// with the password that it may hold, to standard error, and send to localhost.
func checkReceivers(environ map[string]string) error {
	if openTelemetryOf(environ) == (OpenTelemetry{}) {
		return nil
	}
	var errs []error
	for _, signal := range []string{"", "TRACES_", "METRICS_"} {
		name := "OTEL_EXPORTER_OTLP_" + signal + "ENDPOINT"
		if address := strings.TrimSpace(environ[name]); address != "" && !isHTTPURL(address) {
			errs = append(errs, fmt.Errorf("%s: want the URL of a collector, such as http://collector:4318", name))
		}
	}
	return errors.Join(errs...)
}
