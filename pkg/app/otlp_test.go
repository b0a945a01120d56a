package app_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	logs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracespb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is an OTLP receiver.
type collector struct {
	mu      sync.Mutex
	events  []*logspb.LogRecord
	spans   []*tracespb.Span
	metrics []string // flagr.evaluations: attributes and value
}

// ServeHTTP takes what exporters send with http/protobuf.
func (c *collector) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		var reader *gzip.Reader
		if reader, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(reader)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var l logs.ExportLogsServiceRequest
	var t traces.ExportTraceServiceRequest
	var m metrics.ExportMetricsServiceRequest
	switch {
	case err != nil:
	case strings.HasSuffix(r.URL.Path, "/logs"):
		err = proto.Unmarshal(body, &l)
	case strings.HasSuffix(r.URL.Path, "/traces"):
		err = proto.Unmarshal(body, &t)
	default:
		err = proto.Unmarshal(body, &m)
	}
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, resource := range l.GetResourceLogs() {
		for _, scope := range resource.GetScopeLogs() {
			c.events = append(c.events, scope.GetLogRecords()...)
		}
	}
	for _, resource := range t.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	for _, resource := range m.GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				for _, point := range metric.GetSum().GetDataPoints() {
					if metric.GetName() == "flagr.evaluations" {
						c.metrics = append(c.metrics, fmt.Sprint(attributesOf(point.GetAttributes()), " ", point.GetAsInt()))
					}
				}
			}
		}
	}
}

