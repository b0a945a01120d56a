package handler_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
)

var recorded = map[string]string{"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": " ,datar, datar"}

func TestTheSummaryCountsWhatWasEvaluated(t *testing.T) {
	t.Parallel()
	s := setup(t, recorded)
	busy, segment, variant := booleanFlag(t, s, "busy", true)
	quiet, _, _ := booleanFlag(t, s, "quiet", true)
	booleanFlag(t, s, "unrecorded", false)

	started := time.Now().Truncate(time.Second)
	body := `{"flagKey":"busy","entityID":"e"}`
	must(t, s, http.MethodPost, "/evaluation", body)
	must(t, s, http.MethodGet, "/evaluation?json="+url.QueryEscape(body), nil)
	batch := `{"entities":[{"entityID":"a"},{"entityID":"b"}],"flagKeys":["busy","unrecorded"]}`
	must(t, s, http.MethodPost, "/evaluation/batch", batch)
	must(t, s, http.MethodGet, "/evaluation/batch?json="+url.QueryEscape(batch), nil)
	must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "quiet", "entityID": "e"})

	flags := must(t, s, http.MethodGet, "/datar/summary", nil)["flags"].([]any)
	for _, f := range flags {
		last, err := time.Parse(time.RFC3339, f.(map[string]any)["lastEvaluatedAt"].(string))
		if err != nil || last.Before(started) || last.After(time.Now()) {
			t.Errorf("lastEvaluatedAt: %v, %v", f, err)
		}
	}
	want := []any{
		object{"flagID": float64(busy), "flagKey": "busy", "description": "d", "enabled": true, "totalEvalCount": 6., "lastEvaluatedAt": "*"},
		object{"flagID": float64(quiet), "flagKey": "quiet", "description": "d", "enabled": true, "totalEvalCount": 1., "lastEvaluatedAt": "*"},
	}
	if diff := cmp.Diff(want, golden.Mask(flags)); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}

	must(t, s, http.MethodDelete, fmt.Sprint("/flags/", quiet), nil)
	want[1] = object{"flagID": float64(quiet), "flagKey": "quiet", "description": "d", "deleted": true, "totalEvalCount": 1., "lastEvaluatedAt": "*"}
	if diff := cmp.Diff(want, golden.Mask(must(t, s, http.MethodGet, "/datar/summary", nil)["flags"])); diff != "" {
		t.Errorf("summary with a deleted flag (-want +got):\n%s", diff)
	}

	path := fmt.Sprintf("/datar/flags/%d/summary", busy)
	breakdown := must(t, s, http.MethodGet, path, nil)
	byDay := breakdown["trafficByDay"].([]any)
	delete(breakdown, "trafficByDay")
	delete(breakdown, "complete") // see TestEveryAnswerIsComplete
	wantBreakdown := object{
		"flagID":           float64(busy),
		"trafficByVariant": []any{object{"variantID": float64(variant), "count": 6.}},
		"trafficBySegment": []any{object{"segmentID": float64(segment), "count": 6.}},
	}
	if diff := cmp.Diff(wantBreakdown, breakdown); diff != "" {
		t.Errorf("breakdown (-want +got):\n%s", diff)
	}
	total := 0.
	for _, day := range byDay {
		entry := day.(map[string]any)
		if _, err := time.Parse(time.DateOnly, entry["date"].(string)); err != nil {
			t.Error(err)
		}
		total += entry["count"].(float64)
	}
	if total != 6 {
		t.Errorf("days sum to %v: %v", total, byDay)
	}

	must(t, s, http.MethodDelete, fmt.Sprintf("/flags/%d", busy), nil)
	if after := must(t, s, http.MethodGet, path, nil); !cmp.Equal(wantBreakdown["trafficByVariant"], after["trafficByVariant"]) {
		t.Errorf("breakdown of the deleted flag: %v", after)
	}
}

func TestDatarQueriesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, recorded)
	booleanFlag(t, s, "silent", true)
	for _, tc := range []struct {
		name, path string
		status     int
		part       string
	}{
		{"nothing counted yet", "/datar/summary", 200, `"flags":[]`},
		{"flag without traffic", "/datar/flags/1/summary", 200, `"trafficByVariant":[]`},
		{"unknown flag", "/datar/flags/99/summary", 404, "99"},
		{"no flag at all", "/datar/flags/x/summary", 422, "flagID"},
		{"from after to", "/datar/summary?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "from"},
		{"from after to of one flag", "/datar/flags/1/summary?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "from"},
		{"from is no time", "/datar/summary?from=yesterday", 422, "from"},
		{"negative limit", "/datar/summary?limit=-1", 400, "limit"},
		{"limit is 0", "/datar/summary?limit=0", 400, "limit"},
		{"limit too large", "/datar/summary?limit=1001", 400, "limit"},
		{"limit beyond 32 bits", "/datar/summary?limit=2147483648", 422, "limit"},
		{"negative offset", "/datar/summary?offset=-1", 400, "offset"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := call(t, s, http.MethodGet, tc.path, nil); got.status != tc.status || !strings.Contains(got.raw, tc.part) {
				t.Errorf("answer is %d %s, want %d with %q", got.status, got.raw, tc.status, tc.part)
			}
		})
	}
}

