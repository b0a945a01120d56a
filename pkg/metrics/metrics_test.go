package metrics_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/metrics"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// fetch returns the lines of one metric.
func fetch(t *testing.T, p *metrics.Prometheus, name string) []string {
	t.Helper()
	rw := httptest.NewRecorder()
	p.Handler().ServeHTTP(rw, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rw.Code != http.StatusOK {
		t.Fatalf("metrics answer %d %s", rw.Code, rw.Body)
	}
	var lines []string
	for line := range strings.Lines(rw.Body.String()) {
		if strings.HasPrefix(line, name+"{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func matched(flag int64, entityType string) *eval.Result {
	return &eval.Result{Request: eval.Request{EntityType: entityType}, FlagID: flag, FlagKey: fmt.Sprintf("flag%d", flag), VariantID: 3,
		VariantKey: "on", Reason: eval.Matched}
}

func TestEvaluationsAreCounted(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	e := metrics.NewEvaluations(p)
	for _, r := range []*eval.Result{
		matched(1, "user"), matched(1, "user"), matched(1, "device"),
		{FlagID: 1, FlagKey: "flag1", Request: eval.Request{EntityType: "user"}, Reason: eval.NoMatch},
		{FlagID: 2, FlagKey: "flag2", Request: eval.Request{EntityType: "user"}, Reason: eval.FlagDisabled},
		{FlagID: 2, FlagKey: "flag2", Request: eval.Request{EntityType: "device"}, Reason: eval.FlagDisabled},
		{FlagID: 3, FlagKey: "flag3", Reason: eval.NoSegments},
		{FlagID: 77, FlagKey: "made up", Reason: eval.FlagNotFound},
		{FlagKey: "made up, too", Request: eval.Request{EntityType: "user"}, Reason: eval.FlagNotFound},
	} {
		e.Observe(r)
	}
	for name, want := range map[string][]string{
		"flagr_eval_results": {
			`flagr_eval_results{EntityType="device",FlagID="1",FlagKey="flag1",VariantID="3",VariantKey="on"} 1`,
			`flagr_eval_results{EntityType="user",FlagID="1",FlagKey="flag1",VariantID="0",VariantKey=""} 1`,
			`flagr_eval_results{EntityType="user",FlagID="1",FlagKey="flag1",VariantID="3",VariantKey="on"} 2`,
		},
		"flagr_evaluations_total": {
			`flagr_evaluations_total{flag_key="",reason="flag_not_found",variant_key=""} 2`,
			`flagr_evaluations_total{flag_key="flag1",reason="matched",variant_key="on"} 3`,
			`flagr_evaluations_total{flag_key="flag1",reason="no_match",variant_key=""} 1`,
			`flagr_evaluations_total{flag_key="flag2",reason="flag_disabled",variant_key=""} 2`,
			`flagr_evaluations_total{flag_key="flag3",reason="no_segments",variant_key=""} 1`,
		},
	} {
		if got := fetch(t, p, name); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// sum adds the values of lines.
func sum(t *testing.T, lines []string) (total int) {
	t.Helper()
	for _, line := range lines {
		var n float64
		if _, err := fmt.Sscan(line[strings.LastIndex(line, "}")+1:], &n); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		total += int(n)
	}
	return total
}

func TestEntityTypesOfClientsAreBounded(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	e := metrics.NewEvaluations(p)
	const n = 5000
	for i := range n {
		e.Observe(matched(1, fmt.Sprintf("type%d", i)))
	}
	for _, entityType := range []string{strings.Repeat("x", 1<<20), "\xff", "a\"b\n"} {
		e.Observe(matched(1, entityType))
	}
	lines := fetch(t, p, "flagr_eval_results")
	if len(lines) > 101 || sum(t, lines) != n+3 || len(strings.Join(lines, "")) > 20_000 {
		t.Errorf("%d series hold %d evaluations, want at most 101 and all %d", len(lines), sum(t, lines), n+3)
	}
	if total := fetch(t, p, "flagr_evaluations_total"); len(total) != 1 || sum(t, total) != n+3 {
		t.Errorf("entity types show in %v", total)
	}
	e.Observe(matched(2, "type0"))
	if lines := fetch(t, p, "flagr_eval_results"); !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, `"flag2"`) }) {
		t.Error("entity types leave no room for another flag")
	}
}

func TestKeysThatAreNoTextDoNotPanic(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	r := matched(1, "user")
	r.FlagKey, r.VariantKey = "a\xff", "\xfeb"
	metrics.NewEvaluations(p).Observe(r)
	want := []string{`flagr_evaluations_total{flag_key="a?",reason="matched",variant_key="?b"} 1`}
	if got := fetch(t, p, "flagr_evaluations_total"); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestSeriesOfFlagsAreBounded(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	e := metrics.NewEvaluations(p)
	const n = 12_000
	for i := range int64(n) {
		e.Observe(matched(i+1, ""))
		e.Observe(matched(i+1, ""))
	}
	for _, name := range []string{"flagr_eval_results", "flagr_evaluations_total"} {
		lines := fetch(t, p, name)
		if len(lines) != 10_001 || sum(t, lines) != 2*n {
			t.Errorf("%s: %d series hold %d evaluations, want 10001 and %d", name, len(lines), sum(t, lines), 2*n)
		}
	}
}

func TestNoEvaluationIsLostToRaces(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(false, slog.New(slog.DiscardHandler))
	e := metrics.NewEvaluations(p)
	var wg sync.WaitGroup
	const workers, each = 8, 3000
	for range workers {
		wg.Go(func() {
			for i := range each {
				e.Observe(matched(int64(i%300), "user"))
			}
		})
	}
	wg.Wait()
	if got := sum(t, fetch(t, p, "flagr_evaluations_total")); got != workers*each {
		t.Errorf("counted %d of %d", got, workers*each)
	}
}

func exchange(method, pattern string, status int) *web.Exchange {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/flags/17", nil)
	r.Method, r.Pattern = method, pattern
	return &web.Exchange{Request: r, Status: status, Duration: 3 * time.Millisecond}
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	p := metrics.NewPrometheus(true, slog.New(slog.DiscardHandler))
	p.ObserveRequest(exchange("GET", "/api/v1/flags/{flagID}", 200))
	p.ObserveRequest(exchange("GET", "/api/v1/flags/{flagID}", 200))
	p.ObserveRequest(exchange("BREW", "", 404))
	cut := exchange("POST", "/api/v1/evaluation", 200)
	cut.Aborted = true
	p.ObserveRequest(cut)
	want := []string{
		`flagr_requests_total{method="(other)",path="(other)",status="404"} 1`,
		`flagr_requests_total{method="GET",path="/api/v1/flags/{flagID}",status="200"} 2`,
		`flagr_requests_total{method="POST",path="/api/v1/evaluation",status="aborted"} 1`,
	}
	if got := fetch(t, p, "flagr_requests_total"); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	for _, name := range []string{"flagr_requests_buckets_bucket", "flagr_http_request_duration_seconds_bucket"} {
		if got := fetch(t, p, name); !slices.ContainsFunc(got, regexp.MustCompile(`flagID.*le="0.005"} 2`).MatchString) ||
			!slices.ContainsFunc(got, regexp.MustCompile(`flagID.*le="0.0025"} 0`).MatchString) {
			t.Errorf("%s: got\n%s", name, strings.Join(got, "\n"))
		}
	}
	if got := fetch(t, metrics.NewPrometheus(false, slog.New(slog.DiscardHandler)), "flagr_requests_buckets_bucket"); got != nil {
		t.Errorf("histograms that are turned off: %v", got)
	}
}

func TestStatsdGoesOnWithoutItsHost(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s, err := metrics.NewStatsd(t.Context(), "no such host.", "8125", "shop.", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.ObserveRequest(exchange("GET", "/api/v1/flags/{flagID}", 200))
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "no such host.:8125") {
		t.Errorf("log is not one warning that names the host: %s", text)
	}
}

func TestStatsdSendsCounts(t *testing.T) {
	t.Parallel()
	agent, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	host, port, err := net.SplitHostPort(agent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := metrics.NewStatsd(t.Context(), host, port, "shop.", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e := metrics.NewEvaluations(s)
	e.Observe(matched(1, "us|er#,\n"))
	e.Observe(matched(1, "us|er#,\n"))
	e.Observe(&eval.Result{FlagKey: "made up", Reason: eval.FlagNotFound})
	s.ObserveRequest(exchange("GET", "/api/v1/flags/{flagID}", 200))
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	wants := []string{
		"shop.evaluation:2|c|#FlagID:1,FlagKey:flag1,Reason:matched,EntityType:us_er___,VariantID:3,VariantKey:on",
		"shop.evaluation:1|c|#FlagID:0,FlagKey:,Reason:flag_not_found",
		"shop.http.requests.count:1|c|#status:200,path:/api/v1/flags/{flagID},method:GET",
		"shop.http.requests.duration:3.000000|ms|#status:200,path:/api/v1/flags/{flagID},method:GET",
	}
	if err := agent.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var lines []string
	packet := make([]byte, 1<<16)
	for len(lines) < len(wants) {
		n, _, err := agent.ReadFrom(packet)
		if err != nil {
			t.Fatalf("after %q: %v", lines, err)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(string(packet[:n])), "\n")...)
	}
	for _, want := range wants {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

func BenchmarkObserveEvaluation(b *testing.B) {
	e := metrics.NewEvaluations(metrics.NewPrometheus(false, slog.New(slog.DiscardHandler)))
	results := make([]*eval.Result, 1000)
	for i := range results {
		results[i] = matched(int64(i), "user")
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e.Observe(results[i%len(results)])
		i++
	}
}