func attributesOf(list []*common.KeyValue) string {
	var all []string
	for _, a := range list {
		value := a.GetValue().GetStringValue()
		if n := a.GetValue().GetIntValue(); n != 0 {
			value = fmt.Sprint(n)
		}
		all = append(all, a.GetKey()+"="+value)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

const otlpFlags = `{"Flags":[
	{"ID":42,"Key":"checkout","Enabled":true,"SnapshotID":117,"Variants":[{"ID":61,"Key":"green"},{"ID":62,"Key":"blue"}],
	 "Segments":[{"ID":23,"RolloutPercent":100,"Distributions":[{"VariantKey":"green","Percent":100},{"VariantKey":"blue","Percent":0}]}]},
	{"ID":3,"Key":"old","SnapshotID":12,"Variants":[{"ID":1,"Key":"x"}]}
]}`

// TestTelemetryOfEvaluations reads what an OTLP receiver gets. The exporters read the process
// environment.
func TestTelemetryOfEvaluations(t *testing.T) {
	const sampled, unsampled = "traceparent: 00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01", "traceparent: 00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-00"
	play := func(t *testing.T, mode string, more map[string]string) *collector {
		t.Helper()
		c := &collector{}
		receiver := httptest.NewServer(c)
		defer receiver.Close()
		file := filepath.Join(t.TempDir(), "flags.json")
		if err := os.WriteFile(file, []byte(otlpFlags), 0o600); err != nil {
			t.Fatal(err)
		}
		environ := map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL, "OTEL_TRACES_SAMPLER": "parentbased_always_off",
			"FLAGR_DB_DBDRIVER": "json_file", "FLAGR_DB_DBCONNECTIONSTR": file, "FLAGR_OTEL_EVALUATION_EVENTS": mode,
			"FLAGR_FLAG_SET_ID": "shop/prod",
		}
		maps.Copy(environ, more)
		for name, value := range environ {
			if strings.HasPrefix(name, "OTEL_") {
				t.Setenv(name, value)
			}
		}
		a, _, _ := setup(t, environ)
		h := started(t, a)
		post := func(path, body string, headers ...string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			for _, line := range headers {
				name, value, _ := strings.Cut(line, ": ")
				r.Header.Set(name, value)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		const user = `{"context":{"targetingKey":"user-1"}}`
		post("/ofrep/v1/evaluate/flags/checkout", user, sampled)
		post("/ofrep/v1/evaluate/flags/checkout", user, unsampled)
		post("/api/v1/evaluation", `{"flagKey":"nobody","entityID":"e","entityType":"user"}`, sampled)
		post("/api/v1/evaluation/batch", `{"flagKeys":["old","checkout"],"entities":[{"entityID":"e"}]}`, sampled)
		post("/ofrep/v1/evaluate/flags", user, sampled)
		if err := a.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		return c
	}

	t.Run("sampled", func(t *testing.T) {
		c := play(t, "sampled", map[string]string{"FLAGR_OTEL_CONTEXT_ID": "hashed"})
		var got []string
		for _, e := range c.events {
			if e.GetSeverityNumber() != logspb.SeverityNumber_SEVERITY_NUMBER_INFO || e.GetBody().GetValue() != nil || e.GetTimeUnixNano() == 0 ||
				hex.EncodeToString(e.GetTraceId()) != "5b8efff798038103d269b633813fc60c" || len(e.GetSpanId()) != 8 || e.GetFlags()&1 != 1 {
				t.Errorf("event %v", e)
			}
			got = append(got, e.GetEventName()+" "+attributesOf(e.GetAttributes()))
		}
		const name, end = "feature_flag.evaluation ", " feature_flag.provider.name=Flagr "
		want := []string{
			name + "CONTEXT feature_flag.key=checkout" + end + "feature_flag.result.reason=static feature_flag.result.variant=green feature_flag.set.id=shop/prod feature_flag.version=117 flagr.flag.id=42 flagr.reason=matched flagr.segment.id=23 flagr.variant.id=61",
			name + "error.type=flag_not_found CONTEXT feature_flag.key=nobody" + end + "feature_flag.result.reason=error feature_flag.set.id=shop/prod flagr.entity.type=user flagr.reason=flag_not_found",
			name + "CONTEXT feature_flag.key=old" + end + "feature_flag.result.reason=disabled feature_flag.set.id=shop/prod feature_flag.version=12 flagr.flag.id=3 flagr.reason=flag_disabled",
			name + "CONTEXT feature_flag.key=checkout" + end + "feature_flag.result.reason=static feature_flag.result.variant=green feature_flag.set.id=shop/prod feature_flag.version=117 flagr.flag.id=42 flagr.reason=matched flagr.segment.id=23 flagr.variant.id=61",
		}
		for i := range got {
			words := strings.Fields(got[i])
			for j, word := range words {
				if strings.HasPrefix(word, "feature_flag.context.id=sha256_") && len(word) == len("feature_flag.context.id=sha256_")+64 {
					words[j] = "CONTEXT"
				}
			}
			got[i] = strings.Join(words, " ")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}

		spans := map[string]bool{}
		for _, s := range c.spans {
			var ours []*common.KeyValue
			for _, a := range s.GetAttributes() {
				if key := a.GetKey(); strings.HasPrefix(key, "feature_flag.") || strings.HasPrefix(key, "flagr.") || key == "error.type" {
					ours = append(ours, a)
				}
			}
			spans[s.GetName()+": "+attributesOf(ours)] = true
		}
		for _, want := range []string{
			"POST /ofrep/v1/evaluate/flags/{key}: feature_flag.key=checkout feature_flag.result.reason=static feature_flag.result.variant=green feature_flag.version=117",
			"POST /api/v1/evaluation: error.type=flag_not_found feature_flag.key=nobody feature_flag.result.reason=error",
			"POST /api/v1/evaluation/batch: flagr.evaluation.count=2",
			"POST /ofrep/v1/evaluate/flags: flagr.evaluation.count=2",
		} {
			if !spans[want] {
				t.Errorf("no span %s: %v", want, spans)
			}
		}
		for _, want := range []string{
			"feature_flag.key=checkout feature_flag.result.reason=static feature_flag.result.variant=green flagr.reason=matched 3",
			"error.type=flag_not_found feature_flag.result.reason=error flagr.reason=flag_not_found 1",
			"feature_flag.key=old feature_flag.result.reason=disabled flagr.reason=flag_disabled 1",
		} {
			if !slices.Contains(c.metrics, want) {
				t.Errorf("no series %s: %q", want, c.metrics)
			}
		}
	})

	t.Run("all", func(t *testing.T) {
		c := play(t, "all", map[string]string{"FLAGR_OTEL_EVALUATION_EVENTS_PER_SECOND": "0", "FLAGR_OFREP_BULK_RECORD": "true", "FLAGR_OTEL_CONTEXT_ID": "clear"})
		if len(c.events) != 7 || !strings.Contains(attributesOf(c.events[0].GetAttributes()), "feature_flag.context.id=user-1") {
			t.Errorf("%d events: %v", len(c.events), c.events)
		}
		limited := play(t, "all", map[string]string{"FLAGR_OTEL_EVALUATION_EVENTS_PER_SECOND": "1"})
		if n := len(limited.events); n < 3 || n > 4 { // a second may end in between
			t.Errorf("%d events with a limit of 1 for each flag", n)
		}
		if strings.Contains(attributesOf(limited.events[0].GetAttributes()), "context.id") {
			t.Error("the entity is named")
		}
	})

	t.Run("none", func(t *testing.T) {
		if c := play(t, "none", nil); len(c.events) != 0 || len(c.spans) != 4 {
			t.Errorf("%d events, %d spans", len(c.events), len(c.spans))
		}
	})
}