func TestDatarSaysHowToSwitchItOn(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]map[string]string{
		"kill switch":  {"FLAGR_RECORDER_ENABLED": "false", "FLAGR_RECORDER_TYPE": "datar"},
		"not listed":   {"FLAGR_RECORDER_ENABLED": "true", "FLAGR_RECORDER_TYPE": "kafka"},
		"nothing said": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, environ)
			for _, path := range []string{"/datar/summary", "/datar/flags/1/summary"} {
				got := call(t, s, http.MethodGet, path, nil)
				if got.status != http.StatusServiceUnavailable || !strings.Contains(got.raw, "FLAGR_RECORDER_ENABLED=true") ||
					!strings.Contains(got.raw, "FLAGR_RECORDER_TYPE") {
					t.Errorf("%s: %d %s", path, got.status, got.raw)
				}
			}
		})
	}
}

func TestStatusBalances(t *testing.T) {
	t.Parallel()
	s := setup(t, recorded)
	booleanFlag(t, s, "busy", true)
	for i := range 5 {
		must(t, s, http.MethodPost, "/evaluation", object{"flagKey": "busy", "entityID": fmt.Sprint(i)})
	}
	before := must(t, s, http.MethodGet, "/datar/status", nil)
	must(t, s, http.MethodGet, "/datar/summary", nil) // flushes
	after := must(t, s, http.MethodGet, "/datar/status", nil)
	for name, want := range map[string][2]float64{"recorded": {5, 5}, "pending": {5, 0}, "stored": {0, 5}, "adopted": {0, 0}} {
		if got := [2]any{before[name], after[name]}; got != [2]any{want[0], want[1]} {
			t.Errorf("%s before and after a flush: %v, want %v", name, got, want)
		}
	}
	if keys, ok := before["keys"].(float64); !ok || keys < 1 || keys > 2 { // two if an hour has just ended
		t.Errorf("keys before a flush: %v, want 1", before["keys"])
	}
	for _, name := range []string{"lastFlushAt", "writer", "keys"} {
		if after[name] == nil {
			t.Errorf("%s is missing: %v", name, after)
		}
	}
	if before["oldestPendingAt"] == nil || after["oldestPendingAt"] != nil {
		t.Errorf("oldestPendingAt before and after a flush: %v, %v", before["oldestPendingAt"], after["oldestPendingAt"])
	}
	if journal := after["journal"].(map[string]any); journal["state"] != "file" || journal["directory"] == "" {
		t.Errorf("journal is %v, want a file", journal)
	}
}

func TestStatusHidesWhatTheDatabaseSaid(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	stats := datar.Stats{LastError: errors.New("password of flagr is s3cret"), InMemory: true}
	handler.New(handler.Options{Datar: status{stats: stats}, Logger: slog.New(slog.DiscardHandler)}).Register(api)
	got := must(t, &server{Handler: api.Serve(nil)}, http.MethodGet, "/datar/status", nil)
	if got["complete"] != nil {
		t.Errorf("the database does not answer, and complete is %v", got["complete"])
	}
	if got["lastError"] != "the database did not take the counts" || got["journal"].(map[string]any)["state"] != "memory" {
		t.Errorf("status is %v", got)
	}
}

func TestStatusShowsTheProgressOfRollups(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	stats := datar.Stats{Rollups: datar.RollupProgress{Made: 3, Due: 40}, LastError: context.DeadlineExceeded}
	handler.New(handler.Options{Datar: status{stats: stats}, Logger: slog.New(slog.DiscardHandler)}).Register(api)
	got := must(t, &server{Handler: api.Serve(nil)}, http.MethodGet, "/datar/status", nil)
	if diff := cmp.Diff(map[string]any{"made": 3.0, "due": 40.0}, got["rollups"]); diff != "" {
		t.Errorf("rollups (-want +got):\n%s", diff)
	}
}

func TestSummaryWhileOldCountsAreAddedUp(t *testing.T) {
	t.Parallel()
	api := newAPI(t)
	handler.New(handler.Options{Datar: preparing{}, Logger: slog.New(slog.DiscardHandler)}).Register(api)
	rw := httptest.NewRecorder()
	api.Serve(nil).ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/datar/summary", nil))
	const want = `{"message":"old counts are being added up, 3 of 40 sums are done: try again later, or ask for one flag or a shorter time"}`
	if rw.Code != http.StatusServiceUnavailable || rw.Header().Get("Retry-After") != "10" || strings.TrimSpace(rw.Body.String()) != want {
		t.Errorf("%d, Retry-After %q, %s", rw.Code, rw.Header().Get("Retry-After"), rw.Body)
	}
}

// preparing is a Datar that is still adding up old counts.
type preparing struct{ handler.Datar }

func (preparing) QuerySummary(context.Context, datar.SummaryQuery) ([]datar.FlagSummary, error) {
	return nil, fmt.Errorf("totals: %w", &datar.PreparingError{Made: 3, Due: 40})
}

type status struct {
	handler.Datar
	stats datar.Stats
}

func (s status) Stats() datar.Stats { return s.stats }

func (s status) QueryCompleteness(context.Context, *time.Time, *time.Time) (*datar.Completeness, error) {
	return nil, s.stats.LastError
}
